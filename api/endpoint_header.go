package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/webhook"
)

type endpointHeadersIn struct {
	Headers map[string]string `json:"headers" doc:"All of the endpoint's custom headers; at most 100."`
}

type endpointHeadersPatch struct {
	Headers       map[string]*string `json:"headers" doc:"Headers to set; null removes one."`
	DeleteHeaders []string           `json:"deleteHeaders,omitempty" nullable:"true" maxItems:"100" doc:"Names of headers to remove, for clients that cannot send null."`
}

type endpointHeadersOut struct {
	Headers   map[string]string `json:"headers"`
	Sensitive []string          `json:"sensitive" doc:"Headers that are set but whose values are not shown."`
}

// sensitiveHeaders hold credentials; their values are for the receiver alone.
var sensitiveHeaders = []string{
	"x-auth-token", "x-api-key", "www-authenticate", "authorization", "proxy-authenticate", "proxy-authorization",
}

func endpointHeadersJSON(headers map[string]string) endpointHeadersOut {
	out := endpointHeadersOut{Headers: map[string]string{}, Sensitive: []string{}}
	for name, value := range headers {
		if slices.Contains(sensitiveHeaders, strings.ToLower(name)) {
			out.Sensitive = append(out.Sensitive, name)
		} else {
			out.Headers[name] = value
		}
	}
	slices.Sort(out.Sensitive)
	return out
}

// checkHeaders says which header cannot be sent, and why.
func checkHeaders(headers map[string]string) error {
	if len(headers) > webhook.MaxHeaders {
		return webhook.Invalid("headers", "an endpoint has at most %d custom headers", webhook.MaxHeaders)
	}
	for name, value := range headers {
		if err := egress.ValidCustomHeader(name, value); err != nil {
			return webhook.Invalid("headers", "%s", err)
		}
	}
	return nil
}

func (s *server) endpointHeadersGet(ctx context.Context, who call, in endpointPath) (int, endpointHeadersOut, error) {
	headers, err := who.view.EndpointHeaders(ctx, in.App, in.Endpoint)
	return http.StatusOK, endpointHeadersJSON(headers), err
}

func (s *server) endpointHeadersPut(ctx context.Context, who call, in struct {
	endpointPath
	Body endpointHeadersIn
}) (int, none, error) {
	if err := checkHeaders(in.Body.Headers); err != nil {
		return 0, none{}, err
	}
	return http.StatusNoContent, none{}, who.view.ReplaceEndpointHeaders(ctx, in.App, in.Endpoint, in.Body.Headers)
}

func (s *server) endpointHeadersPatch(ctx context.Context, who call, in struct {
	endpointPath
	Body endpointHeadersPatch
}) (int, none, error) {
	set, remove := map[string]string{}, in.Body.DeleteHeaders
	for name, value := range in.Body.Headers {
		if value == nil {
			remove = append(remove, name)
		} else {
			set[name] = *value
		}
	}
	if err := checkHeaders(set); err != nil {
		return 0, none{}, err
	}
	return http.StatusNoContent, none{}, who.view.PatchEndpointHeaders(ctx, in.App, in.Endpoint, set, remove)
}
