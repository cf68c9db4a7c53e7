package worker

import (
	"cmp"
	"crypto/tls"
	"errors"
	"net/http"
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
	var few [2]signature.Key // as many as there are in a rotation
	keys := few[:0]
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
	// Ours come in one piece of memory.
	values := []string{
		cmp.Or(j.Message.ContentType, "application/json"), "*/*", id, signature.Timestamp(now), signature.Sign(keys, id, now, j.Message.Payload),
	}
	header := make(http.Header, len(values)+len(j.Headers))
	header["Content-Type"], header["Accept"] = values[0:1:1], values[1:2:2]
	for name, value := range j.Headers {
		// Rows may be older than the rule.
		if err := egress.ValidCustomHeader(name, value); err != nil {
			return r, nil, webhook.ClassInvalidHeader, errors.New("a custom header of the endpoint cannot be sent")
		}
		// The owner's spelling is kept; their value goes before ours.
		delete(header, http.CanonicalHeaderKey(name))
		header[name] = []string{value}
	}
	header[headerID], header[headerTimestamp], header[headerSignature] = values[2:3:3], values[3:4:4], values[4:5:5]
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
		ResponseHeaders:   got.Header,
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
	a.Detail.RequestHeaders = hide(got.SentHeader, j.Headers)
}

// hide masks the values of the headers that an endpoint's owner set.
func hide(sent []webhook.Header, own map[string]string) []webhook.Header {
	if len(own) == 0 {
		return sent
	}
	names := make(map[string]bool, len(own)) // in one spelling, since not all are sent in the owner's
	for name := range own {
		names[http.CanonicalHeaderKey(name)] = true
	}
	for i := range sent {
		if names[http.CanonicalHeaderKey(sent[i].Name)] {
			sent[i].Value = masked
		}
	}
	return sent
}
