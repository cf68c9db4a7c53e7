package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestTextThatPostgresCannotHoldIsTheCallersFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, a := range []webhook.Application{{Name: "a\x00b"}, {Name: "\xff"}, {Name: "n", Metadata: map[string]string{"k": "\x00"}}} {
		_, _, err := w.view.CreateApplication(t.Context(), a, false)
		wantKind(t, err, webhook.KindInvalid)
	}
	for _, ref := range []string{"", "a\x00", "\xff", strings.Repeat("x", 10_000)} {
		if _, err := w.view.Application(t.Context(), ref); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%.10q: %v", ref, err)
		}
	}
}

func TestWhenPostgresIsAway(t *testing.T) {
	t.Parallel()
	o := storetest.Options(t, "postgres://nobody@127.0.0.1:1/none")
	s := storetest.OpenAt(t, o)
	v := s.View(webhook.Scope{Tenant: webhook.NewTenantID()})
	_, err := v.Application(t.Context(), "x")
	wantKind(t, err, webhook.KindUnavailable)
	_, _, err = v.Once(t.Context(), randomKey(), randomKey(), true, create("x"))
	wantKind(t, err, webhook.KindUnavailable)
	_, err = v.CreateEndpoint(t.Context(), "x", newEndpoint("https://example.com"))
	wantKind(t, err, webhook.KindUnavailable)
	_, err = s.EnsurePartitions(t.Context(), time.Now())
	wantKind(t, err, webhook.KindUnavailable)
	_, err = s.APIKeyByDigest(t.Context(), randomKey())
	wantKind(t, err, webhook.KindUnavailable)
}

func TestAWaitForALockEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := storetest.Options(t, w.url)
	o.StatementTimeout = 200 * time.Millisecond
	impatient := storetest.OpenAt(t, o)
	tx, err := w.sql.Begin(t.Context())
	ok(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), `SELECT FROM application WHERE id = $1 FOR UPDATE`, w.app.ID.UUID())
	ok(t, err)
	_, err = impatient.View(webhook.Scope{Tenant: w.tenant.ID}).PatchApplication(t.Context(), w.app.ID.String(),
		func(*webhook.Application) error { return nil })
	wantKind(t, err, webhook.KindUnavailable)
}

func TestAForgottenTenantPanicsInTests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	defer func() {
		if said := fmt.Sprint(recover()); !strings.Contains(said, "names no tenant") {
			t.Errorf("panicked with %q", said)
		}
	}()
	w.Careless()
}
