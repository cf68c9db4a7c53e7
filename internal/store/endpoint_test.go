package store_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func newEndpoint(url string) store.NewEndpoint {
	return store.NewEndpoint{Endpoint: webhook.Endpoint{URL: url}, Secret: storetest.SigningKey()}
}

func TestEndpointKeepsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storetest.EventType(t, w.Store, w.tenant.ID, "a.b")
	e := newEndpoint("https://example.com/x?y=1")
	e.UID, e.Description, e.Disabled, e.EventTypes, e.Channels = "uid-1", "text ✓", true, []string{"a.b"}, []string{`a"b`, "c,d", "e}f"}
	e.ThrottleRate, e.Metadata, e.Version = 65535, map[string]string{"k": "v"}, 3
	e.Headers = map[string]string{"X-One": "1"}
	made := must[webhook.Endpoint](t)(w.view.CreateEndpoint(t.Context(), w.app.ID.String(), e))
	for _, ref := range []string{made.ID.String(), "uid-1"} {
		read := must[webhook.Endpoint](t)(w.view.Endpoint(t.Context(), w.app.ID.String(), ref))
		if fmt.Sprint(read) != fmt.Sprint(made) {
			t.Errorf("read  %+v\nwrote %+v", read, made)
		}
	}
	if made.UID != "uid-1" || !made.Disabled || !slices.Equal(made.Channels, e.Channels) || made.ThrottleRate != 65535 || made.Version != 3 {
		t.Errorf("made %+v", made)
	}
	secret := must[webhook.Secret](t)(w.view.EndpointSecret(t.Context(), w.app.ID.String(), "uid-1"))
	if secret.Reveal() != e.Secret.Reveal() {
		t.Error("another signing key came back")
	}
}

func TestNoFilterIsNull(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := newEndpoint("https://example.com")
	e.EventTypes, e.Channels = []string{}, []string{}
	made := must[webhook.Endpoint](t)(w.view.CreateEndpoint(t.Context(), w.app.ID.String(), e))
	if !one[bool](t, w.sql, `SELECT event_types IS NULL AND channels IS NULL AND uid IS NULL AND throttle_rate IS NULL AND headers IS NULL FROM endpoint`) {
		t.Error("an empty filter is not NULL, and would match nothing")
	}
	if made.EventTypes != nil || made.Channels != nil || made.Metadata == nil {
		t.Errorf("made %+v", made)
	}
}

func TestEndpointsOfAnApplicationAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	first := storetest.Endpoint(t, w.Store, w.app, "https://example.com/first")
	w.exec(t, `INSERT INTO endpoint (tenant_id, id, app_id, url, description, created_at, updated_at)
		SELECT $1, gen_random_uuid(), $2, 'https://example.com', '', now(), now() FROM generate_series(1, $3)`,
		w.tenant.ID.UUID(), w.app.ID.UUID(), webhook.MaxEndpoints-6)
	// Five are free, and ten want them at once.
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := w.view.CreateEndpoint(ctx, app, newEndpoint("https://example.com"))
			var told *webhook.Error
			switch {
			case err == nil:
				made.Add(1)
			case errors.As(err, &told) && told.Kind == webhook.KindConflict && told.Code == "limit_reached":
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 5 || refused.Load() != 5 {
		t.Errorf("%d were made and %d refused, want 5 and 5", made.Load(), refused.Load())
	}
	_, _, err := w.view.ReplaceEndpoint(ctx, app, "put", newEndpoint("https://example.com"))
	wantCode(t, err, webhook.KindConflict, "limit_reached")
	ok(t, w.view.DeleteEndpoint(ctx, app, first.ID.String()))
	if _, _, err = w.view.ReplaceEndpoint(ctx, app, "put", newEndpoint("https://example.com")); err != nil {
		t.Errorf("a deleted endpoint counts: %v", err)
	}
	other := storetest.Application(t, w.Store, w.tenant.ID)
	storetest.Endpoint(t, w.Store, other, "https://example.com") // which is not full
}

func TestEndpointFilterNamesLiveEventTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	storetest.EventType(t, w.Store, w.tenant.ID, "live")
	storetest.EventType(t, w.Store, w.tenant.ID, "old")
	e := newEndpoint("https://example.com")
	e.EventTypes = []string{"live", "old"}
	made := must[webhook.Endpoint](t)(w.view.CreateEndpoint(ctx, app, e))
	ok(t, w.view.DeleteEventType(ctx, "old", false))
	for _, name := range []string{"old", "never", "nul\x00"} {
		e.EventTypes = []string{"live", name}
		_, err := w.view.CreateEndpoint(ctx, app, e)
		wantKind(t, err, webhook.KindInvalid)
		var told *webhook.Error
		if !errors.As(err, &told) || !slices.Equal(told.Fields[0].Loc, []string{"body", "eventTypes"}) || strings.Contains(told.Fields[0].Msg, "live") {
			t.Errorf("told %+v", told)
		}
		_, _, err = w.view.ReplaceEndpoint(ctx, app, made.ID.String(), e)
		wantKind(t, err, webhook.KindInvalid)
		_, err = w.view.PatchEndpoint(ctx, app, made.ID.String(), func(e *store.NewEndpoint) error { e.EventTypes = []string{name}; return nil })
		wantKind(t, err, webhook.KindInvalid)
	}
	// A patch of something else is not stopped by a type archived since.
	_, err := w.view.PatchEndpoint(ctx, app, made.ID.String(), func(e *store.NewEndpoint) error { e.Description = "x"; return nil })
	ok(t, err)
}

func TestReplaceAndPatchEndpoint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	e := newEndpoint("https://example.com/1")
	e.Description, e.Channels, e.Metadata = "one", []string{"c"}, map[string]string{"k": "v"}
	e.Headers = map[string]string{"X-One": "1"}
	made, created, err := w.view.ReplaceEndpoint(ctx, app, "by-put", e)
	ok(t, err)
	if !created || made.UID != "by-put" {
		t.Errorf("created %v %+v", created, made)
	}
	// A PUT without a secret keeps the key, and what it does not say is reset.
	again, created, err := w.view.ReplaceEndpoint(ctx, app, "by-put", store.NewEndpoint{Endpoint: webhook.Endpoint{URL: "https://example.com/2"}, Secret: storetest.SigningKey()})
	ok(t, err)
	if created || again.ID != made.ID || again.UID != "by-put" || again.Description != "" || again.Channels != nil || len(again.Metadata) != 0 || again.URL != "https://example.com/2" {
		t.Errorf("replaced %v %+v", created, again)
	}
	if got := must[webhook.Secret](t)(w.view.EndpointSecret(ctx, app, "by-put")); got.Reveal() != e.Secret.Reveal() {
		t.Error("replacing changed the signing key")
	}
	if got := must[map[string]string](t)(w.view.EndpointHeaders(ctx, app, "by-put")); !maps.Equal(got, e.Headers) {
		t.Errorf("replacing changed the headers: %v", got)
	}
	read := must[webhook.Endpoint](t)(w.view.Endpoint(ctx, app, "by-put"))
	if fmt.Sprint(read) != fmt.Sprint(again) {
		t.Errorf("read %+v\nsaid %+v", read, again)
	}
	// By id, a PUT without a uid takes it away.
	again, _, err = w.view.ReplaceEndpoint(ctx, app, made.ID.String(), store.NewEndpoint{Endpoint: webhook.Endpoint{URL: "https://example.com/3"}})
	ok(t, err)
	if again.UID != "" {
		t.Errorf("uid %q stayed", again.UID)
	}

	next := storetest.SigningKey()
	patched, err := w.view.PatchEndpoint(ctx, app, made.ID.String(), func(e *store.NewEndpoint) error {
		e.UID, e.Secret, e.Authorization = "patched", next, webhook.NewSecret("Basic eDp5")
		e.ID, e.TenantID, e.ApplicationID = webhook.NewEndpointID(), webhook.NewTenantID(), webhook.NewApplicationID() // not its to set
		return nil
	})
	ok(t, err)
	if patched.ID != made.ID || patched.TenantID != w.tenant.ID || patched.ApplicationID != w.app.ID || patched.URL != "https://example.com/3" {
		t.Errorf("patched %+v", patched)
	}
	if got := must[webhook.Secret](t)(w.view.EndpointSecret(ctx, app, "patched")); got.Reveal() != next.Reveal() {
		t.Error("the patch's signing key is not in force")
	}
	want := map[string]string{"X-One": "1", "Authorization": "Basic eDp5"}
	if got := must[map[string]string](t)(w.view.EndpointHeaders(ctx, app, "patched")); !maps.Equal(got, want) {
		t.Errorf("headers %v, want %v", got, want)
	}
	refused := errors.New("refused")
	if _, err = w.view.PatchEndpoint(ctx, app, "patched", func(e *store.NewEndpoint) error { e.URL = "https://no"; return refused }); !errors.Is(err, refused) {
		t.Errorf("error %v, want the change's own", err)
	}

	second := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	_, err = w.view.PatchEndpoint(ctx, app, second.ID.String(), func(e *store.NewEndpoint) error { e.UID = "patched"; return nil })
	wantKind(t, err, webhook.KindConflict)
	e = newEndpoint("https://example.com")
	e.UID = "patched"
	_, err = w.view.CreateEndpoint(ctx, app, e)
	wantKind(t, err, webhook.KindConflict)
	ok(t, w.view.DeleteEndpoint(ctx, app, "patched"))
	_, err = w.view.CreateEndpoint(ctx, app, e) // its uid is free again
	ok(t, err)
}

