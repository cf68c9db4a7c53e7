package dispatch

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// The streams of ordered endpoints are fed by whoever knows that something may go: whoever put something
// in, whose task has ended, and the feeder, for what has to do with time and with all that was missed.

const (
	// streamTimeout bounds one look at streams, waiting for their locks included.
	streamTimeout = 5 * time.Second
	// streamShare is how many streams are looked at together at most. When more are due, the feeder takes
	// streamsEach of each of so many tenants.
	streamShare = 64
	streamsEach = 4
)

// streamOffers bounds what waits to be looked at, in streams; the feeder finds what is more than that.
var streamOffers = groupcommit.Options{BatchItems: streamShare, BatchSize: streamShare, WaitingItems: 1 << 14, WaitingSize: 1 << 14}

type streamOffer struct {
	key   store.StreamKey
	lane  webhook.Lane
	lease time.Duration
}

// OfferStreams has streams looked at soon into which something was put, and returns at once. If the window
// is full the feeder will look: what was put in made the stream due.
func (d *Dispatcher) OfferStreams(lease time.Duration, keys ...store.StreamKey) {
	if len(keys) > 0 && d.Admits() {
		d.offerStreams(lease, webhook.LaneLive, keys)
	}
}

// NextOfStream has a stream looked at of which a task has ended. The window is not asked: the task has left
// its place in it, and this one takes that, so that no more is in the window than was. A line that had to wait
// for room between any two tasks would stand still beside a backlog that fills the window again and again.
func (d *Dispatcher) NextOfStream(lease time.Duration, keys ...store.StreamKey) {
	d.offerStreams(lease, webhook.LaneFed, keys)
}

func (d *Dispatcher) offerStreams(lease time.Duration, lane webhook.Lane, keys []store.StreamKey) {
	for _, k := range keys {
		if err := d.streams.Add(streamOffer{k, lane, lease}, 1); err != nil {
			d.log.Warn("an ordered endpoint waits for the feeder", "endpoint", k.Endpoint.String(), "reason", err)
		}
	}
}

func (d *Dispatcher) feedOffered(offers []streamOffer) {
	ctx, cancel := context.WithTimeout(context.Background(), streamTimeout)
	defer cancel()
	for _, lane := range []webhook.Lane{webhook.LaneLive, webhook.LaneFed} {
		var keys []store.StreamKey
		for _, o := range offers {
			if o.lane == lane {
				keys = append(keys, o.key)
			}
		}
		// Those that somebody is just putting something into come second, so that nobody else waits for that.
		_, busy := d.FeedStreams(ctx, keys, lane, offers[0].lease, false)
		d.FeedStreams(ctx, busy, lane, offers[0].lease, true)
	}
}

// FeedStreams releases what may go of some streams, as far as their limits let it, pushes it, and returns how
// many deliveries that is. busy are streams that somebody is putting something into; with wait it waits for
// them. Where a limit is shared, those that come first in keys are asked for first.
func (d *Dispatcher) FeedStreams(ctx context.Context, keys []store.StreamKey, lane webhook.Lane, lease time.Duration, wait bool) (released int, busy []store.StreamKey) {
	if len(keys) == 0 {
		return 0, nil
	}
	limits := streamLimits{d: d, keys: keys}
	tasks, busy, err := d.store.FeedStreams(ctx, keys, lease, wait, limits.admit)
	limits.settle(ctx, tasks)
	if err != nil {
		d.log.Warn("ordered endpoints wait for the feeder", "count", len(keys), "error", err)
		return 0, nil
	}
	for _, task := range tasks {
		released += len(task)
		for i := range task {
			task[i].Lane = lane
		}
	}
	d.push(ctx, tasks, d.PutBackStream)
	return released, busy
}

// FeedDueStreams is FeedStreams for streams whose time has come, some of each tenant if there are many. more
// says that there may be more.
func (f *Feeder) FeedDueStreams(ctx context.Context, lease time.Duration) (released int, more bool, err error) {
	keys, err := f.dueStreams(ctx)
	if err != nil || len(keys) == 0 || f.d.Room(ctx) == 0 {
		return 0, false, err
	}
	released, _ = f.d.FeedStreams(ctx, keys, webhook.LaneFed, lease, false)
	return released, len(keys) == streamShare, nil
}

