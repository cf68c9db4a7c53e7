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
	p.probe(e)
	p.exec(`UPDATE delivery SET state = 2, due_at = now(), feed = feed + 1`)
	attempts := p.ended(m)
	last := attempts[len(attempts)-1]
	if last.Status != webhook.StatusSuccess || last.Number != 1 || !last.Final || attempts[0].Number != 1 || attempts[0].Final {
		t.Errorf("attempts %+v", attempts)
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
	b := &breaker{rule: webhook.Breaker{Failures: 1}, streaks: map[target]*webhook.Streak{}}
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
	b := &breaker{rule: webhook.DefaultBreaker, streaks: map[target]*webhook.Streak{}}
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
