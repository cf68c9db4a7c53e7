package telemetry

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Metrics are the numbers of one process, in a registry of their own. No label names a tenant or
// anything else that a stranger can make more of: every label has a closed set of values. Counters
// and histograms without labels are fields; those with labels have a method that knows their values.
type Metrics struct {
	MessagesAccepted  prometheus.Counter   // messages committed, repeats of an idempotency key excluded
	DeliveriesCreated prometheus.Counter   // deliveries committed with them
	EndToEnd          prometheus.Histogram // seconds from when a message was due to its first send
	AcceptBatchSize   prometheus.Histogram // messages in one accept transaction
	AcceptCommit      prometheus.Histogram // seconds one accept transaction takes
	ResultBatchSize   prometheus.Histogram // results in one transaction
	ResultCommit      prometheus.Histogram // seconds one result transaction takes
	FeederScan        prometheus.Histogram // seconds it takes to find the wakes that are due
	FeederLook        prometheus.Histogram // seconds one look of the feeder takes, releasing included
	FeederLeader      prometheus.Gauge     // 1 while this process feeds, else 0
	QueueTasks        prometheus.Gauge     // tasks in the queue, as last seen
	Parked            prometheus.Counter   // deliveries parked
	Throttled         prometheus.Counter   // deliveries held back because a limit had been reached
	SlowPlaces        prometheus.Gauge     // requests of this process that have been under way for long, or are expected to be

	registry        *prometheus.Registry
	attempts        map[attemptKey]prometheus.Counter
	attemptDuration prometheus.Histogram
	released        map[Reason]prometheus.Counter
	fenced          map[FencedKind]prometheus.Counter
	breakers        map[BreakerTurn]prometheus.Counter
	gates           map[webhook.GateState]prometheus.Gauge
	open            map[webhook.State]prometheus.Gauge
	overdue         prometheus.Gauge
	laneTasks       map[webhook.Lane]prometheus.Gauge
	laneSeconds     map[webhook.Lane]prometheus.Observer
	inFlight        map[webhook.Lane]prometheus.Gauge
	putBack         map[PutBackReason]prometheus.Counter
	httpRequests    *prometheus.CounterVec
	httpSeconds     *prometheus.HistogramVec

	mu     sync.RWMutex
	routes map[string]*route
}

// Reason says why the feeder released a delivery.
type Reason string

// The reasons.
const (
	ReleasedDue  Reason = "due"  // its time has come: a retry, or a lease that ended
	ReleasedWake Reason = "wake" // it was parked and its endpoint was woken
	ReleasedLost Reason = "lost" // the queue lost it
	ReleasedTask Reason = "task" // a background task owes it
)

// FencedKind says what the fence kept from happening.
type FencedKind string

// The kinds.
const (
	FencedTask    FencedKind = "task"    // a stale task was dropped before sending
	FencedRenew   FencedKind = "renew"   // a late task could not renew its lease
	FencedFailure FencedKind = "failure" // a late failure changed nothing
	FencedSuccess FencedKind = "success" // a late success ended a delivery handed on meanwhile
)

// BreakerTurn is what became of an endpoint's circuit breaker.
type BreakerTurn string

// The turns.
const (
	BreakerOpened      BreakerTurn = "opened"
	BreakerProbeFailed BreakerTurn = "probe_failed"
	BreakerProbeUnsent BreakerTurn = "probe_unsent" // what was to be the probe ended without a request
	BreakerClosed      BreakerTurn = "closed"
)

// PutBackReason says why a worker put a delivery back without beginning it.
type PutBackReason string

// The reasons.
const (
	PutBackGate     PutBackReason = "gate"     // its endpoint is paused, or its circuit breaker is open
	PutBackEndpoint PutBackReason = "endpoint" // as many requests to it are under way as it can take
	PutBackHost     PutBackReason = "host"     // likewise, to its host
	PutBackSlow     PutBackReason = "slow"     // it is slow, and the places for those that are, or its share of them, are taken
	PutBackNew      PutBackReason = "new"      // it has not answered anything yet, and many others have not either
)

// attemptKey is class and trigger of an attempt as labels.
type attemptKey struct {
	class   webhook.ErrorClass
	trigger webhook.Trigger
}

// successLabel stands for the empty class.
const successLabel = "success"

