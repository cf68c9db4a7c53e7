package worker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// The headers that carry the signature, by the Standard Webhooks specification. Receivers read them in
// any case; they are sent in the canonical one.
const (
	headerID        = "Webhook-Id"
	headerTimestamp = "Webhook-Timestamp"
	headerSignature = "Webhook-Signature"
)

// masked stands for the value of a header that its endpoint's owner set: any of them may be a secret.
const masked = "***"

// keyring holds the parsed signing keys of the jobs of one task, so that each is parsed once and not for
// every delivery. A key that cannot be used is missing.
type keyring map[webhook.SecretID]signature.Key

func (ring keyring) add(secrets []store.EndpointKey) {
	for _, s := range secrets {
		if _, ok := ring[s.ID]; ok {
			continue
		}
		if key, err := signature.Parse(s.Secret.Reveal()); err == nil {
			ring[s.ID] = key
		}
	}
}

// render makes the request of an attempt that starts now, and says which keys signed it.
func render(j store.Job, ring keyring, now time.Time) (r egress.Request, signedWith []webhook.SecretID, class webhook.ErrorClass, err error) {
	if j.Err != nil || len(j.Secrets) == 0 {
		return r, nil, webhook.ClassSecret, errors.New("a signing secret or header of the endpoint could not be opened")
	}
	keys := make([]signature.Key, 0, len(j.Secrets))
	signedWith = make([]webhook.SecretID, 0, len(j.Secrets))
	for _, s := range j.Secrets {
		key, ok := ring[s.ID]
		if !ok {
			return r, nil, webhook.ClassSecret, errors.New("a signing secret of the endpoint cannot be used")
		}
		keys = append(keys, key)
		signedWith = append(signedWith, s.ID)
	}
	id := j.Message.ID.String()
	header := make(http.Header, 8+len(j.Headers))
	header["Content-Type"] = []string{cmp.Or(j.Message.ContentType, "application/json")}
	header["Accept"] = []string{"*/*"}
	for name, value := range j.Headers {
		// Rows may be older than the rule.
		if err := egress.ValidCustomHeader(name, value); err != nil {
			return r, nil, webhook.ClassInvalidHeader, errors.New("a custom header of the endpoint cannot be sent")
		}
		// The owner's spelling is kept; their value goes before ours.
		delete(header, http.CanonicalHeaderKey(name))
		header[name] = []string{value}
	}
	header[headerID] = []string{id}
	header[headerTimestamp] = []string{signature.Timestamp(now)}
	header[headerSignature] = []string{signature.Sign(keys, id, now, j.Message.Payload)}
	return egress.Request{URL: j.Endpoint.URL, Header: header, Body: j.Message.Payload}, signedWith, webhook.ClassNone, nil
}

// describe puts what was sent and what came back into the attempt.
func describe(a *webhook.Attempt, j store.Job, got egress.Result) {
	a.Sent = true
	a.HTTPStatus = int16(got.Status)
	a.Class = got.Class
	if got.Class == webhook.ClassNone {
		a.Status = webhook.StatusSuccess
	}
	a.Duration = got.Timings.Total
	a.Response = got.Body
	t := got.Timings
	a.Detail = webhook.AttemptDetail{
		Error: got.Error,
		Timings: &webhook.Timings{
			DNS: t.DNS.Microseconds(), Connect: t.Connect.Microseconds(), TLS: t.TLS.Microseconds(),
			FirstByte: t.FirstByte.Microseconds(), Read: t.Read.Microseconds(), Total: t.Total.Microseconds(),
		},
		Reused:            got.Reused,
		ResponseHeaders:   headerList(got.Header, nil),
		ResponseTruncated: got.BodyTruncated,
		RetryAfter:        got.RetryAfter,
		ContentType:       got.ContentType,
	}
	if got.RemoteAddr.IsValid() {
		a.Detail.RemoteIP = got.RemoteAddr.Addr().String()
	}
	if got.TLSVersion != 0 {
		a.Detail.TLSVersion = tls.VersionName(got.TLSVersion)
	}
	if !got.CertExpiry.IsZero() {
		expiry := got.CertExpiry.UTC()
		a.Detail.CertExpiry = &expiry
	}
	own := make(map[string]bool, len(j.Headers))
	for name := range j.Headers {
		own[name] = true
	}
	a.Detail.RequestHeaders = headerList(got.SentHeader, own)
}

// headerList is a header as a sorted list; the values of those named in mask are masked.
func headerList(h http.Header, mask map[string]bool) []webhook.Header {
	if len(h) == 0 {
		return nil
	}
	list := make([]webhook.Header, 0, len(h))
	for name, values := range h {
		for _, value := range values {
			if mask[name] {
				value = masked
			}
			list = append(list, webhook.Header{Name: name, Value: value})
		}
	}
	slices.SortFunc(list, func(a, b webhook.Header) int { return strings.Compare(a.Name, b.Name) })
	return list
}
