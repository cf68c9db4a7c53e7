package worker

import (
	"sync"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// DefaultSlowAfter is how long a request keeps its place; then it moves to a slow one.
	DefaultSlowAfter = time.Second
	// startShare of the places may go to an endpoint of which nothing is known.
	startShare = 4
	// newShare: of four places, one is kept from endpoints that have not answered anything yet and from lines,
	// so that no number of endpoints that hang takes all places from those that do answer.
	newShare = 4
	// newEach is how many times as many of a tenant's new endpoints may be under way as there are places left
	// for such: a tenant that has very many takes three quarters, and leaves the rest to others'.
	newEach = 3
	// slowShare of the slow places may go to one endpoint.
	slowShare = 16
	// lineShare of the places may be held by deliveries that wait in the line of their endpoint, and by no
	// more than it is likely to take in lineFor.
	lineShare   = 4
	lineFor     = 250 * time.Millisecond
	sweepsAfter = 8 // times in SlowAfter that requests are looked at
)

// flight is a delivery in progress.
type flight struct {
	job   store.Job
	ring  keyring
	lease time.Time
	place // what it holds

	target     *destination // nil: it ends without a request
	host       *host
	begun      time.Time
	fresh      bool // it counts among those to endpoints of which nothing is known
	late       bool // it is under way for longer than SlowAfter
	prev, next *flight
}

// place is what a delivery in progress holds of its worker.
type place struct {
	lane webhook.Lane
	slow bool
}

// targets decides which deliveries may be begun: what an endpoint, a host, and the slow places can take. It
// learns from every request. Endpoints that were not heard of for long are forgotten.
type targets struct {
	slots     *slots
	slowAfter time.Duration
	start     int // requests at once to an endpoint of which nothing is known
	most      int // requests at once to any endpoint
	hostMost  int // and to any host
	slowEach  int // slow places for one endpoint
	slowKeep  int // slow places left to requests that are found to last
	freshMost int // places for endpoints of which nothing is known
	lineMost  int // places held in lines

	mu         sync.Mutex
	young, old map[webhook.EndpointID]*destination
	hosts      map[string]*host
	fresh      int
	freshOf    map[webhook.TenantID]int
	lines      map[*destination]bool // those that have one
	lined      int                   // deliveries in them
	first      flight                // of a ring of all requests under way, in the order they began
}

func newTargets(s *slots, o Options) *targets {
	t := &targets{
		slots: s, slowAfter: o.SlowAfter, start: max(1, o.Concurrency/startShare),
		most: o.EndpointConcurrency, hostMost: o.HostConcurrency,
		slowEach: max(1, s.slow/slowShare), slowKeep: s.total, lineMost: s.total / lineShare,
		young: map[webhook.EndpointID]*destination{}, hosts: map[string]*host{}, freshOf: map[webhook.TenantID]int{}, lines: map[*destination]bool{},
	}
	t.freshMost = max(1, s.total-s.total/newShare-t.lineMost)
	t.first.prev, t.first.next = &t.first, &t.first
	return t
}

// admission is what becomes of a delivery that is to be sent.
type admission uint8

const (
	goes  admission = iota // its request begins now
	lined                  // it waits for others to the same endpoint
	back                   // it is put back
)

// putBack is why and for how long.
type putBack struct {
	why  telemetry.PutBackReason
	hold store.Hold
}