// maxRoutes bounds the route label should a caller pass something that is not a route's pattern.
const maxRoutes = 512

// otherLabel stands for what is outside a label's set.
const otherLabel = "other"

// Buckets: from what an idle installation takes to where something is wrong.
var (
	commitBuckets  = prometheus.ExponentialBuckets(0.0005, 2, 14) // 0.5 ms … 4 s
	attemptBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15, 30}
	// A first send may wait for hours when an installation was down.
	endToEndBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}
	sizeBuckets     = prometheus.ExponentialBuckets(1, 2, 11) // 1 … 1,024
)

// NewMetrics makes all metrics at zero, so that a query finds them before anything happened.
func NewMetrics() *Metrics {
	registry := prometheus.NewRegistry()
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
		registry.MustRegister(c)
		return c
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		registry.MustRegister(g)
		return g
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
		registry.MustRegister(h)
		return h
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		registry.MustRegister(v)
		return v
	}
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	m := &Metrics{
		MessagesAccepted:  counter("posthaste_messages_accepted_total", "Messages accepted and durable."),
		DeliveriesCreated: counter("posthaste_deliveries_created_total", "Deliveries created with accepted messages."),
		EndToEnd:          histogram("posthaste_end_to_end_seconds", "From the acceptance of a message, or the time it is to be delivered at, to the first send of a delivery.", endToEndBuckets),
		AcceptBatchSize:   histogram("posthaste_accept_batch_size", "Messages accepted in one transaction.", sizeBuckets),
		AcceptCommit:      histogram("posthaste_accept_commit_seconds", "Duration of an accept transaction.", commitBuckets),
		ResultBatchSize:   histogram("posthaste_result_batch_size", "Results recorded in one transaction.", sizeBuckets),
		ResultCommit:      histogram("posthaste_result_commit_seconds", "Duration of a result transaction.", commitBuckets),
		FeederScan:        histogram("posthaste_feeder_scan_seconds", "Duration of a scan for endpoints with parked deliveries.", commitBuckets),
		FeederLook:        histogram("posthaste_feeder_look_seconds", "Duration of a look of the feeder, releasing included.", commitBuckets),
		FeederLeader:      gauge("posthaste_feeder_leader", "1 while this process is the feeder."),
		QueueTasks:        gauge("posthaste_queue_tasks", "Tasks in the queue, as last seen by this process."),
		Parked:            counter("posthaste_parked_total", "Deliveries parked."),
		Throttled:         counter("posthaste_throttled_total", "Deliveries held back because a limit had been reached; of an ordered endpoint the first in line."),
		SlowPlaces:        gauge("posthaste_slow_places", "Requests of this process that last, or are expected to."),
		registry:          registry,
		attempts:          map[attemptKey]prometheus.Counter{},
		attemptDuration:   histogram("posthaste_attempt_duration_seconds", "Duration of an attempt, from resolving to the end of the answer.", attemptBuckets),
		released:          map[Reason]prometheus.Counter{},
		fenced:            map[FencedKind]prometheus.Counter{},
		breakers:          map[BreakerTurn]prometheus.Counter{},
		gates:             map[webhook.GateState]prometheus.Gauge{},
		open:              map[webhook.State]prometheus.Gauge{},
		overdue:           gauge("posthaste_oldest_due_seconds", "How long the delivery that has been due for longest has been due; shown by one process."),
		laneTasks:         map[webhook.Lane]prometheus.Gauge{},
		laneSeconds:       map[webhook.Lane]prometheus.Observer{},
		inFlight:          map[webhook.Lane]prometheus.Gauge{},
		putBack:           map[PutBackReason]prometheus.Counter{},
		httpRequests:      vec("posthaste_http_requests_total", "API requests answered.", "route", "code"),
		httpSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "posthaste_http_request_seconds", Help: "Duration of an API request.", Buckets: attemptBuckets,
		}, []string{"route"}),
		routes: map[string]*route{},
	}
	registry.MustRegister(m.httpSeconds)

	attempts := vec("posthaste_attempts_total", "Attempts ended, by error class and trigger.", "class", "trigger")
	for trigger, name := range map[webhook.Trigger]string{webhook.TriggerScheduled: "scheduled", webhook.TriggerManual: "manual"} {
		m.attempts[attemptKey{webhook.ClassNone, trigger}] = attempts.WithLabelValues(successLabel, name)
		for _, class := range webhook.ErrorClasses {
			m.attempts[attemptKey{class, trigger}] = attempts.WithLabelValues(string(class), name)
		}
	}
	released := vec("posthaste_feeder_released_total", "Deliveries released by the feeder, by reason.", "reason")
	for _, r := range []Reason{ReleasedDue, ReleasedWake, ReleasedLost, ReleasedTask} {
		m.released[r] = released.WithLabelValues(string(r))
	}
	fenced := vec("posthaste_fenced_total", "Stale work kept from acting, by kind.", "kind")
	for _, k := range []FencedKind{FencedTask, FencedRenew, FencedFailure, FencedSuccess} {
		m.fenced[k] = fenced.WithLabelValues(string(k))
	}
	breakers := vec("posthaste_breaker_turns_total", "Circuit breakers of endpoints turned by this process, by kind.", "kind")
	for _, t := range []BreakerTurn{BreakerOpened, BreakerProbeFailed, BreakerProbeUnsent, BreakerClosed} {
		m.breakers[t] = breakers.WithLabelValues(string(t))
	}
	gates := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "posthaste_endpoints_held", Help: "Endpoints that are paused or whose circuit breaker is open; shown by one process.",
	}, []string{"state"})
	for state, name := range map[webhook.GateState]string{webhook.GatePaused: "paused", webhook.GateOpen: "open", webhook.GateProbing: "probing"} {
		m.gates[state] = gates.WithLabelValues(name)
	}
	open := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "posthaste_deliveries_open", Help: "Deliveries that are owed, counted up to 10,000 of each state; shown by one process.",
	}, []string{"state"})
	for state, name := range map[webhook.State]string{webhook.StateReleased: "released", webhook.StateWaiting: "waiting", webhook.StateParked: "parked", webhook.StateFIFO: "ordered"} {
		m.open[state] = open.WithLabelValues(name)
	}
	tasks := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "posthaste_lane_tasks", Help: "Tasks that wait in the queue, by lane; shown by one process.",
	}, []string{"lane"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "posthaste_lane_delay_seconds", Help: "From the release of a delivery to when a worker begins with it, by lane.", Buckets: endToEndBuckets,
	}, []string{"lane"})
	for _, lane := range webhook.Lanes {
		m.laneTasks[lane], m.laneSeconds[lane] = tasks.WithLabelValues(lane.String()), seconds.WithLabelValues(lane.String())
	}
	registry.MustRegister(gates, open, tasks, seconds)
	inFlight := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "posthaste_executor_in_flight", Help: "Deliveries being made by this process, by lane."}, []string{"lane"})
	registry.MustRegister(inFlight)
	for _, l := range webhook.Lanes {
		m.inFlight[l] = inFlight.WithLabelValues(l.String())
	}
	putBack := vec("posthaste_put_back_total", "Deliveries that a worker put back without beginning them, by reason.", "reason")
	for _, r := range []PutBackReason{PutBackGate, PutBackEndpoint, PutBackHost, PutBackSlow, PutBackNew} {
		m.putBack[r] = putBack.WithLabelValues(string(r))
	}
	return m
}

