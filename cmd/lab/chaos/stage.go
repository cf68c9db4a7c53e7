package chaos

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

const (
	tenants            = 3
	endpointsPerTenant = 3
	// retrySchedule is short, so that what a flaky endpoint refuses has ended when a run has.
	retrySchedule = "1s,2s,4s,8s"
	// retriesTake is how long the schedule takes with its jitter, with room for the last attempt.
	retriesTake = 20 * time.Second
	// leaseMargin is what the product adds to an attempt's timeout before it takes a delivery back.
	leaseMargin = 15 * time.Second
	// leaseSlack is how much later than the lease's end a delivery may go out again.
	leaseSlack = 5 * time.Second
)

// stage is one installation under load, with everything a fault needs to break it.
type stage struct {
	options Options
	fault   Fault
	rig     *rig.Rig
	apis    []*rig.Keeper
	workers []*rig.Keeper
	sink    *sink
	// address is where the sink listens, and slamAddress where it resets connections at once.
	address, slamAddress string
	load                 *producer
	beside               []*producer  // what is posted besides the load
	guests               *producer    // posts to those who misbehave; nil if there are none
	trouble              [2]time.Time // in which others may not suffer
	front                *rig.Front   // stands before the API processes, if the fault wants it
	names                *nameServer  // nil unless the fault has one
	replay               *replay      // nil unless the fault replays
	total                int          // messages
	random               *rand.Rand
	biteLog              string
	armed                atomic.Bool // processes that start now get failpoints

	serving sync.WaitGroup
	stopAll context.CancelFunc
	sinkErr error

	mu     sync.Mutex
	faults []ledger.Fault
	bites  map[string]int
	before map[string]int // goroutines of the processes before the fault, if it counts them
	asked  []ledger.Ask
	notes  []string
	extra  ledger.Report // findings of the fault's own checks
}

// receivers describes the receivers: of each tenant's three, one is of an ordered endpoint (unless the fault
// judges how fast a backlog comes back: a line goes as fast as it is answered, one at a time), one
// fails now and then and, if the fault wants it, one keeps requests waiting. After them comes that of the application that is replayed, or
// the fault's guests: receivers of a tenant of their own.
func (f Fault) receivers() []receiver {
	var list []receiver
	for tenant := range tenants {
		for n := range endpointsPerTenant {
			r := receiver{tenant: tenant, secret: newSecret(), ordered: n == 0 && !f.goesDown, flaky: n == 1, holds: n == 2 && f.holds}
			if f.goesDown {
				r.refuses = new(atomic.Int32)
			}
			list = append(list, r)
		}
	}
	if f.replays > 0 {
		list = append(list, receiver{tenant: tenants, secret: newSecret(), flaky: true, refuses: new(atomic.Int32)})
	}
	for _, m := range f.guests {
		list = append(list, receiver{tenant: tenants, secret: newSecret(), manner: m})
	}
	return list
}

// options are those of the series, as far as the fault has none of its own.
func (f Fault) options(o Options) Options {
	if f.timeout > 0 {
		o.AttemptTimeout = f.timeout
	}
	return o
}

