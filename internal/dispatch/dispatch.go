// Package dispatch decides who may go now. Postgres is the queue of record, and Redis holds a bounded
// window of it. Accept and feeder ask this package before they release, and hand it what they released.
// It keeps the windows, asks the limits, shares the room among tenants and endpoints, settles the wakes
// of what is parked, and lets ordered endpoints' streams go on.
package dispatch

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// DefaultLiveWindow is how many tasks of what was just accepted may wait in Redis when they are full;
	// of emptier ones as many more, up to emptiest times as many. It is enough to keep workers busy, and
	// few enough that a backlog stays in Postgres, where it can be reordered.
	DefaultLiveWindow = 64
	emptiest          = 8
	// DefaultFedWindow is the same for what the feeder releases. It looks often; what is in the window
	// is what a newcomer may have to wait for.
	DefaultFedWindow = 24
	// quietShare of the live window is how much live work a background task may add to.
	quietShare = 8
	// lookEvery is how old the queue's length may be before it is asked for again.
	lookEvery = 100 * time.Millisecond
	// parkTimeout bounds the write that takes back what could not be pushed.
	parkTimeout = 5 * time.Second
)

// offers bounds what waits to be pushed, in deliveries; more than that goes when its lease ends.
var offers = groupcommit.Options{BatchItems: 1024, BatchSize: 4096, WaitingItems: 1 << 16, WaitingSize: 1 << 17}

// Options wire a Dispatcher.
type Options struct {
	Store   *store.Store
	Queue   *queue.Queue
	Limiter Limiter
	Metrics *telemetry.Metrics
	Logger  *slog.Logger
	// LiveWindow and FedWindow are how many tasks of these lanes may wait in Redis; 0 = the defaults.
	LiveWindow, FedWindow int
}

// Dispatcher keeps the window. It is safe for concurrent use.
type Dispatcher struct {
	store   *store.Store
	queue   *queue.Queue
	limiter Limiter
	live    window
	fed     window
	metrics *telemetry.Metrics
	log     *slog.Logger

	asked   atomic.Bool   // somebody asked since the last look
	ask     chan struct{} // the first of them
	offered *groupcommit.Group[offer]
	streams *groupcommit.Group[streamOffer]
}

// window is how much of a lane may wait in Redis.
type window struct {
	size    int64        // tasks, when they are full
	waiting atomic.Int64 // tasks: as last seen, and what was pushed since
	mean    atomic.Int64 // thousandths of a delivery in a task, as lately pushed by this process
}

// room is how many more tasks may wait, if each is as full as those lately pushed.
func (w *window) room() int64 {
	size := w.size * emptiest
	if mean := w.mean.Load(); mean > 0 {
		size = min(size, w.size*queue.MaxTaskDeliveries*1000/mean)
	}
	return size - w.waiting.Load()
}

// pushed counts a task.
func (w *window) pushed(deliveries int) {
	w.waiting.Add(1)
	// Two at once may lose one's share in the mean, which says about as much without it.
	mean := w.mean.Load()
	w.mean.Store(mean + (int64(deliveries)*1000-mean)/16)
}

// New makes a Dispatcher; Run must be running for its answers to be worth anything.
func New(o Options) *Dispatcher {
	d := &Dispatcher{ask: make(chan struct{}, 1), store: o.Store, queue: o.Queue, limiter: o.Limiter, metrics: o.Metrics, log: o.Logger}
	d.live.size, d.fed.size = int64(cmp.Or(o.LiveWindow, DefaultLiveWindow)), int64(cmp.Or(o.FedWindow, DefaultFedWindow))
	d.offered = groupcommit.New(offers, d.pushOffered)
	d.streams = groupcommit.New(streamOffers, d.feedOffered)
	return d
}

// Run looks at the queue's length while anybody asks for it, until ctx ends; then it pushes what has
// been offered and returns. Nobody may call Offer any more.
func (d *Dispatcher) Run(ctx context.Context) error {
	defer d.offered.Close()
	defer d.streams.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.ask:
		}
		d.asked.Store(false)
		d.look(ctx)
		timer := time.NewTimer(lookEvery)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

func (d *Dispatcher) look(ctx context.Context) {
	live, fed := d.live.waiting.Load(), d.fed.waiting.Load()
	n, err := d.queue.Lengths(ctx)
	if err != nil {
		return // the queue's own gate says when it can be used again
	}
	// What was pushed while we were asking may or may not be in n; counting it twice only parks earlier.
	d.live.waiting.Add(int64(n.Live) - live)
	d.fed.waiting.Add(int64(n.Fed) - fed)
	d.metrics.QueueTasks.Set(float64(n.Live + n.Fed))
}

// Admits reports whether what is accepted now may be released at once. It never waits: a queue that
// is slow or gone must not slow down an accept. What the feeder releases has a window of its own, so
// that under overload what is parked goes beside what is new, and not never.
func (d *Dispatcher) Admits() bool {
	if !d.asked.Swap(true) {
		d.ask <- struct{}{}
	}
	return d.queue.Available() && d.live.room() > 0
}

// Room is how many tasks the feeder may push now; it asks the queue. There is none until a quarter of
// the window is free: releasing a few at a time as they are taken would cost a commit each, and the
// rest of the window keeps the workers busy meanwhile.
func (d *Dispatcher) Room(ctx context.Context) int {
	if !d.queue.Available() {
		return 0
	}
	d.look(ctx)
	room := d.fed.size - d.fed.waiting.Load()
	if !d.queue.Available() || room < max(1, d.fed.size/4) {
		return 0
	}
	return int(room)
}

