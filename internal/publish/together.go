package publish

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// A call with many messages does not go through the group commit. What that is for, one statement and
// one fsync for many messages, such a call has by itself; inside a group it would have to be split over
// several transactions, or everybody's single message would wait behind it. So it is a transaction of
// its own beside the group's: single messages never queue behind a batch, and batches wait only for
// one another, for one of a few slots, since each occupies a connection that others need.
const (
	maxTogether        = 2
	maxTogetherWaiting = 32
	// togetherPatience is how long a call waits for a slot.
	togetherPatience = 5 * time.Second
	// releaseAtOnce is up to how many messages of a call are handed out at once. The deliveries of a
	// larger one are parked: the feeder takes them into the window share by share, beside what else comes
	// in, instead of ten thousand at a time ahead of it.
	releaseAtOnce = 32
)

// slots bound how many calls write at a time, and how many wait for that.
type slots struct {
	writing chan struct{}
	waiting atomic.Int64
}

func newSlots() *slots { return &slots{writing: make(chan struct{}, maxTogether)} }

var errNoSlot = errors.New("too many batches are being stored")

// take waits for a slot; leave must be called afterwards.
func (s *slots) take(ctx context.Context) (leave func(), err error) {
	if s.waiting.Add(1) > maxTogether+maxTogetherWaiting {
		s.waiting.Add(-1)
		return nil, errNoSlot
	}
	ctx, cancel := context.WithTimeoutCause(ctx, togetherPatience, errNoSlot)
	defer cancel()
	select {
	case s.writing <- struct{}{}:
		return func() { <-s.writing; s.waiting.Add(-1) }, nil
	case <-ctx.Done():
		s.waiting.Add(-1)
		return nil, context.Cause(ctx)
	}
}

// Batch is what one call publishes into one application.
type Batch struct {
	Tenant      webhook.TenantID
	Application string // id or uid
	Requests    []Request
	Key         *store.Idempotency
	Quota       int64                                          // messages that the tenant may have accepted a day; 0 = any number
	Answer      func([]store.Accepted) (store.Response, error) // to the call, one Accepted per request in order
}

// AcceptTogether returns once those of a call's messages that can be stored are committed, all in one
// transaction with the answer, which a repeat of the call gets again. What refuses one message is in
// its store.Accepted; the error is of what refuses the call: webhook.ErrNotFound for the application,
// KindInvalid for a reused key or too many deliveries, KindRateLimited when the day's quota has not room
// for all of it, KindUnavailable if nobody can say.
func (p *Publisher) AcceptTogether(ctx context.Context, b Batch) (store.Response, error) {
	stored := 0
	counted, err := p.quotas.reserve(ctx, b.Tenant, b.Quota, len(b.Requests))
	if webhook.KindOf(err) == webhook.KindRateLimited && b.Key != nil {
		first, known, repeatedErr := p.o.Store.RepeatedTogether(ctx, b.Tenant, *b.Key)
		if known || repeatedErr != nil {
			return first, repeatedErr
		}
	}
	if err != nil {
		return store.Response{}, err
	}
	defer func() { counted(stored) }()
	leave, err := p.batches.take(ctx)
	if err != nil {
		return store.Response{}, webhook.Unavailable(err, "Too many batches are waiting to be stored; try again")
	}
	defer leave()
	t := store.Together{
		Tenant: b.Tenant, Application: b.Application, Idempotency: b.Key, Answer: b.Answer,
		Messages: make([]webhook.Message, len(b.Requests)),
		Release:  store.Release{Released: len(b.Requests) <= releaseAtOnce && p.o.Dispatcher.Admits(), Lease: p.o.Lease},
	}
	for i, r := range b.Requests {
		r.Tenant = b.Tenant
		t.Messages[i] = r.message()
	}
	// Not the caller's context: one that goes away in the middle would cost the pool a connection, again
	// and again if it likes.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	start := time.Now()
	answer, accepted, err := p.o.Store.AcceptTogether(writing, t)
	if err != nil {
		if webhook.KindOf(err) == webhook.KindUnavailable {
			p.o.Logger.Error("batch not stored", "error", errors.Unwrap(err))
		}
		return store.Response{}, err
	}
	for _, a := range accepted {
		if a.Err == nil {
			stored++
		}
	}
	if stored == 0 {
		return answer, nil
	}
	p.o.Metrics.AcceptBatchSize.Observe(float64(stored))
	p.o.Metrics.AcceptCommit.Observe(time.Since(start).Seconds())
	p.o.Metrics.MessagesAccepted.Add(float64(stored))
	p.handOutAccepted(accepted)
	return answer, nil
}
