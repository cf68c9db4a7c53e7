package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// MaxCounted is how many deliveries are counted of each kind: more is said to be more. It keeps asking
// cheap however long a backlog is.
const MaxCounted = 10_000

// Backlog is what waits, as far as it is counted; a number beyond MaxCounted means at least so many.
type Backlog struct {
	Parked  int                // goes as soon as it may: behind a limit, a pause, an open breaker or a full window
	Waiting int                // goes at a known time: a retry, or what is to be delivered later
	Ordered int                // waits for its turn in an ordered endpoint's line, or blocks it
	Oldest  *webhook.MessageID // of what was counted
}

// EndpointStatus is how an endpoint's deliveries go.
type EndpointStatus struct {
	State   webhook.EndpointState
	Gate    webhook.Gate  // State is GateNone if there is none
	Wake    *webhook.Wake // nil: nothing is parked
	Backlog Backlog
	At      time.Time // when it was read
}

// pendingKind is a kind of what waits, and the order in which the partial index that it has gives it.
type pendingKind struct{ is, order string }

var (
	isParked  = pendingKind{"d.state = 3", "d.tenant_id, d.endpoint_id, d.message_id"}
	isWaiting = pendingKind{"d.state = 2", "d.tenant_id, d.endpoint_id, d.message_id"}
	isOrdered = pendingKind{"d.state IN (4, 5) AND d.seq IS NOT NULL", "d.tenant_id, d.endpoint_id, d.seq"}
)

// countBacklogSQL counts what is of a kind and finds the oldest of it, in the order of its index, and no
// further than it counts.
func countBacklogSQL(kind pendingKind, where string) string {
	return fmt.Sprintf(`SELECT count(*), (array_agg(d.message_id ORDER BY d.message_id))[1] FROM (
		SELECT d.message_id FROM delivery d WHERE d.tenant_id = ?%s AND %s
		ORDER BY %s LIMIT ?) d`, where, kind.is, kind.order)
}

// backlog counts what waits for the whole tenant, or for one of its endpoints.
func (v View) backlog(tx *gorm.DB, endpoint *webhook.EndpointID) (b Backlog, err error) {
	where, args := "", []any{v.scope.Tenant}
	if endpoint != nil {
		where, args = " AND d.endpoint_id = ?", append(args, *endpoint)
	}
	args = append(args, MaxCounted+1)
	for _, setting := range countOpenPlan {
		if err := tx.Exec(setting).Error; err != nil {
			return b, err
		}
	}
	for kind, n := range map[pendingKind]*int{isParked: &b.Parked, isWaiting: &b.Waiting, isOrdered: &b.Ordered} {
		var oldest *webhook.MessageID
		if err := tx.Raw(countBacklogSQL(kind, where), args...).Row().Scan(n, &oldest); err != nil {
			return b, err
		}
		if oldest != nil && (b.Oldest == nil || oldest.String() < b.Oldest.String()) {
			b.Oldest = oldest
		}
	}
	return b, nil
}

// EndpointStatus is how the deliveries of the endpoint that ref names go, and what waits for it.
func (v View) EndpointStatus(ctx context.Context, appRef, ref string) (s EndpointStatus, err error) {
	err = v.transaction(ctx, "read endpoint's status", func(tx *gorm.DB) error {
		e, err := v.endpoint(tx, appRef, ref)
		if err != nil {
			return err
		}
		if err := tx.Raw(`SELECT now()`).Row().Scan(&s.At); err != nil {
			return err
		}
		var next *time.Time
		err = tx.Raw(`SELECT state, since, reason, failures, next_at FROM endpoint_gate WHERE tenant_id = ? AND endpoint_id = ?`,
			e.TenantID, e.ID).Row().Scan(&s.Gate.State, &s.Gate.Since, &s.Gate.Reason, &s.Gate.Failures, &next)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if next != nil {
			s.Gate.NextAt = *next
		}
		var (
			w   webhook.Wake
			due *time.Time
		)
		err = tx.Raw(`SELECT CASE WHEN isfinite(due_at) THEN due_at END, resting_since IS NOT NULL, COALESCE(take, 0)
			FROM endpoint_wake WHERE tenant_id = ? AND endpoint_id = ?`, e.TenantID, e.ID).Row().Scan(&due, &w.Resting, &w.Take)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if err == nil {
			if due != nil {
				w.DueAt = *due
			}
			s.Wake = &w
		}
		s.State = webhook.StateOf(e.Disabled, s.Gate.State, s.Wake, s.At)
		s.Backlog, err = v.backlog(tx, &e.ID)
		return err
	})
	return s, err
}

// TenantBacklog is what waits for all of a tenant's endpoints.
type TenantBacklog struct {
	Backlog
	Released int                       // handed out: being sent, or about to be; of the newest MaxCounted that are open
	Held     map[webhook.GateState]int // endpoints by what holds them
	At       time.Time                 // when it was read
}

