package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/webhook"
)

var taskIDAt func(time.Time) webhook.TaskID = webhook.IDAt

// maxGoing is how many tasks are read to choose from.
const maxGoing = 1000

// AnyTask reports whether there is a task to step. It costs one look at an index that is empty when all
// is quiet.
func (s *Store) AnyTask(ctx context.Context) (any bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM task WHERE status = 'running' AND NOT paused)`).Scan(&any)
	return any, failure("look for tasks", err)
}

// GoingTasks are the tasks that run and are not paused, of all tenants, by tenant and id.
func (s *Store) GoingTasks(ctx context.Context) (going []webhook.Task, err error) {
	err = s.db.WithContext(ctx).Set(acrossTenants, true).Where("status = ? AND NOT paused", webhook.TaskRunning).
		Order("tenant_id, id").Limit(maxGoing).Find(&going).Error
	return going, failure("read running tasks", err)
}

// OpenDeliveries counts what a task has handed out and is still owed. The task's own counters say the
// same, and cheaper: here whatever was delivered since the last vacuum is looked at, too.
func (s *Store) OpenDeliveries(ctx context.Context, t webhook.Task) (open int64, err error) {
	err = s.pool.QueryRow(ctx, `SELECT count(*) FROM delivery WHERE task_id = $1 AND tenant_id = $2`, t.ID.UUID(), t.TenantID.UUID()).Scan(&open)
	return open, failure("count a task's deliveries", err)
}

// TaskFact is what is known of one message in the range of a task, as seen from the task's endpoint.
type TaskFact struct {
	Message  webhook.MessageID
	Kept     bool           // its payload is there and may be sent
	Matches  bool           // it fits the task's filter of event types, channel and tag
	Wanted   bool           // the endpoint's own filters let it through
	Open     bool           // it is owed to the endpoint
	Tried    bool           // it has attempts, or ended without one
	Taken    bool           // one of them succeeded
	Last     webhook.Status // of the last of them, if Tried
	LastHTTP int16          // its answer; 0 = none
}

// TaskFacts are the facts of the next messages of a task.
type TaskFacts struct {
	List        []TaskFact // in the order of the messages
	End         bool       // there are no more in the task's range
	Deliverable bool       // the task's endpoint exists and is enabled; true for a task without one
	Deleted     bool       // the endpoint exists no longer
}

const (
	taskEndpointSQL = `SELECT disabled, deleted_at IS NOT NULL, event_types, channels FROM endpoint WHERE tenant_id = $1 AND id = $2`

	// Messages are read in the order of their key. Each is looked up in what is owed and in what happened
	// only if the task's filter lets it through; $12 and $13 bound the attempts' ids, and so the days. The
	// endpoint is compared behind a fence and the attempts are asked for in their order, which only the index
	// by message has: to a planner that has not seen a day's partition yet, or saw it empty, the one by
	// endpoint looks as good, and it holds everything the endpoint ever got.
	taskFactsSQL = `
SELECT m.id, m.kept, m.matches, m.wanted, d.open, a.tried, a.taken, a.last, a.last_http
FROM (
	SELECT m.id, m.payload IS NOT NULL AND m.expires_at > now() AS kept,
		($6 = '' OR COALESCE($6 = ANY (m.channels), false)) AND ($7 = '' OR COALESCE($7 = ANY (m.tags), false))
			AND ($8::text[] IS NULL OR m.event_type = ANY ($8::text[])) AS matches,
		($9::text[] IS NULL OR m.event_type = ANY ($9::text[]))
			AND ($10::text[] IS NULL OR COALESCE($10::text[] && m.channels, false)) AS wanted
	FROM message m WHERE m.tenant_id = $1 AND m.app_id = $2 AND m.id > $4 AND m.id < $5 ORDER BY m.id LIMIT $11
) m
CROSS JOIN LATERAL (
	SELECT count(*) > 0 AS open FROM delivery d
	WHERE m.matches AND d.tenant_id = $1 AND d.message_id = m.id AND d.endpoint_id = $3 OFFSET 0
) d
CROSS JOIN LATERAL (
	SELECT count(*) > 0 AS tried, COALESCE(bool_or(a.status = 0), false) AS taken,
		COALESCE((array_agg(a.status ORDER BY a.id DESC))[1], 0::smallint) AS last,
		COALESCE((array_agg(a.http_status ORDER BY a.id DESC))[1], 0::smallint) AS last_http
	FROM (
		SELECT * FROM attempt a
		WHERE m.matches AND a.tenant_id = $1 AND a.message_id = m.id AND a.id >= $12 AND a.id < $13 ORDER BY a.id OFFSET 0
	) a WHERE a.endpoint_id = $3
) a
ORDER BY m.id`

	// Of a task that is about no endpoint only the messages matter.
	taskMessagesSQL = `
