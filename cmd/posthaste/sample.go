package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// What the first start makes.
const (
	sampleTenant      = "sample"
	sampleApplication = "sample-app"
	sampleEndpoint    = "sample-endpoint"
)

var sampleEventTypes = []struct{ name, description string }{
	{"invoice.paid", "An invoice was paid in full."},
	{"invoice.overdue", "An invoice was not paid in time."},
	{"user.created", "A user signed up."},
}

// sample is what there is to play with: made through the API, as a customer would, but for the tenant
// and its key.
type sample struct {
	api      *client
	data     devDirectory
	receiver string // URL of the endpoint when it is made
	move     bool   // also when it exists and points elsewhere

	token  webhook.Secret // the API key
	secret webhook.Secret // what the receiver verifies with
	key    signature.Verifier
	fresh  bool // no message was ever sent
}

// prepare makes what is missing, so that a start that was interrupted is finished by the next one.
func (s *sample) prepare(ctx context.Context, config app.Config) error {
	if err := s.authorize(ctx, config); err != nil {
		return fmt.Errorf("prepare the sample: %w", err)
	}
	for _, t := range sampleEventTypes {
		err := s.api.call(ctx, http.MethodPost, "/event-type", map[string]any{"name": t.name, "description": t.description}, nil)
		if err != nil && !answered(err, http.StatusConflict) {
			return fmt.Errorf("prepare the sample: %w", err)
		}
	}
	application := map[string]any{"name": "Sample application", "uid": sampleApplication}
	if err := s.api.call(ctx, http.MethodPost, "/app?get_if_exists=true", application, nil); err != nil {
		return fmt.Errorf("prepare the sample: %w", err)
	}
	if err := s.prepareEndpoint(ctx); err != nil {
		return fmt.Errorf("prepare the sample: %w", err)
	}
	var secret struct{ Key string }
	if err := s.api.call(ctx, http.MethodGet, s.endpoint()+"/secret", nil, &secret); err != nil {
		return fmt.Errorf("prepare the sample: %w", err)
	}
	s.secret = webhook.NewSecret(secret.Key)
	var err error
	if s.key, err = signature.ParseVerifier(secret.Key); err != nil {
		return fmt.Errorf("prepare the sample: %w", err)
	}
	var messages struct{ Data []struct{} }
	if err := s.api.call(ctx, http.MethodGet, "/app/"+sampleApplication+"/msg?limit=1&with_content=false", nil, &messages); err != nil {
		return fmt.Errorf("prepare the sample: %w", err)
	}
	s.fresh = len(messages.Data) == 0
	return nil
}

func (s *sample) endpoint() string {
	return "/app/" + sampleApplication + "/endpoint/" + sampleEndpoint
}

func (s *sample) prepareEndpoint(ctx context.Context) error {
	var found struct{ URL string }
	err := s.api.call(ctx, http.MethodGet, s.endpoint(), nil, &found)
	switch {
	case answered(err, http.StatusNotFound):
		return s.api.call(ctx, http.MethodPost, "/app/"+sampleApplication+"/endpoint", map[string]any{
			"url": s.receiver, "uid": sampleEndpoint, "description": "The receiver of posthaste dev",
		}, nil)
	case err != nil:
		return err
	case s.move && strings.TrimSuffix(found.URL, "/") != s.receiver:
		return s.api.call(ctx, http.MethodPatch, s.endpoint(), map[string]any{"url": s.receiver}, nil)
	}
	s.receiver = strings.TrimSuffix(found.URL, "/")
	return nil
}

// authorize finds the API key of earlier starts. Without one, or with one that this database does not
// know, it makes another.
func (s *sample) authorize(ctx context.Context, config app.Config) (err error) {
	if s.token, err = s.data.secret(keyFile); err != nil {
		return err
	}
	if !s.token.IsZero() {
		s.api.token = s.token
		err := s.api.call(ctx, http.MethodGet, "/app?limit=1", nil, nil)
		if !answered(err, http.StatusUnauthorized) {
			return err
		}
	}
	db, err := store.Open(ctx, store.Options{URL: config.DatabaseURL.Reveal(), MaxConns: adminConns, Keyset: config.MasterKey})
	if err != nil {
		return err
	}
	defer db.Close()
	tenant, _, err := db.CreateTenant(ctx, webhook.Tenant{Name: "Sample tenant", UID: sampleTenant})
	if err != nil {
		return err
	}
	_, s.token, err = createKey(ctx, db, tenant.ID.String(), webhook.APIKey{Name: "posthaste dev", Scopes: []string{string(auth.Admin)}})
	if err != nil {
		return err
	}
	s.api.token = s.token
	return s.data.keep(keyFile, s.token)
}

// sampleBody is the message that is sent first, and that the curl sends again. Receivers are told no
// event type but what the payload says itself, hence its "type".
const sampleBody = `{"eventType":"invoice.paid","payload":{"type":"invoice.paid","id":"in_1042","amount":4900,"currency":"EUR"}}`

// send posts a message and returns its id.
func (s *sample) send(ctx context.Context) (id string, err error) {
	var message struct{ ID string }
	err = s.api.call(ctx, http.MethodPost, "/app/"+sampleApplication+"/msg", json.RawMessage(sampleBody), &message)
	if err != nil {
		return "", fmt.Errorf("send the first message: %w", err)
	}
	return message.ID, nil
}

// curl is a command to paste that sends a message.
func (s *sample) curl(base string) string {
	return fmt.Sprintf(`  curl %s/api/v1/app/%s/msg \
    -H 'Authorization: Bearer %s' \
    -H 'Content-Type: application/json' \
    -d '%s'
`, base, sampleApplication, s.token.Reveal(), sampleBody)
}

const (
	callTimeout = 15 * time.Second
	maxAnswer   = 1 << 20 // bytes of an answer of the API
)

// client calls the API.
type client struct {
	base  string
	token webhook.Secret
	http  *http.Client
}

func newClient(base string) *client {
	// No proxy: it is this very process. No kept connections, which a stop would wait for.
	return &client{base: base + "/api/v1", http: &http.Client{Timeout: callTimeout, Transport: &http.Transport{DisableKeepAlives: true}}}
}

// apiError is an answer other than a success.
type apiError struct {
	call   string // method and path
	status int
	body   string
}

func (e *apiError) Error() string { return fmt.Sprintf("%s answered %d: %s", e.call, e.status, e.body) }

// answered reports whether err is an answer with a status.
func answered(err error, status int) bool {
	var answer *apiError
	return errors.As(err, &answer) && answer.status == status
}

// call sends in, if not nil, and reads the answer into out, if not nil.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return &apiError{method + " " + path, resp.StatusCode, printable(string(raw), 300)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}