func TestDeletedEndpointKeepsNoSecrets(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := newEndpoint("https://example.com")
	e.Headers = map[string]string{"X-Key": "1"}
	made := must[webhook.Endpoint](t)(w.view.CreateEndpoint(t.Context(), w.app.ID.String(), e))
	kept := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	ok(t, w.view.DeleteEndpoint(t.Context(), w.app.ID.String(), made.ID.String()))
	if n := one[int](t, w.sql, `SELECT count(*) FROM endpoint_secret WHERE endpoint_id = $1`, made.ID.UUID()); n != 0 {
		t.Errorf("%d signing keys stayed", n)
	}
	if !one[bool](t, w.sql, `SELECT headers IS NULL AND deleted_at IS NOT NULL FROM endpoint WHERE id = $1`, made.ID.UUID()) {
		t.Error("the headers stayed")
	}
	if _, err := w.view.EndpointSecret(t.Context(), w.app.ID.String(), kept.ID.String()); err != nil {
		t.Errorf("another endpoint lost its key: %v", err)
	}
}

func TestEndpointSecretRotation(t *testing.T) {
	t.Parallel()
	now := time.Now()
	w := newWorldAt(t, func() time.Time { return now })
	ctx, app := t.Context(), w.app.ID.String()
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com").ID.String()
	rotate := func(grace time.Duration) error {
		return w.view.RotateEndpointSecret(ctx, app, e, storetest.SigningKey(), grace)
	}
	live := func() int {
		return one[int](t, w.sql, `SELECT count(*) FROM endpoint_secret WHERE expires_at IS NOT NULL`)
	}

	for range webhook.MaxOldSecrets {
		ok(t, rotate(time.Hour))
	}
	wantCode(t, rotate(time.Hour), webhook.KindBadRequest, "limit_reached")
	if live() != webhook.MaxOldSecrets {
		t.Fatalf("%d old keys", live())
	}
	ok(t, rotate(0)) // replaces without keeping, so there is room for it
	if live() != webhook.MaxOldSecrets {
		t.Errorf("%d old keys after a rotation without grace", live())
	}
	now = now.Add(time.Hour)
	ok(t, rotate(webhook.MaxSecretGrace))
	if live() != 1 {
		t.Errorf("%d old keys after the others expired, want 1", live())
	}
	if grace := one[float64](t, w.sql, `SELECT extract(epoch FROM expires_at)::float8 FROM endpoint_secret WHERE expires_at IS NOT NULL`); int64(grace) != now.Add(webhook.MaxSecretGrace).Unix() {
		t.Errorf("expires at %v", grace)
	}
	wantKind(t, rotate(webhook.MaxSecretGrace+1), webhook.KindInvalid)
	wantKind(t, rotate(-1), webhook.KindInvalid)

	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			if err := rotate(time.Hour); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := one[int](t, w.sql, `SELECT count(*) FROM endpoint_secret WHERE expires_at IS NULL`); n != 1 {
		t.Errorf("%d current keys", n)
	}
}

