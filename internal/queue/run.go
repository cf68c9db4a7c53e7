package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// never is the interval of asynq's agents that have nothing to do here: no task is ever delayed,
	// retried or kept after it is done.
	never = 1000 * time.Hour
	// askAgain is asynq's own pause after an empty answer. The waiting is done in dequeuer.
	askAgain = time.Millisecond
	// sweepEvery is how often remains are removed.
	sweepEvery = time.Minute
	// shutdownMargin is what asynq gets beyond the grace to end by itself.
	shutdownMargin = 2 * time.Second
)

// Handler takes over the deliveries of one task. Returning tells the queue that there is room for
// more, nothing else: an error is logged, and the deliveries are fed again when their lease ends.
// Its context ends when the task is no longer this process's: Redis was out of reach for longer than
// asynq's lease (30 s), or the grace after a stop is over. A handler that has not taken everything
// over by then must return.
type Handler func(ctx context.Context, deliveries []webhook.Delivery) error

// Run takes tasks and calls handle for each, until ctx is cancelled. Then it takes no more, waits for
// the handlers in progress up to the grace, ends their contexts and returns. It outlives every failure
// of Redis; an error means it could not start, or that a handler ignored its context.
func (q *Queue) Run(ctx context.Context, handle Handler) error {
	if q.running.Swap(true) {
		return errors.New("run queue: it is running already")
	}
	defer q.running.Store(false)

	options := *q.redis
	options.ReadTimeout, options.WriteTimeout = serverReadTimeout, serverReadTimeout
	options.PoolSize = 3*len(q.names) + 4 // per server: dequeue, acknowledge, heartbeat
	connections := newLine(redis.NewDialer(&options))
	options.Dialer = connections.Dial
	client := redis.NewClient(&options)
	defer client.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var agents sync.WaitGroup
	agents.Go(func() { q.wakes.run(ctx, client) })
	agents.Go(func() { q.sweepUntil(ctx, client) })

	r := &runner{queue: q, handle: handle}
	stop := make(chan struct{})
	servers, err := q.start(client, r, stop)
	if err != nil {
		cancel()
	}
	<-ctx.Done()
	close(stop)
	var ends sync.WaitGroup
	for _, server := range servers {
		ends.Go(server.Shutdown)
	}
	// asynq waits for Redis without a limit in places. Cutting the connections ends all of them.
	cut := time.AfterFunc(q.grace+shutdownMargin, connections.cut)
	ends.Wait()
	agents.Wait()
	cut.Stop()
	return errors.Join(err, r.finish(shutdownMargin))
}

// start starts one server per queue; after an error it returns those that run.
func (q *Queue) start(client redis.UniversalClient, handler asynq.Handler, stop <-chan struct{}) (servers []*asynq.Server, err error) {
	complaints := &asynqLog{logger: q.logger}
	for i, name := range q.names {
		concurrency, longest := q.concurrency, q.wakes.longest
		if name == bulkQueue {
			concurrency = min(concurrency, bulkConcurrency)
			longest = func() time.Duration { return bulkPatience * q.wakes.longest() }
		}
		server := asynq.NewServerFromRedisClient(&dequeuer{
			UniversalClient: client,
			pending:         pendingKey(name),
			paused:          pausedKey(name),
			bell:            q.wakes.bells[i],
			longest:         longest,
			stop:            stop,
		}, asynq.Config{
			Concurrency:              concurrency,
			Queues:                   map[string]int{name: 1},
			TaskCheckInterval:        askAgain,
			DelayedTaskCheckInterval: never,
			JanitorInterval:          never,
			ShutdownTimeout:          q.grace,
			Logger:                   complaints,
			LogLevel:                 asynq.WarnLevel,
		})
		if err := server.Start(handler); err != nil {
			return servers, fmt.Errorf("run queue: %w", err)
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// runner calls the handler and knows how many calls are in progress: asynq leaves those behind that
// outlast the grace.
type runner struct {
	queue      *Queue
	handle     Handler
	unreadable sync.Once

	mu       sync.Mutex // orders begin against finish
	finished bool
	calls    sync.WaitGroup
	count    int
}

// ProcessTask handles one task. It never returns an error, since asynq would keep the task for 90 days.
func (r *runner) ProcessTask(ctx context.Context, task *asynq.Task) error {
	if !r.begin() {
		return nil
	}
	defer r.end()
	defer func() {
		if p := recover(); p != nil {
			r.queue.logger.Error("handling a task panicked; its deliveries are fed again when their lease ends",
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	deliveries, err := decode(task.Payload())
	if err != nil {
		// Most likely a newer release pushed it while both run. Putting it back would have it go round
		// in circles between us; dropped, it comes back when the lease in Postgres ends.
		r.unreadable.Do(func() {
			r.queue.logger.Warn("dropped a task that this release cannot read; its deliveries are fed again when their lease ends", "error", err)
		})
		return nil
	}
	name, _ := asynq.GetQueueName(ctx)
	lane := laneOf(name)
	for i := range deliveries {
		deliveries[i].Lane = lane
	}
	if err := r.handle(ctx, deliveries); err != nil {
		level := slog.LevelWarn
		if ctx.Err() != nil {
			level = slog.LevelDebug // as it was told to; whoever ended the context has said why
		}
		r.queue.logger.Log(ctx, level, "a task was not taken over; its deliveries are fed again when their lease ends",
			"deliveries", len(deliveries), "error", err)
	}
	return nil
}

func (r *runner) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.finished {
		return false
	}
	r.count++
	r.calls.Add(1)
	return true
}

func (r *runner) end() {
	r.mu.Lock()
	r.count--
	r.mu.Unlock()
	r.calls.Done()
}

// finish waits for calls whose context has ended.
func (r *runner) finish(within time.Duration) error {
	r.mu.Lock()
	r.finished = true
	r.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		r.calls.Wait()
		close(idle)
	}()
	select {
	case <-idle:
		return nil
	case <-time.After(within):
		r.mu.Lock()
		defer r.mu.Unlock()
		return fmt.Errorf("run queue: %d handlers did not return when their context ended", r.count)
	}
}