// dueStreams are the streams to look at now.
func (f *Feeder) dueStreams(ctx context.Context) ([]store.StreamKey, error) {
	first, err := f.d.store.DueStreams(ctx, streamShare)
	if err != nil || len(first) < streamShare {
		return first, err
	}
	fair, err := f.d.store.DueStreamsByTenant(ctx, f.afterStream, streamShare/streamsEach, streamsEach)
	if err != nil {
		return nil, err
	}
	f.afterStream = webhook.TenantID{}
	if len(fair) == 0 { // behind the last tenant; the next look begins with the first
		return first, nil
	}
	f.afterStream = fair[len(fair)-1].Tenant
	// A tenant that has few others beside it gets the rest.
	known := make(map[store.StreamKey]bool, len(fair))
	for _, k := range fair {
		known[k] = true
	}
	for _, k := range first {
		if len(fair) < streamShare && !known[k] {
			fair = append(fair, k)
		}
	}
	return fair, nil
}

// streamLimits asks the limits for one look at streams. The streams are locked meanwhile, which is no
// harm: the limits answer within 20 ms, or nothing that is limited goes.
type streamLimits struct {
	d       *Dispatcher
	keys    []store.StreamKey // looked at, in the order in which they are served
	granted []want
}

// admit is a store.AdmitStreams.
func (l *streamLimits) admit(ctx context.Context, streams []store.StreamWant) []store.StreamGrant {
	turn := make(map[store.StreamKey]int, len(l.keys))
	for i, k := range l.keys {
		turn[k] = i
	}
	order := make([]int, len(streams))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(turn[streams[a].StreamKey], turn[streams[b].StreamKey]) })
	var (
		wants   = make([]want, len(order))
		sharing = make(map[webhook.TenantID]int)
	)
	for j, i := range order {
		s := streams[i]
		wants[j] = want{tenant: s.Tenant, endpoint: s.Endpoint, rates: s.Rates, n: s.N}
		if s.Rates.OverTenant.PerSecond > 0 || s.Rates.OverApplication.PerSecond > 0 {
			sharing[s.Tenant]++
		}
	}
	out, held := make([]store.StreamGrant, len(streams)), 0
	for j, g := range l.d.admitEvenly(ctx, wants, sharing) {
		out[order[j]] = store.StreamGrant{N: g.n, Wait: g.wait}
		if g.n == 0 {
			held++ // its head; what is behind that waits for its turn anyway
			continue
		}
		w := wants[j]
		w.n = g.n
		l.granted = append(l.granted, w)
	}
	l.d.metrics.Throttled.Add(float64(held))
	return out
}

// settle gives back what was granted and is not in tasks. That is all of it if nothing was committed.
func (l *streamLimits) settle(ctx context.Context, tasks [][]webhook.Delivery) {
	released := make(map[endpoint]int, len(tasks))
	for _, task := range tasks {
		released[endpoint{task[0].Tenant, task[0].Endpoint}] = len(task)
	}
	var unused []want
	for _, w := range l.granted {
		if w.n -= released[endpoint{w.tenant, w.endpoint}]; w.n > 0 {
			unused = append(unused, w)
		}
	}
	// Also when it was the end of ctx that undid it.
	l.d.giveBack(context.WithoutCancel(ctx), unused)
}

// PutBackStream puts released deliveries that will not be begun back into their streams, and has those
// looked at by the feeder.
func (d *Dispatcher) PutBackStream(deliveries []webhook.Delivery) {
	ctx, cancel := context.WithTimeout(context.Background(), parkTimeout)
	defer cancel()
	err := d.store.PutBackStream(ctx, deliveries)
	if err == nil {
		keys := make([]store.StreamKey, len(deliveries))
		for i, delivery := range deliveries {
			keys[i] = store.StreamKey{Tenant: delivery.Tenant, Endpoint: delivery.Endpoint}
		}
		err = d.store.WakeStreams(ctx, keys)
	}
	if err != nil {
		d.log.Warn("deliveries wait for the end of their lease", "count", len(deliveries), "error", err)
	}
}
