package webhook

import (
	"net/http"
	"time"
)

// How a limit on concurrency moves.
const (
	// hastyUntil is below which latency is never held against an endpoint: a pause of ours, or of the
	// network, is as long.
	hastyUntil = 500 * time.Millisecond
	// unusual is how many times its usual latency an endpoint's recent one is when it is taken for
	// overloaded.
	unusual = 3
	// recentWeight and usualWeight say how much one request counts for less: of the last eight or so, and
	// of the last hundred. A faster answer is believed at once.
	recentWeight = 8
	usualWeight  = 128
	// stepsPerRound is by how much a limit that was once too high grows in a round of requests.
	stepsPerRound = 8
	// silentAfter is how many timeouts in a row it takes until an endpoint is asked by one request at a time.
	silentAfter = 3
)

// Concurrency is how many requests may be under way to an endpoint at once, learnt from how it answers: a
// limit that grows with every good answer until it was first too high, then by some in a round, and
// falls to a part of what was under way when requests time out, when the endpoint says it has too many
// (429, 503), or when answers take much longer than they use to. The zero value knows nothing.
type Concurrency struct {
	limit  int
	good   int  // results since it last grew
	fallen bool // it was too high once
	since  time.Time
	recent time.Duration // what requests took lately, however they ended
	usual  time.Duration // what successes take
	silent int           // timeouts in a row
	quick  time.Time     // when a request was last answered well and without a pause
}

// Answer is what a request says about how many its endpoint can take.
type Answer struct {
	Class        ErrorClass
	HTTPStatus   int // 0 = none came
	Begun, Ended time.Time
	UnderWay     int // requests to the endpoint, this one included
	Most         int // that the limit may grow to
}

// StartConcurrency is what is allowed to an endpoint of which nothing is known.
func StartConcurrency(limit int) Concurrency { return Concurrency{limit: max(1, limit)} }

// Allow is how many requests may be under way at once, 1 to most.
func (c Concurrency) Allow(most int) int {
	if c.silent >= silentAfter {
		return 1
	}
	return max(1, min(c.limit, most))
}

// Slow reports whether requests have to be expected to take at least so long, or not to be answered.
func (c Concurrency) Slow(from time.Duration) bool { return c.silent > 0 || c.recent >= from }

// Silent reports whether the last request was not answered in time.
func (c Concurrency) Silent() bool { return c.silent > 0 }

// Recent is what requests took lately; 0 = none has ended yet.
func (c Concurrency) Recent() time.Duration { return c.recent }

// After is what is known after a request has ended; nothing new if none was made ([ClassCanceled]).
func (c Concurrency) After(a Answer) Concurrency {
	if a.Class == ClassCanceled {
		return c
	}
	took := max(a.Ended.Sub(a.Begun), 1)
	if c.recent == 0 {
		c.recent = took
	} else {
		c.recent += (took - c.recent) / recentWeight
	}
	if a.Class.Timeout() {
		c.silent++
		return c.fall(a, 1, 2)
	}
	c.silent = 0
	switch {
	case a.HTTPStatus == http.StatusTooManyRequests || a.HTTPStatus == http.StatusServiceUnavailable:
		return c.fall(a, 1, 2)
	case a.Class != ClassNone:
		return c // it failed in a way that says nothing about how many there were
	}
	switch {
	case c.usual == 0:
		c.usual = took
	case took < c.usual:
		c.usual += (took - c.usual) / recentWeight
	default:
		c.usual += (took - c.usual) / usualWeight
	}
	if took <= hastyUntil {
		c.quick = a.Ended
	}
	if c.Unusual(c.recent) && !c.straggles(a) {
		return c.fall(a, 3, 4)
	}
	return c.grow(a)
}

// Unusual reports whether a request that takes so long is out of proportion to what the endpoint's
// requests take usually.
func (c Concurrency) Unusual(took time.Duration) bool { return took > max(hastyUntil, unusual*c.usual) }

// Late is what is known when a request has been under way for so long that it need not end to be judged.
func (c Concurrency) Late(a Answer) Concurrency {
	if !c.Unusual(a.Ended.Sub(a.Begun)) || c.straggles(a) {
		return c
	}
	return c.fall(a, 1, 2)
}

// straggles reports whether others that ended after a request had begun were answered at once: then it is
// that request which lasts, and not that there were too many. Those that last are most of what is under
// way, however few they are of all.
func (c Concurrency) straggles(a Answer) bool { return c.quick.After(a.Begun) }

// fall lowers the limit once for all the requests that were under way together.
func (c Concurrency) fall(a Answer, part, of int) Concurrency {
	if a.Begun.Before(c.since) {
		return c
	}
	c.limit = max(1, min(c.limit, a.UnderWay)*part/of)
	c.good, c.fallen, c.since = 0, true, a.Ended
	return c
}

// grow raises a limit that is made use of.
func (c Concurrency) grow(a Answer) Concurrency {
	if 2*a.UnderWay < c.limit || c.limit >= a.Most {
		return c
	}
	c.good++
	if !c.fallen || c.good >= c.limit/stepsPerRound {
		c.limit++
		c.good = 0
	}
	return c
}
