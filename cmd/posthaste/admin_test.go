package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func newMasterKey(t *testing.T) string {
	t.Helper()
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	return base64.StdEncoding.EncodeToString(raw[:])
}

// database is an environment that names a migrated database of the test's own.
func database(t *testing.T) (environ []string, url string) {
	t.Helper()
	url = storetest.Database(t, func(ctx context.Context, url string) error {
		return store.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	}, store.Fingerprint())
	return []string{"DATABASE_URL=" + url}, url
}

// printed runs a command that must succeed and print one JSON object on one line, and nothing else.
func printed(t *testing.T, environ []string, args ...string) map[string]any {
	t.Helper()
	code, stdout, stderr := command(t, environ, args...)
	var object map[string]any
	if err := json.Unmarshal([]byte(stdout), &object); err != nil || code != 0 || stderr != "" || strings.Count(stdout, "\n") != 1 {
		t.Fatalf("%q: exit %d, printed %q, said %q", args, code, stdout, stderr)
	}
	return object
}

func TestAdminExpiresAKey(t *testing.T) {
	environ, url := database(t)
	printed(t, environ, "admin", "tenant", "create", "--name", "Acme", "--uid", "acme")
	key := printed(t, environ, "admin", "api-key", "create", "--tenant", "acme", "--name", "ci", "--uid", "ci")
	digest, err := auth.ParseAPIKey(key["key"].(string))
	if err != nil {
		t.Fatal(err)
	}
	s := storetest.OpenAt(t, storetest.Options(t, url))
	if _, err := s.APIKeyByDigest(t.Context(), digest); err != nil {
		t.Fatal(err)
	}
	printed(t, environ, "admin", "api-key", "expire", "--tenant", "acme", "ci")
	if _, err := s.APIKeyByDigest(t.Context(), digest); webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Errorf("an expired key: %v", err)
	}
	if code, _, stderr := command(t, environ, "admin", "api-key", "expire", "--tenant", "acme", "nobody"); code != 1 || !strings.Contains(stderr, `no API key "nobody"`) {
		t.Errorf("an unknown key: exit %d, %q", code, stderr)
	}
}

func TestAdminMakesTenantsAndKeysOnce(t *testing.T) {
	environ, url := database(t)
	tenant := printed(t, environ, "admin", "tenant", "create", "--name", "Acme", "--uid", "acme")
	if len(tenant) != 1 || !strings.HasPrefix(tenant["id"].(string), "org_") {
		t.Errorf("printed %v", tenant)
	}
	if again := printed(t, environ, "admin", "tenant", "create", "--name", "Other", "--uid", "acme"); again["id"] != tenant["id"] || len(again) != 1 {
		t.Errorf("printed %v, want %v", again, tenant)
	}
	if other := printed(t, environ, "admin", "tenant", "create", "--name", "Acme"); other["id"] == tenant["id"] {
		t.Error("the same name made the same tenant")
	}

	key := printed(t, environ, "admin", "api-key", "create", "--tenant", "acme", "--name", "ci", "--uid", "ci", "--scopes", "send,read", "--expires", "30d")
	if len(key) != 2 || !strings.HasPrefix(key["id"].(string), "key_") {
		t.Errorf("printed %v", key)
	}
	if again := printed(t, environ, "admin", "api-key", "create", "--tenant", tenant["id"].(string), "--name", "ci", "--uid", "ci"); again["id"] != key["id"] || len(again) != 1 {
		t.Errorf("printed %v: a known key is never shown again", again)
	}
	if plain := printed(t, environ, "admin", "api-key", "create", "--tenant", "acme", "--name", "second"); plain["key"] == key["key"] {
		t.Error("two keys are the same")
	}

	digest, err := auth.ParseAPIKey(key["key"].(string))
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Options{URL: url, MaxConns: adminConns})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	found, err := db.APIKeyByDigest(t.Context(), digest)
	if err != nil {
		t.Fatal(err)
	}
	if found.ID.String() != key["id"] || found.TenantID.String() != tenant["id"] || strings.Join(found.Scopes, " ") != "read send" {
		t.Errorf("stored %+v", found)
	}
	if in := time.Until(*found.ExpiresAt); in < 29*24*time.Hour || in > 30*24*time.Hour {
		t.Errorf("expires in %s", in)
	}
}

