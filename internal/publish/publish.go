// Package publish is the one way in: it makes a message durable together with every delivery it owes,
// and hands those to dispatch. Concurrent messages share a transaction.
package publish

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Limits of one accept transaction and of everything that waits for one. What waits is memory that a
// stalled disk would otherwise fill.
const (
	maxBatch        = 256
	maxBatchBytes   = 4 << 20
	maxWaiting      = 8192
	maxWaitingBytes = 128 << 20
	rowBytes        = 512 // what a message weighs besides its payload
	// flushTimeout ends a transaction that hangs; its messages are answered 503, which promises nothing.
	flushTimeout = 15 * time.Second
)

// Options wire a Publisher.
type Options struct {
	Store      *store.Store
	Dispatcher *dispatch.Dispatcher
	Lease      time.Duration // of a released delivery: the attempt's timeout and webhook.LeaseMargin
	Metrics    *telemetry.Metrics
	Logger     *slog.Logger
}

// Publisher accepts messages. It is safe for concurrent use.
type Publisher struct {
	o       Options
	group   *groupcommit.Group[*pending]
	batches *slots
	quotas  *quotas
}

// Request is one message to accept.
type Request struct {
	Tenant      webhook.TenantID
	Application string          // id or uid
	Message     webhook.Message // EventType, EventID, Channels, Tags and Payload
	Retention   time.Duration   // of the payload; 0 = webhook.DefaultRetentionDays
	Quota       int64           // messages that the tenant may have accepted a day; 0 = any number
	Key         *store.Idempotency
	Note        []byte // what the answer says besides the message
}

type pending struct {
	accept store.Accept
	result store.Accepted
	done   chan struct{}
}

// New makes a Publisher; Close it after the last Accept has returned.
func New(o Options) *Publisher {
	p := &Publisher{o: o, batches: newSlots(), quotas: newQuotas(o.Store, o.Logger)}
	p.group = groupcommit.New(groupcommit.Options{
		BatchItems: maxBatch, BatchSize: maxBatchBytes, WaitingItems: maxWaiting, WaitingSize: maxWaitingBytes,
	}, p.flush)
	return p
}

// Close flushes what waits and returns when that is done.
func (p *Publisher) Close() {
	p.group.Close()
	p.quotas.group.Close()
}

// Accept returns once the message, its payload and one row per matching delivery are committed, or
// were not written at all: webhook.ErrNotFound for the application, KindConflict for a taken event id,
// KindInvalid for a reused idempotency key, KindRateLimited when the day's quota is used up,
// KindUnavailable if nobody can say. A repeated publish returns the first one's message and note.
func (p *Publisher) Accept(ctx context.Context, r Request) (m webhook.Message, note []byte, err error) {
	accepted, err := p.quotas.reserve(ctx, r.Tenant, r.Quota, 1)
	if webhook.KindOf(err) == webhook.KindRateLimited {
		// What was answered stays answered.
		if first, note, known, repeatedErr := p.Repeated(ctx, r); known || repeatedErr != nil {
			return first, note, repeatedErr
		}
	}
	if err != nil {
		return webhook.Message{}, nil, err
	}
	e := &pending{accept: r.accept(), done: make(chan struct{})}
	if err := p.group.Add(e, rowBytes+len(r.Message.Payload)+len(r.Note)); err != nil {
		accepted(0)
		return webhook.Message{}, nil, webhook.Unavailable(err, "Too many messages are waiting to be stored; try again")
	}
	select {
	case <-e.done:
	case <-ctx.Done():
		// The message is written all the same; whoever asked is gone or will ask again with its key.
		accepted(1)
		return webhook.Message{}, nil, webhook.Unavailable(context.Cause(ctx), "The message may or may not have been stored; try again")
	}
	if e.result.Err == nil && !e.result.Replayed {
		accepted(1)
	} else {
		accepted(0)
	}
	return answer(e.result, r.Note)
}

// Repeated returns what Accept would return of a publish that repeats an earlier one; known is false if
// this one does not. It is for a publish that would be refused today: what was answered stays answered.
func (p *Publisher) Repeated(ctx context.Context, r Request) (m webhook.Message, note []byte, known bool, err error) {
	first, known, err := p.o.Store.Repeated(ctx, r.accept())
	if err != nil || !known {
		return webhook.Message{}, nil, false, err
	}
	m, note, err = answer(first, nil)
	return m, note, true, err
}

