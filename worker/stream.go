package worker

import (
	"context"
	"slices"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// streamLooks is how often in a row the feeder looks at due streams, if there are that many.
	streamLooks = 8
	// freshFor is how long what was read about a stream's deliveries is good for: after that, endpoint and
	// fences are read again before the next is sent.
	freshFor = time.Second
)

// handleStream takes over a task that is sent in order. It takes one place, since it sends one at a time.
func (w *Worker) handleStream(waiting context.Context, lane webhook.Lane, deliveries []webhook.Delivery) {
	if _, err := w.slots.take(waiting, lane, 1); err != nil {
		w.o.Dispatcher.PutBackStream(deliveries)
		return
	}
	if waiting.Err() != nil {
		w.o.Dispatcher.PutBackStream(deliveries)
		w.slots.leave(lane, 1)
		return
	}
	w.o.Metrics.InFlight(lane, 1)
	w.sends.Go(func() {
		defer w.o.Metrics.InFlight(lane, -1)
		(&streamTask{w: w, lane: lane, rest: deliveries}).run()
	})
}

// streamTask is a part of a stream that this worker sends, in order.
type streamTask struct {
	w    *Worker
	lane webhook.Lane
	slow bool               // its place is a slow one
	rest []webhook.Delivery // what has not been sent, with the fences it has now

	jobs []store.Job // of rest, as last read
	read time.Time   // when that was; zero = not yet
	ring keyring
	ends map[webhook.DeliveryKey]time.Time // when leases end, by this process's monotonic clock
}

// run sends until something fails, or may not be sent. Before the last result is handed on to be recorded
// the rest is put back, and only when it is recorded will the stream be looked at again.
func (t *streamTask) run() {
	job, ok := t.next()
	if !ok {
		t.w.o.Dispatcher.PutBackStream(t.rest)
		t.w.slots.leave(t.lane, 1)
		return
	}
	for {
		r := t.bring(job)
		if r.Outcome.Final && r.Attempt.Status == webhook.StatusFail && ended(job) == webhook.ClassNone &&
			job.Endpoint.OnExhausted == webhook.ExhaustedBlocks {
			r.Outcome, r.Attempt.Final = webhook.Outcome{Blocked: true}, false
		}
		if ok = r.Outcome.Final; ok {
			job, ok = t.next()
		}
		if !ok {
			t.putBack()
			r.Last = true
		}
		t.w.finish(result{r, place{t.lane, t.slow}})
		if !ok {
			return
		}
	}
}

// bring sends one. If that lasts, the task moves to a slow place, and leaves its own to another, as any
// request does; it stays there.
func (t *streamTask) bring(job store.Job) store.Recorded {
	f := flight{job: job, ring: t.ring, lease: t.ends[job.Delivery.DeliveryKey], place: place{t.lane, t.slow}}
	if t.slow {
		return t.w.bring(&f)
	}
	moved := make(chan bool, 1)
	lasts := time.AfterFunc(t.w.o.SlowAfter, func() {
		var want [3]int
		want[t.lane] = 1
		moved <- t.w.slots.move(want, 0)[t.lane] == 1
	})
	r := t.w.bring(&f)
	if !lasts.Stop() {
		t.slow = <-moved
	}
	return r
}

// putBack puts back what was not sent. If that fails it goes when its lease ends.
func (t *streamTask) putBack() {
	if len(t.rest) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	if err := t.w.o.Store.PutBackStream(ctx, t.rest); err != nil {
		t.w.o.Logger.Warn("a part of a stream waits for the end of its lease", "count", len(t.rest), "error", err)
	}
}

// next takes the next delivery off the rest, if it may be sent. What has ended meanwhile is passed over; the
// first that belongs to somebody else ends the task.
func (t *streamTask) next() (store.Job, bool) {
	for len(t.rest) > 0 {
		if t.w.stop.Err() != nil || !t.refresh() {
			return store.Job{}, false
		}
		d, j := t.rest[0], t.jobs[0]
		if !j.Known {
			t.rest, t.jobs = t.rest[1:], t.jobs[1:]
			continue
		}
		need := t.w.o.AttemptTimeout + leaseReserve
		left := j
		left.Lease = time.Until(t.ends[d.DeliveryKey])
		switch judge(left, d.Fence, need) {
		case stale:
			t.w.o.Metrics.Fenced(telemetry.FencedTask, 1)
			return store.Job{}, false
		case tooLate, suspect:
			if !t.renew(j.Lost > webhook.AloneAfter) {
				t.w.o.Metrics.Fenced(telemetry.FencedRenew, 1)
				return store.Job{}, false
			}
			j.Delivery.Fence = t.rest[0].Fence
		case mayGo:
		}
		if j.Deliverable && j.Gate.Holds() {
			return store.Job{}, false
		}
		t.rest, t.jobs = t.rest[1:], t.jobs[1:]
		return j, true
	}
	return store.Job{}, false
}

// refresh reads the rest again when what is known of it is old: an endpoint may have been paused, changed or
// deleted since, and a message skipped.
func (t *streamTask) refresh() bool {
	if !t.read.IsZero() && time.Since(t.read) < freshFor {
		return true
	}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
		read := time.Now() // leases are counted from before the read: never longer than Postgres thinks
		jobs, err := t.w.o.Store.Jobs(ctx, t.rest)
		cancel()
		if err == nil {
			t.jobs, t.read, t.ring, t.ends = jobs, read, make(keyring), make(map[webhook.DeliveryKey]time.Time, len(jobs))
			for _, j := range jobs {
				t.ring.add(j.Secrets)
				t.ends[j.Delivery.DeliveryKey] = read.Add(j.Lease)
			}
			return true
		}
		t.w.o.Logger.Warn("a part of a stream could not be read; trying again", "error", err)
		if t.w.stop.Err() != nil {
			return false
		}
		pause(t.w.stop, around(readPause))
	}
}

// renew gives the rest new leases. What is not this worker's any more, and all behind it, is left to whom it
// belongs to.
func (t *streamTask) renew(countStart bool) bool {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	asked := time.Now()
	got, err := t.w.o.Store.Renew(ctx, t.rest, t.w.lease(), countStart)
	if err != nil {
		t.w.o.Logger.Warn("a part of a stream could not be kept", "error", err)
		return false
	}
	for i := range t.rest {
		d := &t.rest[i]
		at := slices.IndexFunc(got, func(g webhook.Delivery) bool { return g.DeliveryKey == d.DeliveryKey })
		if at < 0 {
			continue // it has ended, or is somebody else's; its turn will tell
		}
		d.Fence = got[at].Fence
		t.jobs[i].Delivery.Fence = d.Fence
		t.ends[d.DeliveryKey] = asked.Add(t.w.lease())
	}
	return slices.ContainsFunc(got, func(g webhook.Delivery) bool { return g.DeliveryKey == t.rest[0].DeliveryKey })
}

// feedStreams releases what may go of the streams whose time has come: a retry, the end of a lease, or
// something that nobody else has seen to.
func (f *feeder) feedStreams(ctx context.Context) error {
	for range streamLooks {
		released, more, err := f.wakes.FeedDueStreams(ctx, f.w.lease())
		f.w.o.Metrics.Released(telemetry.ReleasedWake, released)
		if err != nil || !more {
			return err
		}
	}
	return nil
}
