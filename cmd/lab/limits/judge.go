package limits

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// Limit is a limit that is measured.
type Limit struct {
	Level string `json:"level"` // endpoint, application or tenant
	Rate  int    `json:"rate"`  // per second
	Burst int    `json:"burst"`
}

// The levels.
const (
	levelEndpoint    = "endpoint"
	levelApplication = "application"
	levelTenant      = "tenant"
)

// Measured is what came through a limit.
type Measured struct {
	Limit
	Workers int     `json:"workers"`
	Got     float64 `json:"perSecond"`
	Off     float64 `json:"offPercent"` // of the limit; negative = less
	Doubled int     `json:"duplicates"`
	Offered float64 `json:"offeredPerSecond"` // what was accepted meanwhile; less than the limit shows nothing
}

// tolerance is how far from a limit the measured rate may be, in per cent.
const tolerance = 2.0

// Met reports whether the limit was kept, and needed.
func (m Measured) Met() bool {
	return math.Abs(m.Off) <= tolerance && m.Doubled == 0 && m.Offered > float64(m.Rate)
}

// stretch is a stretch of time.
type stretch struct{ from, to time.Time }

func (s stretch) seconds() float64 { return s.to.Sub(s.from).Seconds() }

func (s stretch) count(times []int64) int {
	first, _ := slices.BinarySearch(times, s.from.UnixNano())
	last, _ := slices.BinarySearch(times, s.to.UnixNano())
	return max(last-first, 0)
}

// rate is how many of some ordered times fall into a stretch, per second.
func (s stretch) rate(times []int64) float64 { return float64(s.count(times)) / s.seconds() }

// arrivals are the ordered times at which a range of endpoints was called, and how many calls were repeats.
func arrivals(records []traffic.Record, from, count int) (times []int64, doubled int) {
	type delivery struct {
		message  uint64
		endpoint uint16
	}
	seen := make(map[delivery]bool)
	for _, r := range records {
		if int(r.Endpoint) < from || int(r.Endpoint) >= from+count {
			continue
		}
		times = append(times, r.End)
		d := delivery{r.ID, r.Endpoint}
		if seen[d] {
			doubled++
		}
		seen[d] = true
	}
	slices.SortFunc(times, cmp.Compare)
	return times, doubled
}

// off is by how much a rate differs from a limit, in per cent.
func off(got, limit float64) float64 { return 100 * (got - limit) / limit }

// Change is a limit that was changed while messages came.
type Change struct {
	Workers int     `json:"workers"`
	From    int     `json:"from"`
	To      int     `json:"to"`
	Seen    float64 `json:"seenAfterSeconds"` // from the answer of the API on; -1 = never
	Got     float64 `json:"perSecond"`        // from a second after the answer on
	Off     float64 `json:"offPercent"`
}

// changeWithin is how soon a changed limit has to show, in seconds.
const changeWithin = 1.0

// Met reports whether the change showed soon enough and was then kept.
func (c Change) Met() bool {
	return c.Seen >= 0 && c.Seen <= changeWithin && math.Abs(c.Off) <= tolerance
}

const (
	// lookFor is the width of the window in which a rate is recognised, lookEvery how far it is moved.
	lookFor   = time.Second
	lookEvery = 50 * time.Millisecond
	// recognised is how far the rate in a window may be from the limit, in per cent; in so short a time a
	// burst shows.
	recognised = 10.0
)

// seen is how long after the start of a stretch a rate began to hold: from then on every window of a
// second that begins in it has it, more or less. It is -1 if it never did.
func seen(times []int64, during stretch, limit float64) float64 {
	since := -1.0
	for from := during.from; !from.Add(lookFor).After(during.to); from = from.Add(lookEvery) {
		got := stretch{from, from.Add(lookFor)}.rate(times)
		switch {
		case math.Abs(off(got, limit)) > recognised:
			since = -1
		case since < 0:
			since = from.Sub(during.from).Seconds()
		}
	}
	return since
}

// changed judges one limit between its change and the next.
func changed(times []int64, during stretch, from, to int) Change {
	c := Change{From: from, To: to, Seen: seen(times, during, float64(to))}
	c.Got = stretch{during.from.Add(time.Duration(changeWithin * float64(time.Second))), during.to}.rate(times)
	c.Off = off(c.Got, float64(to))
	return c
}
