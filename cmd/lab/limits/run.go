package limits

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Options describe what is measured.
type Options struct {
	Binary    string        // the posthaste binary
	Self      string        // the lab's own binary, which is also load and sink
	Dir       string        // for data and logs; must exist
	Endpoints []Limit       // of an endpoint each
	Workers   []int         // numbers of worker processes, ascending
	Overload  float64       // how much is posted, of what a limit allows; more than 1
	Duration  time.Duration // of each measurement
	Progress  io.Writer     // one line per step
}

// Limits are all that are measured: those of endpoints, and applications and tenants with several.
func (o Options) Limits() []Limit {
	return append(slices.Clone(o.Endpoints), Limit{levelApplication, 50, 50}, Limit{levelApplication, 200, 20}, Limit{levelTenant, 300, 30})
}

// EndpointLimits reads limits of endpoints: rates separated by commas. A rate is measured with a tenth of a
// second's worth as its burst, and with a second's, or with the one given behind a slash.
func EndpointLimits(text string) (list []Limit, err error) {
	for word := range strings.SplitSeq(text, ",") {
		rateText, burstText, given := strings.Cut(strings.TrimSpace(word), "/")
		rate, err := strconv.Atoi(rateText)
		if err != nil || rate < 1 {
			return nil, fmt.Errorf("%q is no positive number", rateText)
		}
		if !given {
			list = append(list, Limit{levelEndpoint, rate, max(rate/10, 1)}, Limit{levelEndpoint, rate, rate})
			continue
		}
		burst, err := strconv.Atoi(burstText)
		if err != nil || burst < 1 {
			return nil, fmt.Errorf("%q is no positive number", burstText)
		}
		list = append(list, Limit{levelEndpoint, rate, burst})
	}
	return list, nil
}

const (
	// spare is how much longer than it takes to spend the largest burst is waited before measuring.
	spare = 2 * time.Second
	// after is how much longer is posted than measured.
	after = time.Second
	// mostConns is how many connections a load has at most: enough for its rate while answers take 50 ms.
	mostConns = 128
	// slowest is the least a load posts per second, so that it is never late with the first message.
	slowest = 1.0
)

// The endpoint whose limit is changed has one after the other of these, each for a third of the time.
var changes = []int{100, 300, 50}

// changeLoad is what is posted to it: more than the highest.
const changeLoad = 400

// applicationEndpoints, tenantApplications and tenantEndpoints are what shares a limit of a higher level.
const (
	applicationEndpoints = 3
	tenantApplications   = 2
	tenantEndpoints      = 2 // of each of its applications
)

// target is whom one limit is for.
type target struct {
	limit        Limit
	tenant       rig.Tenant
	applications []string
	endpoints    []string
	fanOut       int // endpoints of each application
	from         int // its first endpoint's number at the sink
}

// offers is how many messages per second overload it.
func (t target) offers(overload float64) float64 {
	return max(float64(t.limit.Rate)*overload/float64(t.fanOut), slowest)
}

// site is the installation.
type site struct {
	options  Options
	rig      *rig.Rig
	children *traffic.Children
	api      *rig.Keeper
	workers  int
	sink     *traffic.Sink
	numbers  int // endpoints made so far
	tenants  int
	targets  []target
	change   target
}

