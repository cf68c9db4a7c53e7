package dispatch

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// modelSteps is how many operations the feeder is compared with its model over, at least.
const modelSteps = 10_000

// ruledLimiter keeps limits by the pure rule, at a time that the test sets.
type ruledLimiter struct {
	now     int64 // microseconds
	buckets map[ratelimit.Key]ratelimit.Bucket
}

func (l *ruledLimiter) each(w ratelimit.Want, do func(buckets []ratelimit.Bucket, rates []ratelimit.Rate)) {
	buckets, rates := make([]ratelimit.Bucket, len(w.Limits)), make([]ratelimit.Rate, len(w.Limits))
	for i, limit := range w.Limits {
		buckets[i], rates[i] = l.buckets[limit.On], limit.Rate
	}
	do(buckets, rates)
	for i, limit := range w.Limits {
		l.buckets[limit.On] = buckets[i]
	}
}

func (l *ruledLimiter) Take(_ context.Context, wants []ratelimit.Want) ([]ratelimit.Grant, error) {
	grants := make([]ratelimit.Grant, len(wants))
	for i, w := range wants {
		l.each(w, func(b []ratelimit.Bucket, r []ratelimit.Rate) { grants[i] = ratelimit.Take(b, r, w.N, l.now) })
	}
	return grants, nil
}

func (l *ruledLimiter) GiveBack(_ context.Context, wants []ratelimit.Want) error {
	for _, w := range wants {
		l.each(w, func(b []ratelimit.Bucket, r []ratelimit.Rate) { ratelimit.GiveBack(b, r, w.N, l.now) })
	}
	return nil
}

// modelled is what the model knows of an endpoint.
type modelled struct {
	webhook.Endpoint
	paused bool
	open   bool // its breaker, or a probe is under way
	// What a limit had let through when it last did, never more than its burst since, and how long ago that
	// is. A bucket drains when it is asked, by the rate of then and for all the time since: at the least what
	// is left of it after the fastest rate there was.
	rate    webhook.Rate
	fastest int
	level   float64
	since   time.Duration
}

// used is what the endpoint's limit has let through and not yet drained, at the least.
func (e *modelled) used() float64 {
	return max(0, min(e.level, float64(burstOf(e.rate)))-float64(e.fastest)*e.since.Seconds())
}

// model is what there should be, in memory.
type model struct {
	*rig
	rt        *rapid.T
	feeder    *Feeder
	limiter   *ruledLimiter
	scan      store.Scan
	endpoints []*modelled
	open      map[webhook.DeliveryKey]webhook.State
	fences    map[webhook.DeliveryKey]webhook.Fence // of those that are released
}

func (m *model) any() *modelled { return rapid.SampledFrom(m.endpoints).Draw(m.rt, "endpoint") }

func (m *model) of(id webhook.EndpointID) *modelled {
	for _, e := range m.endpoints {
		if e.ID == id {
			return e
		}
	}
	m.rt.Fatalf("there is no endpoint %v", id)
	return nil
}

// oneReleased is some delivery that is released.
func (m *model) oneReleased() (webhook.Delivery, bool) {
	for key, fence := range m.fences { // any will do
		return webhook.Delivery{DeliveryKey: key, Fence: fence, Lane: webhook.LaneFed}, true
	}
	return webhook.Delivery{}, false
}

func (m *model) check(err error) {
	if err != nil {
		m.rt.Fatal(err)
	}
}

func (m *model) accept() {
	e, atOnce := m.any(), rapid.Bool().Draw(m.rt, "released")
	batch := make([]store.Accept, rapid.IntRange(1, 4).Draw(m.rt, "messages"))
	for i := range batch {
		batch[i] = store.Accept{Application: e.ApplicationID.String(), Message: webhook.Message{
			TenantID: e.TenantID, ID: webhook.NewMessageID(), EventType: "e", Payload: []byte(`{}`), ExpiresAt: time.Now().Add(time.Hour),
		}}
	}
	for _, a := range m.store.Accept(m.t.Context(), batch, store.Release{Released: atOnce, Lease: lease}) {
		m.check(a.Err)
		for i, d := range a.Deliveries {
			to := m.of(d.Endpoint)
			if limited := a.Rates != nil && a.Rates[i].Endpoint.PerSecond > 0; limited != (to.rate.PerSecond > 0) {
				m.rt.Fatalf("accept says limited %v, but it is %v", limited, !limited)
			}
			switch {
			case d.Feed == 0:
				m.open[d.DeliveryKey] = webhook.StateParked
			case to.paused || !atOnce:
				m.rt.Fatalf("%v was released at once", d)
			default:
				m.open[d.DeliveryKey], m.fences[d.DeliveryKey] = webhook.StateReleased, d.Fence
			}
		}
	}
}

