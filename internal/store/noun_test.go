package store_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestApplicationUIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	a, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "one", UID: "u", ThrottleRate: 5, Metadata: map[string]string{"a": "b"}}, false)
	ok(t, err)
	if !created {
		t.Error("not created")
	}
	_, _, err = w.view.CreateApplication(ctx, webhook.Application{Name: "two", UID: "u"}, false)
	wantCode(t, err, webhook.KindConflict, "conflict")
	same, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "two", UID: "u"}, true)
	ok(t, err)
	if created || fmt.Sprint(same) != fmt.Sprint(a) {
		t.Errorf("got %v %+v, want what was there: %+v", created, same, a)
	}
	b, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "no uid"}, true)
	ok(t, err)
	c, _, err := w.view.CreateApplication(ctx, webhook.Application{Name: "no uid"}, true)
	ok(t, err)
	if !created || b.ID == c.ID {
		t.Error("applications without a uid are taken for the same")
	}
	_, err = w.view.PatchApplication(ctx, b.ID.String(), func(a *webhook.Application) error { a.UID = "u"; return nil })
	wantKind(t, err, webhook.KindConflict)

	ok(t, w.view.DeleteApplication(ctx, "u"))
	for _, ref := range []string{"u", a.ID.String()} {
		if _, err := w.view.Application(ctx, ref); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := w.view.DeleteApplication(ctx, "u"); !errors.Is(err, webhook.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	d, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "three", UID: "u"}, true)
	ok(t, err)
	if !created || d.ID == a.ID {
		t.Error("the uid of a deleted application is not free")
	}
}

func TestReplaceApplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	for _, c := range []struct{ ref, uid, want string }{
		{"path", "", "path"},
		{"other", "body", "body"},
		{webhook.NewApplicationID().String(), "", ""}, // an unknown id is no uid
		{"app_x", "", ""},
		{"not a uid", "", ""},
		{strings.Repeat("a", webhook.MaxUIDLength), "", strings.Repeat("a", webhook.MaxUIDLength)},
		{strings.Repeat("b", webhook.MaxUIDLength+1), "", ""},
	} {
		a, created, err := w.view.ReplaceApplication(ctx, c.ref, webhook.Application{Name: "n", UID: c.uid})
		ok(t, err)
		if !created || a.UID != c.want {
			t.Errorf("PUT %.20s with uid %q: created %v with uid %.20q, want %.20q", c.ref, c.uid, created, a.UID, c.want)
		}
	}
	a, created, err := w.view.ReplaceApplication(ctx, "path", webhook.Application{Name: "again"})
	ok(t, err)
	if created || a.UID != "path" || a.Name != "again" {
		t.Errorf("PUT twice: %v %+v", created, a)
	}
	a, _, err = w.view.ReplaceApplication(ctx, a.ID.String(), webhook.Application{Name: "by id"})
	ok(t, err)
	if a.UID != "" {
		t.Errorf("uid %q stayed", a.UID)
	}
	_, _, err = w.view.ReplaceApplication(ctx, a.ID.String(), webhook.Application{Name: "by id", UID: "body"})
	wantKind(t, err, webhook.KindConflict)
	_, _, err = w.view.ReplaceApplication(ctx, "unknown", webhook.Application{Name: "new", UID: "body"})
	wantKind(t, err, webhook.KindConflict)

	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, created, err := w.view.ReplaceApplication(ctx, "race", webhook.Application{Name: "race"})
			if err != nil {
				t.Error(err)
			} else if created {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d of 8 equal PUTs created, want 1", made.Load())
	}
}

func TestPatchesDoNotLoseEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := w.view.PatchApplication(t.Context(), w.app.ID.String(), func(a *webhook.Application) error {
				a.ThrottleRate++
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if a := must[webhook.Application](t)(w.view.Application(t.Context(), w.app.ID.String())); a.ThrottleRate != 10 {
		t.Errorf("%d of 10 patches are there", a.ThrottleRate)
	}
}

func TestEventTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	schemas := json.RawMessage(`{"2": {"b": 1,  "a": 1}, "1": {}}`) // spelt as it came
	e := webhook.EventType{Name: "a.b", Description: "d", Schemas: schemas, GroupName: "g", FeatureFlags: []string{"f"}, Deprecated: true}
	made := must[webhook.EventType](t)(w.view.CreateEventType(ctx, e))
	read := must[webhook.EventType](t)(w.view.EventType(ctx, "a.b"))
	if fmt.Sprint(made) != fmt.Sprint(read) || string(read.Schemas) != string(schemas) || read.GroupName != "g" || read.FeatureFlags[0] != "f" {
		t.Errorf("made %+v\nread %+v", made, read)
	}
	_, err := w.view.CreateEventType(ctx, e)
	wantCode(t, err, webhook.KindConflict, "event_type_exists")
	ok(t, w.view.DeleteEventType(ctx, "a.b", false))
	if read = must[webhook.EventType](t)(w.view.EventType(ctx, "a.b")); !read.Archived {
		t.Error("not archived")
	}
	again := must[webhook.EventType](t)(w.view.CreateEventType(ctx, webhook.EventType{Name: "a.b", Description: "new"}))
	read = must[webhook.EventType](t)(w.view.EventType(ctx, "a.b"))
	if read.Archived || read.Description != "new" || read.Schemas != nil || read.GroupName != "" || read.FeatureFlags != nil || read.Deprecated || fmt.Sprint(read) != fmt.Sprint(again) {
		t.Errorf("an archived type came back as %+v", read)
	}
	replaced, created, err := w.view.ReplaceEventType(ctx, "a.b", webhook.EventType{Name: "ignored", Description: "put", Archived: true})
	ok(t, err)
	if created || replaced.Name != "a.b" || !replaced.Archived || replaced.Description != "put" {
		t.Errorf("replaced %v %+v", created, replaced)
	}
	replaced, created, err = w.view.ReplaceEventType(ctx, "new", webhook.EventType{Description: "put"})
	ok(t, err)
	if !created || replaced.Name != "new" {
		t.Errorf("created %v %+v", created, replaced)
	}
	patched, err := w.view.PatchEventType(ctx, "new", func(e *webhook.EventType) error { e.Name, e.Deprecated = "other", true; return nil })
	ok(t, err)
	if patched.Name != "new" || !patched.Deprecated || patched.Description != "put" {
		t.Errorf("patched %+v", patched)
	}
	ok(t, w.view.DeleteEventType(ctx, "new", true))
	for _, name := range []string{"new", "", "nul\x00", strings.Repeat("a", 300)} {
		if _, err = w.view.EventType(ctx, name); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%.10q: %v", name, err)
		}
	}
	if err := w.view.DeleteEventType(ctx, "new", false); !errors.Is(err, webhook.ErrNotFound) {
		t.Error(err)
	}
	var made8 atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, created, err := w.view.ReplaceEventType(ctx, "race", webhook.EventType{})
			if err != nil {
				t.Error(err)
			} else if created {
				made8.Add(1)
			}
		})
	}
	wg.Wait()
	if made8.Load() != 1 {
		t.Errorf("%d of 8 equal PUTs created, want 1", made8.Load())
	}
}

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

func TestMessageAndAttemptReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	payload := []byte("{\"a\" : 1.0, \"a\":\"\\u0000\"}")
	m := w.putMessage(t, webhook.Message{EventID: "ev", Channels: []string{"c"}, Tags: []string{"t"}, Payload: payload})
	for _, ref := range []string{m.ID.String(), "ev"} {
		if got := must[webhook.Message](t)(w.view.Message(ctx, app, ref)); fmt.Sprint(got) != fmt.Sprint(m) {
			t.Errorf("read  %+v\nwrote %+v", got, m)
		}
	}
	// Expired is gone, whether or not retention has been there.
	gone := w.putMessage(t, webhook.Message{Payload: payload, ExpiresAt: time.Now().Add(-time.Second)})
	if got := must[webhook.Message](t)(w.view.Message(ctx, app, gone.ID.String())); got.Payload != nil {
		t.Errorf("an expired payload was shown")
	}
	a := w.putAttempt(t, webhook.Attempt{
		MessageID: m.ID, EndpointID: e.ID, Trigger: webhook.TriggerManual, Number: 2, Sent: true, Final: true, Status: webhook.StatusFail,
		HTTPStatus: 503, Class: webhook.ClassServerError, Duration: 1500 * time.Millisecond, URL: "https://example.com", Response: []byte("no"),
	})
	a.Detail.RemoteIP = "192.0.2.1"
	if got := must[webhook.Attempt](t)(w.view.Attempt(ctx, app, "ev", a.ID)); fmt.Sprint(got) != fmt.Sprint(a) {
		t.Errorf("read  %+v\nwrote %+v", got, a)
	}
	for _, content := range []bool{false, true} {
		l, err := w.view.AttemptsByEndpoint(ctx, app, e.ID.String(), filterAttempts(content), listAll)
		ok(t, err)
		if len(l.Data) != 1 || (l.Data[0].Response != nil) != content {
			t.Errorf("with content %v: %+v", content, l.Data)
		}
		messages, err := w.view.Messages(ctx, app, filterMessages(content), listAll)
		ok(t, err)
		if len(messages.Data) != 2 || (messages.Data[1].Payload != nil) != content {
			t.Errorf("with content %v: %+v", content, messages.Data)
		}
	}
	for _, ref := range []string{"", "no-such", webhook.NewMessageID().String(), "msg_x", "\x00"} {
		if _, err := w.view.Message(ctx, app, ref); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%q: %v", ref, err)
		}
		if _, err := w.view.AttemptsByMessage(ctx, app, ref, filterAttempts(false), listAll); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestAPageOfPayloadsIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := make([]byte, webhook.MaxPayload)
	for range 20 {
		w.putMessage(t, webhook.Message{Payload: big})
	}
	p := listAll
	seen := 0
	for {
		l, err := w.view.Messages(t.Context(), w.app.ID.String(), filterMessages(true), p)
		ok(t, err)
		if len(l.Data) > 17 || len(l.Data) == 0 {
			t.Fatalf("%d payloads of 1 MiB in one page", len(l.Data))
		}
		seen += len(l.Data)
		if l.Done {
			break
		}
		p.Iterator = l.Data[len(l.Data)-1].ID.String()
	}
	if seen != 20 {
		t.Errorf("saw %d messages, want 20", seen)
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