// Measure makes an installation and measures every limit, with each number of workers.
func Measure(ctx context.Context, o Options, report *Report) error {
	installation, err := rig.Open(ctx, rig.Options{
		Dir: o.Dir, Binary: o.Binary, MaxConnections: 150,
		PostgresSettings: rig.SmallServer(),
	})
	if err != nil {
		return err
	}
	defer installation.Close()
	s := &site{options: o, rig: installation, children: &traffic.Children{Rig: installation, Self: o.Self, Dir: o.Dir}}
	if s.sink, err = s.children.Sink(ctx, 0); err != nil {
		return err
	}
	defer s.sink.Close()
	if s.api, err = installation.Keep("api", "api", nil); err != nil {
		return err
	}
	if err := s.api.Ready(ctx); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	for _, workers := range o.Workers {
		if err := s.employ(ctx, workers); err != nil {
			return err
		}
		measured, changed, err := s.pass(ctx)
		if err != nil {
			return err
		}
		for _, m := range measured {
			_, _ = fmt.Fprintf(o.Progress, "  %s: %s of %d/s, burst %d: %.2f/s (%+.1f %%)\n", processes(workers), m.Level, m.Rate, m.Burst, m.Got, m.Off)
		}
		for _, c := range changed {
			_, _ = fmt.Fprintf(o.Progress, "  %s: from %d/s to %d/s: seen after %s, then %.2f/s (%+.1f %%)\n", processes(workers), c.From, c.To, seenText(c.Seen), c.Got, c.Off)
		}
		report.Measured, report.Changes = append(report.Measured, measured...), append(report.Changes, changed...)
	}
	return nil
}

