package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// dropLock lets one process at a time drop partitions.
	dropLock = 0x706f7374_64726f70
	// endBatch is how many deliveries or event ids are ended in one statement.
	endBatch = 2000
	// Detaching waits for every transaction that may see the partition, so it may take longer than a
	// request's statement. It makes nobody wait meanwhile.
	detachTimeout = 5 * time.Minute
)

// ExpirePayloads removes at most limit payloads whose time has come, and returns how many. The
// messages stay in the lists until their partition goes.
func (s *Store) ExpirePayloads(ctx context.Context, limit int) (expired int, err error) {
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// Rows are updated by address in their own partition, for the planner prunes too late for a join.
		// The lock keeps an address valid until the end of the transaction.
		rows, err := tx.Query(ctx, `SELECT tableoid::regclass::text, ctid::text FROM message
			WHERE payload IS NOT NULL AND expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED`, limit)
		if err != nil {
			return fmt.Errorf("find expired payloads: %w", err)
		}
		due := map[string][]string{}
		var table, address string
		_, err = pgx.ForEachRow(rows, []any{&table, &address}, func() error {
			due[table] = append(due[table], address)
			return nil
		})
		if err != nil {
			return fmt.Errorf("find expired payloads: %w", err)
		}
		for _, table := range slices.Sorted(maps.Keys(due)) {
			tag, err := tx.Exec(ctx, `UPDATE `+table+` SET payload = NULL WHERE ctid = ANY ($1::text[]::tid[])`, due[table])
			if err != nil {
				return fmt.Errorf("remove payloads: %w", err)
			}
			expired += int(tag.RowsAffected())
		}
		return nil
	})
	if err != nil {
		return 0, failure("expire payloads", err)
	}
	return expired, nil
}

