package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// ErrUnavailable is in every error that means Redis cannot be reached, as against having refused.
var ErrUnavailable = errors.New("redis is unavailable")

// probeEvery is how often Redis is asked whether it is back.
const probeEvery = 250 * time.Millisecond

// gate is the local circuit breaker. The first operation that cannot reach Redis shuts it; from then
// on callers are refused at once and one goroutine pings, so that no request ever waits to find out
// whether Redis is back.
type gate struct {
	ping   func(context.Context) error
	every  time.Duration
	logger *slog.Logger

	lost, back string // what is logged when it shuts and opens; a patient gate logs only if the first ping fails, too
	patient    bool

	shut atomic.Bool

	ctx    context.Context
	cancel context.CancelFunc

	mu     sync.Mutex // orders starting a prober against close
	closed bool
	prober sync.WaitGroup
}

func newGate(ping func(context.Context) error, every time.Duration, logger *slog.Logger) *gate {
	ctx, cancel := context.WithCancel(context.Background())
	return &gate{
		ping: ping, every: every, logger: logger, ctx: ctx, cancel: cancel,
		lost: "redis is unavailable; deliveries stay in Postgres until it is back",
		back: "redis is available again",
	}
}

func (g *gate) isOpen() bool { return !g.shut.Load() }

// fail shuts the gate because of err and sees to it that it opens again.
func (g *gate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed || g.shut.Swap(true) {
		return
	}
	if !g.patient {
		g.logger.Warn(g.lost, "error", err)
	}
	g.prober.Go(func() { g.probe(err) })
}

func (g *gate) probe(err error) {
	since, said := time.Now(), !g.patient
	for g.ping(g.ctx) != nil {
		if !said && g.ctx.Err() == nil {
			g.logger.Warn(g.lost, "error", err)
			said = true
		}
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(g.every):
		}
	}
	if said {
		g.logger.Info(g.back, "after", time.Since(since).Round(time.Millisecond))
	}
	g.shut.Store(false)
}

func (g *gate) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.cancel()
	g.prober.Wait()
}

// unreachable reports whether err says that Redis gave no answer. An answer that refuses (out of
// memory, loading, no permission) comes fast and therefore needs no breaker.
func unreachable(err error) bool {
	var answer redis.Error
	return err != nil && !errors.As(err, &answer)
}
