package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	made, created, err := w.CreateTenant(ctx, webhook.Tenant{Name: "one", UID: "u"})
	ok(t, err)
	same, again, err := w.CreateTenant(ctx, webhook.Tenant{Name: "two", UID: "u"})
	ok(t, err)
	if !created || again || fmt.Sprint(same) != fmt.Sprint(made) {
		t.Errorf("a known uid gave %v %+v", again, same)
	}
	if read := must[webhook.Tenant](t)(w.Tenant(ctx, "u")); fmt.Sprint(read) != fmt.Sprint(made) {
		t.Errorf("read %+v", read)
	}
	app := storetest.Application(t, w.Store, made.ID)
	storetest.Endpoint(t, w.Store, app, "https://example.com")
	storetest.APIKey(t, w.Store, made.ID, "key of u")
	ok(t, w.DeleteTenant(ctx, "u"))
	if _, err := w.Tenant(ctx, made.ID.String()); !errors.Is(err, webhook.ErrNotFound) {
		t.Error(err)
	}
	if _, err := w.View(webhook.Scope{Tenant: made.ID}).Application(ctx, app.ID.String()); !errors.Is(err, webhook.ErrNotFound) {
		t.Error(err)
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM endpoint WHERE deleted_at IS NULL`); n != 0 {
		t.Errorf("%d endpoints live", n)
	}
	_, err = w.APIKeyByDigest(ctx, sha256.Sum256([]byte("key of u")))
	wantKind(t, err, webhook.KindUnauthorized)
	_, _, err = w.View(webhook.Scope{Tenant: made.ID}).CreateApplication(ctx, webhook.Application{Name: "late"}, false)
	wantKind(t, err, webhook.KindNotFound)
	if _, created, err = w.CreateTenant(ctx, webhook.Tenant{Name: "three", UID: "u"}); err != nil || !created {
		t.Errorf("the uid of a deleted tenant is not free: %v", err)
	}
	if _, err := w.Tenant(ctx, w.tenant.ID.String()); err != nil {
		t.Errorf("another tenant is gone: %v", err)
	}
}