// employ adds workers until there are so many.
func (s *site) employ(ctx context.Context, count int) error {
	for ; s.workers < count; s.workers++ {
		worker, err := s.rig.Keep("worker-"+strconv.Itoa(s.workers+1), "worker", nil)
		if err != nil {
			return err
		}
		if err := worker.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle makes tenants, applications and endpoints, and sets their limits.
func (s *site) settle(ctx context.Context) error {
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	shared, err := s.tenant(ctx)
	if err != nil {
		return err
	}
	for _, limit := range s.options.Limits() {
		t := target{limit: limit, tenant: shared, fanOut: 1}
		applications := 1
		switch limit.Level {
		case levelApplication:
			t.fanOut = applicationEndpoints
		case levelTenant:
			t.fanOut, applications = tenantEndpoints, tenantApplications
			if t.tenant, err = s.tenant(ctx); err != nil {
				return err
			}
		}
		if err := s.people(&t, applications); err != nil {
			return err
		}
		if err := s.limit(ctx, conn, t); err != nil {
			return err
		}
		s.targets = append(s.targets, t)
	}
	s.change = target{limit: Limit{levelEndpoint, changes[0], 0}, tenant: shared, fanOut: 1}
	return s.people(&s.change, 1)
}

func (s *site) tenant(ctx context.Context) (rig.Tenant, error) {
	s.tenants++
	return s.rig.NewTenant(ctx, "tenant-"+strconv.Itoa(s.tenants))
}

// people makes a target's applications and endpoints.
func (s *site) people(t *target, applications int) error {
	api := rig.NewAPI(s.api.Address, t.tenant.Key)
	defer api.Close()
	t.from = s.numbers
	for range applications {
		application, err := api.Application("app-" + strconv.Itoa(s.numbers))
		if err != nil {
			return err
		}
		t.applications = append(t.applications, application)
		for range t.fanOut {
			endpoint, err := api.Endpoint(application, s.sink.URL(s.numbers), "")
			if err != nil {
				return err
			}
			t.endpoints = append(t.endpoints, endpoint)
			s.numbers++
		}
	}
	return nil
}

// limit sets a target's rate and burst, past the API: limits are read where they are used.
func (s *site) limit(ctx context.Context, conn *pgx.Conn, t target) error {
	fail := func(err error) error { return fmt.Errorf("limit a %s: %w", t.limit.Level, err) }
	var table string
	var id [16]byte
	switch t.limit.Level {
	case levelTenant:
		return s.rig.LimitTenant(ctx, t.tenant, t.limit.Rate, t.limit.Burst)
	case levelApplication:
		parsed, err := webhook.ParseID[webhook.ApplicationID](t.applications[0])
		if err != nil {
			return fail(err)
		}
		table, id = "application", parsed.UUID()
	default:
		parsed, err := webhook.ParseID[webhook.EndpointID](t.endpoints[0])
		if err != nil {
			return fail(err)
		}
		table, id = "endpoint", parsed.UUID()
	}
	tag, err := conn.Exec(ctx, "UPDATE "+table+" SET throttle_rate = $2, throttle_burst = $3 WHERE id = $1", id, t.limit.Rate, t.limit.Burst)
	if err == nil && tag.RowsAffected() != 1 {
		err = errors.New("it is not there")
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// warmUp is how long it takes until every burst is spent: what is posted in excess has used it up.
func (o Options) warmUp() time.Duration {
	var longest float64
	for _, l := range o.Limits() {
		longest = max(longest, float64(l.Burst)/(float64(l.Rate)*(o.Overload-1)))
	}
	return time.Duration(longest*float64(time.Second)) + spare
}

// pass overloads everything at once and measures what arrives.
func (s *site) pass(ctx context.Context) ([]Measured, []Change, error) {
	if err := s.sink.Reset(); err != nil {
		return nil, nil, err
	}
	length := s.options.warmUp() + s.options.Duration + after
	type load struct {
		posts []traffic.Record
		err   error
	}
	loads := make([]load, len(s.targets)+1)
	post := func(l *load, t target, rate float64) {
		l.posts, _, l.err = s.children.Load(ctx, traffic.Load{
			Address: s.api.Address, Applications: t.applications, Key: t.tenant.Key,
			Conns: min(max(int(rate)/10, 4), mostConns), Rate: rate, Duration: length,
		})
	}
	began := time.Now()
	var posting sync.WaitGroup
	for i, t := range s.targets {
		posting.Go(func() { post(&loads[i], t, t.offers(s.options.Overload)) })
	}
	posting.Go(func() { post(&loads[len(s.targets)], s.change, changeLoad) })
	during := stretch{from: began.Add(s.options.warmUp())}
	during.to = during.from.Add(s.options.Duration)
	when, err := s.changing(ctx, during)
	posting.Wait()
	for _, l := range loads {
		err = errors.Join(err, l.err)
	}
	if err != nil {
		return nil, nil, err
	}
	records, err := s.sink.Records()
	if err != nil {
		return nil, nil, err
	}
	var measured []Measured
	for i, t := range s.targets {
		times, doubled := arrivals(records, t.from, len(t.endpoints))
		m := Measured{Limit: t.limit, Workers: s.workers, Got: during.rate(times), Doubled: doubled}
		m.Off = off(m.Got, float64(t.limit.Rate))
		m.Offered = during.rate(accepted(loads[i].posts)) * float64(t.fanOut)
		measured = append(measured, m)
	}
	times, _ := arrivals(records, s.change.from, 1)
	var list []Change
	for i, limit := range changes[1:] {
		until := during.to
		if i+1 < len(when) {
			until = when[i+1]
		}
		c := changed(times, stretch{when[i], until}, changes[i], limit)
		c.Workers = s.workers
		list = append(list, c)
	}
	return measured, list, nil
}

// accepted are the times at which posts were answered, in order.
func accepted(posts []traffic.Record) []int64 {
	var ends []traffic.Record
	for i, post := range posts {
		if post.Status == 202 {
			ends = append(ends, traffic.Record{ID: uint64(i), End: post.End})
		}
	}
	times, _ := arrivals(ends, 0, 1)
	return times
}

// changing changes the limit of the endpoint that is for it, from the first over the others, and returns when
// each change but the first was answered.
func (s *site) changing(ctx context.Context, during stretch) (when []time.Time, err error) {
	api := rig.NewAPI(s.api.Address, s.change.tenant.Key)
	defer api.Close()
	path := "/api/v1/app/" + s.change.applications[0] + "/endpoint/" + s.change.endpoints[0]
	each := during.to.Sub(during.from) / time.Duration(len(changes))
	for i, limit := range changes {
		if i > 0 {
			if err := rig.Pause(ctx, time.Until(during.from.Add(each*time.Duration(i)))); err != nil {
				return nil, err
			}
		}
		if err := api.Patch(path, map[string]int{"throttleRate": limit}); err != nil {
			return nil, err
		}
		if i > 0 {
			when = append(when, time.Now())
		}
	}
	return when, nil
}