SELECT m.id, m.payload IS NOT NULL, true, true, false, false, false, 0::smallint, 0::smallint
FROM message m WHERE m.tenant_id = $1 AND m.app_id = $2 AND m.id > $3 AND m.id < $4 ORDER BY m.id LIMIT $5`
)

// TaskFacts looks at no more than limit messages of a task's range behind a cursor.
func (s *Store) TaskFacts(ctx context.Context, t webhook.Task, after webhook.MessageID, limit int) (f TaskFacts, err error) {
	fail := func(err error) (TaskFacts, error) { return TaskFacts{}, failure("look at a task's messages", err) }
	f.Deliverable = true
	until := endOf(t.Until)
	var rows pgx.Rows
	if t.EndpointID.IsZero() {
		rows, err = s.pool.Query(ctx, taskMessagesSQL, t.TenantID.UUID(), t.ApplicationID.UUID(), after.UUID(), until.UUID(), limit)
	} else {
		var disabled bool
		var types, channels []string
		err = s.pool.QueryRow(ctx, taskEndpointSQL, t.TenantID.UUID(), t.EndpointID.UUID()).Scan(&disabled, &f.Deleted, &types, &channels)
		if err != nil {
			return fail(err)
		}
		f.Deliverable = !disabled && !f.Deleted
		rows, err = s.pool.Query(ctx, taskFactsSQL, t.TenantID.UUID(), t.ApplicationID.UUID(), t.EndpointID.UUID(), after.UUID(), until.UUID(),
			t.Filter.Channel, t.Filter.Tag, t.Filter.EventTypes, types, channels, limit,
			// Another process's clock may be behind that of the one that accepted the message.
			attemptIDAt(after.Time().Add(-clockAhead)).UUID(), attemptIDAt(s.now().Add(clockAhead)).UUID())
	}
	if err != nil {
		return fail(err)
	}
	var fact TaskFact
	var last int16
	into := []any{(*[16]byte)(&fact.Message), &fact.Kept, &fact.Matches, &fact.Wanted, &fact.Open, &fact.Tried, &fact.Taken, &last, &fact.LastHTTP}
	_, err = pgx.ForEachRow(rows, into, func() error {
		fact.Last = webhook.Status(last)
		f.List = append(f.List, fact)
		return nil
	})
	if err != nil {
		return fail(err)
	}
	f.End = len(f.List) < limit
	return f, nil
}

// endOf is the first id that is not before a time. Ids know milliseconds: one that shows an earlier
// time lies before the next whole one.
func endOf(t time.Time) webhook.MessageID {
	if whole := t.Truncate(time.Millisecond); whole.Before(t) {
		t = whole.Add(time.Millisecond)
	}
	return messageIDAt(t)
}

// TaskStart is the cursor a task's phase begins with.
func TaskStart(t webhook.Task) webhook.MessageID { return messageIDAt(t.Since) }

// TaskStep moves a task on.
type TaskStep struct {
	Task    webhook.Task        // as it was read: the step holds only if nobody has moved it since
	Phase   webhook.TaskPhase   // what the task is at afterwards
	Cursor  webhook.MessageID   // how far it has looked afterwards
	Counted int64               // found by this step, when counting
	Skipped int64               // found, and not to be sent
	Owe     []webhook.MessageID // to be sent to the task's endpoint, in their order
	Erase   []webhook.MessageID // whose payloads and answers go
	Lease   time.Duration       // of what is handed out
}

// measureEvery is the time over which a task's rate is measured.
const measureEvery = 2 * time.Second

const (
	// The step holds only if cursor and phase are what it started from, so that it is taken once, however
	// often it is tried and whoever else tries.
	taskLockSQL = `SELECT true FROM task WHERE tenant_id = $1 AND id = $2 AND status = 'running' AND NOT paused
	AND cursor = $3 AND phase = $4 FOR NO KEY UPDATE`

	taskOweSQL = `
INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, task_id, feed, state, due_at)
SELECT $1, m.id, $2, 1, $3, 1, 1, now() + make_interval(secs => $5) FROM unnest($4::uuid[]) AS m(id) ORDER BY m.id
ON CONFLICT DO NOTHING RETURNING message_id`

	taskMoveSQL = `
UPDATE task SET phase = $3, cursor = $4, counted = counted + $5, skipped = skipped + $6, released = released + $7, done = done + $8,
	updated_at = now(), ` + taskRateSQL + `
