package worker

import (
	"context"
	"time"
)

const (
	// countEvery is how often what is open is counted for the metrics.
	countEvery = 10 * time.Second
	// countTimeout bounds one count.
	countTimeout = 5 * time.Second
)

// count keeps the metrics of what is open until ctx ends. It is run by one process of the installation at
// a time: the others show nothing, so that they can be added up.
func (w *Worker) count(ctx context.Context) {
	defer w.o.Metrics.ForgetBacklog()
	for ctx.Err() == nil {
		if err := w.countOnce(ctx); err != nil && ctx.Err() == nil {
			w.o.Logger.Warn("what is open could not be counted; trying again later", "error", err)
		}
		pause(ctx, around(countEvery))
	}
}

// countOnce counts once. While the queue is away its lanes stay as they were.
func (w *Worker) countOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	census, err := w.o.Store.Census(ctx)
	if err != nil {
		return err
	}
	w.o.Metrics.Backlog(census.Parked, census.Waiting, census.Ordered, census.Released, census.Overdue)
	w.o.Metrics.Gates(census.Gates)
	if !w.o.Queue.Available() {
		return nil
	}
	lanes, err := w.o.Queue.Lengths(ctx)
	if err != nil {
		return err
	}
	w.o.Metrics.Lanes(lanes.Live, lanes.Fed, lanes.Bulk)
	return nil
}
