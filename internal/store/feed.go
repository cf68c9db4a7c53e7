package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Fed is a delivery the feeder released.
type Fed struct {
	webhook.Delivery
	Lost   int16 // leases that ended without a word since its last attempt
	WasDue bool  // its own time had come, be it a retry or the end of a lease; else its endpoint was woken
}

// Scan is how far back a look for due deliveries goes. What is due and ended leaves its index entry
// behind until vacuum comes, so looking at all of the past costs as much as was delivered lately.
//
// A row becomes visible at most one statement after its due time was computed. So once a look has found
// nothing due, the next one need only go back that far, by the clock of Postgres.
type Scan struct{ after time.Time } // the zero Scan goes all the way back

// dueSQL takes up what is due: retries, leases that ended (crashed workers, lost queues) and whatever
// else comes to have a time, by one index scan. It releases what may go at once. What is owed to an
// endpoint that is limited or held back is parked instead, to be asked for with everything else that it
// is owed, and of a background task's what is paused or has an open breaker; and so is what is more than a tenant's share of the room, or one whose receivers were all
// down together would keep everybody else's retries waiting. Rows that somebody is changing are left for
// the next scan. Two feeders at once are harmless: a row is taken up by one of them.
const dueSQL = `
WITH due AS MATERIALIZED (
	SELECT ctid, tenant_id, endpoint_id, state, task_id, due_at FROM delivery
	WHERE due_at >= $3 AND due_at <= now() AND seq IS NULL ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED
), held AS MATERIALIZED (
	SELECT k.tenant_id, k.endpoint_id, f.gated
	FROM (SELECT DISTINCT tenant_id, endpoint_id FROM due) k
	CROSS JOIN LATERAL (
		SELECT g.gated, g.gated OR e.throttle_rate IS NOT NULL OR a.throttle_rate IS NOT NULL OR n.deliver_rate IS NOT NULL
			OR COALESCE((SELECT w.due_at > now() AND w.resting_since IS NULL FROM endpoint_wake w
				WHERE w.tenant_id = e.tenant_id AND w.endpoint_id = e.id), false) AS held
		FROM endpoint e JOIN application a ON a.tenant_id = e.tenant_id AND a.id = e.app_id JOIN tenant n ON n.id = e.tenant_id
		CROSS JOIN LATERAL (SELECT COALESCE((
			SELECT true FROM endpoint_gate g WHERE g.tenant_id = e.tenant_id AND g.endpoint_id = e.id), false) AS gated
		) g
		WHERE e.tenant_id = k.tenant_id AND e.id = k.endpoint_id OFFSET 0
	) f WHERE f.held
), judged AS MATERIALIZED (
	SELECT d.ctid AS at, CASE WHEN d.task_id IS NOT NULL THEN COALESCE(h.gated, false) ELSE h.endpoint_id IS NOT NULL
		OR row_number() OVER (PARTITION BY d.tenant_id, d.task_id IS NULL, h.endpoint_id IS NULL ORDER BY d.due_at)
			> GREATEST(1, $1 / (SELECT count(DISTINCT tenant_id) FROM due)) END AS parks
	FROM due d LEFT JOIN held h USING (tenant_id, endpoint_id)
), put AS (
	UPDATE delivery SET lost = CASE WHEN state = 1 THEN lost + 1 ELSE lost END, state = 3, due_at = NULL
	WHERE ctid = ANY (ARRAY (SELECT at FROM judged WHERE parks)) RETURNING tenant_id, endpoint_id
), parked AS (
	SELECT DISTINCT tenant_id, endpoint_id FROM put
), woken AS (` + wakeParkedSQL + `), gone AS (
	UPDATE delivery SET lost = CASE WHEN state = 1 THEN lost + 1 ELSE lost END,
		state = 1, feed = feed + 1, due_at = now() + make_interval(secs => $2)
	WHERE ctid = ANY (ARRAY (SELECT at FROM judged WHERE NOT parks))
	RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, task_id IS NOT NULL AS bulk, lost
)
SELECT tenant_id, message_id, endpoint_id, trigger, attempt, feed, bulk, lost, true, 0::bigint, NULL::timestamptz FROM gone
UNION ALL
SELECT NULL, NULL, NULL, 0::smallint, 0::smallint, 0::smallint, false, 0::smallint, true,
	(SELECT count(*) FROM put), (SELECT LEAST(max(due_at), now() - make_interval(secs => $5)) FROM due)`

// dueAhead is how many rows beyond those there is room for are looked at, to find what other tenants have
// behind those of one. It is few enough that the limits' next turn comes soon.
const dueAhead = 1024

// FeedDue takes up deliveries whose time has come, as far back as from goes: it releases about limit of
// them and parks as many as that takes. It returns from where the next look may go on.
func (s *Store) FeedDue(ctx context.Context, from Scan, limit int, lease time.Duration) (fed []Fed, parked int, next Scan, err error) {
	rows, err := s.pool.Query(ctx, dueSQL, limit, lease.Seconds(), from.after, limit+dueAhead, s.longestWrite.Seconds())
	if err == nil {
		fed, parked, next, err = collectDue(rows, from)
	}
	if err != nil {
		return nil, 0, from, fmt.Errorf("feed due deliveries: %w", err)
	}
	// What was left because somebody is changing it is found by the look that goes all the way back.
	if next.after.Before(from.after) {
		next = from
	}
	return fed, parked, next, nil
}

