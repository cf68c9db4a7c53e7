package store_test

import (
	"slices"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func (w world) session(t *testing.T, label string, life time.Duration) webhook.PortalSession {
	t.Helper()
	return must[webhook.PortalSession](t)(w.view.CreatePortalSession(t.Context(), webhook.PortalSession{
		ApplicationID: w.app.ID, ID: webhook.NewSessionID(), Label: label, ExpiresAt: time.Now().Add(life),
	}))
}

func (w world) sessionCounts(t *testing.T, p webhook.PortalSession) bool {
	t.Helper()
	_, err := w.PortalSession(t.Context(), webhook.Scope{Tenant: p.TenantID, Application: p.ApplicationID}, p.ID)
	if err != nil && webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Fatal(err)
	}
	return err == nil
}

func TestSessionsEndWhenTheyAreToldTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ref := w.app.ID.String()
	a, b, unnamed := w.session(t, "a", time.Hour), w.session(t, "b", time.Hour), w.session(t, "", time.Hour)
	short := w.session(t, "a", 100*time.Millisecond)
	later := w.session(t, "later", time.Hour)
	over := w.session(t, "", -time.Second)
	counts := func(when string, want ...bool) {
		t.Helper()
		var have []bool
		for _, p := range []webhook.PortalSession{a, b, unnamed, later, over} {
			have = append(have, w.sessionCounts(t, p))
		}
		if !slices.Equal(have, want) {
			t.Errorf("%s: %v, want %v", when, have, want)
		}
	}
	counts("at first", true, true, true, true, false)
	ok(t, w.view.ExpirePortalSessions(t.Context(), ref, []string{"later"}, time.Minute))
	left := one[float64](t, w.sql, `SELECT extract(epoch FROM expires_at - now())::float8 FROM portal_session WHERE id = $1`, later.ID.UUID())
	if left > 60 || left < 30 {
		t.Errorf("ends in %v s", left)
	}
	ok(t, w.view.ExpirePortalSessions(t.Context(), ref, []string{"a", "nobody"}, 0))
	counts("after ending a", false, true, true, true, false)
	// An ended or shorter one is not brought back.
	ok(t, w.view.ExpirePortalSessions(t.Context(), ref, nil, 24*time.Hour))
	counts("after a later end for all", false, true, true, true, false)
	if left := one[float64](t, w.sql, `SELECT extract(epoch FROM expires_at - now())::float8 FROM portal_session WHERE id = $1`, short.ID.UUID()); left > 1 {
		t.Errorf("a session was lengthened to %v s", left)
	}
	ok(t, w.View(webhook.Scope{Tenant: w.tenant.ID, Application: w.app.ID}).EndPortalSession(t.Context(), b.ID))
	counts("after a logout", false, false, true, true, false)
	ok(t, w.view.ExpirePortalSessions(t.Context(), ref, []string{}, 0))
	counts("after the end of all", false, false, false, false, false)
}

func TestSessionsGoWithWhatTheyAreOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.session(t, "", time.Hour)
	foreign := storetest.Application(t, w.Store, w.tenant.ID)
	_, err := w.PortalSession(t.Context(), webhook.Scope{Tenant: w.tenant.ID, Application: foreign.ID}, p.ID)
	wantKind(t, err, webhook.KindUnauthorized)
	ok(t, w.view.DeleteApplication(t.Context(), w.app.ID.String()))
	if w.sessionCounts(t, p) {
		t.Error("the session of a deleted application counts")
	}
	_, err = w.view.CreatePortalSession(t.Context(), webhook.PortalSession{ApplicationID: w.app.ID, ID: webhook.NewSessionID(), ExpiresAt: time.Now().Add(time.Hour)})
	wantKind(t, err, webhook.KindNotFound)
	w.app = foreign
	p = w.session(t, "", time.Hour)
	if !w.sessionCounts(t, p) {
		t.Fatal("the other application's does not")
	}
	ok(t, w.DeleteTenant(t.Context(), w.tenant.ID.String()))
	if w.sessionCounts(t, p) {
		t.Error("the session of a deleted tenant counts")
	}
}

func TestEndedSessionsAreForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 7 {
		w.session(t, "", -time.Second)
	}
	kept := w.session(t, "", time.Hour)
	var done []int
	for range 4 {
		done = append(done, must[int](t)(w.ForgetPortalSessions(t.Context(), 3)))
	}
	if !slices.Equal(done, []int{3, 3, 1, 0}) {
		t.Errorf("batches of 3 forgot %v", done)
	}
	if !w.sessionCounts(t, kept) {
		t.Error("a session within its time is gone")
	}
}

func TestApplicationSeesTheEventTypesItWasLetInto(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, flags := range map[string][]string{"all": nil, "empty": {}, "beta": {"beta"}, "both": {"beta", "gamma"}, "delta": {"delta"}} {
		_, err := w.view.CreateEventType(t.Context(), webhook.EventType{Name: name, FeatureFlags: flags})
		ok(t, err)
	}
	names := []string{"all", "beta", "both", "delta", "empty"}
	for _, c := range []struct {
		flags []string
		want  []string
	}{
		{nil, []string{"all", "empty"}}, {[]string{"other"}, []string{"all", "empty"}}, {[]string{"beta"}, []string{"all", "beta", "both", "empty"}},
		{[]string{"gamma", "delta"}, []string{"all", "both", "delta", "empty"}},
	} {
		v := w.View(webhook.Scope{Tenant: w.tenant.ID, Application: w.app.ID, FeatureFlags: c.flags})
		list, err := v.EventTypes(t.Context(), store.Page{Limit: 10}, false)
		ok(t, err)
		var have []string
		for _, e := range list.Data {
			have = append(have, e.Name)
		}
		if !slices.Equal(have, c.want) {
			t.Errorf("%v sees %v, want %v", c.flags, have, c.want)
		}
		for _, name := range names {
			_, err := v.EventType(t.Context(), name)
			if seen := err == nil; seen != slices.Contains(c.want, name) {
				t.Errorf("%v sees %s: %t", c.flags, name, seen)
			}
			_, err = v.CreateEndpoint(t.Context(), w.app.ID.String(), store.NewEndpoint{
				Endpoint: webhook.Endpoint{URL: "https://example.com/", EventTypes: []string{name}}, Secret: storetest.SigningKey(),
			})
			if known := err == nil; known != slices.Contains(c.want, name) {
				t.Errorf("%v subscribes to %s: %v", c.flags, name, err)
			}
		}
	}
	if l := must[store.List[webhook.EventType]](t)(w.view.EventTypes(t.Context(), store.Page{Limit: 10}, false)); len(l.Data) != len(names) {
		t.Errorf("the tenant sees %d", len(l.Data))
	}
}
