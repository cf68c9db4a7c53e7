package store

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// AttemptCounts says how many attempts ended in which way.
type AttemptCounts struct {
	Success, Fail int64
	Canceled      int64 // deliveries that ended because the endpoint was disabled or deleted
}

// CountAttempts counts the attempts to an endpoint that started from since on and before until. A
// delivery that ended as expired or given up is no attempt and is not counted; its attempts are.
func (v View) CountAttempts(ctx context.Context, appRef, endpointRef string, since, until time.Time) (c AttemptCounts, err error) {
	q := v.db.WithContext(ctx)
	e, err := v.endpoint(q, appRef, endpointRef)
	if err != nil {
		return c, failure("count attempts", err)
	}
	err = q.Raw(`SELECT count(*) FILTER (WHERE a.status = ?) AS success,
			count(*) FILTER (WHERE a.status = ? AND (a.sent OR a.error_class NOT IN (?, ?))) AS fail,
			count(*) FILTER (WHERE a.status = ?) AS canceled
		FROM attempt a WHERE a.tenant_id = ? AND a.app_id = ? AND a.endpoint_id = ? AND a.id >= ? AND a.id < ?`,
		int16(webhook.StatusSuccess), int16(webhook.StatusFail), string(webhook.ClassExpired), string(webhook.ClassPoison),
		int16(webhook.StatusCanceled), v.scope.Tenant, e.ApplicationID, e.ID, attemptIDAt(since), attemptIDAt(until)).Scan(&c).Error
	return c, failure("count attempts", err)
}
