package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// forms are the spellings in which a text could lie about: as it is, in hex, and in base64 wherever
// in its groups of three it begins.
func forms(secret string) (list []string) {
	list = []string{secret, hex.EncodeToString([]byte(secret))}
	for shift := range 3 {
		encoded := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
		list = append(list, encoded[(shift*8+5)/6:len(encoded)-1])
	}
	return list
}

var hexBytes = regexp.MustCompile(`\\x([0-9a-f]+)`)

// dump is every table's every row as text, byte columns once more as the bytes they are.
func dump(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')`)
	ok(t, err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	ok(t, err)
	var text strings.Builder
	for _, table := range tables {
		text.WriteString(one[string](t, conn, `SELECT COALESCE(string_agg(t::text, E'\n'), '') FROM `+table+` t`) + "\n")
	}
	for _, m := range hexBytes.FindAllStringSubmatch(text.String(), -1) {
		raw, err := hex.DecodeString(m[1])
		ok(t, err)
		text.Write(raw)
		text.WriteString("\n")
	}
	return text.String()
}

func TestNoSecretCanBeReadInTheDatabaseOrTheLogs(t *testing.T) {
	t.Parallel()
	url := storetest.Migrated(t)
	o := storetest.Options(t, url)
	var logs bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s, sql := storetest.OpenAt(t, o), storetest.Connect(t, url)
	ctx := t.Context()
	tenant := storetest.Tenant(t, s)
	v := s.View(webhook.Scope{Tenant: tenant.ID})
	app := storetest.Application(t, s, tenant.ID)
	secrets := map[string]string{
		"a signing key":               "whsec_Y2FuYXJ5LWtleS1vbmUtb25lLW9uZQ==",
		"a signing key rotated in":    "whsec_Y2FuYXJ5LWtleS10d28tdHdvLXR3bw==",
		"a signing key patched in":    "whsec_Y2FuYXJ5LWtleS10cmktdHJpLXRyaQ==",
		"a header":                    "canary-header-value-1",
		"a header patched in":         "canary-header-value-2",
		"the URL's credentials":       "Basic Y2FuYXJ5OnBhc3N3b3Jk",
		"a response kept for replays": "canary-response-body",
		"an API key":                  "ph_live_canary_api_key_text",
	}
	e := store.NewEndpoint{
		Endpoint: webhook.Endpoint{URL: "https://example.com/visible"}, Secret: webhook.NewSecret(secrets["a signing key"]),
		Headers: map[string]string{"X-Canary": secrets["a header"]}, Authorization: webhook.NewSecret(secrets["the URL's credentials"]),
	}
	made := must[webhook.Endpoint](t)(v.CreateEndpoint(ctx, app.ID.String(), e))
	ref := made.ID.String()
	ok(t, v.RotateEndpointSecret(ctx, app.ID.String(), ref, webhook.NewSecret(secrets["a signing key rotated in"]), time.Hour))
	ok(t, v.PatchEndpointHeaders(ctx, app.ID.String(), ref, map[string]string{"X-Two": secrets["a header patched in"]}, nil))
	_, err := v.PatchEndpoint(ctx, app.ID.String(), ref, func(e *store.NewEndpoint) error {
		e.Secret = webhook.NewSecret(secrets["a signing key patched in"])
		return nil
	})
	ok(t, err)
	key := randomKey()
	_, _, err = v.Once(ctx, key, key, true, func(context.Context, store.View) (store.Response, error) {
		return store.Response{Status: 200, Body: []byte(secrets["a response kept for replays"])}, nil
	})
	ok(t, err)
	digest := sha256.Sum256([]byte(secrets["an API key"]))
	_, _, err = s.CreateAPIKey(ctx, tenant.ID.String(), webhook.APIKey{Name: "k", Hint: "ph_live_", Digest: digest[:]})
	ok(t, err)
	// An error must not tell either.
	_, err = v.CreateEndpoint(ctx, app.ID.String(), store.NewEndpoint{
		Endpoint: webhook.Endpoint{URL: "x\x00"}, Secret: e.Secret, Headers: e.Headers, Authorization: e.Authorization,
	})
	wantKind(t, err, webhook.KindInvalid)

	found := dump(t, sql)
	if !strings.Contains(found, "https://example.com/visible") || !strings.Contains(found, string(digest[:])) {
		t.Fatal("the dump does not show what it should")
	}
	for what, secret := range secrets {
		for _, form := range forms(secret) {
			if strings.Contains(found, form) {
				t.Errorf("%s can be read in the database, as %q", what, form)
			}
			if strings.Contains(logs.String(), form) || strings.Contains(err.Error(), form) {
				t.Errorf("%s is in a log or an error, as %q", what, form)
			}
		}
	}
}
