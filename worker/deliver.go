package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// readTimeout bounds reading the jobs of a task.
	readTimeout = 5 * time.Second
	// readPause lies between tries to read them while Postgres is away.
	readPause = 200 * time.Millisecond
	// leaseReserve is what must be left of a lease beyond the attempt, so that the result is recorded
	// before somebody else may act. It is well under webhook.LeaseMargin, or every task would renew.
	leaseReserve = 5 * time.Second
)

// handle takes over the deliveries of one task and returns: that, and not the end of the requests, is
// what the queue waits for. It blocks while the process has its hands full, and while the database
// cannot be read, since a task that is given up waits for the end of its lease.
func (w *Worker) handle(ctx context.Context, deliveries []webhook.Delivery) error {
	w.stir()
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.stop, cancel)()
	lane := deliveries[0].Lane // a task carries only one
	if deliveries[0].Ordered {
		w.handleStream(waiting, lane, deliveries)
		return nil
	}
	for rest := deliveries; len(rest) > 0; {
		n, err := w.slots.take(waiting, lane, len(rest))
		if err != nil {
			w.o.Dispatcher.PutBack(rest, store.Hold{})
			return nil
		}
		chunk := rest[:n]
		rest = rest[n:]
		if err = waiting.Err(); err == nil {
			err = w.begin(context.WithoutCancel(ctx), chunk)
		}
		for err != nil && waiting.Err() == nil {
			w.o.Logger.Warn("a task could not be read; trying again", "error", err)
			pause(waiting, around(readPause))
			err = w.begin(context.WithoutCancel(ctx), chunk)
		}
		if err != nil {
			w.slots.leave(lane, n)
			w.o.Dispatcher.PutBack(chunk, store.Hold{})
		}
	}
	return nil
}

// begin starts what may be started and puts back what may not be now. It owns one place per delivery, unless
// it fails; then it has started nothing.
func (w *Worker) begin(ctx context.Context, deliveries []webhook.Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	read := time.Now() // leases are counted from before the read: never longer than Postgres thinks
	jobs, err := w.o.Store.Jobs(ctx, deliveries)
	if err != nil {
		return err
	}
	var (
		lane           = deliveries[0].Lane
		verdicts       = make([]verdict, len(jobs))
		late, suspects []webhook.Delivery
		backs          putBacks
	)
	for i := range jobs {
		j := &jobs[i]
		verdicts[i] = judge(*j, deliveries[i].Fence, w.o.AttemptTimeout+leaseReserve)
		if v := verdicts[i]; (v == tooLate || v == suspect) && ended(*j) == webhook.ClassNone {
			// A renewal may count as a start, so it comes after the question whether there will be one.
			if mayGo, how := w.targets.mayGo(j, lane, read); !mayGo {
				backs.add(j.Delivery, how)
				verdicts[i] = refused
			}
		}
		switch verdicts[i] {
		case stale:
			w.o.Metrics.Fenced(telemetry.FencedTask, 1)
		case tooLate:
			late = append(late, j.Delivery)
		case suspect:
			suspects = append(suspects, j.Delivery)
		case mayGo, refused:
		}
	}
	renewed, err := w.renew(ctx, late, suspects)
	if err != nil {
		return err
	}
	ring := make(keyring)
	for i := range jobs {
		ring.add(jobs[i].Secrets)
	}
	unused := 0
	now := time.Now()
	for i, j := range jobs {
		lease := read.Add(j.Lease)
		switch verdicts[i] {
		case stale, refused:
			unused++
			continue
		case tooLate, suspect:
			fence, ok := renewed[j.Delivery.DeliveryKey]
			if !ok {
				w.o.Metrics.Fenced(telemetry.FencedRenew, 1)
				unused++
				continue
			}
			j.Delivery.Fence = fence
			lease = read.Add(w.lease())
		case mayGo:
		}
		w.o.Metrics.LaneDelay(lane, w.lease()-j.Lease)
		f := &flight{job: j, ring: ring, lease: lease, place: place{lane: lane}}
		if ended(j) != webhook.ClassNone {
			w.launch(f)
			continue
		}
		switch became, how := w.targets.admit(f, now); became {
		case goes:
			if f.slow {
				unused++
			}
			w.launch(f)
		case lined: // it goes when another one ends
		case back:
			backs.add(j.Delivery, how)
			if probing(&j) {
				w.breaker.unsent(j.Delivery, how.hold.For)
			}
			unused++
		}
	}
	w.slots.leave(lane, unused)
	w.putBack(backs)
	return nil
}

// launch makes a delivery's request, beside everything else.
func (w *Worker) launch(f *flight) {
	w.o.Metrics.InFlight(f.lane, 1)
	w.sends.Go(func() {
		defer w.o.Metrics.InFlight(f.lane, -1)
		w.settle(f)
	})
}

// renew gives new leases to tasks that come late. A suspect is counted as started before it is, since
// it may not live to tell.
func (w *Worker) renew(ctx context.Context, late, suspects []webhook.Delivery) (map[webhook.DeliveryKey]webhook.Fence, error) {
	if len(late)+len(suspects) == 0 {
		return nil, nil
	}
	renewed := make(map[webhook.DeliveryKey]webhook.Fence)
	for _, r := range []struct {
		deliveries []webhook.Delivery
		suspects   bool
	}{{late, false}, {suspects, true}} {
		if len(r.deliveries) == 0 {
			continue
		}
		got, err := w.o.Store.Renew(ctx, r.deliveries, w.lease(), r.suspects)
		if err != nil {
			return nil, err
		}
		for _, d := range got {
			renewed[d.DeliveryKey] = d.Fence
		}
	}
	return renewed, nil
}

type verdict uint8