// answer is what the caller is told; note is its own.
func answer(a store.Accepted, note []byte) (webhook.Message, []byte, error) {
	switch {
	case a.Err != nil:
		return webhook.Message{}, nil, a.Err
	case a.Replayed:
		note = a.Note
	}
	return a.Message, note, nil
}

func (r Request) accept() store.Accept {
	if r.Key != nil {
		key := *r.Key
		key.Note = r.Note
		r.Key = &key
	}
	return store.Accept{Message: r.message(), Application: r.Application, Idempotency: r.Key}
}

// message is the one that is stored: named now, and with the time when its payload goes.
func (r Request) message() webhook.Message {
	m := r.Message
	m.TenantID = r.Tenant
	m.ID = webhook.NewMessageID()
	if r.Retention == 0 {
		r.Retention = webhook.DefaultRetentionDays * 24 * time.Hour
	}
	m.ExpiresAt = m.CreatedAt().Add(r.Retention)
	return m
}

func (p *Publisher) flush(batch []*pending) {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	accepts := make([]store.Accept, len(batch))
	for i, e := range batch {
		accepts[i] = e.accept
	}
	release := p.release()
	start := time.Now()
	results := p.o.Store.Accept(ctx, accepts, release)
	took := time.Since(start)

	accepted := 0
	for i, e := range batch {
		e.result = results[i]
		if e.result.Err == nil && !e.result.Replayed {
			accepted++
		}
		if webhook.KindOf(e.result.Err) == webhook.KindUnavailable && e.result.Err != nil {
			p.o.Logger.Error("message not stored", "error", errors.Unwrap(e.result.Err))
		}
	}
	p.o.Metrics.AcceptBatchSize.Observe(float64(len(batch)))
	p.o.Metrics.AcceptCommit.Observe(took.Seconds())
	p.o.Metrics.MessagesAccepted.Add(float64(accepted))
	p.handOutAccepted(results)
	for _, e := range batch {
		close(e.done)
	}
}

// release decides how what is accepted now leaves its transaction.
func (p *Publisher) release() store.Release {
	return store.Release{Released: p.o.Dispatcher.Admits(), Lease: p.o.Lease}
}

// handOutAccepted gives what is owed of new messages to the queue, as far as it was written so. Its rows
// must be committed: a worker that finds none drops its task.
func (p *Publisher) handOutAccepted(accepted []store.Accepted) {
	var now []webhook.Delivery
	var rates []webhook.Rates // of now; nil as long as none has any
	var streams []store.StreamKey
	created, parked := 0, 0
	for _, a := range accepted {
		if a.Err != nil || a.Replayed {
			continue
		}
		created += len(a.Deliveries)
		streams = append(streams, a.Streams...)
		for i, d := range a.Deliveries {
			if d.Feed == 0 {
				if a.Message.DeliverAt.IsZero() && !d.Ordered { // else it waits for its time, or its turn
					parked++
				}
				continue
			}
			if a.Rates != nil && rates == nil {
				rates = make([]webhook.Rates, len(now), len(now)+len(a.Deliveries))
			}
			now = append(now, d)
			switch {
			case a.Rates != nil:
				rates = append(rates, a.Rates[i])
			case rates != nil:
				rates = append(rates, webhook.Rates{})
			}
		}
	}
	p.o.Metrics.DeliveriesCreated.Add(float64(created))
	p.o.Metrics.Parked.Add(float64(parked))
	p.o.Dispatcher.Offer(now, rates)
	p.o.Dispatcher.OfferStreams(p.o.Lease, streams...)
}

// handOutManual gives a delivery that somebody asked for to the queue, if that is how it was written. Its
// row must be committed: a worker that finds none drops its task.
func (p *Publisher) handOutManual(r store.Release, d webhook.Delivery) {
	p.o.Metrics.DeliveriesCreated.Inc()
	if r.Released {
		p.o.Dispatcher.OfferManual(d)
	} else {
		p.o.Metrics.Parked.Inc()
	}
}
