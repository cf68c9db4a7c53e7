package worker

import (
	"context"
	"errors"
	"time"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
)

const (
	// feedEvery is how often the feeder looks while nothing is due: how late a retry may be.
	feedEvery = 200 * time.Millisecond
	// idleEvery is how often it looks when this worker has had no task for activeFor; a task ends the
	// wait.
	idleEvery = time.Second
	// soonest is how soon it looks again, however soon the next wake is due: each look is a statement.
	soonest = 5 * time.Millisecond
	// activeFor is longer than the first wait of the default retry schedule.
	activeFor = 6 * time.Second
	// fullEvery is how often it looks for room while the window is full.
	fullEvery = 15 * time.Millisecond
	// feedLimit is how many deliveries one statement releases at most.
	feedLimit = 2048
	// sweepEvery is how often forgotten wakes are looked for; there should be none.
	sweepEvery = 30 * time.Second
	// sentinelEvery is how often the queue is asked whether it is still the one that was filled.
	sentinelEvery = time.Second
	// feedTimeout bounds one look.
	feedTimeout = 10 * time.Second
)

// feederLock is the advisory lock whose holder feeds. Claims are guarded row by row, so that two
// feeders, should there ever be two, are merely wasteful.
const feederLock = 0x706f737468617374 // "posthast"

// feed runs the feeder in one process of the installation at a time.
func (w *Worker) feed(ctx context.Context) error {
	return w.o.Store.Lead(ctx, feederLock, func(ctx context.Context) error {
		w.o.Metrics.FeederLeader.Set(1)
		defer w.o.Metrics.FeederLeader.Set(0)
		f := &feeder{w: w, wakes: w.o.Dispatcher.NewFeeder(), active: time.Now()}
		for ctx.Err() == nil {
			wait, err := f.runOnce(ctx)
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				w.o.Logger.Warn("feeder could not look; trying again", "error", err)
				wait = sentinelEvery
			}
			f.rest(ctx, wait)
		}
		return nil
	})
}

// stir tells the feeder that this worker has something to do.
func (w *Worker) stir() {
	select {
	case w.stirred <- struct{}{}:
	default: // it has been told
	}
}

// rest waits until it is time to look again.
func (f *feeder) rest(ctx context.Context, wait time.Duration) {
	select {
	case <-f.w.stirred:
		f.active = time.Now()
	default:
	}
	if wait != feedEvery || time.Since(f.active) < activeFor {
		pause(ctx, wait)
		return
	}
	timer := time.NewTimer(idleEvery)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-f.w.stirred:
		f.active = time.Now()
	}
}

// feeder releases what may go, reading Postgres alone: retries whose time has come, deliveries whose
// worker fell silent, parked ones, and everything that a lost queue has forgotten.
type feeder struct {
	w        *Worker
	wakes    *dispatch.Feeder
	sentinel string // the queue's, as last kept in Postgres
	asked    time.Time
	swept    time.Time
	scan     store.Scan // how far back to look; all the way after every sweep
	active   time.Time  // when this worker was last known to have a task
}

// runOnce looks once and returns when to look again.
func (f *feeder) runOnce(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	if time.Since(f.asked) >= sentinelEvery {
		f.asked = time.Now()
		if err := f.checkSentinel(ctx); err != nil {
			return 0, err
		}
	}
	if time.Since(f.swept) >= sweepEvery {
		f.swept = time.Now()
		f.scan = store.Scan{}
		f.wakes.Forget()
		n, err := f.w.o.Store.SweepWakes(ctx)
		if err != nil {
			return 0, err
		}
		if n > 0 {
			f.w.o.Logger.Warn("recreated missing wakes", "count", n)
		}
		if err := f.w.o.Store.SweepStreams(ctx); err != nil {
			return 0, err
		}
	}
	if err := f.feedStreams(ctx); err != nil {
		return 0, err
	}
	start := time.Now()
	due, awake, wake, next, err := f.w.o.Store.Due(ctx, f.scan)
	if err != nil {
		return 0, err
	}
	from := f.scan
	f.scan = next
	until := min(max(wake, soonest), feedEvery)
	if !due && !awake {
		return until, nil
	}
	room := f.w.o.Dispatcher.Room(ctx) * queue.MaxTaskDeliveries
	switch {
	case room > 0:
	case f.w.o.Queue.Available():
		return fullEvery, nil
	default:
		return feedEvery, nil
	}
	taken, all, more := 0, min(room, feedLimit), false
	if due {
		fed, parked, next, err := f.w.o.Store.FeedDue(ctx, from, min(room, feedLimit), f.w.lease())
		if err != nil {
			return 0, err
		}
		f.scan = next
		f.w.o.Metrics.Parked.Add(float64(parked))
		f.push(ctx, fed, telemetry.ReleasedDue)
		room -= len(fed)
		taken += len(fed) + parked
	}
	if room > 0 && (awake || taken > 0) {
		found, err := f.wakes.FeedWakes(ctx, min(room, feedLimit), f.w.lease())
		if err != nil {
			return 0, err
		}
		f.w.o.Metrics.FeederScan.Observe(found.Scan.Seconds())
		f.push(ctx, found.Fed, telemetry.ReleasedWake)
		taken += len(found.Fed)
		more = found.More
	}
	took := time.Since(start)
	f.w.o.Metrics.FeederLook.Observe(took.Seconds())
	switch {
	case taken == 0: // what was woken may have been put off for a moment only
		return min(until, 2*soonest), nil
	case taken < all && !more: // that was all there is to do; what comes meanwhile is done together
		return min(2*took, fullEvery), nil
	}
	return 0, nil
}

func (f *feeder) push(ctx context.Context, fed []store.Fed, why telemetry.Reason) {
	if len(fed) == 0 {
		return
	}
	f.w.o.Metrics.Released(why, len(fed))
	failpoint.Hit(failpoint.FeederMidBatch)
	f.w.o.Dispatcher.Push(ctx, fed)
}

// checkSentinel notices that Redis is not the one that was filled: emptied, restarted without its data
// or replaced. Then everything that was handed to it is due again.
func (f *feeder) checkSentinel(ctx context.Context) error {
	now, err := f.w.o.Queue.Sentinel(ctx)
	if err != nil {
		if errors.Is(err, queue.ErrUnavailable) {
			return nil
		}
		return err
	}
	if f.sentinel == "" {
		if f.sentinel, err = f.w.o.Store.Sentinel(ctx); err != nil {
			return err
		}
	}
	if now == f.sentinel {
		return nil
	}
	// Before the first feeder ever there is nothing to compare with; leases cover what may be lost.
	if f.sentinel != "" {
		n, err := f.w.o.Store.RecallReleased(ctx)
		if err != nil {
			return err
		}
		f.w.o.Metrics.Released(telemetry.ReleasedLost, n)
		f.w.o.Logger.Warn("the queue lost its data; everything handed to it is fed again", "deliveries", n)
	}
	if err := f.w.o.Store.KeepSentinel(ctx, now); err != nil {
		return err
	}
	f.sentinel = now
	return nil
}
