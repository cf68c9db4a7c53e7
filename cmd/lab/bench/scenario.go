package bench

import (
	"fmt"
	"slices"
	"time"
)

// Scenario is one stretch of work to measure.
type Scenario struct {
	Name     string
	Conns    int
	Rate     float64 // 0 = closed loop
	FanOut   int     // endpoints per message; 0 = idle, nothing is posted
	Duration time.Duration
}

// Scenarios are what one run measures, in order.
func Scenarios(duration, idle time.Duration) []Scenario {
	return []Scenario{
		{Name: "open 100/s", Conns: 16, Rate: 100, FanOut: 1, Duration: duration},
		{Name: "closed 16", Conns: 16, FanOut: 1, Duration: duration},
		{Name: "closed 64", Conns: 64, FanOut: 1, Duration: duration},
		{Name: "closed 64, fan-out 5", Conns: 64, FanOut: 5, Duration: duration},
		// Accepting is far cheaper than delivering sixteen times, so this one is mostly draining.
		{Name: "closed 64, fan-out 16", Conns: 64, FanOut: 16, Duration: duration / 4},
		{Name: "idle", Duration: idle},
	}
}

// Outcome is what one scenario came to. Latencies are from just before the POST to arrival at the sink.
type Outcome struct {
	Scenario string  `json:"scenario"`
	FanOut   int     `json:"fanOut,omitempty"`
	Rate     float64 `json:"rate,omitempty"` // messages per second that were posted; 0 = as many as were answered
	Posted   int     `json:"posted,omitempty"`
	Accepted int     `json:"accepted,omitempty"`
	Refused  int     `json:"refused,omitempty"` // answered, but not 202
	Broken   int     `json:"broken,omitempty"`  // not answered
	Lost     int     `json:"lost"`
	Doubled  int     `json:"duplicates"`
	Foreign  int     `json:"foreign"` // arrived under another id than was answered, or never posted
	Accepts  float64 `json:"acceptsPerSecond,omitempty"`
	// Sustained is deliveries per second from the first post to the last arrival, draining included:
	// the figure to claim. Steady is the rate while posting went on, without its first quarter.
	Sustained float64 `json:"deliveriesPerSecond,omitempty"`
	Steady    float64 `json:"steadyDeliveriesPerSecond,omitempty"`
	DrainMS   float64 `json:"drainMs,omitempty"` // from the last answer to the last arrival
	Ratio     float64 `json:"ratioToBareLoop,omitempty"`
	AcceptP50 float64 `json:"acceptP50Ms,omitempty"`
	AcceptP99 float64 `json:"acceptP99Ms,omitempty"`
	P50       float64 `json:"p50Ms,omitempty"`
	P95       float64 `json:"p95Ms,omitempty"`
	P99       float64 `json:"p99Ms,omitempty"`
	// CPU is milliseconds of processor time per delivery, or for idle the share of one core, by part.
	CPU map[string]float64 `json:"cpu,omitempty"`
	// Platform is the sum of CPU over api, worker, postgres and redis.
	Platform float64 `json:"platformCpu"`
}

// deliveries is how many were owed.
func (o Outcome) deliveries() int { return o.Accepted * o.FanOut }

// evaluate compares what was posted with what arrived.
func evaluate(s Scenario, posts, arrivals []record) (Outcome, error) {
	o := Outcome{Scenario: s.Name, FanOut: s.FanOut, Rate: s.Rate, Posted: len(posts)}
	accepted := make(map[uint32]record, len(posts))
	var first, lastAnswer int64
	var accept []float64
	for _, post := range posts {
		if first == 0 || post.sent < first {
			first = post.sent
		}
		switch post.status {
		case 202:
			accepted[post.seq] = post
			lastAnswer = max(lastAnswer, post.end)
			accept = append(accept, milliseconds(post.end-post.sent))
		case 0:
			o.Broken++
		default:
			o.Refused++
		}
	}
	o.Accepted = len(accepted)
	if o.Accepted == 0 {
		return o, fmt.Errorf("%s: none of %d messages was accepted", s.Name, len(posts))
	}
	type pair struct {
		seq      uint32
		endpoint uint16
	}
	seen := make(map[pair]struct{}, len(arrivals))
	var latency []float64
	var lastArrival int64
	steadyFrom, steady := first+int64(s.Duration)/4, 0
	steadyTo := first + int64(s.Duration)
	for _, arrival := range arrivals {
		post, ok := accepted[arrival.seq]
		if !ok || post.id != arrival.id {
			o.Foreign++
			continue
		}
		p := pair{arrival.seq, arrival.endpoint}
		if _, again := seen[p]; again {
			o.Doubled++
			continue
		}
		seen[p] = struct{}{}
		latency = append(latency, milliseconds(arrival.end-arrival.sent))
		lastArrival = max(lastArrival, arrival.end)
		if arrival.end >= steadyFrom && arrival.end < steadyTo {
			steady++
		}
	}
	o.Lost = o.deliveries() - len(seen)
	o.Accepts = float64(o.Accepted) / seconds(lastAnswer-first)
	o.AcceptP50, o.AcceptP99 = percentile(accept, 50), percentile(accept, 99)
	if len(seen) > 0 {
		o.Sustained = float64(len(seen)) / seconds(max(lastArrival, lastAnswer)-first)
		o.Steady = float64(steady) / (s.Duration.Seconds() * 3 / 4)
		o.DrainMS = max(milliseconds(lastArrival-lastAnswer), 0)
		o.P50, o.P95, o.P99 = percentile(latency, 50), percentile(latency, 95), percentile(latency, 99)
	}
	return o, nil
}

func milliseconds(nanoseconds int64) float64 { return float64(nanoseconds) / 1e6 }
func seconds(nanoseconds int64) float64      { return float64(nanoseconds) / 1e9 }

// percentile is the smallest value that p per cent of the values do not exceed; it sorts them.
func percentile(values []float64, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[max((len(values)*p+99)/100, 1)-1]
}
