package dispatch

import (
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// This file is the plan: who of those that wait may go now. It is pure; feeder.go asks it and does what
// it says.

const (
	// paceEvery is how often an endpoint is looked at that takes up again what it was owed, or that cannot
	// take all it is owed. Each time it may have a sixteenth more, until that is more than paceEnd: if it
	// were twice as many, half of all that has gathered would go in the last look, to many receivers at
	// once that have only just come back. What is less than webhook.RampStart doubles.
	paceEvery  = 250 * time.Millisecond
	paceGrowth = 16
	paceEnd    = 1024
	// limitedEvery is how often an endpoint is looked at whose limit has been reached: a million parked
	// deliveries cost no more than that. A limit that is changed is felt within limitedLatest, also by what
	// waits for it already.
	limitedEvery  = 50 * time.Millisecond
	limitedLatest = 500 * time.Millisecond
)

// planner shares the room among tenants by deficit round robin: each gets its share of every look by
// its weight, and who could not be given a whole delivery keeps the claim. Who has nothing left to
// release loses it, so that nobody saves up claims while they are not waiting.
type planner struct {
	claims map[webhook.TenantID]float64
}

// share decides how many of its parked deliveries each wake may release. It assumes that each has as
// many as it is given: what turns out not to be there is given to others by the next look, which
// follows at once.
func (p *planner) share(wakes []store.Wake, room int) []int {
	type tenant struct {
		id     webhook.TenantID
		weight float64
		wakes  []int // those that may release
	}
	var order []*tenant
	known := make(map[webhook.TenantID]*tenant)
	total := 0.0
	for i, w := range wakes {
		if upTo(w) == 0 {
			continue
		}
		t := known[w.Tenant]
		if t == nil {
			t = &tenant{id: w.Tenant, weight: float64(max(1, w.Weight))}
			known[w.Tenant] = t
			order = append(order, t)
			total += t.weight
		}
		t.wakes = append(t.wakes, i)
	}
	claims := make(map[webhook.TenantID]float64, len(order))
	given := make([]int, len(wakes))
	for _, t := range order {
		claim := min(p.claims[t.id], 1) + float64(room)*t.weight/total
		n := min(int(claim), room)
		left := spread(wakes, t.wakes, given, n)
		room -= n - left
		total -= t.weight // the rest of the room is the rest's
		claims[t.id] = claim - float64(n)
		if left > 0 { // it could not use it
			claims[t.id] = 0
		}
	}
	// What some could not use goes to whoever can, and so do the odd ones.
	for open := order; room > 0 && len(open) > 0; {
		each, still := max(1, room/len(open)), open[:0:0]
		for _, t := range open {
			n := min(each, room)
			left := spread(wakes, t.wakes, given, n)
			room -= n - left
			claims[t.id] = max(0, claims[t.id]-float64(n-left))
			if n > 0 && left == 0 {
				still = append(still, t)
			}
		}
		open = still
	}
	p.claims = claims
	return given
}

// spread gives n more to some of the wakes, evenly, the first ones the odd ones; it returns what none
// of them may have.
func spread(wakes []store.Wake, some []int, given []int, n int) (left int) {
	open := make([]int, 0, len(some))
	for _, i := range some {
		if given[i] < upTo(wakes[i]) {
			open = append(open, i)
		}
	}
	for n > 0 && len(open) > 0 {
		each, odd := n/len(open), n%len(open)
		still := open[:0]
		for j, i := range open {
			more := each
			if j < odd {
				more++
			}
			more = min(more, upTo(wakes[i])-given[i])
			given[i] += more
			n -= more
			if given[i] < upTo(wakes[i]) {
				still = append(still, i)
			}
		}
		open = still
	}
	return n
}

// unbounded is more than there ever is room for.
const unbounded = 1 << 30

// upTo is how many a wake may release at most, room and limits aside.
func upTo(w store.Wake) int {
	switch {
	case w.Gate == webhook.GateNone && w.Take > 0:
		return w.Take
	case w.Gate == webhook.GateNone:
		return unbounded
	case w.Gate != webhook.GatePaused && w.Probe:
		return 1
	}
	return 0
}

// faster is how many an endpoint may have at its next look that took so many at this one.
func faster(take int) int {
	if take < webhook.RampStart {
		return 2 * take
	}
	return take + max(1, take/paceGrowth)
}

// look is what came of a wake.
type look struct {
	asked    int           // by the plan
	granted  int           // by the limits
	released int           // as many as there were
	wait     time.Duration // until the limits grant one more; 0 = they do not hold it
	partly   bool          // not looked at from the beginning
}

// fate decides what becomes of a wake after a look; not settled means that it stays as it is.
func fate(w store.Wake, l look) (put store.WakePut, settled bool) {
	put = store.WakePut{Tenant: w.Tenant, Endpoint: w.Endpoint}
	switch {
	case upTo(w) == 0:
		put.Fate = store.WakeGate
	case l.asked == 0: // no room: it stays where it is, in front of those that had their turn
		return put, false
	case w.Gate != webhook.GateNone && l.released < l.granted && w.Rested:
		put.Fate = store.WakeSleep
	case w.Gate != webhook.GateNone && l.released < l.granted:
		put.Fate = store.WakeIdle
	case l.released < l.granted && l.partly: // the beginning may hold what was parked again meanwhile
		put.Fate = store.WakeTurn
	case l.released == 0 && l.granted > 0 && w.Rested:
		put.Fate = store.WakeRemove
	case l.released < l.granted:
		put.Fate = store.WakeRest
	case w.Gate != webhook.GateNone:
		put.Fate = store.WakeGate // until the probe has come to something
	case l.wait > 0:
		put.Fate, put.After, put.Take = store.WakeLater, l.wait, w.Take
	case w.Take > 0:
		put.Fate, put.After = store.WakeLater, paceEvery
		put.Take = w.Take
		if l.released < w.Take { // there was no room for as many: it has not shown that it can take more
			break
		}
		if put.Take = faster(w.Take); put.Take > paceEnd {
			put.Fate, put.After, put.Take = store.WakeTurn, 0, 0
		}
	default:
		put.Fate = store.WakeTurn
	}
	return put, true
}