// fed takes in what a look released.
func (m *model) fed(list []store.Fed, from webhook.State) {
	for _, d := range list {
		if was := m.open[d.DeliveryKey]; from != 0 && was != from || was == 0 {
			m.rt.Fatalf("%v was released from state %d", d, was)
		}
		m.open[d.DeliveryKey], m.fences[d.DeliveryKey] = webhook.StateReleased, d.Fence
	}
}

func (m *model) look() {
	room := rapid.IntRange(1, 12).Draw(m.rt, "room")
	found, err := m.feeder.FeedWakes(m.t.Context(), room, lease)
	m.check(err)
	if len(found.Fed) > room {
		m.rt.Fatalf("%d released where there is room for %d", len(found.Fed), room)
	}
	count := make(map[*modelled]int)
	for _, d := range found.Fed {
		count[m.of(d.Endpoint)]++
	}
	for _, e := range m.endpoints {
		n := count[e]
		switch {
		case e.paused && n > 0:
			m.rt.Fatalf("%d released to a paused endpoint", n)
		case e.open && n > 1:
			m.rt.Fatalf("%d released as one probe", n)
		case e.open || e.rate.PerSecond == 0: // a probe asks no limit
		case float64(n) > float64(burstOf(e.rate))-e.used()+0.001:
			m.rt.Fatalf("%d released under %+v with %.2f used", n, e.rate, e.used())
		case n == 0: // perhaps it was asked, perhaps not
			e.level = min(e.level, float64(burstOf(e.rate)))
		default:
			e.level, e.fastest, e.since = e.used()+float64(n), e.rate.PerSecond, 0
		}
	}
	m.fed(found.Fed, webhook.StateParked)
}

func (m *model) due() {
	fed, _, next, err := m.store.FeedDue(m.t.Context(), m.scan, rapid.IntRange(1, 12).Draw(m.rt, "room"), lease)
	m.check(err)
	m.scan = next
	for _, d := range fed {
		if e := m.of(d.Endpoint); e.paused || e.open || e.rate.PerSecond > 0 {
			m.rt.Fatalf("%v was released past what holds its endpoint", d)
		}
	}
	m.fed(fed, 0)
	m.learnParked()
}

// learnParked takes over from the database what a look at due deliveries parked: of those whose time had
// come, which the model does not know to the millisecond. Nothing else may have changed.
func (m *model) learnParked() {
	for key, is := range m.stored() {
		if was := m.open[key]; was != is && is == webhook.StateParked && was != 0 {
			m.open[key] = is
			delete(m.fences, key)
		}
	}
}

func (m *model) result() {
	d, ok := m.oneReleased()
	if !ok {
		return
	}
	e := m.of(d.Endpoint)
	success := rapid.Bool().Draw(m.rt, "success")
	a := webhook.Attempt{TenantID: d.Tenant, ApplicationID: e.ApplicationID, MessageID: d.Message, EndpointID: d.Endpoint,
		ID: webhook.NewAttemptID(), Number: d.Attempt + 1, Sent: true, Status: webhook.StatusFail, Class: webhook.ClassServerError}
	outcome := webhook.Outcome{Wait: time.Duration(rapid.IntRange(1, 5000).Draw(m.rt, "wait")) * time.Millisecond}
	if success {
		a.Status, a.Class, outcome = webhook.StatusSuccess, webhook.ClassNone, webhook.Outcome{Final: true}
	}
	m.check(m.store.Record(m.t.Context(), []store.Recorded{{Delivery: d, Attempt: a, Outcome: outcome}}))
	delete(m.fences, d.DeliveryKey)
	if success {
		delete(m.open, d.DeliveryKey)
	} else {
		m.open[d.DeliveryKey] = webhook.StateWaiting
	}
}

