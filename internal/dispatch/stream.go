package dispatch

import (
	"context"
	"errors"
	"time"

	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// The streams of ordered endpoints are fed by whoever knows that something may go: whoever put something
// in, whose task has ended, and the feeder, for what has to do with time and with all that was missed.

const (
	// streamTimeout bounds one look at streams, waiting for their locks included.
	streamTimeout = 5 * time.Second
	// streamShare is how many streams are looked at together at most.
	streamShare = 64
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

// NextOfStream has a stream looked at of which a task has ended. The window does not matter: one task takes
// the place of another.
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

// FeedStreams releases what may go of some streams, pushes it, and returns how many deliveries that is.
// busy are streams that somebody is putting something into; with wait it waits for them.
func (d *Dispatcher) FeedStreams(ctx context.Context, keys []store.StreamKey, lane webhook.Lane, lease time.Duration, wait bool) (released int, busy []store.StreamKey) {
	if len(keys) == 0 {
		return 0, nil
	}
	tasks, busy, err := d.store.FeedStreams(ctx, keys, lease, wait)
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
	d.pushStreams(ctx, tasks)
	return released, busy
}

func (d *Dispatcher) pushStreams(ctx context.Context, tasks [][]webhook.Delivery) {
	if len(tasks) == 0 {
		return
	}
	d.countPushed(tasks)
	err := d.queue.Push(ctx, tasks)
	if err == nil {
		return
	}
	var unpushed []webhook.Delivery
	for _, task := range tasks {
		unpushed = append(unpushed, task...)
	}
	if !errors.Is(err, queue.ErrUnavailable) {
		d.log.Warn("deliveries could not be pushed and go back into their streams", "count", len(unpushed), "error", err)
	}
	d.PutBackStream(unpushed)
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
