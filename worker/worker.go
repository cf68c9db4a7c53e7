// Package worker delivers: it takes tasks from the queue, reads what they name as it is now, sends it,
// and records what came of it. Its agents, one per file, feed the queue from Postgres and keep the
// tables in shape.
package worker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/task"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// DefaultConcurrency is how many requests one worker process has under way at most.
const DefaultConcurrency = 512

// Options wire a Worker.
type Options struct {
	Store          *store.Store
	Queue          *queue.Queue
	Dispatcher     *dispatch.Dispatcher
	Egress         *egress.Client
	Tasks          *task.Tasks
	Policy         webhook.Policy
	Breaker        webhook.Breaker // the zero one = webhook.DefaultBreaker
	AttemptTimeout time.Duration   // of one attempt, from the first lookup to the last byte
	Concurrency    int             // requests at once, besides those that last; 0 = DefaultConcurrency
	// EndpointConcurrency and HostConcurrency are how many requests at once, those that last included, may go
	// to one endpoint and to one host; 0 = Concurrency.
	EndpointConcurrency, HostConcurrency int

	SlowAfter time.Duration // how long a request is not one that lasts; 0 = DefaultSlowAfter
	MaxAge    time.Duration // of a message in this installation; its partition goes then
	Metrics   *telemetry.Metrics
	Logger    *slog.Logger
}

// Worker delivers until its Run ends.
type Worker struct {
	o       Options
	slots   *slots
	targets *targets
	sends   sync.WaitGroup
	results *groupcommit.Group[result]
	breaker *breaker
	stop    context.Context // ends when Run is told to stop
	stirred chan struct{}   // a task has come since the feeder last looked
}

// lease is how long a delivery belongs to whom it was handed.
func (w *Worker) lease() time.Duration { return w.o.AttemptTimeout + webhook.LeaseMargin }

// New makes a Worker.
func New(o Options) *Worker {
	o.Concurrency = cmp.Or(o.Concurrency, DefaultConcurrency)
	o.EndpointConcurrency = cmp.Or(o.EndpointConcurrency, o.Concurrency)
	o.HostConcurrency = cmp.Or(o.HostConcurrency, o.Concurrency)
	o.SlowAfter = cmp.Or(o.SlowAfter, DefaultSlowAfter)
	o.Breaker = cmp.Or(o.Breaker, webhook.DefaultBreaker)
	w := &Worker{o: o, slots: newSlots(o.Concurrency), stirred: make(chan struct{}, 1)}
	w.targets = newTargets(w.slots, o)
	return w
}

// Run delivers until ctx ends. Then it takes no more tasks, lets every request that is under way end
// and its result be recorded, and returns: what it had not begun is handed to another worker.
func (w *Worker) Run(ctx context.Context) error {
	w.stop = ctx
	w.breaker = w.watch()
	w.results = groupcommit.New(groupcommit.Options{
		BatchItems: maxResults, BatchSize: maxResultBytes, WaitingItems: (webhook.MaxStreamTask+1)*w.slots.all() + maxResults, WaitingSize: math.MaxInt,
	}, w.record)
	agents, agentCtx := errgroup.WithContext(ctx)
	agents.Go(func() error { return w.feed(agentCtx) })
	agents.Go(func() error { return w.retain(agentCtx) })
	agents.Go(func() error { return w.runTasks(agentCtx) })
	agents.Go(func() error { return w.sweep(agentCtx) })
	agents.Go(func() error { return w.o.Queue.Run(agentCtx, w.handle) })
	err := agents.Wait()
	w.emptyLines()
	w.sends.Wait()
	w.results.Close()
	w.breaker.close()
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("worker: %w", err)
	}
	return nil
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// around is a duration up to a tenth off, so that processes do not act in step.
func around(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}