// Attempt counts an ended attempt and its duration. One that ended without a request (canceled,
// expired, poison) is counted, but its duration is not. A class or trigger outside the closed sets
// counts as internal and scheduled.
func (m *Metrics) Attempt(class webhook.ErrorClass, trigger webhook.Trigger, took time.Duration) {
	c, ok := m.attempts[attemptKey{class, trigger}]
	if !ok {
		c = m.attempts[attemptKey{webhook.ClassInternal, webhook.TriggerScheduled}]
	}
	c.Inc()
	switch class {
	case webhook.ClassCanceled, webhook.ClassExpired, webhook.ClassPoison:
		return
	}
	m.attemptDuration.Observe(took.Seconds())
}

// Released counts n deliveries that the feeder released for a reason. It panics on a reason that is
// not one of the constants.
func (m *Metrics) Released(reason Reason, n int) { m.released[reason].Add(float64(n)) }

// Fenced counts n times that the fence kept something from happening. It panics on a kind that is not
// one of the constants.
func (m *Metrics) Fenced(kind FencedKind, n int) { m.fenced[kind].Add(float64(n)) }

// Breaker counts a turn of an endpoint's breaker. It panics on one that is not one of the constants.
func (m *Metrics) Breaker(turn BreakerTurn) { m.breakers[turn].Inc() }