const (
	mayGo   verdict = iota
	stale           // it has ended, or was handed out again: not this task's business any more
	tooLate         // its lease would end before the attempt does
	refused         // it may go, but not now
	suspect         // it goes alone because its leases keep ending; its start must be counted
)

// judge decides whether a task still holds for the delivery it names.
func judge(j store.Job, fence webhook.Fence, need time.Duration) verdict {
	switch {
	case !j.Known || j.State != webhook.StateReleased || j.Delivery.Fence != fence:
		return stale
	case j.Lost > webhook.AloneAfter:
		return suspect
	case j.Lease < need:
		return tooLate
	}
	return mayGo
}

// settle brings one delivery a step further and sends its result on to be recorded. One whose lease ended
// before it began, because the process stood still, is somebody else's business by now: its owner should not
// read of an attempt that reached nobody, nor its endpoint be blamed.
func (w *Worker) settle(f *flight) {
	if now := time.Now(); now.After(f.lease) {
		w.drop(f, now)
		return
	}
	w.finish(result{w.bring(f), f.place})
}

// drop forgets a delivery that was to be sent.
func (w *Worker) drop(f *flight, now time.Time) {
	w.o.Metrics.Fenced(telemetry.FencedTask, 1)
	if f.target != nil {
		for _, next := range w.targets.end(f, webhook.ClassCanceled, 0, now) {
			w.launch(next)
		}
	}
	w.free([]result{{place: f.place}})
}

// bring brings one delivery a step further and returns the result.
func (w *Worker) bring(f *flight) store.Recorded {
	j := f.job
	a := webhook.Attempt{
		TenantID: j.Delivery.Tenant, ApplicationID: j.Endpoint.ApplicationID,
		MessageID: j.Delivery.Message, EndpointID: j.Delivery.Endpoint,
		Trigger: j.Delivery.Trigger, Number: j.Delivery.Attempt + 1, URL: j.Endpoint.URL,
	}
	r := store.Recorded{Delivery: j.Delivery, Probe: probing(&j)}
	if class := ended(j); class != webhook.ClassNone {
		a.ID = webhook.NewAttemptID()
		a.Status, a.Class, a.Final = webhook.StatusFail, class, true
		a.Detail.Error = endings[class]
		switch class {
		case webhook.ClassCanceled:
			a.Status = webhook.StatusCanceled
		case webhook.ClassPoison:
			w.o.Logger.Error("delivery ended: its worker died each time it was sent", "message", j.Delivery.Message.String(),
				"endpoint", j.Delivery.Endpoint.String())
		}
		r.Outcome = webhook.Outcome{Final: true}
	} else {
		r.Outcome = w.attempt(&a, j, f.ring, f.lease)
	}
	if f.target != nil {
		for _, next := range w.targets.end(f, a.Class, int(a.HTTPStatus), time.Now()) {
			w.launch(next)
		}
	}
	w.o.Metrics.Attempt(a.Class, a.Trigger, a.Duration)
	r.Attempt = a
	return r
}

// endings say to the endpoint's owner why a delivery ended without a request.
var endings = map[webhook.ErrorClass]string{
	webhook.ClassCanceled: "the endpoint was deleted or disabled before the message could be sent",
	webhook.ClassExpired:  "the payload is no longer kept",
	webhook.ClassPoison:   "sending this message failed inside the platform each time; it was given up",
}

// ended says why a delivery ends without a request, if it does.
func ended(j store.Job) webhook.ErrorClass {
	switch {
	case !j.Deliverable:
		return webhook.ClassCanceled
	case !j.MessageExists || j.Message.Payload == nil:
		return webhook.ClassExpired
	case j.Lost >= webhook.PoisonAfter:
		return webhook.ClassPoison
	}
	return webhook.ClassNone
}

// attempt sends once and decides what follows. Whatever goes wrong inside it is this delivery's
// failure, never the process's.
func (w *Worker) attempt(a *webhook.Attempt, j store.Job, ring keyring, lease time.Time) (next webhook.Outcome) {
	var retryAfter time.Duration
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			w.o.Logger.Error("sending panicked", "message", a.MessageID.String(), "endpoint", a.EndpointID.String(),
				"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			a.Status, a.Class, a.Detail.Error = webhook.StatusFail, webhook.ClassInternal, "internal error"
		}
		next = w.o.Policy.After(a.Status == webhook.StatusSuccess, a.Trigger, int(a.Number), retryAfter, rand.Float64())
		wait := next.Wait
		if a.Status != webhook.StatusSuccess && probing(&j) {
			wait, next = w.afterProbe(j.GateAge, time.Since(start))
		}
		a.Final = next.Final
		if !next.Final {
			at := time.Now().Add(wait).UTC()
			a.Detail.NextAttempt = &at
		}
	}()
	a.ID = webhook.NewAttemptIDAt(start)
	a.Status = webhook.StatusFail
	failpoint.HitOf(failpoint.WorkerBeforeSend, j.Endpoint.URL)
	request, signedWith, class, err := render(j, ring, start)
	if err != nil {
		a.Class, a.Detail.Error = class, err.Error()
		return next
	}
	request.Deadline = earlier(start.Add(w.o.AttemptTimeout), lease)
	a.Sent = true // whatever becomes of us from here on
	got := w.o.Egress.Send(context.Background(), request)
	failpoint.HitOf(failpoint.WorkerAfterSend, j.Endpoint.URL)
	retryAfter = webhook.RetryAfter(got.RetryAfter, time.Now())
	describe(a, j, got)
	a.Detail.SignedWith = signedWith
	if a.Number == 1 && a.Trigger == webhook.TriggerScheduled {
		w.o.Metrics.EndToEnd.Observe(start.Sub(j.Message.DueAt()).Seconds())
	}
	return next
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
