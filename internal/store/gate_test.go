package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

const someURL = "https://example.com/hook"

func streakOf(url string, failures int, classes ...webhook.ErrorClass) (s webhook.Streak) {
	if len(classes) == 0 {
		classes = []webhook.ErrorClass{webhook.ClassRefused}
	}
	for i := range failures {
		s.Fail(url, classes[i%len(classes)], time.Now())
	}
	return s
}

// gates is what a test asks of an endpoint's gate and wake, as one line: state, reason, failures, the
// wake's due time to the nearest second from now, and its take.
func (p *pipeline) gate(e webhook.Endpoint) string {
	p.t.Helper()
	var line string
	err := p.sql.QueryRow(p.t.Context(), `
		SELECT concat_ws(' ', COALESCE(g.state, 0), g.reason, g.failures, 'wake',
			CASE WHEN w.due_at = 'infinity' THEN 'never' ELSE round(extract(epoch FROM w.due_at - now()))::text END,
			'take', COALESCE(w.take::text, 'any'), CASE WHEN w.resting_since IS NOT NULL THEN 'resting' END)
		FROM (SELECT $1::uuid AS tenant_id, $2::uuid AS id) e
		LEFT JOIN endpoint_gate g ON g.tenant_id = e.tenant_id AND g.endpoint_id = e.id
		LEFT JOIN endpoint_wake w ON w.tenant_id = e.tenant_id AND w.endpoint_id = e.id`, e.TenantID.UUID(), e.ID.UUID()).Scan(&line)
	if err != nil {
		p.t.Fatal(err)
	}
	return line
}

func (p *pipeline) wantGate(say string, e webhook.Endpoint, want string) {
	p.t.Helper()
	if got := p.gate(e); got != want {
		p.t.Errorf("%s: %q, want %q", say, got, want)
	}
}

// did fails unless a change of a gate reports what it did.
func did(t *testing.T, want bool) func(bool, error) {
	t.Helper()
	return func(changed bool, err error) {
		t.Helper()
		if err != nil || changed != want {
			t.Fatalf("changed %t, %v; want %t", changed, err, want)
		}
	}
}

func (p *pipeline) OpenBreaker(ctx context.Context, tenant webhook.TenantID, e webhook.EndpointID, streak webhook.Streak, wait time.Duration) (bool, error) {
	return storetest.OpenBreaker(ctx, p.Store, tenant, e, streak, wait)
}

func (p *pipeline) CloseBreaker(ctx context.Context, tenant webhook.TenantID, e webhook.EndpointID) (bool, error) {
	return storetest.CloseBreaker(ctx, p.Store, tenant, e)
}

func (p *pipeline) ProbeFailed(ctx context.Context, tenant webhook.TenantID, e webhook.EndpointID, class webhook.ErrorClass, wait time.Duration) (bool, error) {
	return storetest.Turn(ctx, p.Store, store.Turn{Kind: store.TurnProbeFailed, Tenant: tenant, Endpoint: e, Reason: class, Wait: wait})
}

func (p *pipeline) ProbeAgain(ctx context.Context, tenant webhook.TenantID, e webhook.EndpointID) (bool, error) {
	return storetest.Turn(ctx, p.Store, store.Turn{Kind: store.TurnProbeAgain, Tenant: tenant, Endpoint: e})
}

func (p *pipeline) pause(e webhook.Endpoint) {
	p.t.Helper()
	ok(p.t, p.view.PauseEndpoint(p.t.Context(), p.app.ID.String(), e.ID.String(), "api"))
}

func (p *pipeline) resume(e webhook.Endpoint) {
	p.t.Helper()
	ok(p.t, p.view.ResumeEndpoint(p.t.Context(), p.app.ID.String(), e.ID.String()))
}

func (p *pipeline) patch(e webhook.Endpoint, change func(*store.NewEndpoint)) {
	p.t.Helper()
	_, err := p.view.PatchEndpoint(p.t.Context(), p.app.ID.String(), e.ID.String(), func(e *store.NewEndpoint) error {
		change(e)
		return nil
	})
	ok(p.t, err)
}

func TestABreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	ctx, e, other := t.Context(), p.endpoint(), p.endpoint()
	id := e.ID
	streak := streakOf(someURL, 12, webhook.ClassDNS, webhook.ClassRefused, webhook.ClassRefused)
	did(t, true)(p.OpenBreaker(ctx, p.tenant, id, streak, 2*time.Second))
	p.wantGate("opened", e, "2 connection_refused 12 wake 2 take any")
	did(t, false)(p.OpenBreaker(ctx, p.tenant, id, streakOf(someURL, 99), time.Hour))
	did(t, false)(p.ProbeFailed(ctx, p.tenant, id, webhook.ClassDNS, time.Hour)) // no probe is under way
	did(t, false)(p.ProbeAgain(ctx, p.tenant, id))
	p.wantGate("still open", e, "2 connection_refused 12 wake 2 take any")

	p.exec(`UPDATE endpoint_gate SET state = 3`)
	did(t, true)(p.ProbeFailed(ctx, p.tenant, id, webhook.ClassServerError, 30*time.Second))
	p.wantGate("the probe failed", e, "2 server_error 13 wake 30 take any")
	did(t, false)(p.ProbeFailed(ctx, p.tenant, id, webhook.ClassDNS, time.Hour)) // of another worker, at the same time
	p.exec(`UPDATE endpoint_gate SET state = 3`)
	did(t, true)(p.ProbeAgain(ctx, p.tenant, id))
	p.wantGate("the probe was never sent", e, "2 server_error 13 wake 0 take any")

	p.exec(`UPDATE endpoint_gate SET state = 3`)
	did(t, true)(p.CloseBreaker(ctx, p.tenant, id))
	p.wantGate("closed", e, "0 wake 0 take 8")
	did(t, false)(p.CloseBreaker(ctx, p.tenant, id))
	p.wantGate("another endpoint", other, "0 wake take any")
}