// admit decides about a flight that has a place of its lane. One that goes is counted as under way.
func (t *targets) admit(f *flight, now time.Time) (admission, putBack) {
	if f.job.Gate.Holds() {
		return back, putBack{why: telemetry.PutBackGate}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.target(&f.job)
	f.target = e
	why, mayGo := t.judge(f, now)
	if mayGo {
		t.begin(f, now)
		return goes, putBack{}
	}
	if why == telemetry.PutBackEndpoint && t.mayWait(e, f.lane, now) {
		f.begun = now
		e.line = append(e.line, f)
		t.lines[e] = true
		t.lined++
		return lined, putBack{}
	}
	return back, putBack{why, e.hold(why, now)}
}

// mayGo reports whether a delivery of a lane would be begun now, and if not, how it is to be put back.
func (t *targets) mayGo(j *store.Job, lane webhook.Lane, now time.Time) (bool, putBack) {
	if j.Gate.Holds() {
		return false, putBack{why: telemetry.PutBackGate}
	}
	if probing(j) {
		return true, putBack{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := flight{target: t.target(j), place: place{lane: lane, slow: true}}
	why, mayGo := t.judge(&f, now)
	if mayGo && t.isSlow(f.target) && !t.slots.hasSlow(lane, t.slowKeep) {
		why, mayGo = telemetry.PutBackSlow, false
	}
	if mayGo {
		return true, putBack{}
	}
	return false, putBack{why, f.target.hold(why, now)}
}

// judge says whether a request may begin now, and if not, why.
func (t *targets) judge(f *flight, now time.Time) (telemetry.PutBackReason, bool) {
	e := f.target
	f.fresh = false
	switch {
	case e.underWay >= e.learnt.Allow(e.most):
		return telemetry.PutBackEndpoint, false
	case e.cautious(now) && !probing(&f.job) && (e.underWay > 0 || now.Sub(e.failedAt) < cautiousPause):
		return telemetry.PutBackEndpoint, false
	case e.host.underWay >= t.hostMost:
		return telemetry.PutBackHost, false
	case t.isSlow(e):
		if !f.slow && probing(&f.job) {
			// The one request that finds out whether the endpoint is back goes before others of its kind.
			if f.slow = t.slots.slowly(f.lane, t.slowKeep/2); !f.slow {
				return telemetry.PutBackSlow, false
			}
			return "", true
		}
		if e.slow >= t.slowEach || !f.slow && !t.slots.slowly(f.lane, t.slowKeep) {
			return telemetry.PutBackSlow, false
		}
		f.slow = true
	case e.learnt.Recent() == 0 && f.lane != webhook.LaneBulk:
		// When many are new at once, each begins with one.
		if t.freshOf[e.tenant] >= newEach*(t.freshMost-t.fresh) || 2*t.fresh >= t.freshMost && e.underWay > 0 {
			return telemetry.PutBackNew, false
		}
		f.fresh = true
	}
	return "", true
}

// isSlow reports whether an endpoint's requests have to be expected to last. One straggler among many that
// are quick says nothing.
func (t *targets) isSlow(e *destination) bool {
	return e.learnt.Slow(t.slowAfter) || e.late > 0 && 4*e.late >= e.underWay
}

// mayWait reports whether an endpoint that is quick enough can have another delivery stand in line. Without
// lines, one that may have two requests at once would get two in every quarter of a second.
func (t *targets) mayWait(e *destination, lane webhook.Lane, now time.Time) bool {
	if lane == webhook.LaneBulk || t.lined >= t.lineMost || t.isSlow(e) || e.cautious(now) {
		return false
	}
	turns := time.Duration(len(e.line)/e.learnt.Allow(e.most) + 1)
	return e.learnt.Recent()*turns <= lineFor
}

// begin counts a request as under way.
func (t *targets) begin(f *flight, now time.Time) {
	f.begun = now
	f.target.underWay++
	f.host = f.target.host
	f.host.underWay++
	if f.slow {
		f.target.slow++
	}
	if f.fresh {
		t.countFresh(f, 1)
	}
	f.prev, f.next = t.first.prev, &t.first
	f.prev.next, f.next.prev = f, f
}

// countFresh counts a request to an endpoint of which nothing is known.
func (t *targets) countFresh(f *flight, by int) {
	t.fresh += by
	if t.freshOf[f.target.tenant] += by; t.freshOf[f.target.tenant] == 0 {
		delete(t.freshOf, f.target.tenant)
	}
}

// end counts a request as ended and returns those that begin in its stead.
func (t *targets) end(f *flight, class webhook.ErrorClass, status int, now time.Time) (next []*flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := f.target
	e.learnt = e.learnt.After(webhook.Answer{
		Class: class, HTTPStatus: status, Begun: f.begun, Ended: now, UnderWay: e.underWay, Most: e.most,
	})
	switch webhook.HealthOf(class) {
	case webhook.HealthGood:
		e.failed = 0
	case webhook.HealthBad:
		if e.failed == 0 {
			e.failedFrom = now
		}
		e.failed++
		e.failedAt = now
	case webhook.HealthUnknown:
	}
	if !t.isSlow(e) && !e.cautious(now) {
		e.back = 0
	}
	f.prev.next, f.next.prev = f.next, f.prev
	f.prev, f.next = nil, nil
	e.underWay--
	f.host.underWay--
	t.forgetHost(f.host)
	if f.slow {
		e.slow--
	}
	if f.late {
		e.late--
	}
	if f.fresh {
		t.countFresh(f, -1)
	}
	for len(e.line) > 0 {
		first := e.line[0]
		if _, mayGo := t.judge(first, now); !mayGo {
			break
		}
		if first.slow {
			t.slots.leave(first.lane, 1)
		}
		t.leaveLine(e)
		t.begin(first, now)
		next = append(next, first)
	}
	return next
}

// leaveLine takes the first out of an endpoint's line.
func (t *targets) leaveLine(e *destination) {
	e.line[0] = nil
	e.line = e.line[1:]
	if t.lined--; len(e.line) == 0 {
		e.line = nil
		delete(t.lines, e)
	}
}

// sweep moves the requests that last to slow places and returns the deliveries that have stood in line too
// long, with how they are to be put back.
func (t *targets) sweep(now time.Time) (stuck []*flight, how []putBack) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var (
		want [3]int
		wait []*flight
	)
	for f := t.first.next; f != &t.first && now.Sub(f.begun) >= t.slowAfter; f = f.next {
		e := f.target
		if !f.late {
			f.late = true
			e.late++
			if 4*e.late >= e.underWay {
				e.learnt = e.learnt.Late(webhook.Answer{Begun: f.begun, Ended: now, UnderWay: e.underWay, Most: e.most})
			}
		}
		if !f.slow {
			want[f.lane]++
			wait = append(wait, f)
		}
	}
	if len(wait) > 0 {
		moved := t.slots.move(want, 0)
		for _, f := range wait {
			if moved[f.lane] == 0 {
				continue
			}
			moved[f.lane]--
			f.slow = true
			f.target.slow++
			if f.fresh {
				f.fresh = false
				t.countFresh(f, -1)
			}
		}
	}
	for e := range t.lines {
		for len(e.line) > 0 && (t.isSlow(e) || e.cautious(now) || now.Sub(e.line[0].begun) >= t.slowAfter) {
			stuck = append(stuck, e.line[0])
			how = append(how, putBack{telemetry.PutBackEndpoint, e.hold(telemetry.PutBackEndpoint, now)})
			t.leaveLine(e)
		}
	}
	return stuck, how
}

// empty takes everybody out of the lines, because the worker stops.
func (t *targets) empty() (all []*flight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for e := range t.lines {
		for len(e.line) > 0 {
			all = append(all, e.line[0])
			t.leaveLine(e)
		}
	}
	return all
}
