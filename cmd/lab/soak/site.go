package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// site is one installation, with a sink.
type site struct {
	options  Options
	dir      string
	rig      *rig.Rig
	children *traffic.Children
	api      *rig.Keeper
	worker   *rig.Keeper
	sink     *traffic.Sink
	plans    bool // the server can explain what it does
}

// open makes an installation whose worker does not run yet.
func open(ctx context.Context, o Options, dir string) (*site, error) {
	settings := rig.SmallServer()
	maps.Copy(settings, logSettings)
	installation, err := rig.Open(ctx, rig.Options{Dir: dir, Binary: o.Binary, MaxConnections: 100, PostgresSettings: settings})
	if err != nil {
		return nil, err
	}
	s := &site{options: o, dir: dir, rig: installation, children: &traffic.Children{Rig: installation, Self: o.Self, Dir: dir}}
	if err := s.start(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *site) start(ctx context.Context) error {
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	s.plans, err = readyPlans(ctx, conn)
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return err
	}
	if s.sink, err = s.children.Sink(ctx, 0); err != nil {
		return err
	}
	if s.api, err = s.rig.Keep("api", "api", nil); err != nil {
		return err
	}
	return s.api.Ready(ctx)
}

// work starts the worker.
func (s *site) work(ctx context.Context) error {
	var err error
	if s.worker, err = s.rig.Keep("worker", "worker", nil); err != nil {
		return err
	}
	return s.worker.Ready(ctx)
}

func (s *site) close() {
	if s.sink != nil {
		s.sink.Close()
	}
	s.rig.Close()
}

// crashes lists the processes that ended by themselves.
func (s *site) crashes() (n int) {
	for _, keeper := range []*rig.Keeper{s.api, s.worker} {
		n += len(keeper.Exits())
	}
	return n
}

// place is an application with endpoints at consecutive numbers of the sink.
type place struct {
	application string
	endpoints   []string // ids
}

// makers is how many connections make applications and endpoints.
const makers = 8

// applications makes so many applications of a tenant, each with so many endpoints at URLs by number.
func (s *site) applications(tenant rig.Tenant, name string, applications, each int, url func(number int) string) ([]place, error) {
	places := make([]place, applications)
	problems := make([]error, makers)
	var making sync.WaitGroup
	for m := range makers {
		making.Go(func() {
			api := rig.NewAPI(s.api.Address, tenant.Key)
			defer api.Close()
			for i := m; i < applications && problems[m] == nil; i += makers {
				places[i], problems[m] = makePlace(api, fmt.Sprintf("%s-%d", name, i+1), each, func(n int) string { return url(i*each + n) })
			}
		})
	}
	making.Wait()
	return places, errors.Join(problems...)
}

func makePlace(api *rig.API, name string, endpoints int, url func(n int) string) (p place, err error) {
	if p.application, err = api.Application(name); err != nil {
		return p, err
	}
	for n := range endpoints {
		id, err := api.Endpoint(p.application, url(n), "")
		if err != nil {
			return p, err
		}
		p.endpoints = append(p.endpoints, id)
	}
	return p, nil
}

func applicationsOf(places []place) []string {
	var ids []string
	for _, p := range places {
		ids = append(ids, p.application)
	}
	return ids
}

// posting is a load that runs.
type posting struct {
	rate   float64
	length time.Duration
	done   chan struct{}
	posts  []traffic.Record
	err    error
}

// loadConns is how many connections a load has: more than it needs, so that a slow answer does not hold
// back the next post.
const loadConns = 32

// post begins to post at a rate for a while, to applications in turn.
func (s *site) post(ctx context.Context, tenant rig.Tenant, to []place, rate float64, length time.Duration) *posting {
	p := &posting{rate: rate, length: length, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.posts, _, p.err = s.children.Load(ctx, traffic.Load{
			Address: s.api.Address, Applications: applicationsOf(to), Key: tenant.Key,
			Conns: loadConns, Rate: rate, Duration: length,
		})
	}()
	return p
}

// wait returns what was posted, when all was.
func (p *posting) wait() ([]traffic.Record, error) {
	<-p.done
	return p.posts, p.err
}

// settle waits until nothing is owed to any endpoint of some places, or until it has been long enough; what
// is missing then is lost.
func (s *site) settle(ctx context.Context, places ...place) error {
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var ids [][16]byte
	for _, p := range places {
		for _, text := range p.endpoints {
			id, err := endpointID(text)
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
	}
	for deadline := time.Now().Add(settleWait); time.Now().Before(deadline); {
		var owed bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM delivery WHERE endpoint_id = ANY ($1))", ids).Scan(&owed); err != nil {
			return fmt.Errorf("look for open deliveries: %w", err)
		}
		if !owed {
			return nil
		}
		if err := rig.Pause(ctx, settlePoll); err != nil {
			return err
		}
	}
	return nil
}

const (
	// settleWait is longer than a lease, by which everything that can still arrive has.
	settleWait = 45 * time.Second
	settlePoll = 500 * time.Millisecond
)

// memoryWatch looks at the memory of Redis every second.
type memoryWatch struct {
	stop    context.CancelFunc
	looking sync.WaitGroup
	peak    int64
	looks   int
	err     error
}

func (s *site) watchMemory(ctx context.Context) *memoryWatch {
	w := &memoryWatch{}
	ctx, w.stop = context.WithCancel(ctx)
	w.looking.Go(func() {
		for {
			used, err := s.rig.RedisMemory(ctx)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				w.err = err
				return
			}
			w.peak, w.looks = max(w.peak, used), w.looks+1
			if rig.Pause(ctx, time.Second) != nil {
				return
			}
		}
	})
	return w
}

// end returns the most that was seen, in MB.
func (w *memoryWatch) end() (float64, error) {
	w.stop()
	w.looking.Wait()
	return float64(w.peak) / 1e6, w.err
}

// platformCPU is the processor time used so far by everything that is the product's.
func (s *site) platformCPU() (sum time.Duration, err error) {
	for _, pid := range []int{s.api.PID(), s.worker.PID(), s.rig.PostgresPID(), s.rig.RedisPID()} {
		used, err := rig.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