func TestABreakerOpensForWhatFailedOnly(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	disabled, deleted, moved := p.endpoint(func(e *webhook.Endpoint) { e.Disabled = true }), p.endpoint(), p.endpoint()
	ok(t, p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), deleted.ID.String()))
	for say, e := range map[string]webhook.Endpoint{"disabled": disabled, "deleted": deleted} {
		did(t, false)(p.OpenBreaker(t.Context(), p.tenant, e.ID, streakOf(someURL, 10), time.Second))
		p.wantGate(say, e, "0 wake take any")
	}
	did(t, false)(p.OpenBreaker(t.Context(), p.tenant, moved.ID, streakOf("https://example.com/before", 10), time.Second))
	p.wantGate("another URL", moved, "0 wake take any")
	stranger := p.endpoint()
	did(t, false)(p.OpenBreaker(t.Context(), webhook.NewTenantID(), stranger.ID, streakOf(someURL, 10), time.Second))
}

func TestAPauseTakesThePlaceOfABreaker(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	ctx, e := t.Context(), p.endpoint()
	p.pause(e)
	p.wantGate("paused", e, "1 api 0 wake never take any")
	p.exec(`UPDATE endpoint_gate SET since = since - interval '1 hour'`)
	p.pause(e)
	if n := p.count(`endpoint_gate WHERE since < now() - interval '59 min'`); n != 1 {
		t.Error("paused again, it begins anew")
	}
	did(t, false)(p.OpenBreaker(ctx, p.tenant, e.ID, streakOf(someURL, 10), time.Second))
	did(t, false)(p.ProbeFailed(ctx, p.tenant, e.ID, webhook.ClassDNS, time.Second))
	did(t, false)(p.ProbeAgain(ctx, p.tenant, e.ID))
	did(t, false)(p.CloseBreaker(ctx, p.tenant, e.ID))
	p.wantGate("still paused", e, "1 api 0 wake never take any")
	p.resume(e)
	p.wantGate("resumed", e, "0 wake 0 take 8")
	p.exec(`UPDATE endpoint_wake SET take = 77`)
	p.resume(e)
	p.wantGate("resumed again", e, "0 wake 0 take 77")

	did(t, true)(p.OpenBreaker(ctx, p.tenant, e.ID, streakOf(someURL, 10), time.Hour))
	p.resume(e)
	p.wantGate("an open one is probed at once", e, "2 connection_refused 10 wake 0 take any")
	p.pause(e)
	p.wantGate("an open one is paused", e, "1 api 0 wake never take any")
	if n := p.count(`endpoint_gate WHERE next_at IS NULL`); n != 1 {
		t.Error("a pause has a next probe")
	}
}

func TestWhatAChangeOfTheEndpointMeansToItsGate(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	open := func(e webhook.Endpoint) {
		t.Helper()
		did(t, true)(p.OpenBreaker(t.Context(), p.tenant, e.ID, streakOf(someURL, 10), time.Hour))
	}
	e := p.endpoint()
	open(e)
	p.patch(e, func(e *store.NewEndpoint) { e.Description = "changed" })
	p.wantGate("something else", e, "2 connection_refused 10 wake 3600 take any")
	p.patch(e, func(e *store.NewEndpoint) { e.URL = "https://example.com/new" })
	p.wantGate("another URL", e, "0 wake 0 take 8")
	p.patch(e, func(e *store.NewEndpoint) { e.URL = someURL })
	open(e)
	p.patch(e, func(e *store.NewEndpoint) { e.Disabled = true })
	p.wantGate("disabled", e, "0 wake 0 take any")
	p.exec(`INSERT INTO endpoint_gate (tenant_id, endpoint_id, state, since, reason, next_at) VALUES ($1, $2, 3, now(), 'dns', now())`,
		p.tenant.UUID(), e.ID.UUID())
	p.patch(e, func(e *store.NewEndpoint) { e.Disabled = false })
	p.wantGate("enabled", e, "0 wake 0 take 8")

	p.pause(e)
	p.patch(e, func(e *store.NewEndpoint) { e.URL, e.Disabled = "https://example.com/new", true })
	p.patch(e, func(e *store.NewEndpoint) { e.Disabled = false })
	p.wantGate("a pause stays", e, "1 api 0 wake never take any")

	kept := p.endpoint()
	p.pause(kept)
	ok(t, p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), e.ID.String()))
	p.wantGate("deleted", e, "0 wake 0 take any")
	p.wantGate("another one", kept, "1 api 0 wake never take any")
	ok(t, p.view.DeleteApplication(t.Context(), p.app.ID.String()))
	p.wantGate("deleted with its application", kept, "0 wake 0 take any")
}

func TestAcceptParksWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	paused, open, free := p.endpoint(), p.endpoint(), p.endpoint()
	p.pause(paused)
	did(t, true)(p.OpenBreaker(t.Context(), p.tenant, open.ID, streakOf(someURL, 10), time.Hour))
	p.accept(released, p.message(), p.message())
	for e, state := range map[webhook.EndpointID]int{paused.ID: 3, open.ID: 3, free.ID: 1} {
		if n := p.count(`delivery WHERE endpoint_id = $1 AND state = $2`, e.UUID(), state); n != 2 {
			t.Errorf("endpoint %v: %d are in state %d, want 2", e, n, state)
		}
	}
	p.wantGate("paused", paused, "1 api 0 wake never take any")
	p.wantGate("open", open, "2 connection_refused 10 wake 3600 take any")
}

func TestAProbesFailureSpendsNothing(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	p.endpoint()
	p.endpoint()
	p.endpoint()
	deliveries := p.accept(released, p.message())[0].Deliveries
	manual := deliveries[2]
	p.exec(`UPDATE delivery SET trigger = 1 WHERE endpoint_id = $1`, manual.Endpoint.UUID())
	manual.Trigger = webhook.TriggerManual
	free := webhook.Outcome{Wait: time.Minute, Free: true}
	p.record(p.result(deliveries[0], false, free), p.result(deliveries[1], false, webhook.Outcome{Wait: time.Hour}), p.result(manual, false, free))
	for _, c := range []struct {
		d             webhook.Delivery
		attempt, feed int
		wait          string
	}{{deliveries[0], 0, 1, "1 min"}, {deliveries[1], 1, 0, "1 hour"}, {manual, 0, 1, "1 min"}} {
		if n := p.count(`delivery WHERE endpoint_id = $1 AND state = 2 AND attempt = $2 AND feed = $3
			AND due_at BETWEEN now() + $4::interval - interval '5 s' AND now() + $4::interval`, c.d.Endpoint.UUID(), c.attempt, c.feed, c.wait); n != 1 {
			t.Errorf("%+v is not in its wait", c)
		}
	}
	if n := p.count(`attempt WHERE sent AND NOT final`); n != 3 {
		t.Errorf("%d attempts are shown, want 3", n)
	}
	// Its fence must not come again: the old task is stale once it is handed out anew.
	p.exec(`UPDATE delivery SET due_at = now()`)
	fed, _, _, err := p.FeedDue(t.Context(), store.Scan{}, 10, lease)
	if err != nil || len(fed) != 3 {
		t.Fatal(fed, err)
	}
	for _, f := range fed {
		if f.DeliveryKey == deliveries[0].DeliveryKey && f.Fence != (webhook.Fence{Attempt: 0, Feed: 2}) {
			t.Errorf("fence %+v", f.Fence)
		}
	}
	p.record(p.result(deliveries[0], false, over))
	if n := p.count(`delivery WHERE endpoint_id = $1 AND state = 1`, deliveries[0].Endpoint.UUID()); n != 1 {
		t.Error("a late failure of the first probe ended the delivery")
	}
	last := deliveries[1]
	last.Fence = webhook.Fence{Attempt: 1, Feed: 32000}
	p.exec(`UPDATE delivery SET feed = 32000 WHERE endpoint_id = $1`, last.Endpoint.UUID())
	p.record(p.result(last, false, free))
	if n := p.count(`delivery WHERE endpoint_id = $1 AND attempt = 1 AND feed = 0 AND state = 2`, last.Endpoint.UUID()); n != 1 {
		t.Error("the number of handings-out runs out of its column")
	}
}

func TestJobsKnowTheGate(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	none, paused, open := p.endpoint(), p.endpoint(), p.endpoint()
	a := p.accept(released, p.message())[0]
	p.pause(paused)
	did(t, true)(p.OpenBreaker(t.Context(), p.tenant, open.ID, streakOf(someURL, 10), time.Hour))
	p.exec(`UPDATE endpoint_gate SET since = now() - interval '10 min' WHERE endpoint_id = $1`, open.ID.UUID())
	jobs, err := p.Jobs(t.Context(), a.Deliveries)
	ok(t, err)
	want := map[webhook.EndpointID]webhook.GateState{none.ID: webhook.GateNone, paused.ID: webhook.GatePaused, open.ID: webhook.GateOpen}
	for _, j := range jobs {
		if j.Gate != want[j.Endpoint.ID] {
			t.Errorf("gate %d, want %d", j.Gate, want[j.Endpoint.ID])
		}
		if j.Gate == webhook.GateOpen && (j.GateAge < 10*time.Minute || j.GateAge > 11*time.Minute) {
			t.Errorf("open for %s", j.GateAge)
		}
	}
}
