package store

import (
	"context"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// AttemptCounts says how many attempts ended in which way, and what is still owed.
type AttemptCounts struct {
	Success, Fail int64
	Canceled      int64 // deliveries that ended because the endpoint was disabled or deleted
	Pending       int64 // deliveries that wait for their first attempt
	Sending       int64 // deliveries that were attempted and may be again
}

// maxCountedOpen bounds how much of what is owed is looked at to count it. Nothing orders the open rows
// by endpoint but for those that are parked, which a backlog is; an index that did would cost every
// delivery of everybody. So the tenant's newest open rows are looked at, and the endpoint's parked ones.
const maxCountedOpen = 20_000

// countOpenPlan keeps the planner, which believes the table of what is open to be empty, from reading all
// that a tenant owes in order to sort it.
var countOpenPlan = []string{"SET LOCAL enable_bitmapscan = off", "SET LOCAL enable_sort = off"}

// countOpenSQL counts open deliveries of the messages of a time. Both reads end at their limits, in the
// order of their indexes.
const countOpenSQL = `SELECT count(*) FILTER (WHERE o.attempt = 0) AS pending, count(*) FILTER (WHERE o.attempt > 0) AS sending FROM (
	SELECT d.attempt FROM (
		SELECT d.endpoint_id, d.attempt, d.state FROM delivery d WHERE d.tenant_id = ? AND d.message_id >= ? AND d.message_id < ?
		ORDER BY d.message_id DESC LIMIT ?
	) d WHERE d.endpoint_id = ? AND d.state <> 3
	UNION ALL
	(SELECT d.attempt FROM delivery d WHERE d.tenant_id = ? AND d.endpoint_id = ? AND d.state = 3 AND d.message_id >= ? AND d.message_id < ?
		ORDER BY d.message_id DESC LIMIT ?)
) o`

// CountAttempts counts the attempts to an endpoint that started from since on and before until, and what
// is open of the messages accepted in that time: of a backlog of more than maxCountedOpen, a part. A
// delivery that ended as expired or given up is no attempt and is not counted; its attempts are.
func (v View) CountAttempts(ctx context.Context, appRef, endpointRef string, since, until time.Time) (c AttemptCounts, err error) {
	const doing = "count attempts"
	q := v.db.WithContext(ctx)
	e, err := v.endpoint(q, appRef, endpointRef)
	if err != nil {
		return c, failure(doing, err)
	}
	err = q.Raw(`SELECT count(*) FILTER (WHERE a.status = ?) AS success,
			count(*) FILTER (WHERE a.status = ? AND (a.sent OR a.error_class NOT IN (?, ?))) AS fail,
			count(*) FILTER (WHERE a.status = ?) AS canceled
		FROM attempt a WHERE a.tenant_id = ? AND a.app_id = ? AND a.endpoint_id = ? AND a.id >= ? AND a.id < ?`,
		int16(webhook.StatusSuccess), int16(webhook.StatusFail), string(webhook.ClassExpired), string(webhook.ClassPoison),
		int16(webhook.StatusCanceled), v.scope.Tenant, e.ApplicationID, e.ID, attemptIDAt(since), attemptIDAt(until)).Scan(&c).Error
	if err != nil {
		return c, failure(doing, err)
	}
	from, to := messageIDAt(since), messageIDAt(until)
	var open struct{ Pending, Sending int64 }
	err = v.transaction(ctx, doing, func(tx *gorm.DB) error {
		for _, setting := range countOpenPlan {
			if err := tx.Exec(setting).Error; err != nil {
				return err
			}
		}
		return tx.Raw(countOpenSQL, v.scope.Tenant, from, to, maxCountedOpen, e.ID, v.scope.Tenant, e.ID, from, to, maxCountedOpen).Scan(&open).Error
	})
	c.Pending, c.Sending = open.Pending, open.Sending
	return c, err
}
