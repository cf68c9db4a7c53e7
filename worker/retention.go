package worker

import (
	"context"
	"sync"
	"time"

	"github.com/posthaste/posthaste/internal/store"
)

const (
	// retainEvery is how often data that has outlived its time is looked for.
	retainEvery = 10 * time.Minute
	// retainBatch is how many rows one statement changes, so that none holds locks for long.
	retainBatch = 1000
	// retainTimeout bounds one step.
	retainTimeout = 5 * time.Minute
)

// retentionLock is the advisory lock whose holder keeps the tables in shape.
const retentionLock = 0x706f737468617375

// retain makes partitions ahead of time and removes what has outlived its own, in one process of the
// installation at a time. That one also counts what is open: another lock would cost each process a
// question a second.
func (w *Worker) retain(ctx context.Context) error {
	return w.o.Store.Lead(ctx, retentionLock, func(ctx context.Context) error {
		var counting sync.WaitGroup
		counting.Go(func() { w.count(ctx) })
		defer counting.Wait()
		for ctx.Err() == nil {
			done, err := w.retainOnce(ctx, time.Now())
			if err != nil && ctx.Err() == nil {
				w.o.Logger.Warn("retention could not finish; trying again later", "error", err)
			}
			if done.made+done.payloads+done.keys+done.sessions+done.tasks+len(done.dropped.Partitions) > 0 {
				w.o.Logger.Info("retention", "partitions_made", done.made, "partitions_dropped", done.dropped.Partitions,
					"deliveries_expired", done.dropped.Deliveries, "payloads_expired", done.payloads, "idempotency_keys", done.keys, "portal_sessions", done.sessions, "tasks", done.tasks)
			}
			pause(ctx, around(retainEvery))
		}
		return nil
	})
}

// retained is what one round did.
type retained struct {
	made, payloads, keys, sessions, tasks int
	dropped                               store.Dropped
}

// retainOnce does everything that is due at now.
func (w *Worker) retainOnce(ctx context.Context, now time.Time) (done retained, err error) {
	ctx, cancel := context.WithTimeout(ctx, retainTimeout)
	defer cancel()
	if done.made, err = w.o.Store.EnsurePartitions(ctx, now); err != nil {
		return done, err
	}
	if done.payloads, err = all(ctx, w.o.Store.ExpirePayloads); err != nil {
		return done, err
	}
	if done.keys, err = all(ctx, w.o.Store.ExpireIdempotency); err != nil {
		return done, err
	}
	if done.sessions, err = all(ctx, w.o.Store.ForgetPortalSessions); err != nil {
		return done, err
	}
	forget := func(ctx context.Context, limit int) (int, error) {
		return w.o.Store.ForgetTasks(ctx, w.o.MaxAge, limit)
	}
	if done.tasks, err = all(ctx, forget); err != nil {
		return done, err
	}
	done.dropped, err = w.o.Store.DropPartitions(ctx, w.o.MaxAge)
	return done, err
}

// all repeats a bounded step until it finds less than its bound.
func all(ctx context.Context, step func(context.Context, int) (int, error)) (total int, err error) {
	for {
		n, err := step(ctx, retainBatch)
		total += n
		if err != nil || n < retainBatch {
			return total, err
		}
	}
}