WHERE tenant_id = $1 AND id = $2`

	// What a task turns out to have found replaces what it was counted to have: messages may have been
	// taken or owed meanwhile.
	taskFoundSQL = `UPDATE task SET counted = skipped + CASE WHEN endpoint_id IS NULL THEN done ELSE released END
WHERE tenant_id = $1 AND id = $2`

	taskRateSQL = `
	rate = CASE WHEN now() - measured_at >= make_interval(secs => $9)
		THEN (done + failed - measured_ended) / extract(epoch FROM now() - measured_at) ELSE rate END,
	measured_ended = CASE WHEN now() - measured_at >= make_interval(secs => $9) THEN done + failed ELSE measured_ended END,
	measured_at = CASE WHEN now() - measured_at >= make_interval(secs => $9) THEN now() ELSE measured_at END`
)

// StepTask takes a step in one transaction, on disk when it returns. held is false if the task was
// moved, paused or ended meanwhile; then nothing has changed. What was made is handed out already and
// to be pushed; if it never is, it goes when its lease ends.
func (s *Store) StepTask(ctx context.Context, step TaskStep) (made []webhook.Delivery, held bool, err error) {
	t := step.Task
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		held, made = false, nil
		rows, err := tx.Query(ctx, taskLockSQL, t.TenantID.UUID(), t.ID.UUID(), t.Cursor.UUID(), int16(t.Phase))
		if err != nil {
			return err
		}
		found, err := pgx.CollectRows(rows, pgx.RowTo[bool])
		if held = err == nil && len(found) == 1; !held {
			return err
		}
		if len(step.Owe) > 0 {
			if made, err = oweForTask(ctx, tx, t, step); err != nil {
				return err
			}
		}
		if len(step.Erase) > 0 {
			if err := s.erase(ctx, tx, t, step.Erase); err != nil {
				return err
			}
		}
		skipped := step.Skipped + int64(len(step.Owe)-len(made)) // somebody owes it already
		var b pgx.Batch
		b.Queue(taskMoveSQL, t.TenantID.UUID(), t.ID.UUID(), int16(step.Phase), step.Cursor.UUID(), step.Counted, skipped,
			int64(len(made)), int64(len(step.Erase)), measureEvery.Seconds())
		if t.Phase == webhook.TaskActing && step.Phase != t.Phase {
			b.Queue(taskFoundSQL, t.TenantID.UUID(), t.ID.UUID())
		}
		return tx.SendBatch(ctx, &b).Close()
	})
	if err != nil {
		return nil, false, failure("step task", err)
	}
	failpoint.Hit(failpoint.TaskAfterStep)
	return made, held, nil
}

func oweForTask(ctx context.Context, tx pgx.Tx, t webhook.Task, step TaskStep) (made []webhook.Delivery, err error) {
	ids := make([][16]byte, len(step.Owe))
	for i, id := range step.Owe {
		ids[i] = id
	}
	rows, err := tx.Query(ctx, taskOweSQL, t.TenantID.UUID(), t.EndpointID.UUID(), t.ID.UUID(), ids, step.Lease.Seconds())
	if err != nil {
		return nil, fmt.Errorf("owe %d messages: %w", len(ids), err)
	}
	d := webhook.Delivery{
		DeliveryKey: webhook.DeliveryKey{Tenant: t.TenantID, Endpoint: t.EndpointID, Trigger: webhook.TriggerManual},
		Fence:       webhook.Fence{Feed: 1}, Lane: webhook.LaneBulk,
	}
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&d.Message)}, func() error {
		made = append(made, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("owe %d messages: %w", len(ids), err)
	}
	return made, nil
}

// EndTask ends a running task: finished if reason is "", else failed for that reason. Nothing changes
// if it has ended already.
func (s *Store) EndTask(ctx context.Context, t webhook.Task, reason string) error {
	status := webhook.TaskFinished
	if reason != "" {
		status = webhook.TaskFailed
	}
	_, err := s.pool.Exec(ctx, `UPDATE task SET status = $3, error = $4, updated_at = now(), rate = 0
		WHERE tenant_id = $1 AND id = $2 AND status = 'running'`, t.TenantID.UUID(), t.ID.UUID(), string(status), reason)
	return failure("end task", err)
}

// ForgetTasks removes at most limit tasks that have ended and were begun longer than maxAge ago, and
// returns how many.
func (s *Store) ForgetTasks(ctx context.Context, maxAge time.Duration, limit int) (int, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM task WHERE ctid = ANY (ARRAY (
		SELECT ctid FROM task WHERE status <> 'running' AND id < $1 ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED))`,
		taskIDAt(s.now().Add(-maxAge)).UUID(), limit)
	return int(tag.RowsAffected()), failure("forget tasks", err)
}
