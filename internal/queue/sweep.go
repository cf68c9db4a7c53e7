package queue

import (
	"context"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// sweepUntil keeps Redis small until ctx is cancelled.
func (q *Queue) sweepUntil(ctx context.Context, client redis.UniversalClient) {
	inspector := asynq.NewInspectorFromRedisClient(client)
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if removed := q.sweep(inspector); removed > 0 {
				q.logger.Info("removed tasks whose worker went away; their deliveries are fed again when their lease ends", "tasks", removed)
			}
		}
	}
}

// sweep removes what asynq would keep, and says how many tasks that were. A task whose worker was
// killed is archived by asynq, up to 10,000 for 90 days, though its deliveries have long been
// released anew; and the names of killed servers stay in a list until somebody reads it.
// Failures are left to the next round.
func (q *Queue) sweep(inspector *asynq.Inspector) (removed int) {
	for _, name := range q.names {
		n, _ := inspector.DeleteAllArchivedTasks(name)
		removed += n
	}
	_, _ = inspector.Servers()
	return removed
}
