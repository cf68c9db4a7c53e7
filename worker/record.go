package worker

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/store"
)

const (
	maxResults     = 256
	maxResultBytes = 4 << 20
	resultBytes    = 1024 // what a result weighs besides the answer's body
	// recordTimeout bounds one try to write results.
	recordTimeout = 15 * time.Second
	// recordPause lies between tries while Postgres is away.
	recordPause = 200 * time.Millisecond
	// recordGrace is how long a worker that is told to stop goes on trying. What it then drops is sent
	// again when the lease ends: a duplicate, never a loss.
	recordGrace = 10 * time.Second
)

// result is what came of a delivery, and the place that it holds until that is recorded.
type result struct {
	store.Recorded
	place
}

// finish sends a result on to be recorded; until it is, it holds its place. There is room for one per
// place, so it is never refused while Run runs.
func (w *Worker) finish(r result) {
	if err := w.results.Add(r, resultBytes+len(r.Attempt.Response)); err != nil {
		w.o.Logger.Error("result dropped; the delivery is repeated when its lease ends", "message", r.Attempt.MessageID.String(), "error", err)
		w.free([]result{r})
	}
}

// record writes a batch of results, however long Postgres is away: until then their places stay taken,
// and the process takes on nothing it could not record.
func (w *Worker) record(results []result) {
	defer w.free(results)
	batch := make([]store.Recorded, len(results))
	for i := range results {
		batch[i] = results[i].Recorded
	}
	failpoint.Hit(failpoint.WorkerBeforeResultCommit)
	start := time.Now()
	var stopping time.Time
	for {
		ctx, cancel := context.WithTimeout(context.Background(), recordTimeout)
		err := w.o.Store.Record(ctx, batch)
		cancel()
		if err == nil {
			break
		}
		w.o.Logger.Warn("results not recorded; trying again", "count", len(batch), "error", err)
		if w.stop.Err() != nil && stopping.IsZero() {
			stopping = time.Now()
		}
		if store.Permanent(err) || (!stopping.IsZero() && time.Since(stopping) > recordGrace) {
			w.o.Logger.Error("results dropped; their deliveries are repeated when their leases end", "count", len(batch), "error", err)
			return
		}
		pause(context.Background(), around(recordPause))
	}
	failpoint.Hit(failpoint.WorkerAfterResultCommit)
	w.breaker.observe(batch, time.Now())
	w.o.Metrics.ResultBatchSize.Observe(float64(len(batch)))
	w.o.Metrics.ResultCommit.Observe(time.Since(start).Seconds())
	for _, r := range batch {
		if r.Last {
			w.o.Dispatcher.NextOfStream(w.lease(), store.StreamKey{Tenant: r.Delivery.Tenant, Endpoint: r.Delivery.Endpoint})
		}
	}
}

// free gives the places of results back. A task that is sent in order has one, until its last result.
func (w *Worker) free(batch []result) {
	var p places
	for i := range batch {
		switch r := &batch[i]; {
		case r.Delivery.Ordered && !r.Last:
		case r.slow:
			p.slow[r.lane]++
		default:
			p.fast[r.lane]++
		}
	}
	w.slots.free(p)
}
