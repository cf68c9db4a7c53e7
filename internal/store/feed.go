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

// dueSQL releases what is due. It is one index scan for retries, for leases that ended (crashed
// workers, lost queues) and for whatever comes to have a time. Rows that somebody is changing are left
// for the next scan. Two feeders at once are harmless: a row is released by one of them.
const dueSQL = `
WITH due AS MATERIALIZED (
	SELECT ctid, state FROM delivery WHERE due_at > $3 AND due_at <= now() ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
)
UPDATE delivery SET lost = CASE WHEN state = 1 THEN lost + 1 ELSE lost END,
	state = 1, feed = feed + 1, due_at = now() + make_interval(secs => $2)
WHERE ctid = ANY (ARRAY (SELECT ctid FROM due))
RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, task_id IS NOT NULL, lost, true`

// FeedDue releases at most limit deliveries whose time has come, as far back as from goes.
func (s *Store) FeedDue(ctx context.Context, from Scan, limit int, lease time.Duration) ([]Fed, error) {
	rows, err := s.pool.Query(ctx, dueSQL, limit, lease.Seconds(), from.after)
	if err != nil {
		return nil, fmt.Errorf("feed due deliveries: %w", err)
	}
	fed, err := collectFed(rows)
	if err != nil {
		return nil, fmt.Errorf("feed due deliveries: %w", err)
	}
	return fed, nil
}

// Due reports whether any delivery or any wake is due, and from where the next look may go on. Asking
// costs two looks at an index, so that an idle feeder costs next to nothing.
func (s *Store) Due(ctx context.Context, from Scan) (deliveries, wakes bool, next Scan, err error) {
	var now time.Time
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM delivery WHERE due_at > $1 AND due_at <= now()),
		EXISTS (SELECT FROM endpoint_wake WHERE due_at <= now()), now()`, from.after).Scan(&deliveries, &wakes, &now)
	if err != nil {
		return false, false, from, fmt.Errorf("look for what is due: %w", err)
	}
	if !deliveries {
		from.after = now.Add(-s.longestWrite)
	}
	return deliveries, wakes, from, nil
}

const (
	wakesSQL = `SELECT tenant_id, endpoint_id, resting_since IS NOT NULL,
	COALESCE(resting_since < now() - make_interval(secs => $2), false)
FROM endpoint_wake WHERE due_at <= now() ORDER BY due_at LIMIT $1`

	parkedSQL = `
UPDATE delivery SET state = 1, feed = feed + 1, due_at = now() + make_interval(secs => $4)
WHERE ctid = ANY (ARRAY (
	SELECT d.ctid FROM unnest($1::uuid[], $2::uuid[]) AS w(tenant_id, endpoint_id)
	CROSS JOIN LATERAL (
		SELECT d.ctid FROM delivery d
		WHERE d.tenant_id = w.tenant_id AND d.endpoint_id = w.endpoint_id AND d.state = 3
		ORDER BY d.message_id LIMIT $3 FOR UPDATE
	) d
)) RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, task_id IS NOT NULL, lost, false`

	// The wakes served go behind those that were not, so that endpoints take turns.
	rotateSQL = `UPDATE endpoint_wake w SET due_at = now(), resting_since = NULL
FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id)
WHERE w.tenant_id = u.tenant_id AND w.endpoint_id = u.endpoint_id`

	// A resting wake is looked at less and less often.
	restSQL = `UPDATE endpoint_wake w SET resting_since = COALESCE(resting_since, now()),
	due_at = now() + GREATEST(now() - resting_since, make_interval(secs => $3))
FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id)
WHERE w.tenant_id = u.tenant_id AND w.endpoint_id = u.endpoint_id`

	removeSQL = `DELETE FROM endpoint_wake w USING unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id)
