// Package worker delivers: it takes tasks from the queue, reads what they name as it is now, sends it,
// and records what came of it. Its agents, one per file, feed the queue from Postgres and keep the
// tables in shape.
package worker

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

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
	AttemptTimeout time.Duration // of one attempt, from the first lookup to the last byte
	Concurrency    int           // requests at once; 0 = DefaultConcurrency
	MaxAge         time.Duration // of a message in this installation; its partition goes then
	Metrics        *telemetry.Metrics
	Logger         *slog.Logger
}

// Worker delivers until its Run ends.
type Worker struct {
	o       Options
	slots   *semaphore.Weighted // one per request under way, freed when its result is recorded
	bulk    *semaphore.Weighted // the same for what background tasks owe, which takes none of the above
	sends   sync.WaitGroup
	results *groupcommit.Group[store.Recorded]
	stop    context.Context // ends when Run is told to stop
	stirred chan struct{}   // a task has come since the feeder last looked
}

// lease is how long a delivery belongs to whom it was handed.
func (w *Worker) lease() time.Duration { return w.o.AttemptTimeout + webhook.LeaseMargin }

// New makes a Worker.
func New(o Options) *Worker {
	if o.Concurrency == 0 {
		o.Concurrency = DefaultConcurrency
	}
	w := &Worker{o: o, slots: semaphore.NewWeighted(int64(o.Concurrency)), stirred: make(chan struct{}, 1)}
	w.bulk = semaphore.NewWeighted(int64(w.bulkSlots()))
	return w
}

// bulkShare is how many times as many requests may be under way for what is live as for background
// tasks: receivers that keep the latter waiting keep nothing else waiting.
const bulkShare = 8

func (w *Worker) bulkSlots() int { return max(1, w.o.Concurrency/bulkShare) }

// slotsOf are those that a task's deliveries take; it carries only one kind.
func (w *Worker) slotsOf(d webhook.Delivery) (slots *semaphore.Weighted, size int) {
	if d.Lane == webhook.LaneBulk {
		return w.bulk, w.bulkSlots()
	}
	return w.slots, w.o.Concurrency
}

// Run delivers until ctx ends. Then it takes no more tasks, lets every request that is under way end
// and its result be recorded, and returns: what it had not begun is handed to another worker.
func (w *Worker) Run(ctx context.Context) error {
	w.stop = ctx
	w.results = groupcommit.New(groupcommit.Options{
		BatchItems: maxResults, BatchSize: maxResultBytes, WaitingItems: 2*(w.o.Concurrency+w.bulkSlots()) + maxResults, WaitingSize: math.MaxInt,
	}, w.record)
	agents, agentCtx := errgroup.WithContext(ctx)
	agents.Go(func() error { return w.feed(agentCtx) })
	agents.Go(func() error { return w.retain(agentCtx) })
	agents.Go(func() error { return w.runTasks(agentCtx) })
	agents.Go(func() error { return w.o.Queue.Run(agentCtx, w.handle) })
	err := agents.Wait()
	w.sends.Wait()
	w.results.Close()
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