// TenantBacklog counts what the tenant's endpoints are owed.
func (v View) TenantBacklog(ctx context.Context) (b TenantBacklog, err error) {
	if err := v.wholeTenant(); err != nil {
		return b, err
	}
	err = v.transaction(ctx, "count backlog", func(tx *gorm.DB) error {
		if b.Backlog, err = v.backlog(tx, nil); err != nil {
			return err
		}
		err := tx.Raw(`SELECT now(), count(*) FILTER (WHERE d.state = 1) FROM (
			SELECT d.state FROM delivery d WHERE d.tenant_id = ? ORDER BY d.message_id DESC LIMIT ?) d`,
			v.scope.Tenant, MaxCounted).Row().Scan(&b.At, &b.Released)
		if err != nil {
			return err
		}
		rows, err := tx.Raw(`SELECT state, count(*) FROM endpoint_gate WHERE tenant_id = ? GROUP BY state`, v.scope.Tenant).Rows()
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		b.Held = make(map[webhook.GateState]int)
		for rows.Next() {
			var state webhook.GateState
			var n int
			if err := rows.Scan(&state, &n); err != nil {
				return err
			}
			b.Held[state] = n
		}
		return rows.Err()
	})
	return b, err
}

// MaxCanceled is how many deliveries one call of CancelPending ends.
const MaxCanceled = 10_000

const (
	// lockTasksSQL locks the tasks that what is canceled counts for, before any delivery, as results do.
	lockTasksSQL = `SELECT FROM task k WHERE k.tenant_id = @tenant AND k.id IN (
		(SELECT d.task_id FROM delivery d WHERE d.tenant_id = @tenant AND d.endpoint_id = @endpoint AND d.state = 2 AND d.task_id IS NOT NULL
		ORDER BY d.tenant_id, d.endpoint_id, d.message_id LIMIT @limit)
		UNION ALL
		SELECT d.task_id FROM (
			SELECT d.task_id FROM delivery d WHERE d.tenant_id = @tenant AND d.endpoint_id = @endpoint AND d.state = 3
			ORDER BY d.tenant_id, d.endpoint_id, d.message_id LIMIT @limit
		) d WHERE d.task_id IS NOT NULL
	) ORDER BY k.id FOR NO KEY UPDATE`

	// lockStreamSQL locks an endpoint's stream before what is in it, so that nothing is released meanwhile, and
	// has it looked at afterwards.
	lockStreamSQL = `UPDATE stream SET due_at = now() WHERE tenant_id = ? AND endpoint_id = ?`

	// cancelSQL ends what is of a kind, the oldest first. What somebody is just taking up is left: it is
	// under way. The ids are of one moment and told apart by chance.
	cancelSQL = `
WITH gone AS (
	DELETE FROM delivery WHERE tenant_id = @tenant AND ctid = ANY (ARRAY (
		SELECT d.ctid FROM delivery d WHERE d.tenant_id = @tenant AND d.endpoint_id = @endpoint AND %s
		ORDER BY %s LIMIT @limit FOR UPDATE SKIP LOCKED
	)) RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, task_id
), ended AS (
	SELECT tenant_id, task_id, false AS ok, message_id::text AS at FROM gone
), counted AS (` + countEndedSQL + `)
INSERT INTO attempt (tenant_id, app_id, message_id, endpoint_id, id, trigger, number, sent, final, status,
	http_status, error_class, duration_ms, url, detail)
SELECT g.tenant_id, @app, g.message_id, g.endpoint_id,
	overlay(gen_random_uuid()::text PLACING left(@id, 15) FROM 1 FOR 15)::uuid,
	g.trigger, g.attempt + 1, false, true, @status, 0, @class, 0, @url, @detail
FROM gone g`
)

// CancelPending ends what the endpoint is owed and is not under way, at most MaxCanceled deliveries, each
// visibly: its last attempt row says that it was canceled. more says that there may be more of it.
func (v View) CancelPending(ctx context.Context, appRef, ref string) (canceled int, more bool, err error) {
	detail, err := json.Marshal(webhook.AttemptDetail{Error: "canceled on request before it was sent"})
	if err != nil {
		return 0, false, fmt.Errorf("encode attempt: %w", err)
	}
	err = v.transaction(ctx, "cancel what is pending", func(tx *gorm.DB) error {
		e, err := v.endpoint(tx, appRef, ref)
		if err != nil {
			return err
		}
		for _, setting := range countOpenPlan {
			if err := tx.Exec(setting).Error; err != nil {
				return err
			}
		}
		if err := tx.Exec(lockTasksSQL, map[string]any{"tenant": e.TenantID, "endpoint": e.ID, "limit": MaxCanceled}).Error; err != nil {
			return err
		}
		if err := tx.Exec(lockStreamSQL, e.TenantID, e.ID).Error; err != nil {
			return err
		}
		for _, kind := range []pendingKind{isParked, isWaiting, isOrdered} {
			done := tx.Exec(fmt.Sprintf(cancelSQL, kind.is, kind.order), map[string]any{
				"tenant": gorm.Expr("?::uuid", e.TenantID), "endpoint": gorm.Expr("?::uuid", e.ID), "app": gorm.Expr("?::uuid", e.ApplicationID),
				"limit": gorm.Expr("?::integer", MaxCanceled-canceled), "id": gorm.Expr("?::uuid::text", webhook.NewAttemptIDAt(v.store.now())),
				"status": gorm.Expr("?::smallint", int16(webhook.StatusCanceled)), "class": gorm.Expr("?::text", string(webhook.ClassCanceled)),
				"url": gorm.Expr("?::text", e.URL), "detail": gorm.Expr("?::bytea", detail),
			})
			if done.Error != nil {
				return done.Error
			}
			canceled += int(done.RowsAffected)
		}
		more = canceled == MaxCanceled
		return nil
	})
	if err != nil {
		return 0, false, err
	}
	return canceled, more, nil
}