func (m *model) putBack() {
	d, ok := m.oneReleased()
	if !ok {
		return
	}
	hold := store.Hold{}
	if rapid.Bool().Draw(m.rt, "busy") {
		hold = store.Hold{For: time.Duration(rapid.IntRange(1, 1000).Draw(m.rt, "hold")) * time.Millisecond, Take: rapid.IntRange(0, 9).Draw(m.rt, "take")}
	}
	m.check(m.store.Park(m.t.Context(), []webhook.Delivery{d}, hold))
	m.open[d.DeliveryKey] = webhook.StateParked
	delete(m.fences, d.DeliveryKey)
}

func (m *model) pauseOrResume() {
	e := m.any()
	view := m.store.View(webhook.Scope{Tenant: e.TenantID})
	if e.paused = !e.paused; e.paused {
		e.open = false // the pause takes the breaker's place
		m.check(view.PauseEndpoint(m.t.Context(), e.ApplicationID.String(), e.ID.String(), "tenant"))
		return
	}
	m.check(view.ResumeEndpoint(m.t.Context(), e.ApplicationID.String(), e.ID.String()))
}

func (m *model) turnBreaker() {
	e := m.any()
	if e.paused {
		return
	}
	if e.open = !e.open; !e.open {
		_, err := storetest.CloseBreaker(m.t.Context(), m.store, e.TenantID, e.ID)
		m.check(err)
		return
	}
	_, err := storetest.OpenBreaker(m.t.Context(), m.store, e.TenantID, e.ID, failing(3), time.Second)
	m.check(err)
}

func (m *model) limit() {
	e := m.any()
	e.rate = webhook.Rate{PerSecond: rapid.SampledFrom([]int{0, 1, 10, 200}).Draw(m.rt, "rate")}
	if e.rate.PerSecond > 0 {
		e.rate.Burst = rapid.IntRange(1, 12).Draw(m.rt, "burst")
	}
	e.fastest = max(e.fastest, e.rate.PerSecond)
	m.exec(`UPDATE endpoint SET throttle_rate = NULLIF($2, 0), throttle_burst = NULLIF($3, 0) WHERE id = $1`, e.ID.UUID(), e.rate.PerSecond, e.rate.Burst)
}

// advance lets time pass, for the database, the limits and the model.
func (m *model) advance(d time.Duration) {
	m.exec(`UPDATE endpoint_wake SET due_at = due_at - make_interval(secs => $1), resting_since = resting_since - make_interval(secs => $1)`, d.Seconds())
	m.exec(`UPDATE endpoint_gate SET next_at = next_at - make_interval(secs => $1)`, d.Seconds())
	m.exec(`UPDATE delivery SET due_at = due_at - make_interval(secs => $1)`, d.Seconds())
	m.limiter.now += d.Microseconds()
	m.scan = store.Scan{} // what it goes by is another time now
	for _, e := range m.endpoints {
		e.since += d
	}
}

func (m *model) stored() map[webhook.DeliveryKey]webhook.State {
	rows, err := m.sql.Query(m.t.Context(), `SELECT tenant_id, message_id, endpoint_id, state,
		CASE WHEN state = 3 THEN due_at IS NULL AND EXISTS (SELECT FROM endpoint_wake w WHERE w.tenant_id = d.tenant_id AND w.endpoint_id = d.endpoint_id)
		ELSE due_at IS NOT NULL END FROM delivery d`)
	m.check(err)
	defer rows.Close()
	out := make(map[webhook.DeliveryKey]webhook.State)
	for rows.Next() {
		var key webhook.DeliveryKey
		var state int16
		var found bool
		m.check(rows.Scan((*[16]byte)(&key.Tenant), (*[16]byte)(&key.Message), (*[16]byte)(&key.Endpoint), &state, &found))
		if !found {
			m.rt.Fatalf("nothing leads to %v in state %d", key, state)
		}
		out[key] = webhook.State(state)
	}
	m.check(rows.Err())
	return out
}

// compare holds the database against the model; nothing may be there that nothing leads to.
func (m *model) compare() {
	if is := m.stored(); !maps.Equal(is, m.open) {
		m.rt.Fatalf("there are %d deliveries, %v; want %d, %v", len(is), is, len(m.open), m.open)
	}
}

