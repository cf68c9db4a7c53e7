package queue

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	minDequeueBackoff = 50 * time.Millisecond
	maxDequeueBackoff = time.Second
)

// dequeuer is the client one asynq.Server is given. asynq asks for a task, and if there is none,
// sleeps and asks again; dequeuer makes a question that found nothing wait for a wake-up instead and
// asks again itself, so that an idle server costs next to nothing and yet starts a task at once. It
// also slows asynq down while Redis fails, since asynq asks again without a pause then.
// One goroutine of the server dequeues; everything else passes through untouched.
type dequeuer struct {
	redis.UniversalClient
	pending, paused string
	bell            <-chan struct{}
	longest         func() time.Duration
	stop            <-chan struct{} // closed: answer "nothing" at once, without asking

	backoff time.Duration // touched by the dequeuing goroutine only
}

// EvalSha is how asynq runs a script Redis should know.
func (d *dequeuer) EvalSha(ctx context.Context, digest string, keys []string, args ...any) *redis.Cmd {
	ask := func() *redis.Cmd { return d.UniversalClient.EvalSha(ctx, digest, keys, args...) }
	if !d.dequeues(keys) {
		return ask()
	}
	return d.await(ask)
}

// Eval is how asynq runs a script Redis turned out not to know.
func (d *dequeuer) Eval(ctx context.Context, source string, keys []string, args ...any) *redis.Cmd {
	ask := func() *redis.Cmd { return d.UniversalClient.Eval(ctx, source, keys, args...) }
	if !d.dequeues(keys) {
		return ask()
	}
	return d.await(ask)
}

// dequeues recognises the dequeue script by the keys it is given: pending, paused, active and lease.
func (d *dequeuer) dequeues(keys []string) bool {
	return len(keys) == 4 && keys[0] == d.pending && keys[1] == d.paused
}

// await asks until there is a task, the longest wait is over or the server stops. It must not go on
// longer: asynq fixed the task's lease, 30 s, before the first question, and fixes a new one for the next.
func (d *dequeuer) await(ask func() *redis.Cmd) *redis.Cmd {
	timer := time.NewTimer(d.longest())
	defer timer.Stop()
	for {
		select {
		case <-d.stop:
			return redis.NewCmdResult(nil, redis.Nil)
		default:
		}
		answer := ask()
		switch err := answer.Err(); {
		case err == nil, redis.HasErrorPrefix(err, "NOSCRIPT"), errors.Is(err, redis.ErrNoScript):
			d.backoff = 0
			return answer
		case !errors.Is(err, redis.Nil):
			d.pause()
			return answer
		}
		d.backoff = 0
		select {
		case <-d.bell:
		case <-timer.C:
			return answer
		case <-d.stop:
		}
	}
}

// pause waits after a failure, longer after each one, spread so that servers do not ask in step.
func (d *dequeuer) pause() {
	d.backoff = min(max(2*d.backoff, minDequeueBackoff), maxDequeueBackoff)
	select {
	case <-time.After(d.backoff/2 + rand.N(d.backoff/2)):
	case <-d.stop:
	}
}
