# syntax=docker/dockerfile:1

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api ./api
COPY cmd ./cmd
COPY internal ./internal
COPY migrations ./migrations
COPY worker ./worker
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -mod=readonly -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/posthaste ./cmd/posthaste

# Nothing but the binary, the certificate authorities that receivers are checked against, and time zones.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /zoneinfo.zip
COPY --from=build /out/posthaste /posthaste
ENV ZONEINFO=/zoneinfo.zip \
    POSTHASTE_ADDR=0.0.0.0:8071
USER 65532:65532
EXPOSE 8071
# The binary asks itself: the image has no shell and no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/posthaste", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/posthaste"]
CMD ["serve"]