// drain takes away what holds deliveries back and expects all of them to go, without any sweep.
func (m *model) drain() {
	for _, e := range m.endpoints {
		if e.paused {
			m.check(m.store.View(webhook.Scope{Tenant: e.TenantID}).ResumeEndpoint(m.t.Context(), e.ApplicationID.String(), e.ID.String()))
		}
		_, err := storetest.CloseBreaker(m.t.Context(), m.store, e.TenantID, e.ID)
		m.check(err)
		e.paused, e.open, e.rate = false, false, webhook.Rate{}
	}
	m.exec(`UPDATE endpoint SET throttle_rate = NULL, throttle_burst = NULL`)
	m.exec(`UPDATE delivery SET due_at = now() WHERE due_at IS NOT NULL`)
	m.scan = store.Scan{}
	for looks := 0; m.rows("delivery WHERE state <> 1 OR due_at <= now()") > 0; looks++ {
		if looks == 1000 {
			m.rt.Fatalf("%d deliveries are still not released", m.rows("delivery WHERE state <> 1"))
		}
		fed, _, next, err := m.store.FeedDue(m.t.Context(), m.scan, 50, time.Hour)
		m.check(err)
		m.scan = next
		m.fed(fed, 0)
		found, err := m.feeder.FeedWakes(m.t.Context(), 50, time.Hour)
		m.check(err)
		m.fed(found.Fed, 0)
		m.exec(`UPDATE endpoint_wake SET due_at = due_at - interval '1 s' WHERE due_at > now()`)
	}
}

// TestTheFeederDoesAsItsModel compares feeder, plan and statements with a model in memory over random
// operations: every delivery that is owed is where the model says, something leads to each, no look
// exceeds its room, a limit, a pause or a breaker, and in the end nothing has been forgotten.
func TestTheFeederDoesAsItsModel(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	apps := []webhook.Application{r.app, storetest.Application(t, r.store, storetest.Tenant(t, r.store).ID)}
	r.exec(`UPDATE tenant SET weight = 3 WHERE id = $1`, apps[1].TenantID.UUID())
	r.exec(`DELETE FROM endpoint_secret`)
	r.exec(`DELETE FROM endpoint`)
	var endpoints []webhook.Endpoint
	for _, app := range append(apps, apps...) {
		endpoints = append(endpoints, storetest.Endpoint(t, r.store, app, hook))
	}
	steps := 0
	for check := 0; steps < modelSteps && !t.Failed(); check++ {
		t.Run(fmt.Sprint(check), func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				for _, table := range []string{"delivery", "endpoint_wake", "endpoint_gate", "attempt", "message"} {
					r.exec(`DELETE FROM ` + table)
				}
				r.exec(`UPDATE endpoint SET throttle_rate = NULL, throttle_burst = NULL`)
				limiter := &ruledLimiter{now: 1e15, buckets: make(map[ratelimit.Key]ratelimit.Bucket)}
				d := &Dispatcher{store: r.store, limiter: limiter, metrics: r.d.metrics, log: r.d.log}
				m := &model{rig: r, rt: rt, limiter: limiter, feeder: d.NewFeeder(),
					open: make(map[webhook.DeliveryKey]webhook.State), fences: make(map[webhook.DeliveryKey]webhook.Fence)}
				for _, e := range endpoints {
					m.endpoints = append(m.endpoints, &modelled{Endpoint: e})
				}
				step := func(do func()) func(*rapid.T) {
					return func(rt *rapid.T) { m.rt = rt; steps++; do() }
				}
				rt.Repeat(map[string]func(*rapid.T){
					"accept": step(m.accept), "accept more": step(m.accept), "look": step(m.look), "look again": step(m.look), "due": step(m.due),
					"result": step(m.result), "put back": step(m.putBack), "pause": step(m.pauseOrResume), "breaker": step(m.turnBreaker), "limit": step(m.limit),
					"wait": step(func() { m.advance(time.Duration(rapid.IntRange(1, 40_000).Draw(m.rt, "ms")) * time.Millisecond) }),
					"":     func(rt *rapid.T) { m.rt = rt; m.compare() },
				})
				m.rt = rt
				m.drain()
			})
		})
	}
	t.Logf("%d steps", steps)
}
