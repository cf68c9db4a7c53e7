package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// NewTask is a background task to begin.
type NewTask struct {
	Kind         webhook.TaskKind
	Application  string // id or uid
	Endpoint     string // id or uid; "" = it is not about one endpoint
	Filter       webhook.TaskFilter
	Since, Until time.Time // when its messages were accepted: Since ≤ accepted < Until
	StopAfter    int       // failures in a row; 0 = webhook.DefaultStopAfter
}

// errTaskEnded says that a task is beyond being changed.
var errTaskEnded = webhook.Conflict("task_ended", "The task has ended")

// PlanTask is the task that CreateTask would make, without making it; its errors are the same, but for
// the limit of running ones.
func (v View) PlanTask(ctx context.Context, n NewTask) (t webhook.Task, err error) {
	q := v.db.WithContext(ctx)
	app, err := v.applicationID(q, n.Application)
	if err == nil {
		t, err = v.plannedTask(q, app, n)
	}
	return t, failure("plan task", err)
}

// CreateTask begins a background task; the worker that leads finds it. The errors are, besides a view's
// usual ones, KindBadRequest "endpoint_disabled", and KindConflict "limit_reached" when the application
// has webhook.MaxRunningTasks.
func (v View) CreateTask(ctx context.Context, n NewTask) (t webhook.Task, err error) {
	err = v.transaction(ctx, "create task", func(tx *gorm.DB) error {
		app, err := v.lockedApplication(tx, n.Application) // the lock makes the count hold
		if err != nil {
			return err
		}
		if t, err = v.plannedTask(tx, app.ID, n); err != nil {
			return err
		}
		var running int64
		err = tx.Model(&webhook.Task{}).
			Where("tenant_id = ? AND app_id = ? AND status = ?", t.TenantID, t.ApplicationID, webhook.TaskRunning).Count(&running).Error
		if err != nil {
			return err
		}
		if running >= webhook.MaxRunningTasks {
			return webhook.Conflict("limit_reached", "An application has at most %d background tasks at once", webhook.MaxRunningTasks)
		}
		input, err := json.Marshal(t.Filter)
		if err != nil {
			return fmt.Errorf("encode filter: %w", err)
		}
		return tx.Exec(`INSERT INTO task (tenant_id, id, app_id, endpoint_id, kind, status, input, since, until, cursor,
				stop_after, measured_at, created_at, updated_at)
			VALUES (?, ?, ?, ?, ?, ?, ?::jsonb, ?, ?, ?, ?, ?, ?, ?)`,
			t.TenantID, t.ID, t.ApplicationID, t.EndpointID, string(t.Kind), string(t.Status), string(input), t.Since, t.Until, t.Cursor,
			t.StopAfter, t.CreatedAt, t.CreatedAt, t.CreatedAt).Error
	})
	if err != nil {
		return webhook.Task{}, err
	}
	return t, nil
}

func (v View) plannedTask(q *gorm.DB, app webhook.ApplicationID, n NewTask) (t webhook.Task, err error) {
	now := v.store.now()
	t = webhook.Task{
		TenantID: v.scope.Tenant, ID: webhook.NewTaskID(), ApplicationID: app, Kind: n.Kind, Status: webhook.TaskRunning,
		Filter: n.Filter, Since: n.Since.UTC().Truncate(time.Microsecond), Until: n.Until.UTC().Truncate(time.Microsecond),
		StopAfter: int32(n.StopAfter), MeasuredAt: now, CreatedAt: now, UpdatedAt: now,
	}
	t.Cursor = TaskStart(t)
	if t.StopAfter == 0 {
		t.StopAfter = webhook.DefaultStopAfter
	}
	if n.Endpoint != "" {
		e, err := v.enabledEndpoint(q, app, n.Endpoint)
		if err != nil {
			return t, err
		}
		t.EndpointID = e.ID
	}
	return t, nil
}

// Task is a background task.
func (v View) Task(ctx context.Context, id webhook.TaskID) (t webhook.Task, err error) {
	err = v.tasks(v.db.WithContext(ctx)).Where("id = ?", id).Take(&t).Error
	return t, failure("read task", err)
}

// tasks narrows a query to those of the scope.
func (v View) tasks(q *gorm.DB) *gorm.DB {
	q = q.Where("tenant_id = ?", v.scope.Tenant)
	if !v.scope.Application.IsZero() {
		q = q.Where("app_id = ?", v.scope.Application)
	}
	return q
}

// Tasks lists background tasks by age; an empty status or kind means any.
func (v View) Tasks(ctx context.Context, status webhook.TaskStatus, kind webhook.TaskKind, p Page) (List[webhook.Task], error) {
	text, backwards := p.position()
	var cursor any
	if text != "" {
		id, err := webhook.ParseID[webhook.TaskID](text)
		if err != nil {
			return List[webhook.Task]{}, badIterator()
		}
		cursor = id
	}
	q := v.tasks(v.db.WithContext(ctx))
	if status != "" {
		q = q.Where("status = ?", status)
	}
	if kind != "" {
		q = q.Where("kind = ?", kind)
	}
	l, err := listed[webhook.Task](q, p, "id", cursor, backwards)
	return l, failure("list tasks", err)
}

// PauseTask makes a running task rest, or go on: what it has handed out already is still sent. Asked
// again it changes nothing; for a task that has ended it is KindConflict "task_ended".
func (v View) PauseTask(ctx context.Context, id webhook.TaskID, paused bool) (webhook.Task, error) {
	return v.changeTask(ctx, id, func(t *webhook.Task) error {
		switch {
		case t.Status != webhook.TaskRunning:
			return errTaskEnded
		case t.Paused != paused:
			// The rest is not to count against the rate.
			t.Paused, t.Rate, t.MeasuredAt, t.MeasuredEnded = paused, 0, v.store.now(), t.Done+t.Failed
		}
		return nil
	})
}

// CancelTask ends a task: what it has handed out already is still sent, and nothing further. Asked
// again it changes nothing; for a task that has ended by itself it is KindConflict "task_ended".
func (v View) CancelTask(ctx context.Context, id webhook.TaskID) (webhook.Task, error) {
	return v.changeTask(ctx, id, func(t *webhook.Task) error {
		switch {
		case t.Cancelled:
		case t.Status != webhook.TaskRunning:
			return errTaskEnded
		default:
			t.Status, t.Cancelled, t.Paused = webhook.TaskFinished, true, false
		}
		return nil
	})
}

func (v View) changeTask(ctx context.Context, id webhook.TaskID, change func(*webhook.Task) error) (t webhook.Task, err error) {
	err = v.transaction(ctx, "change task", func(tx *gorm.DB) error {
		if err := v.tasks(tx).Clauses(forChange).Where("id = ?", id).Take(&t).Error; err != nil {
			return err
		}
		before := t
		if err := change(&t); err != nil || t.Paused == before.Paused && t.Status == before.Status {
			return err
		}
		t.UpdatedAt = v.store.now()
		return tx.Exec(`UPDATE task SET status = ?, paused = ?, cancelled = ?, rate = ?, measured_at = ?, measured_ended = ?, updated_at = ?
			WHERE tenant_id = ? AND id = ?`, string(t.Status), t.Paused, t.Cancelled, t.Rate, t.MeasuredAt, t.MeasuredEnded, t.UpdatedAt,
			t.TenantID, t.ID).Error
	})
	if err != nil {
		return webhook.Task{}, err
	}
	return t, nil
}
