package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Migrated is the URL of a new database in this release's shape, with the partitions of today.
func Migrated(t testing.TB) string {
	t.Helper()
	// The day is part of it, since a template that outlives the day lacks tomorrow's partitions.
	fingerprint := store.Fingerprint() + time.Now().UTC().Format("20060102")
	return Database(t, func(ctx context.Context, url string) error {
		return store.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	}, fingerprint)
}

// Open is a store over a new database, closed after the test.
func Open(t testing.TB) *store.Store {
	t.Helper()
	s, _ := OpenURL(t)
	return s
}

// OpenURL is Open with the URL of the database, for tests that look behind the store's back.
func OpenURL(t testing.TB) (s *store.Store, url string) {
	t.Helper()
	url = Migrated(t)
	return OpenAt(t, Options(t, url)), url
}

// Connect is a connection to a database made by Migrated, past every store, closed after the test.
func Connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// Options are those of a store over a database made by Migrated, with a new master key. Stores that
// share a database need the same options.
func Options(t testing.TB, url string) store.Options {
	t.Helper()
	return store.Options{URL: url, Keyset: Keyset(t), RequireTenant: true}
}

// OpenAt opens a store and closes it after the test.
func OpenAt(t testing.TB, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Keyset is a new master key.
func Keyset(t testing.TB) *seal.Keyset {
	t.Helper()
	var key [32]byte
	_, _ = rand.Read(key[:])
	keys, err := seal.ParseKeyset(base64.StdEncoding.EncodeToString(key[:]))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

var serial atomic.Int64

// name is one that no other call gives.
func name(what string) string { return fmt.Sprintf("%s-%d", what, serial.Add(1)) }

// Tenant makes a tenant.
func Tenant(t testing.TB, s *store.Store) webhook.Tenant {
	t.Helper()
	tenant, _, err := s.CreateTenant(t.Context(), webhook.Tenant{Name: name("tenant")})
	if err != nil {
		t.Fatal(err)
	}
	return tenant
}

// APIKey makes a key of a tenant with the digest of text.
func APIKey(t testing.TB, s *store.Store, tenant webhook.TenantID, text string, scopes ...string) webhook.APIKey {
	t.Helper()
	digest := sha256.Sum256([]byte(text))
	key, _, err := s.CreateAPIKey(t.Context(), tenant.String(), webhook.APIKey{
		Name: name("key"), Hint: text[:min(8, len(text))], Digest: digest[:], Scopes: scopes,
	})
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Application makes an application of a tenant.
func Application(t testing.TB, s *store.Store, tenant webhook.TenantID) webhook.Application {
	t.Helper()
	app, _, err := s.View(webhook.Scope{Tenant: tenant}).
		CreateApplication(t.Context(), webhook.Application{Name: name("application")}, false)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// EventType makes an event type of a tenant.
func EventType(t testing.TB, s *store.Store, tenant webhook.TenantID, name string) webhook.EventType {
	t.Helper()
	e, err := s.View(webhook.Scope{Tenant: tenant}).
		CreateEventType(t.Context(), webhook.EventType{Name: name, Description: "made for a test"})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// Endpoint makes an endpoint of an application, with a new HMAC signing key; edits are applied before.
// Event types that its filter names are made if they are not there.
func Endpoint(t testing.TB, s *store.Store, app webhook.Application, url string, edits ...func(*webhook.Endpoint)) webhook.Endpoint {
	t.Helper()
	e := webhook.Endpoint{URL: url}
	for _, edit := range edits {
		edit(&e)
	}
	view := s.View(webhook.Scope{Tenant: app.TenantID})
	for _, name := range e.EventTypes {
		_, err := view.CreateEventType(t.Context(), webhook.EventType{Name: name, Description: "made for a test"})
		if err != nil && webhook.KindOf(err) != webhook.KindConflict {
			t.Fatal(err)
		}
	}
	made, err := view.CreateEndpoint(t.Context(), app.ID.String(), store.NewEndpoint{Endpoint: e, Secret: SigningKey()})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// SigningKey is the text of a new HMAC signing key.
func SigningKey() webhook.Secret {
	var key [24]byte
	_, _ = rand.Read(key[:])
	return webhook.NewSecret("whsec_" + base64.StdEncoding.EncodeToString(key[:]))
}

// Turn turns one breaker and says whether it did.
func Turn(ctx context.Context, s *store.Store, t store.Turn) (bool, error) {
	turned, err := s.TurnBreakers(ctx, []store.Turn{t})
	return turned[0], err
}

// OpenBreaker opens the breaker of an endpoint that failed.
func OpenBreaker(ctx context.Context, s *store.Store, tenant webhook.TenantID, e webhook.EndpointID, streak webhook.Streak, wait time.Duration) (bool, error) {
	return Turn(ctx, s, store.Turn{Kind: store.TurnOpen, Tenant: tenant, Endpoint: e, URL: streak.URL,
		Reason: streak.Reason(), Failures: streak.Failures, Wait: wait})
}

// CloseBreaker closes the breaker of an endpoint.
func CloseBreaker(ctx context.Context, s *store.Store, tenant webhook.TenantID, e webhook.EndpointID) (bool, error) {
	return Turn(ctx, s, store.Turn{Kind: store.TurnClose, Tenant: tenant, Endpoint: e})
}