// Gates shows how many endpoints are in which state; of those it does not name there are none.
func (m *Metrics) Gates(endpoints map[webhook.GateState]int) {
	for state, g := range m.gates {
		g.Set(float64(endpoints[state]))
	}
}

// Backlog shows how many deliveries are open and for how long the oldest of them has been due.
func (m *Metrics) Backlog(parked, waiting, ordered, released int, overdue time.Duration) {
	m.open[webhook.StateParked].Set(float64(parked))
	m.open[webhook.StateWaiting].Set(float64(waiting))
	m.open[webhook.StateFIFO].Set(float64(ordered))
	m.open[webhook.StateReleased].Set(float64(released))
	m.overdue.Set(max(0, overdue.Seconds()))
}

// Lanes shows how many tasks wait in the queue.
func (m *Metrics) Lanes(live, fed, bulk int) {
	m.laneTasks[webhook.LaneLive].Set(float64(live))
	m.laneTasks[webhook.LaneFed].Set(float64(fed))
	m.laneTasks[webhook.LaneBulk].Set(float64(bulk))
}

// ForgetBacklog shows nothing of what one process shows for all, because another one does now.
func (m *Metrics) ForgetBacklog() {
	m.Gates(nil)
	m.Backlog(0, 0, 0, 0, 0)
	m.Lanes(0, 0, 0)
}

// LaneDelay counts a delivery that a worker begins with so long after it was released.
func (m *Metrics) LaneDelay(lane webhook.Lane, d time.Duration) {
	m.laneSeconds[lane].Observe(max(0, d.Seconds()))
}

// InFlight counts n more deliveries of a lane as being made, or less if n is negative.
func (m *Metrics) InFlight(lane webhook.Lane, n int) { m.inFlight[lane].Add(float64(n)) }

// PutBack counts n deliveries that were put back for a reason. It panics on a reason that is not one of
// the constants.
func (m *Metrics) PutBack(reason PutBackReason, n int) { m.putBack[reason].Add(float64(n)) }

// route is one route's resolved metrics. Codes are resolved as they occur, since a route gives few.
type route struct {
	seconds prometheus.Observer
	mu      sync.RWMutex
	codes   map[int]prometheus.Counter
}

// HTTPRequest counts an answered API request. pattern is the route's pattern, never the path: method
// and template, for instance "POST /api/v1/app/{app_id}/msg"; empty for a request that met no route.
func (m *Metrics) HTTPRequest(pattern string, code int, took time.Duration) {
	if pattern == "" {
		pattern = "unmatched"
	}
	if code < 100 || code > 599 {
		code = 0
	}
	pattern, r := m.routeOf(pattern)
	r.seconds.Observe(took.Seconds())
	r.mu.RLock()
	c := r.codes[code]
	r.mu.RUnlock()
	if c == nil {
		label := otherLabel
		if code != 0 {
			label = strconv.Itoa(code)
		}
		c = m.httpRequests.WithLabelValues(pattern, label)
		r.mu.Lock()
		r.codes[code] = c
		r.mu.Unlock()
	}
	c.Inc()
}

func (m *Metrics) routeOf(pattern string) (string, *route) {
	m.mu.RLock()
	r := m.routes[pattern]
	m.mu.RUnlock()
	if r != nil {
		return pattern, r
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.routes[pattern] == nil && len(m.routes) >= maxRoutes {
		pattern = otherLabel
	}
	if m.routes[pattern] == nil {
		m.routes[pattern] = &route{seconds: m.httpSeconds.WithLabelValues(pattern), codes: map[int]prometheus.Counter{}}
	}
	return pattern, m.routes[pattern]
}

// maxScrapes is how many scrapes are answered at once; further ones get 503, so that scraping cannot
// take the process down.
const maxScrapes = 4

// scrapeTimeout bounds one scrape.
const scrapeTimeout = 10 * time.Second

// Handler answers scrapes in the Prometheus text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout})
}

// Registry is where other packages may register metrics of their own; their labels must have closed
// sets of values too.
func (m *Metrics) Registry() prometheus.Registerer { return m.registry }
