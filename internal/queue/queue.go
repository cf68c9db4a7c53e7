package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// DefaultQueues is how many live queues there are. One goroutine per queue dequeues in a worker, and
	// two, with tasks of many deliveries when it matters, keep several cores busy.
	DefaultQueues = 2
	// MaxQueues is the most queues Open takes.
	MaxQueues = 16
	// DefaultConcurrency is how many handlers a server runs at once. An acknowledgement searches the
	// list of running tasks, which this keeps short; more would add nothing, since a handler returns
	// as soon as its deliveries are taken over.
	DefaultConcurrency = 8
	// MaxConcurrency is the most handlers per server Open takes.
	MaxConcurrency = 64
	// DefaultTimeout bounds one round trip on the pushing side.
	DefaultTimeout = 250 * time.Millisecond
	// DefaultGrace is how long Run waits for handlers in progress once it is told to stop.
	DefaultGrace = 8 * time.Second
)

const (
	dialTimeout       = time.Second
	serverReadTimeout = 3 * time.Second
	// connectionBuffer holds the largest task; go-redis's default of 32 KiB each way is for others.
	connectionBuffer = 8 << 10
	sentinelKey      = "posthaste:sentinel"
	// fedQueue is for what the feeder releases, so that what was just accepted does not stand behind it.
	fedQueue = "posthaste:fed"
	// bulkQueue is for what background tasks owe. Its few handlers leave the workers to what is live.
	bulkQueue       = "posthaste:bulk"
	bulkConcurrency = 2
	// bulkPatience is how many times as long as a live queue it is left alone when it is empty: it mostly
	// is, and nobody minds if a wake-up that got lost delays a background task for some seconds.
	bulkPatience = 3
)

// Options say which Redis to use and how.
type Options struct {
	// URL is redis://, rediss:// (TLS) or unix://; it may carry user, password and database number.
	URL string
	// Queues is the number of queues; 0 means DefaultQueues. Every process of an installation uses the same.
	Queues int
	// Concurrency is the number of handlers per queue; 0 means DefaultConcurrency.
	Concurrency int
	// Private says that no other Queue, here or elsewhere, uses this Redis (it is embedded), so that
	// nobody need be woken through it.
	Private bool
	// Timeout bounds one round trip of everything but Run; 0 means DefaultTimeout.
	Timeout time.Duration
	// ScriptTimeout bounds one round trip of RunScript; 0 means DefaultScriptTimeout.
	ScriptTimeout time.Duration
	// Grace is how long Run waits for handlers once stopped; 0 means DefaultGrace.
	Grace time.Duration
	// Logger takes what an operator should know; nil means slog.Default.
	Logger *slog.Logger
}

// Queue pushes tasks and runs their handlers. It is safe for concurrent use.
type Queue struct {
	redis  *redis.Options
	client *redis.Client // the pushing side; Run has its own, so that neither can starve the other
	logger *slog.Logger

	names         []string // the live queues, and behind them the fed and the bulk queue
	live          int      // how many of them are live
	concurrency   int
	timeout       time.Duration
	scriptTimeout time.Duration
	grace         time.Duration

	gate    *gate
	prompt  *gate // RunScript's, behind the other
	wakes   *wakes
	enqueue atomic.Pointer[script] // asynq's enqueue script, once seen
	next    atomic.Uint64          // tasks go round the queues
	running atomic.Bool
}