func TestEndpointHeadersMerge(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com").ID.String()
	headers := func() map[string]string { return must[map[string]string](t)(w.view.EndpointHeaders(ctx, app, e)) }
	want := func(want map[string]string) {
		t.Helper()
		if got := headers(); !maps.Equal(got, want) || got == nil {
			t.Errorf("headers %v, want %v", got, want)
		}
	}
	want(map[string]string{})
	ok(t, w.view.ReplaceEndpointHeaders(ctx, app, e, map[string]string{"X-One": "1", "X-Two": "2", "X-Three": "3"}))
	ok(t, w.view.PatchEndpointHeaders(ctx, app, e, map[string]string{"x-one": "11", "X-Four": "4"}, []string{"x-TWO", "X-Absent", "x-four"}))
	want(map[string]string{"x-one": "11", "X-Three": "3", "X-Four": "4"})
	ok(t, w.view.ReplaceEndpointHeaders(ctx, app, e, nil))
	want(map[string]string{})

	full := map[string]string{}
	for i := range webhook.MaxHeaders {
		full[fmt.Sprint("X-", i)] = "v"
	}
	ok(t, w.view.ReplaceEndpointHeaders(ctx, app, e, full))
	wantKind(t, w.view.PatchEndpointHeaders(ctx, app, e, map[string]string{"X-More": "v"}, nil), webhook.KindInvalid)
	ok(t, w.view.PatchEndpointHeaders(ctx, app, e, map[string]string{"X-More": "v"}, []string{"x-0"}))
	full["X-Over"] = "v"
	wantKind(t, w.view.ReplaceEndpointHeaders(ctx, app, e, full), webhook.KindInvalid)
	wantKind(t, w.view.ReplaceEndpointHeaders(ctx, app, e, map[string]string{"X-A": "1", "x-a": "2"}), webhook.KindInvalid)

	both := newEndpoint("https://example.com")
	both.Headers, both.Authorization = map[string]string{"authorization": "Bearer mine"}, webhook.NewSecret("Basic eDp5")
	made := must[webhook.Endpoint](t)(w.view.CreateEndpoint(ctx, app, both))
	e = made.ID.String()
	want(both.Headers)
}

func TestSealedValuesStayInTheirRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	var ids []string
	for range 2 {
		e := newEndpoint("https://example.com")
		e.Headers = map[string]string{"X-Key": "v"}
		ids = append(ids, must[webhook.Endpoint](t)(w.view.CreateEndpoint(ctx, app, e)).ID.String())
	}
	w.exec(t, `UPDATE endpoint_secret a SET sealed = b.sealed FROM endpoint_secret b WHERE a.id <> b.id`)
	w.exec(t, `UPDATE endpoint a SET headers = b.headers FROM endpoint b WHERE a.id <> b.id`)
	for _, id := range ids {
		if s, err := w.view.EndpointSecret(ctx, app, id); err == nil || !s.IsZero() {
			t.Error("a signing key opened in another row")
		}
		if h, err := w.view.EndpointHeaders(ctx, app, id); err == nil || len(h) != 0 {
			t.Error("headers opened in another row")
		}
	}
}

// An endpoint that is being made while its application is deleted must not outlive it.
func TestEndpointsDoNotOutliveTheirApplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 10 {
		app := storetest.Application(t, w.Store, w.tenant.ID)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				_, err := w.view.CreateEndpoint(t.Context(), app.ID.String(), newEndpoint("https://example.com"))
				if err != nil && !errors.Is(err, webhook.ErrNotFound) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if err := w.view.DeleteApplication(t.Context(), app.ID.String()); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if n := one[int](t, w.sql, `SELECT count(*) FROM endpoint WHERE app_id = $1 AND deleted_at IS NULL`, app.ID.UUID()); n != 0 {
			t.Fatalf("%d endpoints live in a deleted application", n)
		}
	}
}
