package soak

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// Check is one figure beside what it has to be.
type Check struct {
	What    string  `json:"what"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit,omitempty"`
	Bound   float64 `json:"bound"`
	AtLeast bool    `json:"atLeast,omitempty"` // else at most
}

// atMost is a check of a figure that must not be more.
func atMost(what string, value float64, unit string, bound float64) Check {
	return Check{What: what, Value: value, Unit: unit, Bound: bound}
}

// atLeast is a check of a figure that must not be less.
func atLeast(what string, value float64, unit string, bound float64) Check {
	return Check{What: what, Value: value, Unit: unit, Bound: bound, AtLeast: true}
}

// Met reports whether the figure is what it has to be. What could not be measured is not.
func (c Check) Met() bool {
	if c.AtLeast {
		return c.Value >= c.Bound
	}
	return c.Value <= c.Bound
}

// Text is the figure with its bound.
func (c Check) Text() string {
	relation := "≤"
	if c.AtLeast {
		relation = "≥"
	}
	text := fmt.Sprintf("%s %s (%s %s)", c.What, quantity(c.Value, c.Unit), relation, quantity(c.Bound, c.Unit))
	if !c.Met() {
		text += " MISSED"
	}
	return text
}

// quantity is a number as people write it: three digits that count, and its unit.
func quantity(value float64, unit string) string {
	digits := 0
	if size := math.Abs(value); size < 100 && size > 0 {
		digits = min(max(2-int(math.Floor(math.Log10(size))), 1), 3)
	}
	text := strconv.FormatFloat(value, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	if unit != "" {
		text += " " + unit
	}
	return text
}

// stretch is a stretch of time.
type stretch struct{ from, to time.Time }

func (s stretch) length() time.Duration { return s.to.Sub(s.from) }

func (s stretch) holds(nanoseconds int64) bool {
	return nanoseconds >= s.from.UnixNano() && nanoseconds < s.to.UnixNano()
}

// endpoints is a range of endpoint numbers at the sink.
type endpoints struct{ from, count int }

func (e endpoints) has(number uint16) bool {
	return int(number) >= e.from && int(number) < e.from+e.count
}

// arrivalsOf are the arrivals at some endpoints.
func arrivalsOf(all []traffic.Record, at endpoints) []traffic.Record {
	var list []traffic.Record
	for _, r := range all {
		if at.has(r.Endpoint) {
			list = append(list, r)
		}
	}
	return list
}

// perSecond counts arrivals in each whole second of a stretch.
func perSecond(arrivals []traffic.Record, during stretch) []float64 {
	counts := make([]float64, max(int(during.length()/time.Second), 0))
	for _, r := range arrivals {
		if at := (r.End - during.from.UnixNano()) / int64(time.Second); r.End >= during.from.UnixNano() && at < int64(len(counts)) {
			counts[at]++
		}
	}
	return counts
}

// rate is arrivals per second over a stretch.
func rate(arrivals []traffic.Record, during stretch) float64 {
	n := 0
	for _, r := range arrivals {
		if during.holds(r.End) {
			n++
		}
	}
	return float64(n) / during.length().Seconds()
}

// median is the middle one, or the mean of both; 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := sorted[len(sorted)/2]
	if len(sorted)%2 == 0 {
		middle = (sorted[len(sorted)/2-1] + middle) / 2
	}
	return middle
}

// journey is what became of the messages of one load: each was for one endpoint.
type journey struct {
	Posted   int     `json:"posted"`
	Accepted int     `json:"accepted"`
	Lost     int     `json:"lost"` // accepted, and not arrived when the stage was over
	Doubled  int     `json:"duplicates"`
	P50      float64 `json:"p50Ms"` // from just before the POST to the arrival
	P99      float64 `json:"p99Ms"`
	Slowest  float64 `json:"slowestMs"`
	Accept50 float64 `json:"acceptP50Ms"` // from just before the POST to its answer
	Accept99 float64 `json:"acceptP99Ms"`
}

// follow finds the arrivals of a load's messages.
func follow(posts, arrivals []traffic.Record) journey {
	j := journey{Posted: len(posts)}
	owed := make(map[uint64]bool, len(posts)) // by id; true once arrived
	var accepts, latencies []float64
	for _, post := range posts {
		if post.Status == 202 {
			owed[post.ID] = false
			accepts = append(accepts, traffic.Milliseconds(post.End-post.Sent))
		}
	}
	j.Accepted = len(owed)
	for _, arrival := range arrivals {
		arrived, known := owed[arrival.ID]
		switch {
		case !known:
		case arrived:
			j.Doubled++
		default:
			owed[arrival.ID] = true
			latencies = append(latencies, traffic.Milliseconds(arrival.End-arrival.Sent))
		}
	}
	j.Lost = j.Accepted - len(latencies)
	j.P50, j.P99, j.Slowest = traffic.Percentile(latencies, 50), traffic.Percentile(latencies, 99), traffic.Percentile(latencies, 100)
	j.Accept50, j.Accept99 = traffic.Percentile(accepts, 50), traffic.Percentile(accepts, 99)
	return j
}

// keptPace is how much of what was to be posted was accepted, in per cent. A load that cannot post says
// nothing about latency.
func (j journey) keptPace(rate float64, during time.Duration) float64 {
	return 100 * float64(j.Accepted) / (rate * during.Seconds())
}

const (
	// pace is the least that a load has to have posted, in per cent of what it was to post.
	pace = 98
)

// whole are the checks that every load has to pass before its latencies mean anything.
func (j journey) whole(who string, rate float64, during time.Duration) []Check {
	return []Check{
		atLeast(who+": accepted of what was to be posted", j.keptPace(rate, during), "%", pace),
		atMost(who+": lost", float64(j.Lost), "", 0),
		atMost(who+": duplicates", float64(j.Doubled), "", 0),
	}
}
