package worker

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// putBacks are deliveries that may not begin now, by how long their endpoints are to be left alone.
type putBacks struct {
	deliveries map[store.Hold][]webhook.Delivery
	reasons    map[telemetry.PutBackReason]int
}

func (b *putBacks) add(d webhook.Delivery, how putBack) {
	if b.deliveries == nil {
		b.deliveries, b.reasons = map[store.Hold][]webhook.Delivery{}, map[telemetry.PutBackReason]int{}
	}
	b.deliveries[how.hold] = append(b.deliveries[how.hold], d)
	b.reasons[how.why]++
}

// putBack parks what may not begin now. No attempt is counted, and no lease has to end.
func (w *Worker) putBack(b putBacks) {
	for hold, deliveries := range b.deliveries {
		w.o.Dispatcher.PutBack(deliveries, hold)
	}
	for why, n := range b.reasons {
		w.o.Metrics.PutBack(why, n)
	}
}

// sweep moves requests that last to slow places, until ctx ends.
func (w *Worker) sweep(ctx context.Context) error {
	for ctx.Err() == nil {
		pause(ctx, w.o.SlowAfter/sweepsAfter)
		stuck, how := w.targets.sweep(time.Now())
		w.o.Metrics.SlowPlaces.Set(float64(w.slots.slowInUse()))
		var b putBacks
		for i, f := range stuck {
			b.add(f.job.Delivery, how[i])
			if probing(&f.job) {
				w.breaker.unsent(f.job.Delivery, how[i].hold.For)
			}
		}
		w.giveBack(stuck)
		w.putBack(b)
	}
	return nil
}

// emptyLines puts back what waits for its endpoint, because the worker stops.
func (w *Worker) emptyLines() {
	waiting := w.targets.empty()
	if len(waiting) == 0 {
		return
	}
	deliveries := make([]webhook.Delivery, len(waiting))
	for i, f := range waiting {
		deliveries[i] = f.job.Delivery
	}
	w.giveBack(waiting)
	w.o.Dispatcher.PutBack(deliveries, store.Hold{})
}

// giveBack gives back the places of deliveries that will not begin.
func (w *Worker) giveBack(flights []*flight) {
	var p places
	for _, f := range flights {
		p.fast[f.lane]++
	}
	w.slots.free(p)
}