// anyDueSQL asks for the first in its order and judges it then. Asked whether there is one between two times, Postgres
// may read all that are: before statistics know of a backlog, it takes them for few.
const anyDueSQL = `
SELECT COALESCE((SELECT due_at FROM delivery WHERE due_at >= $1 AND seq IS NULL ORDER BY due_at LIMIT 1) <= now(), false),
	COALESCE((SELECT due_at FROM endpoint_wake ORDER BY due_at LIMIT 1) <= now(), false),
	extract(epoch FROM LEAST(
		(SELECT NULLIF(due_at, 'infinity') FROM endpoint_wake WHERE due_at > now() ORDER BY due_at LIMIT 1),
		(SELECT NULLIF(due_at, 'infinity') FROM stream WHERE due_at > now() ORDER BY due_at LIMIT 1)) - now())::float8,
	now()`

// Due reports whether any delivery or any wake is due, how long it is until the next wake, or the next
// look at a stream, and from where the next look may go on. Asking costs four looks at an index, so that
// an idle feeder costs next to nothing.
func (s *Store) Due(ctx context.Context, from Scan) (deliveries, wakes bool, wake time.Duration, next Scan, err error) {
	var now time.Time
	var until *float64
	err = s.pool.QueryRow(ctx, anyDueSQL, from.after).Scan(&deliveries, &wakes, &until, &now)
	if err != nil {
		return false, false, 0, from, fmt.Errorf("look for what is due: %w", err)
	}
	wake = maxWake
	if until != nil {
		wake = time.Duration(min(*until, maxWake.Seconds()) * float64(time.Second))
	}
	if !deliveries {
		from.after = now.Add(-s.longestWrite)
	}
	return deliveries, wakes, wake, from, nil
}

// maxWake is the longest time until a wake that Due tells.
const maxWake = time.Minute

func collectDue(rows pgx.Rows, from Scan) (fed []Fed, parked int, next Scan, err error) {
	next = from
	var (
		tenant, message, endpoint *[16]byte
		f                         Fed
		trigger                   int16
		bulk                      bool
		last                      *time.Time
	)
	into := []any{&tenant, &message, &endpoint, &trigger, &f.Attempt, &f.Feed, &bulk, &f.Lost, &f.WasDue, &parked, &last}
	_, err = pgx.ForEachRow(rows, into, func() error {
		if tenant == nil {
			if last != nil {
				next.after = *last
			}
			return nil
		}
		f.Tenant, f.Message, f.Endpoint = *tenant, *message, *endpoint
		f.Trigger, f.Lane = webhook.Trigger(trigger), fedLane(bulk)
		fed = append(fed, f)
		return nil
	})
	return fed, parked, next, err
}

func fedLane(bulk bool) webhook.Lane {
	if bulk {
		return webhook.LaneBulk
	}
	return webhook.LaneFed
}

// wakeParkedSQL sees to it that every endpoint of the relation "parked" has a wake that is awake. One
// that is already is left alone, without so much as a lock. Each is looked up by its key: a join might read
// all the wakes there are.
const wakeParkedSQL = `
INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at)
SELECT p.tenant_id, p.endpoint_id, now() FROM (SELECT DISTINCT tenant_id, endpoint_id FROM parked) p
WHERE COALESCE((
	SELECT w.resting_since IS NOT NULL FROM endpoint_wake w WHERE w.tenant_id = p.tenant_id AND w.endpoint_id = p.endpoint_id), true)
ORDER BY p.tenant_id, p.endpoint_id
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET due_at = excluded.due_at, resting_since = NULL`

// bulkPause is how long a task's delivery waits that could not be handed to the queue.
const bulkPause = 2 * time.Second

// Hold is how parked deliveries are to be taken up again.
type Hold struct {
	For  time.Duration // not before that; 0 = as soon as there is room
	Take int           // so many at the first look, and then more each time; 0 = as many as there is room for
}

const (
	// restsSQL is whether a delivery waits for its endpoint's wake.
	restsSQL = `(task_id IS NULL OR COALESCE((
		SELECT true FROM endpoint_gate g WHERE g.tenant_id = delivery.tenant_id AND g.endpoint_id = delivery.endpoint_id), false))`

	parkSQL = `
WITH put AS (
	UPDATE delivery SET state = CASE WHEN ` + restsSQL + ` THEN 3 ELSE 2 END,
		due_at = CASE WHEN NOT ` + restsSQL + ` THEN now() + make_interval(secs => $7) END
	WHERE ctid = ANY (ARRAY (` + fencedSQL + `)) RETURNING tenant_id, endpoint_id, state
), parked AS (SELECT tenant_id, endpoint_id FROM put WHERE state = 3)`

	// holdParkedSQL is wakeParkedSQL for endpoints that can take no more for now. One that is held for
	// longer already, or to fewer, stays so.
	holdParkedSQL = `
INSERT INTO endpoint_wake AS w (tenant_id, endpoint_id, due_at, take)
SELECT DISTINCT p.tenant_id, p.endpoint_id, now() + make_interval(secs => $8), $9::integer FROM parked p
ORDER BY p.tenant_id, p.endpoint_id
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET resting_since = NULL, take = LEAST(w.take, excluded.take),
	due_at = CASE WHEN w.resting_since IS NULL THEN GREATEST(w.due_at, excluded.due_at) ELSE excluded.due_at END`
)