// Quiet reports whether there is so little live work in the queue that a background task may add to it,
// and whether there is a queue at all; it asks the queue.
func (d *Dispatcher) Quiet(ctx context.Context) (quiet, available bool) {
	if !d.queue.Available() {
		return false, false
	}
	d.look(ctx)
	return d.live.waiting.Load() <= d.live.size/quietShare && d.fed.waiting.Load() <= d.fed.size/quietShare, d.queue.Available()
}

// offer is some released deliveries with their limits.
type offer struct {
	deliveries []webhook.Delivery
	rates      []webhook.Rates // one each; nil = none has any
	unread     bool            // the limits are not known and have to be read
}

// Offer pushes released deliveries soon and returns at once; rates are their limits, one each, or nil
// if none has any. What its limits do not let go now, and what cannot be pushed, is parked; what cannot
// even be parked goes when its lease ends.
func (d *Dispatcher) Offer(deliveries []webhook.Delivery, rates []webhook.Rates) {
	if len(deliveries) == 0 {
		return
	}
	d.offer(offer{deliveries: deliveries, rates: rates})
}

// OfferManual is Offer for a delivery that somebody asked for.
func (d *Dispatcher) OfferManual(delivery webhook.Delivery) {
	d.offer(offer{deliveries: []webhook.Delivery{delivery}, unread: true})
}

func (d *Dispatcher) offer(o offer) {
	if err := d.offered.Add(o, len(o.deliveries)); err != nil {
		d.log.Warn("released deliveries wait for the end of their lease", "count", len(o.deliveries), "reason", err)
	}
}

func (d *Dispatcher) pushOffered(batch []offer) {
	var all, limited, unread []webhook.Delivery
	var rates []webhook.Rates
	for _, o := range batch {
		switch {
		case o.unread:
			unread = append(unread, o.deliveries...)
		case o.rates == nil:
			all = append(all, o.deliveries...)
		default:
			limited, rates = append(limited, o.deliveries...), append(rates, o.rates...)
		}
	}
	ctx := context.Background()
	if limited != nil {
		all = append(all, d.admitted(ctx, limited, rates)...)
	}
	all = append(all, d.admittedUnread(ctx, unread)...)
	d.push(ctx, Tasks(all), d.parkAgain)
}

// admittedUnread is admitted for deliveries whose limits have to be read first.
func (d *Dispatcher) admittedUnread(ctx context.Context, deliveries []webhook.Delivery) []webhook.Delivery {
	if len(deliveries) == 0 {
		return nil
	}
	rates, err := d.store.Rates(ctx, deliveries)
	if err != nil {
		d.log.Warn("limits could not be read; deliveries are put off", "count", len(deliveries), "error", err)
		d.parkAgain(deliveries)
		return nil
	}
	return d.admitted(ctx, deliveries, rates)
}

// Push hands over what the feeder released and returns when that is done, or undone: what cannot be
// pushed is parked again. What background tasks owe is asked for at its limits first; all else has been.
func (d *Dispatcher) Push(ctx context.Context, fed []store.Fed) {
	var bulk []webhook.Delivery
	goes := make([]store.Fed, 0, len(fed))
	for _, f := range fed {
		if f.Lane == webhook.LaneBulk && f.Lost <= webhook.AloneAfter {
			bulk = append(bulk, f.Delivery)
			continue
		}
		goes = append(goes, f)
	}
	for _, delivery := range d.admittedUnread(ctx, bulk) {
		goes = append(goes, store.Fed{Delivery: delivery})
	}
	d.push(ctx, FedTasks(goes), d.parkAgain)
}

// PushTask hands over what a background task released, as far as its limits let it go now, and returns
// when that is done, or undone.
func (d *Dispatcher) PushTask(ctx context.Context, deliveries []webhook.Delivery) {
	d.push(ctx, Tasks(d.admittedUnread(ctx, deliveries)), d.parkAgain)
}

// push hands tasks to the queue. If it cannot, all that is in them is undone: some may have been pushed
// all the same, and their fence no longer holds then.
func (d *Dispatcher) push(ctx context.Context, tasks [][]webhook.Delivery, undo func([]webhook.Delivery)) {
	if len(tasks) == 0 {
		return
	}
	d.countPushed(tasks)
	err := d.queue.Push(ctx, tasks)
	failpoint.Hit(failpoint.APIAfterEnqueue)
	if err == nil {
		return
	}
	unpushed := slices.Concat(tasks...)
	if !errors.Is(err, queue.ErrUnavailable) {
		d.log.Warn("deliveries could not be pushed and are put back", "count", len(unpushed), "error", err)
	}
	undo(unpushed)
}

// countPushed takes room for tasks that are about to be pushed.
func (d *Dispatcher) countPushed(tasks [][]webhook.Delivery) {
	for _, task := range tasks {
		switch task[0].Lane {
		case webhook.LaneLive:
			d.live.pushed(len(task))
		case webhook.LaneFed:
			d.fed.pushed(len(task))
		case webhook.LaneBulk: // background tasks bound themselves
		}
	}
}

// parkAgain is PutBack of what goes as soon as there is room.
func (d *Dispatcher) parkAgain(deliveries []webhook.Delivery) { d.PutBack(deliveries, store.Hold{}) }

// PutBack parks deliveries that were handed out and will not be begun, so that they need not wait for
// the end of their lease.
func (d *Dispatcher) PutBack(deliveries []webhook.Delivery, hold store.Hold) {
	ctx, cancel := context.WithTimeout(context.Background(), parkTimeout)
	defer cancel()
	if err := d.store.Park(ctx, deliveries, hold); err != nil {
		d.log.Warn("deliveries wait for the end of their lease", "count", len(deliveries), "error", err)
		return
	}
	parked := 0
	for _, delivery := range deliveries {
		if delivery.Lane != webhook.LaneBulk {
			parked++
		}
	}
	d.metrics.Parked.Add(float64(parked))
}