// Open checks the options and returns a queue. It does not connect: a Redis that is away, now or
// later, only makes operations fail with ErrUnavailable until it is back.
func Open(o Options) (*Queue, error) {
	parsed, err := redis.ParseURL(o.URL)
	if err != nil {
		// The parser's own words quote the URL, and with it the password.
		return nil, errors.New("open queue: the Redis URL must look like redis://user:password@host:port/database, rediss://… or unix:///path")
	}
	if o.Queues == 0 {
		o.Queues = DefaultQueues
	}
	if o.Queues < 1 || o.Queues > MaxQueues {
		return nil, fmt.Errorf("open queue: Queues must be 1 to %d", MaxQueues)
	}
	if o.Concurrency == 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.Concurrency < 1 || o.Concurrency > MaxConcurrency {
		return nil, fmt.Errorf("open queue: Concurrency must be 1 to %d", MaxConcurrency)
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Grace == 0 {
		o.Grace = DefaultGrace
	}
	if o.ScriptTimeout == 0 {
		o.ScriptTimeout = DefaultScriptTimeout
	}
	if o.Timeout < 0 || o.ScriptTimeout < 0 || o.Grace < 0 {
		return nil, errors.New("open queue: Timeout, ScriptTimeout and Grace must not be negative")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	// The driver prints every failed dial to standard error; here each failure is an error that is
	// returned or logged once.
	logging.Disable()
	parsed.Protocol = 2
	parsed.DisableIdentity = true
	parsed.ContextTimeoutEnabled = true
	parsed.DialTimeout = dialTimeout
	parsed.DialerRetries = 1 // a gate and a backoff of our own stand above it
	parsed.MaxRetries = 1    // covers a pooled connection that died unnoticed
	parsed.MinRetryBackoff = -1
	parsed.ReadBufferSize, parsed.WriteBufferSize = connectionBuffer, connectionBuffer
	parsed.PipelinePoolSize = -1

	q := &Queue{
		redis:         parsed,
		logger:        o.Logger,
		concurrency:   o.Concurrency,
		timeout:       o.Timeout,
		scriptTimeout: o.ScriptTimeout,
		grace:         o.Grace,
	}
	for i := range o.Queues {
		q.names = append(q.names, "posthaste:live:"+strconv.Itoa(i))
	}
	q.live = len(q.names)
	q.names = append(q.names, fedQueue, bulkQueue)
	pushing := *parsed
	pushing.ReadTimeout, pushing.WriteTimeout = o.Timeout, o.Timeout
	pushing.PoolTimeout = o.Timeout
	q.client = redis.NewClient(&pushing)
	q.gate = newGate(q.ping, probeEvery, q.logger)
	q.prompt = newGate(q.pingPromptly, probeEvery, q.logger)
	q.prompt.patient = true
	q.prompt.lost = "redis answers too slowly for rate limits; what they apply to waits in Postgres"
	q.prompt.back = "redis answers quickly again"
	q.wakes = newWakes(len(q.names), parsed.DB, o.Private, q.logger)
	return q, nil
}

// Close ends the pushing side. Call it when Run has returned.
func (q *Queue) Close() error {
	q.gate.close()
	q.prompt.close()
	if err := q.client.Close(); err != nil {
		return fmt.Errorf("close queue: %w", err)
	}
	return nil
}

// Available reports whether Redis could be reached when last tried. It costs nothing; while it is
// false, Push, Length and Sentinel fail at once.
func (q *Queue) Available() bool { return q.gate.isOpen() }

// Lengths are numbers of tasks waiting to be taken, by lane.
type Lengths struct{ Live, Fed, Bulk int }

// Lengths asks how many tasks wait to be taken.
func (q *Queue) Lengths(ctx context.Context) (tasks Lengths, err error) {
	err = q.bounded(ctx, "count waiting tasks", func(ctx context.Context) error {
		pipe := q.client.Pipeline()
		counts := make([]*redis.IntCmd, len(q.names))
		for i, name := range q.names {
			counts[i] = pipe.LLen(ctx, pendingKey(name))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		for i, count := range counts {
			switch laneOf(q.names[i]) {
			case webhook.LaneLive:
				tasks.Live += int(count.Val())
			case webhook.LaneFed:
				tasks.Fed += int(count.Val())
			case webhook.LaneBulk:
				tasks.Bulk += int(count.Val())
			}
		}
		return nil
	})
	return tasks, err
}

// queueOf is the index of the queue that the next task of a lane goes into.
func (q *Queue) queueOf(lane webhook.Lane) int {
	switch lane {
	case webhook.LaneFed:
		return q.live
	case webhook.LaneBulk:
		return q.live + 1
	}
	return int(q.next.Add(1) % uint64(q.live))
}

// laneOf is the lane that a queue belongs to.
func laneOf(queue string) webhook.Lane {
	switch queue {
	case fedQueue:
		return webhook.LaneFed
	case bulkQueue:
		return webhook.LaneBulk
	}
	return webhook.LaneLive
}

// Sentinel is a random value that lives exactly as long as Redis's data. When it changes, Redis has
// lost what was pushed before, and all of it is to be pushed again.
func (q *Queue) Sentinel(ctx context.Context) (value string, err error) {
	err = q.bounded(ctx, "read the sentinel", func(ctx context.Context) error {
		// Read first: a Redis that is out of memory still answers reads.
		if value, err = q.client.Get(ctx, sentinelKey).Result(); !errors.Is(err, redis.Nil) {
			return err
		}
		var fresh [16]byte
		rand.Read(fresh[:])
		// Without an expiry: it must not go before the data does.
		if err := q.client.SetNX(ctx, sentinelKey, hex.EncodeToString(fresh[:]), 0).Err(); err != nil {
			return err
		}
		// Another process may have been first; what is there now counts.
		value, err = q.client.Get(ctx, sentinelKey).Result()
		return err
	})
	return value, err
}

// Health is what Check finds.
type Health struct {
	RTT             time.Duration // of one ping
	MaxMemoryPolicy string        // Redis's maxmemory-policy; empty when Redis would not say
	MaxMemory       int64         // bytes; 0 when unlimited or unknown
	UsedMemory      int64         // bytes; 0 when unknown
	Wakes           bool          // whether this process's worker is woken; false means it polls
}

// MayEvict reports that Redis is known to throw away keys when it is full. Nothing is lost by that,
// but deliveries whose task was thrown away wait for their lease to run out.
func (h Health) MayEvict() bool {
	return h.MaxMemoryPolicy != "" && h.MaxMemoryPolicy != "noeviction"
}

// Check asks Redis for a sign of life and for its memory settings, even while Available is false.
func (q *Queue) Check(ctx context.Context) (Health, error) {
	h := Health{Wakes: q.wakes.proven()}
	err := q.attempt(ctx, "check redis", func(ctx context.Context) error {
		start := time.Now()
		err := q.client.Ping(ctx).Err()
		h.RTT = time.Since(start)
		return err
	})
	if err != nil {
		return Health{}, err
	}
	// INFO rather than CONFIG GET, which managed services forbid. An embedded Redis knows neither.
	err = q.attempt(ctx, "read redis's memory settings", func(ctx context.Context) error {
		info, err := q.client.Info(ctx, "memory").Result()
		h.readMemory(info)
		if !unreachable(err) {
			return nil
		}
		return err
	})
	return h, err
}

func (h *Health) readMemory(info string) {
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "maxmemory_policy":
			h.MaxMemoryPolicy = value
		case "maxmemory":
			h.MaxMemory, _ = strconv.ParseInt(value, 10, 64)
		case "used_memory":
			h.UsedMemory, _ = strconv.ParseInt(value, 10, 64)
		}
	}
}

// ping is the gate's probe.
func (q *Queue) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	err := q.client.Ping(ctx).Err()
	if !unreachable(err) {
		return nil
	}
	return err
}

// bounded runs one operation against Redis unless Redis is known to be away.
func (q *Queue) bounded(ctx context.Context, what string, op func(context.Context) error) error {
	if !q.gate.isOpen() {
		return fmt.Errorf("%s: %w", what, ErrUnavailable)
	}
	return q.attempt(ctx, what, op)
}

// attempt runs one operation against Redis within the timeout, and shuts the gate if Redis gave no
// answer. A caller who gave up says nothing about Redis.
func (q *Queue) attempt(ctx context.Context, what string, op func(context.Context) error) error {
	within, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	err := op(within)
	switch {
	case err == nil:
		return nil
	case unreachable(err) && !gaveUp(ctx):
		q.gate.fail(err)
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// gaveUp reports whether a caller's context has ended, or is about to: a read with the same deadline
// may notice it first.
func gaveUp(ctx context.Context) bool {
	deadline, limited := ctx.Deadline()
	return ctx.Err() != nil || limited && !time.Now().Before(deadline)
}

// The keys of asynq's that are named here rather than by asynq; a test compares them with the real thing.
func pendingKey(queue string) string { return "asynq:{" + queue + "}:pending" }
func pausedKey(queue string) string  { return "asynq:{" + queue + "}:paused" }
