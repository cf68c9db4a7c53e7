package store_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, tenant := t.Context(), w.tenant.ID.String()
	digest := sha256.Sum256([]byte("one"))
	k, created, err := w.CreateAPIKey(ctx, tenant, webhook.APIKey{Name: "one", UID: "u", Hint: "ph_", Digest: digest[:], Scopes: []string{"read", "send"}})
	ok(t, err)
	second := sha256.Sum256([]byte("two"))
	same, again, err := w.CreateAPIKey(ctx, tenant, webhook.APIKey{Name: "two", UID: "u", Digest: second[:]})
	ok(t, err)
	if !created || again || fmt.Sprint(same) != fmt.Sprint(k) {
		t.Errorf("a known uid gave %v %+v", again, same)
	}
	found := must[webhook.APIKey](t)(w.APIKeyByDigest(ctx, digest))
	if fmt.Sprint(found) != fmt.Sprint(k) {
		t.Errorf("found %+v, want %+v", found, k)
	}
	_, err = w.APIKeyByDigest(ctx, second)
	wantCode(t, err, webhook.KindUnauthorized, "authentication_failed")

	now := time.Now().UTC()
	ok(t, w.TouchAPIKeys(ctx, map[webhook.APIKeyID]time.Time{k.ID: now, webhook.NewAPIKeyID(): now}))
	ok(t, w.TouchAPIKeys(ctx, map[webhook.APIKeyID]time.Time{k.ID: now.Add(-time.Hour)}))
	ok(t, w.TouchAPIKeys(ctx, nil))
	found = must[webhook.APIKey](t)(w.APIKeyByDigest(ctx, digest))
	if found.LastUsedAt == nil || !found.LastUsedAt.Equal(now.Truncate(time.Minute)) {
		t.Errorf("last used %v, want %v", found.LastUsedAt, now.Truncate(time.Minute))
	}

	ok(t, w.ExpireAPIKey(ctx, tenant, "u", now.Add(time.Hour)))
	must[webhook.APIKey](t)(w.APIKeyByDigest(ctx, digest))
	ok(t, w.ExpireAPIKey(ctx, tenant, k.ID.String(), now.Add(-time.Second)))
	_, err = w.APIKeyByDigest(ctx, digest)
	wantKind(t, err, webhook.KindUnauthorized)
	ok(t, w.ExpireAPIKey(ctx, tenant, "u", now.Add(time.Hour))) // does not bring it back
	_, err = w.APIKeyByDigest(ctx, digest)
	wantKind(t, err, webhook.KindUnauthorized)

	other := storetest.Tenant(t, w.Store)
	for _, ref := range []string{"u", k.ID.String()} {
		if err := w.ExpireAPIKey(ctx, other.ID.String(), ref, now); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("another tenant's key: %v", err)
		}
	}
	_, err = w.APIKeys(ctx, webhook.NewTenantID().String(), listAll)
	wantKind(t, err, webhook.KindNotFound)
}
