package worker

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// quick is a breaker that opens after three failures and probes ten times a second.
func quick(o *Options) {
	o.Breaker = webhook.Breaker{Failures: 3, MinWait: 100 * time.Millisecond, MaxWait: 200 * time.Millisecond}
}

// slowly makes retries wait for longer than a test takes.
func slowly(o *Options) { o.Policy = webhook.Policy{Schedule: []time.Duration{time.Hour, time.Hour}} }

func (p *platform) count(query string, args ...any) (n int) {
	p.t.Helper()
	if err := p.sql.QueryRow(p.t.Context(), `SELECT count(*) FROM `+query, args...).Scan(&n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// gated waits until the gates that match are as many as they should be.
func (p *platform) gated(want int, condition string, args ...any) {
	p.t.Helper()
	p.until("gates: "+condition, func() bool { return p.count("endpoint_gate WHERE "+condition, args...) == want })
}

// probe makes an endpoint's breaker one whose probe is under way.
func (p *platform) probe(e webhook.Endpoint) {
	p.t.Helper()
	p.exec(`INSERT INTO endpoint_gate (tenant_id, endpoint_id, state, since, reason, failures, next_at)
		VALUES ($1, $2, 3, now() - interval '1 s', 'dns', 7, now() + interval '1 h')
		ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET state = 3, next_at = excluded.next_at`, e.TenantID.UUID(), e.ID.UUID())
}

func TestAnEndpointThatFailsAgainAndAgainOpensItsBreaker(t *testing.T) {
	p := start(t, quick, slowly)
	bad := receive(t, status(503))
	good := receive(t, status(200))
	p.endpoint(good.URL)
	e := p.endpoint(bad.URL)
	p.publish(`1`)
	p.publish(`2`)
	p.until("two have failed", func() bool { return p.count("delivery WHERE state = 2") == 2 })
	p.gated(0, "true")
	p.publish(`3`)
	p.gated(1, "endpoint_id = $1 AND state IN (2, 3) AND reason = 'server_error' AND failures >= 3", e.ID.UUID())
}

func TestASuccessEndsAStreak(t *testing.T) {
	p := start(t, quick, slowly)
	var failing atomic.Bool
	r := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			w.WriteHeader(500)
		}
	})
	p.endpoint(r.URL)
	for _, fail := range []bool{true, true, false, true, true, false, true, true} {
		failing.Store(fail)
		before := p.count("attempt")
		p.publish(`{}`)
		p.until("it was attempted", func() bool { return p.count("attempt") > before })
	}
	if n := p.count("endpoint_gate"); n != 0 {
		t.Error("two failures between successes opened the breaker")
	}
	p.publish(`{}`)
	p.gated(1, "true")
}

func TestWhatAProbeMeansToItsBreaker(t *testing.T) {
	p := start(t, quick, slowly)
	var healthy atomic.Bool
	r := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(500)
		}
	})
	e := p.endpoint(r.URL)
	p.probe(e)
	m := p.publish(`{}`)
	p.until("the probe was recorded", func() bool { return p.count("attempt WHERE message_id = $1", m.ID.UUID()) > 0 })
	p.gated(1, "state IN (2, 3) AND failures >= 8 AND reason = 'server_error'")
	if n := p.count("delivery WHERE message_id = $1 AND attempt = 0", m.ID.UUID()); n != 1 {
		t.Error("the probe spent an attempt of its delivery")
	}
	healthy.Store(true)
	attempts := p.ended(m) // it is probed again and again by itself
	last := attempts[len(attempts)-1]
	if last.Status != webhook.StatusSuccess || last.Number != 1 || !last.Final || attempts[0].Number != 1 || attempts[0].Final {
		t.Errorf("attempts %+v", attempts)
	}
	p.gated(0, "true")
}

// An open breaker with nothing to try stays open, however long it is, and what comes then is the probe at
// once: not when a probe would have ended that never was.
func TestWhatComesToAnOpenBreakerWithNothingToTryIsItsProbe(t *testing.T) {
	p := start(t, quick, slowly)
	var healthy atomic.Bool
	r := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(500)
		}
	})
	p.endpoint(r.URL)
	for range 3 {
		p.publish(`{}`)
	}
	p.until("its probe was due", func() bool { return p.count("endpoint_wake WHERE resting_since IS NOT NULL") == 1 })
	p.gated(1, "state = 2 AND next_at <= now()")
	healthy.Store(true)
	began := time.Now()
	if a := p.ended(p.publish(`{}`)); len(a) != 1 || a[0].Status != webhook.StatusSuccess {
		t.Errorf("%+v", a)
	}
	if took := time.Since(began); took > webhook.LeaseMargin/2 {
		t.Errorf("it took %s", took)
	}
	p.gated(0, "true")
}

// A probe that ends without a request says nothing of the receiver: the breaker is as it was, and the
// next in line is tried at once.
func TestAProbeThatIsNotSentIsFollowedByAnother(t *testing.T) {
	p := assemble(t, quick, slowly)
	r := receive(t, status(200))
	e := p.endpoint(r.URL)
	m := p.publish(`{}`)
	p.until("it is queued", func() bool { n, err := p.queued(t.Context()); return err == nil && n > 0 })
	p.probe(e)
	p.exec(`UPDATE message SET payload = NULL`)
	p.run()
	attempts := p.ended(m)
	if len(attempts) != 1 || attempts[0].Class != webhook.ClassExpired {
		t.Fatalf("%+v", attempts)
	}
	p.gated(1, "failures = 7 AND reason = 'dns' AND next_at <= now() + interval '1 min'")
	if got, _ := r.requests(); len(got) != 0 {
		t.Error("it was sent")
	}
}

