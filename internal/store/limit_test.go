package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// With the commit that changes a plan, or what a tenant has beside it, the limits of all who are
// concerned are what comes of both.
func TestPlansReachTheirTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	pro := webhook.Limits{DeliverRate: 100, MaxEndpoints: 5, Weight: 3}
	made, created, err := w.PutPlan(ctx, "pro", pro)
	ok(t, err)
	if !created || made.Limits != pro || made.CreatedAt.IsZero() {
		t.Errorf("made %t %+v", created, made)
	}
	plain, _, err := w.CreateTenant(ctx, webhook.Tenant{Name: "plain", Plan: "pro"})
	ok(t, err)
	other, _, err := w.CreateTenant(ctx, webhook.Tenant{Name: "other", Plan: "pro", Limits: webhook.Limits{MaxEndpoints: 9}})
	ok(t, err)
	none := storetest.Tenant(t, w.Store)
	check := func(tenant webhook.Tenant, want webhook.Limits) {
		t.Helper()
		read := must[webhook.Tenant](t)(w.Tenant(ctx, tenant.ID.String()))
		if read.Effective != want {
			t.Errorf("%s has %+v, want %+v", tenant.Name, read.Effective, want)
		}
	}
	check(plain, pro)
	check(other, webhook.Limits{DeliverRate: 100, MaxEndpoints: 9, Weight: 3})
	check(none, webhook.Limits{Weight: 1})

	changed, created, err := w.PutPlan(ctx, "pro", webhook.Limits{PublishRate: 7, MaxEndpoints: 6})
	ok(t, err)
	if created || !changed.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("changed %t %+v", created, changed)
	}
	check(plain, webhook.Limits{PublishRate: 7, MaxEndpoints: 6, Weight: 1})
	check(other, webhook.Limits{PublishRate: 7, MaxEndpoints: 9, Weight: 1})
	check(none, webhook.Limits{Weight: 1})
	if n := one[int](t, w.sql, `SELECT count(*) FROM tenant WHERE deliver_rate IS NULL AND publish_rate = 7 AND publish_burst IS NULL`); n != 2 {
		t.Errorf("what is not limited is NULL in %d rows", n)
	}

	_, err = w.PatchTenant(ctx, other.ID.String(), func(t *webhook.Tenant) error { t.Limits = webhook.Limits{KeyRate: 2}; return nil })
	ok(t, err)
	check(other, webhook.Limits{PublishRate: 7, KeyRate: 2, MaxEndpoints: 6, Weight: 1})
	_, err = w.PatchTenant(ctx, other.ID.String(), func(t *webhook.Tenant) error { t.Plan = ""; return nil })
	ok(t, err)
	check(other, webhook.Limits{KeyRate: 2, Weight: 1})

	_, err = w.PatchTenant(ctx, other.ID.String(), func(t *webhook.Tenant) error { t.Plan = "nothing"; return nil })
	wantKind(t, err, webhook.KindInvalid)
	_, _, err = w.CreateTenant(ctx, webhook.Tenant{Name: "x", Plan: "nothing"})
	wantKind(t, err, webhook.KindInvalid)

	wantKind(t, w.DeletePlan(ctx, "pro"), webhook.KindConflict)
	ok(t, w.DeleteTenant(ctx, plain.ID.String()))
	ok(t, w.DeletePlan(ctx, "pro")) // only who is deleted had it
	if err := w.DeletePlan(ctx, "pro"); !errors.Is(err, webhook.ErrNotFound) {
		t.Error(err)
	}
	if _, err := w.Plan(ctx, "pro"); !errors.Is(err, webhook.ErrNotFound) {
		t.Error(err)
	}
}

func TestPlansAreListedByName(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"b", "a", "c"} {
		_, _, err := w.PutPlan(t.Context(), name, webhook.Limits{})
		ok(t, err)
	}
	l := must[store.List[webhook.Plan]](t)(w.Plans(t.Context(), store.Page{Limit: 2}))
	rest := must[store.List[webhook.Plan]](t)(w.Plans(t.Context(), store.Page{Limit: 2, Iterator: l.Data[1].Name}))
	if got := fmt.Sprintln(l.Data[0].Name, l.Data[1].Name, l.Done, rest.Data[0].Name, rest.Done); got != "a b false c true\n" {
		t.Error(got)
	}
}