// ExpireIdempotency forgets at most limit idempotency keys whose time has passed, and returns how many.
func (s *Store) ExpireIdempotency(ctx context.Context, limit int) (int, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM idempotency WHERE ctid = ANY (ARRAY (
		SELECT ctid FROM idempotency WHERE created_at < now() - make_interval(secs => $1)
		ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))`, webhook.IdempotencyRetention.Seconds(), limit)
	return int(tag.RowsAffected()), failure("expire idempotency keys", err)
}

// ForgetPortalSessions removes at most limit portal sessions that have ended, and returns how many.
func (s *Store) ForgetPortalSessions(ctx context.Context, limit int) (int, error) {
	tag, err := s.pool.Exec(ctx, `DELETE FROM portal_session WHERE ctid = ANY (ARRAY (
		SELECT ctid FROM portal_session WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED))`, limit)
	return int(tag.RowsAffected()), failure("forget portal sessions", err)
}

// Dropped is what DropPartitions did.
type Dropped struct {
	Partitions []string
	Deliveries int // that were still owed and ended as expired
	EventIDs   int
}

// DropPartitions drops the partitions whose every row is older than maxAge. What is still owed of
// their messages is ended first, visibly: each such delivery gets a last attempt row of class
// expired. It does nothing while another process is at it, and takes up what one that was stopped
// left half done.
func (s *Store) DropPartitions(ctx context.Context, maxAge time.Duration) (d Dropped, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return d, failure("drop partitions", err)
	}
	defer conn.Release()
	var mine bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(dropLock)).Scan(&mine); err != nil || !mine {
		return d, failure("drop partitions", err)
	}
	_, err = conn.Exec(ctx, fmt.Sprintf(`SET statement_timeout = %[1]d; SET lock_timeout = %[1]d`, detachTimeout.Milliseconds()))
	if err == nil {
		d, err = s.dropOld(ctx, conn.Conn(), s.now().Add(-maxAge))
	}
	// Whatever happened, the connection goes back as it came; one that cannot is closed, which ends the
	// lock as well.
	_, resetErr := conn.Exec(context.WithoutCancel(ctx),
		fmt.Sprintf(`RESET statement_timeout; RESET lock_timeout; SELECT pg_advisory_unlock(%d)`, int64(dropLock)))
	if resetErr != nil {
		_ = conn.Conn().Close(context.WithoutCancel(ctx))
	}
	return d, failure("drop partitions", err)
}

func (s *Store) dropOld(ctx context.Context, conn *pgx.Conn, cutoff time.Time) (d Dropped, err error) {
	have, err := existing(ctx, conn)
	if err != nil {
		return d, err
	}
	old := slices.DeleteFunc(slices.Collect(maps.Keys(have)), func(p partition) bool { return p.day.Add(day).After(cutoff) })
	if len(old) == 0 {
		return d, nil
	}
	slices.SortFunc(old, func(a, b partition) int {
		return cmp.Or(a.day.Compare(b.day), cmp.Compare(b.table, a.table)) // messages before attempts
	})
	_, end := old[len(old)-1].bounds()
	// A table can have one detach under way, so one that was stopped is finished before the next begins.
	slices.SortStableFunc(old, func(a, b partition) int { return cmp.Compare(have[b], have[a]) })
	if d.Deliveries, err = s.endDeliveries(ctx, end); err != nil {
		return d, err
	}
	if d.EventIDs, err = s.forgetEventIDs(ctx, end); err != nil {
		return d, err
	}
	for _, p := range old {
		if err := drop(ctx, conn, p, have[p]); err != nil {
			return d, err
		}
		d.Partitions = append(d.Partitions, p.name())
	}
	return d, nil
}

func drop(ctx context.Context, conn *pgx.Conn, p partition, state attachment) error {
	var detach string
	switch state {
	case attached:
		detach = fmt.Sprintf(`ALTER TABLE %s DETACH PARTITION %s CONCURRENTLY`, p.table, p.name())
	case detaching:
		detach = fmt.Sprintf(`ALTER TABLE %s DETACH PARTITION %s FINALIZE`, p.table, p.name())
	}
	if detach != "" {
		if _, err := conn.Exec(ctx, detach); err != nil {
			return fmt.Errorf("detach %s: %w", p.name(), err)
		}
	}
	if _, err := conn.Exec(ctx, `DROP TABLE `+p.name()); err != nil {
		return fmt.Errorf("drop %s: %w", p.name(), err)
	}
	return nil
}

// endSQL takes a batch of old deliveries away, in the order in which results lock them.
const endSQL = `
WITH gone AS (
	DELETE FROM delivery WHERE ctid = ANY (ARRAY (
		SELECT ctid FROM delivery WHERE message_id < $1
		ORDER BY tenant_id, message_id, endpoint_id, trigger LIMIT $2 FOR UPDATE
	)) RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, task_id
), ended AS (
	SELECT tenant_id, task_id, false AS ok, message_id::text AS at FROM gone
), counted AS (` + countEndedSQL + `)
SELECT g.tenant_id, g.message_id, g.endpoint_id, g.trigger, g.attempt, e.app_id, e.url
FROM gone g CROSS JOIN LATERAL (
	SELECT app_id, url FROM endpoint e WHERE e.tenant_id = g.tenant_id AND e.id = g.endpoint_id OFFSET 0
) e`

const lastWordSQL = `
INSERT INTO attempt (tenant_id, app_id, message_id, endpoint_id, id, trigger, number, sent, final, status,
	http_status, error_class, duration_ms, url, detail)
SELECT tenant_id, app_id, message_id, endpoint_id, id, trigger, number, false, true, $8, 0, $9, 0, url, $10
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::smallint[], $7::smallint[], $11::text[])
	AS t(tenant_id, message_id, endpoint_id, app_id, id, trigger, number, url)`

// endDeliveries ends the deliveries of messages before end. Endpoints are never removed from their
// table, so that each of them can say whose it was.
func (s *Store) endDeliveries(ctx context.Context, end webhook.MessageID) (ended int, err error) {
	detail, err := json.Marshal(webhook.AttemptDetail{Error: "the message is older than messages are kept"})
	if err != nil {
		return 0, fmt.Errorf("encode attempt: %w", err)
	}
	for {
		var n int
		err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
			rows, err := tx.Query(ctx, endSQL, end.UUID(), endBatch)
			if err != nil {
				return fmt.Errorf("end old deliveries: %w", err)
			}
			var (
				c        deliveryColumns
				apps     [][16]byte
				ids      [][16]byte
				urls     []string
				d        webhook.Delivery
				trigger  int16
				app      [16]byte
				url      string
				numbered []int16
			)
			into := []any{(*[16]byte)(&d.Tenant), (*[16]byte)(&d.Message), (*[16]byte)(&d.Endpoint), &trigger, &d.Attempt, &app, &url}
			_, err = pgx.ForEachRow(rows, into, func() error {
				c.tenants, c.messages, c.endpoints = append(c.tenants, d.Tenant), append(c.messages, d.Message), append(c.endpoints, d.Endpoint)
				c.triggers, numbered = append(c.triggers, trigger), append(numbered, d.Attempt+1)
				apps, urls = append(apps, app), append(urls, url)
				ids = append(ids, webhook.NewAttemptIDAt(s.now()))
				return nil
			})
			if err != nil {
				return fmt.Errorf("end old deliveries: %w", err)
			}
			if n = len(ids); n == 0 {
				return nil
			}
			_, err = tx.Exec(ctx, lastWordSQL, c.tenants, c.messages, c.endpoints, apps, ids, c.triggers, numbered,
				int16(webhook.StatusFail), string(webhook.ClassExpired), detail, urls)
			if err != nil {
				return fmt.Errorf("record the end of old deliveries: %w", err)
			}
			return nil
		})
		if err != nil {
			return ended, err
		}
		if n == 0 {
			return ended, nil
		}
		ended += n
	}
}

// forgetEventIDs frees the event ids of messages before end.
func (s *Store) forgetEventIDs(ctx context.Context, end webhook.MessageID) (forgotten int, err error) {
	for {
		tag, err := s.pool.Exec(ctx, `DELETE FROM event_id WHERE ctid = ANY (ARRAY (
			SELECT ctid FROM event_id WHERE message_id < $1 LIMIT $2 FOR UPDATE SKIP LOCKED))`, end.UUID(), endBatch)
		if err != nil {
			return forgotten, fmt.Errorf("forget event ids: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return forgotten, nil
		}
		forgotten += int(tag.RowsAffected())
	}
}