func TestWhatSaysNothingOfAReceiverOpensNoBreaker(t *testing.T) {
	b := &breaker{rule: webhook.Breaker{Failures: 1}, streaks: map[watched]*webhook.Streak{}}
	for _, class := range webhook.ErrorClasses {
		if webhook.HealthOf(class) == webhook.HealthUnknown {
			b.observe([]store.Recorded{{Attempt: webhook.Attempt{Class: class}}}, time.Now())
		}
	}
	if len(b.streaks) != 0 {
		t.Errorf("%d streaks", len(b.streaks))
	}
}

func TestStreaksAreBounded(t *testing.T) {
	b := &breaker{rule: webhook.DefaultBreaker, streaks: map[watched]*webhook.Streak{}}
	for range maxStreaks + 100 {
		b.observe([]store.Recorded{{
			Delivery: webhook.Delivery{DeliveryKey: webhook.DeliveryKey{Endpoint: webhook.NewEndpointID()}},
			Attempt:  webhook.Attempt{Class: webhook.ClassDNS},
		}}, time.Now())
	}
	if len(b.streaks) != maxStreaks {
		t.Errorf("%d streaks are kept, want %d", len(b.streaks), maxStreaks)
	}
}

// TestAnEndpointThatIsDownIsLeftAloneAndGetsEverythingWhenItIsBack is the whole way: a receiver that
// refuses everything, far more messages than attempts would last for, and then its return.
func TestAnEndpointThatIsDownIsLeftAloneAndGetsEverythingWhenItIsBack(t *testing.T) {
	p := start(t, quick, func(o *Options) {
		o.Policy = webhook.Policy{Schedule: []time.Duration{400 * time.Millisecond, 400 * time.Millisecond}}
	})
	var healthy atomic.Bool
	r := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		if !healthy.Load() {
			w.WriteHeader(503)
		}
	})
	arrived := func() int { got, _ := r.requests(); return len(got) }
	e := p.endpoint(r.URL)
	for range 3 {
		p.publish(`{}`)
	}
	p.gated(1, "true")
	const backlog = 60
	var owed []webhook.Message
	for range backlog {
		owed = append(owed, p.publish(`{}`))
	}
	// Several probes long, in which every delivery would have burnt all its attempts.
	p.gated(1, "failures >= 9 AND reason = 'server_error'")
	if n := arrived(); n > 12 {
		t.Errorf("%d requests arrived while the breaker was open", n)
	}
	if n := p.count("delivery WHERE attempt = 0"); n != backlog {
		t.Errorf("%d deliveries have spent nothing, want %d", n, backlog)
	}
	healthy.Store(true)
	p.drained()
	p.gated(0, "true")
	for _, m := range owed {
		attempts := p.ended(m)
		if last := attempts[len(attempts)-1]; last.Status != webhook.StatusSuccess || last.Number != 1 {
			t.Errorf("ended as %+v", last)
		}
	}
	if n := p.count("attempt WHERE final AND status = 0 AND endpoint_id = $1", e.ID.UUID()); n != backlog+3 {
		t.Errorf("%d were taken, want %d", n, backlog+3)
	}
}

func TestAPausedEndpointGetsNothingUntilItIsResumed(t *testing.T) {
	p := assemble(t, slowly)
	r := receive(t, status(200))
	e := p.endpoint(r.URL)
	p.publish(`"in the queue when it was paused"`)
	p.until("it is queued", func() bool { n, err := p.queued(t.Context()); return err == nil && n > 0 })
	if err := p.view.PauseEndpoint(t.Context(), p.app.ID.String(), e.ID.String(), "api"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		p.publish(`{}`)
	}
	p.run()
	p.until("all of it is parked", func() bool { return p.count("delivery WHERE state = 3") == 21 })
	if got, _ := r.requests(); len(got) != 0 {
		t.Errorf("%d requests arrived at a paused endpoint", len(got))
	}
	if err := p.view.ResumeEndpoint(t.Context(), p.app.ID.String(), e.ID.String()); err != nil {
		t.Fatal(err)
	}
	p.drained()
	if n := p.count("attempt WHERE number = 1 AND final AND status = 0"); n != 21 {
		t.Errorf("%d were taken at their first attempt, want 21", n)
	}
}

func TestWhatIsOpenIsCounted(t *testing.T) {
	p := assemble(t)
	e, other := p.endpoint("https://example.com/a"), p.endpoint("https://example.com/b")
	if err := p.view.PauseEndpoint(t.Context(), p.app.ID.String(), e.ID.String(), "api"); err != nil {
		t.Fatal(err)
	}
	p.publish(`{}`)
	p.publish(`{}`)
	p.exec(`UPDATE delivery SET state = 2, due_at = now() - interval '1 min' WHERE (endpoint_id, message_id) = (SELECT endpoint_id, message_id FROM delivery WHERE endpoint_id = $1 LIMIT 1)`, other.ID.UUID())
	p.until("tasks wait", func() bool { n, err := p.queued(t.Context()); return err == nil && n > 0 })
	c, err := p.store.Census(t.Context())
	if err != nil || c.Parked != 2 || c.Waiting != 1 || c.Released != 1 || c.Gates[webhook.GatePaused] != 1 || c.Overdue < time.Minute || c.Overdue > 2*time.Minute {
		t.Errorf("%+v, %v", c, err)
	}
	if err := p.worker.countOnce(t.Context()); err != nil {
		t.Error(err)
	}
}
