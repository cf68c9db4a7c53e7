package bench

import (
	"fmt"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// Scenario is one stretch of work to measure.
type Scenario struct {
	Name     string
	Conns    int
	Rate     float64 // 0 = closed loop
	FanOut   int     // endpoints per message; 0 = idle, nothing is posted
	Duration time.Duration
	Limited  bool          // tenant, application and endpoints have limits, too high to bite
	Delay    time.Duration // how long the receiver keeps each answer
	Workers  int           // worker processes; 0 = one
	Sends    int           // sends under way at once in each worker process; 0 = as many as by default
}

const (
	// slowDelay and slowSends make waiting for receivers, and not the processor, what bounds a worker.
	slowDelay = 20 * time.Millisecond
	slowSends = 64
)

// The scenarios whose rates are compared.
const (
	oneWorker  = "slow receiver, 1 worker"
	twoWorkers = "slow receiver, 2 workers"
)

// Scenarios are what one run measures, in order.
func Scenarios(duration, idle time.Duration) []Scenario {
	return []Scenario{
		{Name: "open 100/s", Conns: 16, Rate: 100, FanOut: 1, Duration: duration},
		{Name: "closed 16", Conns: 16, FanOut: 1, Duration: duration},
		{Name: "closed 64", Conns: 64, FanOut: 1, Duration: duration},
		{Name: "closed 64, fan-out 5", Conns: 64, FanOut: 5, Duration: duration},
		// Accepting is far cheaper than delivering sixteen times, so this one is mostly draining.
		{Name: "closed 64, fan-out 16", Conns: 64, FanOut: 16, Duration: duration / 4},
		{Name: "closed 64, limits", Conns: 64, FanOut: 1, Duration: duration, Limited: true},
		{Name: "closed 64, fan-out 5, limits", Conns: 64, FanOut: 5, Duration: duration, Limited: true},
		{Name: "idle", Duration: idle},
		// Mostly draining, too: what a worker delivers while nobody else needs the processor.
		{Name: oneWorker, Conns: 64, FanOut: 5, Duration: duration / 4, Delay: slowDelay, Workers: 1, Sends: slowSends},
		{Name: twoWorkers, Conns: 64, FanOut: 5, Duration: duration / 4, Delay: slowDelay, Workers: 2, Sends: slowSends},
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
	// Settled is how long after the load it took until idle began, in seconds, and Unsettled what had not
	// ended even then; both only of idle.
	Settled   float64 `json:"settledSeconds,omitempty"`
	Unsettled string  `json:"unsettled,omitempty"`
}

// deliveries is how many were owed.
func (o Outcome) deliveries() int { return o.Accepted * o.FanOut }

// evaluate compares what was posted with what arrived.
func evaluate(s Scenario, posts, arrivals []traffic.Record) (Outcome, error) {
	o := Outcome{Scenario: s.Name, FanOut: s.FanOut, Rate: s.Rate, Posted: len(posts)}
	accepted := make(map[uint32]traffic.Record, len(posts))
	var first, lastAnswer int64
	var accept []float64
	for _, post := range posts {
		if first == 0 || post.Sent < first {
			first = post.Sent
		}
		switch post.Status {
		case 202:
			accepted[post.Seq] = post
			lastAnswer = max(lastAnswer, post.End)
			accept = append(accept, traffic.Milliseconds(post.End-post.Sent))
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
		post, ok := accepted[arrival.Seq]
		if !ok || post.ID != arrival.ID {
			o.Foreign++
			continue
		}
		p := pair{arrival.Seq, arrival.Endpoint}
		if _, again := seen[p]; again {
			o.Doubled++
			continue
		}
		seen[p] = struct{}{}
		latency = append(latency, traffic.Milliseconds(arrival.End-arrival.Sent))
		lastArrival = max(lastArrival, arrival.End)
		if arrival.End >= steadyFrom && arrival.End < steadyTo {
			steady++
		}
	}
	o.Lost = o.deliveries() - len(seen)
	o.Accepts = float64(o.Accepted) / traffic.Seconds(lastAnswer-first)
	o.AcceptP50, o.AcceptP99 = traffic.Percentile(accept, 50), traffic.Percentile(accept, 99)
	if len(seen) > 0 {
		o.Sustained = float64(len(seen)) / traffic.Seconds(max(lastArrival, lastAnswer)-first)
		o.Steady = float64(steady) / (s.Duration.Seconds() * 3 / 4)
		o.DrainMS = max(traffic.Milliseconds(lastArrival-lastAnswer), 0)
		o.P50, o.P95, o.P99 = traffic.Percentile(latency, 50), traffic.Percentile(latency, 95), traffic.Percentile(latency, 99)
	}
	return o, nil
}
