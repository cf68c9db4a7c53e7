package worker

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// maxStreaks is how many failing endpoints one process keeps in mind; of more it forgets one.
	maxStreaks = 16384
	// turnTimeout bounds the write of a batch of turns.
	turnTimeout = 5 * time.Second
	// probeLead is the share of the time until the next probe by which a delivery whose probe failed is
	// due earlier than that: by then it is parked, and can be the next probe.
	probeLead = 4
)

// turns bounds what waits to be written. What is refused comes again: an endpoint goes on failing, and
// a probe that is not heard of is repeated.
var turns = groupcommit.Options{BatchItems: 512, BatchSize: 512, WaitingItems: 1 << 15, WaitingSize: 1 << 15}

// breaker watches results for endpoints that fail again and again, and turns their breakers. It is told
// of results after they were recorded, by one goroutine; a healthy endpoint costs it nothing.
type breaker struct {
	rule    webhook.Breaker
	store   *store.Store
	metrics *telemetry.Metrics
	warn    func(msg string, args ...any)
	info    func(msg string, args ...any)
	streaks map[watched]*webhook.Streak // of endpoints whose last attempt failed
	turns   *groupcommit.Group[turn]
}

// watched is an endpoint and whose it is.
type watched struct {
	tenant   webhook.TenantID
	endpoint webhook.EndpointID
}

// turn is what is to become of an endpoint's breaker.
type turn struct {
	watched
	kind   telemetry.BreakerTurn
	streak webhook.Streak     // of one that opens
	class  webhook.ErrorClass // of a probe that failed
	at     time.Time          // of the next probe
}

// watch starts a breaker; close must be called.
func (w *Worker) watch() *breaker {
	b := &breaker{
		rule: w.o.Breaker, store: w.o.Store, metrics: w.o.Metrics, warn: w.o.Logger.Warn, info: w.o.Logger.Info,
		streaks: make(map[watched]*webhook.Streak),
	}
	b.turns = groupcommit.New(turns, b.write)
	return b
}

// close writes the turns that wait and returns.
func (b *breaker) close() { b.turns.Close() }

// probing reports whether a job is the probe of an open breaker.
func probing(j *store.Job) bool { return j.Gate == webhook.GateProbing }

// afterProbe is what follows the failed probe of a breaker that has been open for so long: its delivery
// has spent nothing, and waits until shortly before the next probe, which is after wait.
func (w *Worker) afterProbe(open, took time.Duration) (wait time.Duration, next webhook.Outcome) {
	wait = w.o.Breaker.NextProbe(open, took, rand.Float64())
	return wait, webhook.Outcome{Wait: wait - wait/probeLead, Free: true}
}

// observe takes in a batch of recorded results. Of results that came together the good ones count last:
// they are in no order, and a receiver that took anything is not dead.
func (b *breaker) observe(batch []store.Recorded, now time.Time) {
	failed := make(map[watched]time.Duration) // and how long the last attempt took
	for i := range batch {
		r := &batch[i]
		if r.Probe {
			b.probed(r)
		} else if webhook.HealthOf(r.Attempt.Class) == webhook.HealthBad {
			failed[b.fail(r, now)] = r.Attempt.Duration
		}
	}
	if len(b.streaks) == 0 {
		return
	}
	for i := range batch {
		if r := &batch[i]; webhook.HealthOf(r.Attempt.Class) == webhook.HealthGood {
			delete(b.streaks, watched{r.Delivery.Tenant, r.Delivery.Endpoint})
		}
	}
	for who, took := range failed {
		if s := b.streaks[who]; s != nil && b.rule.Opens(*s, now) {
			delete(b.streaks, who)
			b.add(turn{watched: who, kind: telemetry.BreakerOpened, streak: *s, at: now.Add(b.rule.NextProbe(0, took, rand.Float64()))})
		}
	}
}

func (b *breaker) fail(r *store.Recorded, now time.Time) watched {
	who := watched{r.Delivery.Tenant, r.Delivery.Endpoint}
	s := b.streaks[who]
	if s == nil {
		if len(b.streaks) >= maxStreaks {
			for other := range b.streaks {
				delete(b.streaks, other)
				break
			}
		}
		s = new(webhook.Streak)
		b.streaks[who] = s
	}
	s.Fail(r.Attempt.URL, r.Attempt.Class, now)
	return who
}

// probed says what a probe that has ended means to its breaker. One that was never sent, because its
// message has expired for instance, says nothing: the next in line is tried.
func (b *breaker) probed(r *store.Recorded) {
	t := turn{watched: watched{r.Delivery.Tenant, r.Delivery.Endpoint}, class: r.Attempt.Class}
	switch {
	case r.Attempt.Class == webhook.ClassNone:
		t.kind = telemetry.BreakerClosed
	case r.Outcome.Free && r.Attempt.Detail.NextAttempt != nil:
		t.kind, t.at = telemetry.BreakerProbeFailed, *r.Attempt.Detail.NextAttempt
	default:
		t.kind = telemetry.BreakerProbeUnsent
	}
	b.add(t)
}

// unsent has an endpoint probed after a while whose probe was put back: there is no place for it.
func (b *breaker) unsent(d webhook.Delivery, wait time.Duration) {
	b.add(turn{watched: watched{d.Tenant, d.Endpoint}, kind: telemetry.BreakerProbeUnsent, at: time.Now().Add(wait)})
}

func (b *breaker) add(t turn) {
	if err := b.turns.Add(t, 1); err != nil {
		b.warn("a breaker was not turned; the next result will", "endpoint", t.endpoint.String(), "turn", string(t.kind), "error", err)
	}
}

// write turns breakers, apart from the results: no delivery waits for it.
func (b *breaker) write(batch []turn) {
	ctx, cancel := context.WithTimeout(context.Background(), turnTimeout)
	defer cancel()
	turns := make([]store.Turn, len(batch))
	for i, t := range batch {
		turns[i] = t.stored()
	}
	turned, err := b.store.TurnBreakers(ctx, turns)
	if err != nil {
		b.warn("breakers were not turned; the next results will", "count", len(batch), "error", err)
	}
	for i, t := range batch {
		if !turned[i] {
			continue
		}
		b.metrics.Breaker(t.kind)
		if t.kind == telemetry.BreakerOpened {
			b.info("breaker opened", "tenant", t.tenant.String(), "endpoint", t.endpoint.String(),
				"failures", t.streak.Failures, "class", string(t.streak.Reason()))
		}
		if t.kind == telemetry.BreakerClosed {
			b.info("breaker closed", "tenant", t.tenant.String(), "endpoint", t.endpoint.String())
		}
	}
}

// stored is a turn as the store takes it.
func (t turn) stored() store.Turn {
	out := store.Turn{Tenant: t.tenant, Endpoint: t.endpoint, Wait: max(0, time.Until(t.at))}
	switch t.kind {
	case telemetry.BreakerOpened:
		out.Kind, out.URL, out.Reason, out.Failures = store.TurnOpen, t.streak.URL, t.streak.Reason(), t.streak.Failures
	case telemetry.BreakerProbeFailed:
		out.Kind, out.Reason = store.TurnProbeFailed, t.class
	case telemetry.BreakerProbeUnsent:
		out.Kind = store.TurnProbeAgain
	case telemetry.BreakerClosed:
		out.Kind = store.TurnClose
	}
	return out
}