// Whoever changes plans and tenants at the same time, each tenant ends with what comes of the last of both.
func TestPlansAndTenantsChangeTogether(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	_, _, err := w.PutPlan(ctx, "p", webhook.Limits{})
	ok(t, err)
	tenant, _, err := w.CreateTenant(ctx, webhook.Tenant{Name: "t", Plan: "p"})
	ok(t, err)
	var group sync.WaitGroup
	for i := range 10 {
		group.Go(func() {
			if _, _, err := w.PutPlan(ctx, "p", webhook.Limits{DeliverRate: i + 1}); err != nil {
				t.Error(err)
			}
		})
		group.Go(func() {
			_, err := w.PatchTenant(ctx, tenant.ID.String(), func(t *webhook.Tenant) error { t.Limits = webhook.Limits{KeyRate: i + 1}; return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	plan, read := must[webhook.Plan](t)(w.Plan(ctx, "p")), must[webhook.Tenant](t)(w.Tenant(ctx, tenant.ID.String()))
	if want := read.Limits.Over(plan.Limits); read.Effective != want || read.Effective.KeyRate == 0 || read.Effective.DeliverRate == 0 {
		t.Errorf("has %+v, want %+v", read.Effective, want)
	}
}

// A tenant may have as many endpoints as its limits say, and not one more, however many ask at once and
// in whichever application.
func TestEndpointsOfATenantAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	tenant, _, err := w.CreateTenant(ctx, webhook.Tenant{Name: "t", Limits: webhook.Limits{MaxEndpoints: 3}})
	ok(t, err)
	view := w.View(webhook.Scope{Tenant: tenant.ID})
	apps := []string{storetest.Application(t, w.Store, tenant.ID).ID.String(), storetest.Application(t, w.Store, tenant.ID).ID.String()}
	endpoint := func() store.NewEndpoint {
		return store.NewEndpoint{Endpoint: webhook.Endpoint{URL: "https://example.com/"}, Secret: storetest.SigningKey()}
	}
	var group sync.WaitGroup
	errs := make(chan error, 8)
	for i := range cap(errs) {
		group.Go(func() {
			if i%2 == 0 {
				_, err := view.CreateEndpoint(ctx, apps[i/2%2], endpoint())
				errs <- err
				return
			}
			_, _, err := view.ReplaceEndpoint(ctx, apps[i/2%2], fmt.Sprint("e", i), endpoint())
			errs <- err
		})
	}
	group.Wait()
	close(errs)
	made := 0
	for err := range errs {
		if err == nil {
			made++
			continue
		}
		wantKind(t, err, webhook.KindConflict)
	}
	if made != 3 {
		t.Errorf("%d endpoints were made", made)
	}
	l := must[store.List[webhook.Endpoint]](t)(view.Endpoints(ctx, apps[0], store.Page{}))
	other := must[store.List[webhook.Endpoint]](t)(view.Endpoints(ctx, apps[1], store.Page{}))
	gone := append(l.Data, other.Data...)[0]
	ok(t, view.DeleteEndpoint(ctx, gone.ApplicationID.String(), gone.ID.String()))
	must[webhook.Endpoint](t)(view.CreateEndpoint(ctx, apps[0], endpoint()))
	_, err = view.CreateEndpoint(ctx, apps[1], endpoint())
	wantKind(t, err, webhook.KindConflict)
	if _, u, err := view.Usage(ctx); err != nil || u.Endpoints != 3 {
		t.Errorf("uses %+v, %v", u, err)
	}
}

// The first look at a day counts what there is; from then on it is what was added.
func TestADaysMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	now := time.Now()
	begin, _ := webhook.Day(now)
	for range 3 {
		w.putMessage(t, webhook.Message{TenantID: w.tenant.ID, ApplicationID: w.app.ID, Payload: []byte(`{}`)})
	}
	other := storetest.Tenant(t, w.Store)
	for range 2 {
		if n, err := w.MessagesOn(ctx, w.tenant.ID, now); n != 3 || err != nil {
			t.Errorf("%d messages, %v", n, err)
		}
		if n, err := w.MessagesOn(ctx, other.ID, now); n != 0 || err != nil {
			t.Errorf("another's: %d messages, %v", n, err)
		}
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 5 {
				if _, err := w.AddUsage(ctx, []store.Used{{w.tenant.ID, begin, 2}, {other.ID, begin, 1}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	totals, err := w.AddUsage(ctx, []store.Used{{other.ID, begin, 0}, {w.tenant.ID, begin, 0}, {w.tenant.ID, begin.AddDate(0, 0, 1), 7}})
	ok(t, err)
	if fmt.Sprint(totals) != "[20 43 7]" {
		t.Errorf("totals %v", totals)
	}
	w.exec(t, `UPDATE tenant_usage SET day = day - 40 WHERE tenant_id = $1`, w.tenant.ID.UUID())
	if n, err := w.MessagesOn(ctx, w.tenant.ID, now); n != 3 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM tenant_usage WHERE tenant_id = $1`, w.tenant.ID.UUID()); n != 1 {
		t.Errorf("%d days are kept", n)
	}
}