// open starts everything and waits until it is ready; whatever was started is ended by close.
func open(ctx context.Context, o Options, f Fault, dir string) (*stage, error) {
	s := &stage{
		options: f.options(o), fault: f, bites: make(map[string]int), biteLog: filepath.Join(dir, "bites.log"),
		total:  (o.Deliveries + endpointsPerTenant - 1) / endpointsPerTenant,
		random: rand.New(rand.NewPCG(o.Seed, uint64(f.number()))),
	}
	if f.names != nil {
		var err error
		if s.names, err = startNameServer(f.names); err != nil {
			return nil, err
		}
	}
	s.armed.Store(len(f.apiPoints)+len(f.workerPoints) > 0)
	var err error
	s.rig, err = rig.Open(ctx, rig.Options{
		Dir: dir, Binary: o.Binary, MaxConnections: 120, RedisProxy: f.redisProxy,
		Settings: slices.Concat([]string{
			"POSTHASTE_RETRY_SCHEDULE=" + cmp.Or(f.retries, retrySchedule),
			"POSTHASTE_ATTEMPT_TIMEOUT=" + s.options.AttemptTimeout.String(),
			"POSTHASTE_FAILPOINT_LOG=" + s.biteLog,
		}, s.fault.settings, s.replaySettings(), s.names.settings()),
		// With it the database tells when each result became part of it.
		PostgresSettings: map[string]string{"track_commit_timestamp": "on"},
	})
	if err != nil {
		s.names.close()
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *stage) start(ctx context.Context) error {
	s.sink = newSink(s.fault.receivers(), s.options.Seed)
	listeners, err := s.listen()
	if err != nil {
		return err
	}
	var sinkContext context.Context
	sinkContext, s.stopAll = context.WithCancel(context.WithoutCancel(ctx))
	s.serving.Go(func() { s.sinkErr = s.sink.run(sinkContext, listeners...) })

	for n := range 2 {
		api, err := s.rig.Keep("api-"+strconv.Itoa(n+1), "api", s.points(s.fault.apiPoints, n))
		if err != nil {
			return err
		}
		s.apis = append(s.apis, api)
		worker, err := s.rig.Keep("worker-"+strconv.Itoa(n+1), "worker", s.workerPoints(n))
		if err != nil {
			return err
		}
		s.workers = append(s.workers, worker)
	}
	if err := s.ready(ctx); err != nil {
		return err
	}
	s.load = &producer{
		name: fmt.Sprintf("%s-%d", s.fault.ID, s.options.Seed), rate: s.rate(), copies: max(s.fault.copies, 1),
		seed: s.options.Seed, messages: make(map[int]*ledger.Message),
	}
	for _, api := range s.apis {
		s.load.apis = append(s.load.apis, api.Address)
	}
	if s.fault.front {
		if s.front, err = rig.NewFront(s.load.apis); err != nil {
			return err
		}
		s.load.apis = []string{s.front.Address}
	}
	for n := range tenants {
		from, err := s.tenant(ctx, n, endpointsPerTenant)
		if err != nil {
			return err
		}
		s.load.senders = append(s.load.senders, from)
	}
	switch {
	case s.fault.replays > 0:
		return s.startReplay(ctx)
	case len(s.fault.guests) > 0:
		return s.invite(ctx)
	}
	return nil
}

// tenant makes a tenant with its application and so many endpoints.
func (s *stage) tenant(ctx context.Context, number, endpoints int) (sender, error) {
	made, err := s.rig.NewTenant(ctx, "tenant-"+strconv.Itoa(number))
	if err != nil {
		return sender{}, err
	}
	api := rig.NewAPI(s.apis[0].Address, made.Key)
	defer api.Close()
	from := sender{key: made.Key}
	if from.application, err = api.Application("app"); err != nil {
		return sender{}, err
	}
	for n := range endpoints {
		index := number*endpointsPerTenant + n
		r := s.sink.receivers[index]
		create := api.Endpoint
		if r.ordered {
			create = api.OrderedEndpoint
		}
		id, err := create(from.application, "http://"+s.at(r)+endpointPath+strconv.Itoa(index), secretText(r.secret))
		if err != nil {
			return sender{}, err
		}
		from.endpoints = append(from.endpoints, index)
		from.ids = append(from.ids, id)
	}
	return from, nil
}

const (
	// loadTakes is how long posting takes at least, so that faults have time to bite one by one.
	loadTakes = 8.0
	// fastest is the rate for long runs, in messages per second.
	fastest = 300.0
)

// rate is how many messages are posted per second.
func (s *stage) rate() float64 {
	if s.fault.rate > 0 {
		return s.fault.rate
	}
	return min(fastest, float64(s.total)/loadTakes)
}

func (s *stage) ready(ctx context.Context) error {
	for _, keeper := range s.all() {
		if err := keeper.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) all() []*rig.Keeper { return slices.Concat(s.apis, s.workers) }

// stop ends the product's processes in order, all at once as a deploy would; one that has to be killed
// or ends with an error has crashed.
func (s *stage) stop() []string {
	problems := make([]string, len(s.all()))
	var stopping sync.WaitGroup
	for i, keeper := range s.all() {
		stopping.Go(func() {
			if err := keeper.Stop(); err != nil {
				problems[i] = err.Error()
			}
		})
	}
	stopping.Wait()
	return slices.DeleteFunc(problems, func(p string) bool { return p == "" })
}

// close ends everything at once.
func (s *stage) close() {
	s.rig.Close()
	s.names.close()
	if s.front != nil {
		s.front.Close()
	}
	if s.stopAll != nil {
		s.stopAll()
	}
	s.serving.Wait()
}

// until waits for a share of the messages to have been posted.
func (s *stage) until(ctx context.Context, share float64) error {
	return poll(ctx, time.Minute, fmt.Sprintf("%.0f %% of the messages", 100*share), func() (bool, error) {
		return float64(s.load.begun.Load()) >= share*float64(s.total), nil
	})
}

const pollEvery = 20 * time.Millisecond

// poll waits for a condition, which must come true within the limit.
func poll(ctx context.Context, limit time.Duration, what string, holds func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("wait for %s: %w", what, errNotInTime))
	defer cancel()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		if err := rig.Pause(ctx, pollEvery); err != nil {
			return err
		}
	}
}

var errNotInTime = errors.New("it did not happen in time")