func TestAdminSetsPlans(t *testing.T) {
	environ, url := database(t)
	printed(t, environ, "admin", "tenant", "create", "--name", "Acme", "--uid", "acme")
	if p := printed(t, environ, "admin", "plan", "set", "pro", "--publish-rate", "500", "--messages-per-day", "1000000"); p["name"] != "pro" {
		t.Errorf("printed %v", p)
	}
	printed(t, environ, "admin", "plan", "set", "basic", "--weight", "2")
	if has := printed(t, environ, "admin", "tenant", "set-plan", "--tenant", "acme", "pro"); has["plan"] != "pro" || !strings.HasPrefix(has["id"].(string), "org_") {
		t.Errorf("printed %v", has)
	}
	s := storetest.OpenAt(t, storetest.Options(t, url))
	effective := func() webhook.Limits {
		t.Helper()
		tenant, err := s.Tenant(t.Context(), "acme")
		if err != nil {
			t.Fatal(err)
		}
		return tenant.Effective
	}
	if got, want := effective(), (webhook.Limits{PublishRate: 500, MessagesPerDay: 1_000_000, Weight: 1}); got != want {
		t.Errorf("the tenant has %+v, want %+v", got, want)
	}
	printed(t, environ, "admin", "plan", "set", "pro", "--max-payload", "1048576")
	if got, want := effective(), (webhook.Limits{MaxPayload: 1 << 20, Weight: 1}); got != want {
		t.Errorf("after a change of its plan the tenant has %+v, want %+v", got, want)
	}
	code, stdout, stderr := command(t, environ, "admin", "plan", "list")
	want := `{"name":"basic","limits":{"weight":2}}` + "\n" + `{"name":"pro","limits":{"maxPayload":1048576}}` + "\n"
	if code != 0 || stdout != want || stderr != "" {
		t.Errorf("exit %d, printed %q, said %q", code, stdout, stderr)
	}
	if has := printed(t, environ, "admin", "tenant", "set-plan", "--tenant", "acme"); has["plan"] != nil {
		t.Errorf("printed %v", has)
	}
	if got, want := effective(), (webhook.Limits{Weight: 1}); got != want {
		t.Errorf("without a plan the tenant has %+v, want %+v", got, want)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{`there is no plan "gold"`, []string{"admin", "tenant", "set-plan", "--tenant", "acme", "gold"}},
		{`there is no tenant "nobody"`, []string{"admin", "tenant", "set-plan", "--tenant", "nobody", "pro"}},
	} {
		if code, _, stderr := command(t, environ, c.args...); code != exitFailed || stderr != "posthaste: "+c.want+"\n" {
			t.Errorf("exit %d, said %q", code, stderr)
		}
	}
}

func TestAdminNamesWhatDoesNotExist(t *testing.T) {
	environ, _ := database(t)
	code, stdout, stderr := command(t, environ, "admin", "api-key", "create", "--tenant", "nobody", "--name", "x")
	if code != exitFailed || stdout != "" || stderr != "posthaste: there is no tenant \"nobody\"\n" {
		t.Errorf("exit %d, printed %q, said %q", code, stdout, stderr)
	}
	id := webhook.NewMessageID().String()
	code, stdout, stderr = command(t, environ, "admin", "trace", id)
	if code != exitFailed || stdout != "" || stderr != "posthaste: there is no message "+id+"\n" {
		t.Errorf("exit %d, printed %q, said %q", code, stdout, stderr)
	}
}

func TestMigrateUpAndStatus(t *testing.T) {
	url := storetest.Database(t, func(context.Context, string) error { return nil }, "empty")
	environ := []string{"DATABASE_URL=" + url, "POSTHASTE_LOG_FORMAT=text"}
	code, stdout, stderr := command(t, environ, "migrate", "status")
	if code != 0 || !strings.Contains(stdout, "pending") || !strings.Contains(stderr, "posthaste migrate up") {
		t.Errorf("exit %d, printed %q, said %q", code, stdout, stderr)
	}
	if code, _, stderr := command(t, environ, "migrate", "up"); code != 0 || !strings.Contains(stderr, "migrated") {
		t.Errorf("exit %d, said %q", code, stderr)
	}
	code, stdout, stderr = command(t, environ, "migrate", "status")
	if code != 0 || strings.Contains(stdout, "pending") || stderr != "" {
		t.Errorf("exit %d, printed %q, said %q", code, stdout, stderr)
	}
	if code, _, stderr := command(t, environ, "migrate", "up"); code != 0 || strings.Contains(stderr, "migrated") {
		t.Errorf("a second time: exit %d, said %q", code, stderr)
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"12h": now.Add(12 * time.Hour), "30d": now.AddDate(0, 0, 30), "1s": now.Add(time.Second),
		"2027-01-31T12:00:00Z": time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC),
	} {
		if got, err := parseExpiry(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	if got, err := parseExpiry("", now); got != nil || err != nil {
		t.Errorf("none: %v, %v", got, err)
	}
	for _, text := range []string{"0s", "-1h", "d", "2026-11-23T12:00:00Z", "tomorrow", "30"} {
		if got, err := parseExpiry(text, now); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}