WHERE w.tenant_id = u.tenant_id AND w.endpoint_id = u.endpoint_id AND w.resting_since < now() - make_interval(secs => $3)`
)

// firstRest is how soon a wake that is put to rest is looked at again: whoever parked meanwhile and
// saw it awake has committed by then, but for the slowest.
const firstRest = 50 * time.Millisecond

// wakes is a list of endpoints as the arrays that SQL takes.
type wakes struct{ tenants, endpoints [][16]byte }

func (w *wakes) add(k endpointKey) {
	w.tenants, w.endpoints = append(w.tenants, k.tenant), append(w.endpoints, k.endpoint)
}

// FeedWakes releases about limit parked deliveries, spread evenly over at most endpoints endpoints whose
// wake is due, the oldest of each first.
//
// A wake whose parked rows are all released rests for longer than a statement may take, and is still
// looked at now and then. By the end of that whoever parked and saw it awake has committed, so that a
// look sees their rows; whoever parks and sees it resting wakes it, and waits for us if we are just
// removing it. So no parked row is forgotten, and a busy endpoint's wake is not a lock that every
// accept and the feeder fight for.
func (s *Store) FeedWakes(ctx context.Context, endpoints, limit int, lease time.Duration) ([]Fed, error) {
	fail := func(err error) ([]Fed, error) { return nil, fmt.Errorf("feed woken endpoints: %w", err) }
	type wake struct {
		Tenant, Endpoint [16]byte
		Resting, Rested  bool
	}
	rows, err := s.pool.Query(ctx, wakesSQL, endpoints, s.longestWrite.Seconds())
	if err != nil {
		return fail(err)
	}
	due, err := pgx.CollectRows(rows, pgx.RowToStructByPos[wake])
	if err != nil {
		return fail(err)
	}
	if len(due) == 0 {
		return nil, nil
	}
	share := max(1, limit/len(due))
	var all wakes
	for _, w := range due {
		all.add(endpointKey{w.Tenant, w.Endpoint})
	}
	rows, err = s.pool.Query(ctx, parkedSQL, all.tenants, all.endpoints, share, lease.Seconds())
	if err != nil {
		return fail(err)
	}
	fed, err := collectFed(rows)
	if err != nil {
		return fail(err)
	}
	released := make(map[endpointKey]int, len(due))
	for _, f := range fed {
		released[endpointKey{f.Tenant, f.Endpoint}]++
	}
	var rotate, rest, remove wakes
	for _, w := range due {
		k := endpointKey{w.Tenant, w.Endpoint}
		switch n := released[k]; {
		case n >= share && (w.Resting || len(due) == endpoints):
			rotate.add(k)
		case n >= share: // every due wake has had its turn: nobody is waiting behind this one
		case n == 0 && w.Rested:
			remove.add(k)
		default:
			rest.add(k)
		}
	}
	var b pgx.Batch
	if len(rotate.tenants) > 0 {
		b.Queue(rotateSQL, rotate.tenants, rotate.endpoints)
	}
	if len(rest.tenants) > 0 {
		b.Queue(restSQL, rest.tenants, rest.endpoints, firstRest.Seconds())
	}
	if len(remove.tenants) > 0 {
		b.Queue(removeSQL, remove.tenants, remove.endpoints, s.longestWrite.Seconds())
	}
	if b.Len() == 0 {
		return fed, nil
	}
	// What was released is released: it goes to the queue whether or not the wakes were put away.
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		s.log.Warn("wakes could not be put away; they will be looked at again", "error", err)
	}
	return fed, nil
}

// wakeParkedSQL sees to it that every endpoint of the relation "parked" has a wake that is awake. One
// that is already is left alone, without so much as a lock.
const wakeParkedSQL = `
INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at)
SELECT DISTINCT p.tenant_id, p.endpoint_id, now() FROM parked p
WHERE NOT EXISTS (
	SELECT FROM endpoint_wake w WHERE w.tenant_id = p.tenant_id AND w.endpoint_id = p.endpoint_id AND w.resting_since IS NULL)
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
	parkSQL = `
WITH put AS (
	UPDATE delivery SET state = CASE WHEN task_id IS NULL THEN 3 ELSE 2 END,
		due_at = CASE WHEN task_id IS NOT NULL THEN now() + make_interval(secs => $7) END
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
// line with what is live, and before it, since they are older.
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
WHERE NOT EXISTS (SELECT FROM endpoint_wake w WHERE w.tenant_id = p.tenant_id AND w.endpoint_id = p.endpoint_id)
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
		f.Trigger, f.Lane = webhook.Trigger(trigger), webhook.LaneFed
		if bulk {
			f.Lane = webhook.LaneBulk
		}
		fed = append(fed, f)
		return nil
	})
	return fed, err
}