// Park puts released deliveries that are not to be begun back among the parked. With no Hold they go
// as soon as there is room instead of when their lease ends; with one, so does everything else that the
// endpoint is owed from now on. Those of a task wait for a moment instead: parked, they would stand in
// line with what is live, and before it, since they are older. To an endpoint that is paused or has an open
// breaker they would come again and again, so there they are parked all the same: a breaker may have nothing
// else to be probed with, and tasks hand out so few that what is live has no long wait behind them.
func (s *Store) Park(ctx context.Context, deliveries []webhook.Delivery, hold Hold) error {
	c := columns(deliveries)
	sql, args := parkSQL+wakeParkedSQL, []any{c.tenants, c.messages, c.endpoints, c.triggers, c.attempts, c.feeds,
		max(bulkPause, hold.For).Seconds()}
	if hold.For > 0 {
		take := &hold.Take
		if hold.Take == 0 {
			take = nil
		}
		sql, args = parkSQL+holdParkedSQL, append(args, hold.For.Seconds(), take)
	}
	if _, err := s.pool.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("park %d deliveries: %w", len(deliveries), err)
	}
	return nil
}

// RecallReleased makes everything that was handed to the queue due at once, because the queue lost it,
// and returns how much that is. Leases that end this way say nothing about the delivery.
func (s *Store) RecallReleased(ctx context.Context) (int, error) {
	tag, err := s.pool.Exec(ctx, `UPDATE delivery SET due_at = now(), lost = lost - 1 WHERE due_at > now() AND state = 1`)
	if err == nil {
		_, err = s.pool.Exec(ctx, `UPDATE stream SET due_at = now() WHERE due_at > now() AND due_at < 'infinity'`)
	}
	if err != nil {
		return 0, fmt.Errorf("recall released deliveries: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// SweepWakes recreates the wakes of endpoints that have parked deliveries but no wake, and returns how
// many there were; it should be none. It skips from endpoint to endpoint through the index, so that
// its cost does not grow with what is parked.
func (s *Store) SweepWakes(ctx context.Context) (int, error) {
	tag, err := s.pool.Exec(ctx, `
WITH RECURSIVE parked AS (
	(SELECT tenant_id, endpoint_id FROM delivery WHERE state = 3 ORDER BY tenant_id, endpoint_id LIMIT 1)
	UNION ALL
	SELECT n.tenant_id, n.endpoint_id FROM parked p CROSS JOIN LATERAL (
		SELECT d.tenant_id, d.endpoint_id FROM delivery d
		WHERE d.state = 3 AND (d.tenant_id, d.endpoint_id) > (p.tenant_id, p.endpoint_id)
		ORDER BY d.tenant_id, d.endpoint_id LIMIT 1
	) n
)
INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at)
SELECT p.tenant_id, p.endpoint_id, now() FROM parked p
WHERE COALESCE((SELECT false FROM endpoint_wake w WHERE w.tenant_id = p.tenant_id AND w.endpoint_id = p.endpoint_id), true)
ORDER BY 1, 2 ON CONFLICT DO NOTHING`)
	if err != nil {
		return 0, fmt.Errorf("sweep wakes: %w", err)
	}
	return int(tag.RowsAffected()), nil
}

// Sentinel is the last value the queue's sentinel was known to have, "" before the first.
func (s *Store) Sentinel(ctx context.Context) (string, error) {
	var value string
	err := s.pool.QueryRow(ctx, `SELECT value FROM installation WHERE name = 'queue_sentinel'`).Scan(&value)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read queue sentinel: %w", err)
	}
	return value, nil
}

// KeepSentinel remembers the queue's sentinel.
func (s *Store) KeepSentinel(ctx context.Context, value string) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO installation (name, value) VALUES ('queue_sentinel', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, value)
	if err != nil {
		return fmt.Errorf("keep queue sentinel: %w", err)
	}
	return nil
}

func collectFed(rows pgx.Rows) ([]Fed, error) {
	var (
		f       Fed
		trigger int16
		bulk    bool
		fed     []Fed
	)
	into := []any{(*[16]byte)(&f.Tenant), (*[16]byte)(&f.Message), (*[16]byte)(&f.Endpoint), &trigger,
		&f.Attempt, &f.Feed, &bulk, &f.Lost, &f.WasDue}
	_, err := pgx.ForEachRow(rows, into, func() error {
		f.Trigger, f.Lane = webhook.Trigger(trigger), fedLane(bulk)
		fed = append(fed, f)
		return nil
	})
	return fed, err
}
