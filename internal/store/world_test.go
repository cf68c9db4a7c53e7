package store_test

import (
	"crypto/rand"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// world is a database with one tenant and one of its applications.
type world struct {
	*store.Store
	url    string
	sql    *pgx.Conn // behind the store's back
	tenant webhook.Tenant
	app    webhook.Application
	view   store.View // of the tenant
}

func newWorld(t *testing.T) world {
	t.Helper()
	return newWorldAt(t, nil)
}

// newWorldAt has a clock of its own; nil = the real one.
func newWorldAt(t *testing.T, now func() time.Time) world {
	t.Helper()
	url := storetest.Migrated(t)
	o := storetest.Options(t, url)
	o.Now = now
	w := world{Store: storetest.OpenAt(t, o), url: url, sql: storetest.Connect(t, url)}
	w.tenant = storetest.Tenant(t, w.Store)
	w.app = storetest.Application(t, w.Store, w.tenant.ID)
	w.view = w.View(webhook.Scope{Tenant: w.tenant.ID})
	return w
}

func (w world) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := w.sql.Exec(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// one is the single value a query gives.
func one[T any](t *testing.T, conn *pgx.Conn, query string, args ...any) (value T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

// partitions makes those that rows of a time need.
func (w world) partitions(t *testing.T, at time.Time) {
	t.Helper()
	if _, err := w.EnsurePartitions(t.Context(), at); err != nil {
		t.Fatal(err)
	}
}

// putMessage writes a message past the pipeline; zero fields are filled.
func (w world) putMessage(t *testing.T, m webhook.Message) webhook.Message {
	t.Helper()
	if m.TenantID.IsZero() {
		m.TenantID, m.ApplicationID = w.app.TenantID, w.app.ID
	}
	if m.ID.IsZero() {
		m.ID = webhook.NewMessageID()
	}
	if m.EventType == "" {
		m.EventType = "user.created"
	}
	if m.ExpiresAt.IsZero() {
		m.ExpiresAt = time.Now().Add(24 * time.Hour).Truncate(time.Microsecond).UTC()
	}
	var eventID *string
	if m.EventID != "" {
		eventID = &m.EventID
		w.exec(t, `INSERT INTO event_id (tenant_id, app_id, event_id, message_id) VALUES ($1, $2, $3, $4)`,
			m.TenantID.UUID(), m.ApplicationID.UUID(), m.EventID, m.ID.UUID())
	}
	w.exec(t, `INSERT INTO message (tenant_id, app_id, id, event_type, event_id, channels, tags, payload, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, m.TenantID.UUID(), m.ApplicationID.UUID(), m.ID.UUID(), m.EventType, eventID,
		m.Channels, m.Tags, m.Payload, m.ExpiresAt)
	return m
}

// putAttempt writes an attempt past the pipeline; zero ids are filled.
func (w world) putAttempt(t *testing.T, a webhook.Attempt) webhook.Attempt {
	t.Helper()
	if a.TenantID.IsZero() {
		a.TenantID, a.ApplicationID = w.app.TenantID, w.app.ID
	}
	if a.ID.IsZero() {
		a.ID = webhook.NewAttemptID()
	}
	if a.Detail.RemoteIP == "" {
		a.Detail.RemoteIP = "192.0.2.1"
	}
	w.exec(t, `INSERT INTO attempt (tenant_id, app_id, message_id, endpoint_id, id, trigger, number, sent, final, status,
		http_status, error_class, duration_ms, url, response, detail)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
		a.TenantID.UUID(), a.ApplicationID.UUID(), a.MessageID.UUID(), a.EndpointID.UUID(), a.ID.UUID(), int16(a.Trigger), a.Number,
		a.Sent, a.Final, int16(a.Status), a.HTTPStatus, string(a.Class), a.Duration.Milliseconds(), a.URL, a.Response, must[[]byte](t)(json.Marshal(a.Detail)))
	return a
}

// putDelivery writes an open, parked delivery past the pipeline.
func (w world) putDelivery(t *testing.T, m webhook.Message, e webhook.Endpoint) {
	t.Helper()
	w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state) VALUES ($1, $2, $3, 0, 3)`,
		m.TenantID.UUID(), m.ID.UUID(), e.ID.UUID())
}

// messageAt is a message id of a time.
func messageAt(at time.Time) (id webhook.MessageID) {
	attempt := webhook.NewAttemptIDAt(at)
	return webhook.MessageID(attempt)
}

func randomKey() (key [32]byte) {
	_, _ = rand.Read(key[:])
	return key
}

// wantKind fails unless err is of a kind.
func wantKind(t *testing.T, err error, want webhook.Kind) {
	t.Helper()
	if err == nil || webhook.KindOf(err) != want {
		t.Fatalf("error %v, want one of kind %d", err, want)
	}
}

// wantCode fails unless err has the wire's word.
func wantCode(t *testing.T, err error, kind webhook.Kind, code string) {
	t.Helper()
	wantKind(t, err, kind)
	if told, ok := err.(*webhook.Error); !ok || told.Code != code {
		t.Fatalf("error %#v, want code %q", err, code)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var listAll = store.Page{Limit: webhook.MaxPage}

func filterMessages(content bool) store.MessageFilter {
	return store.MessageFilter{WithContent: content}
}

func filterAttempts(content bool) store.AttemptFilter {
	return store.AttemptFilter{WithContent: content}
}
