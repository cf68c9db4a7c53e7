package store

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// StreamKey names the stream of an ordered endpoint.
type StreamKey struct {
	Tenant   webhook.TenantID
	Endpoint webhook.EndpointID
}

func compareStreams(a, b StreamKey) int {
	return cmp.Or(bytes.Compare(a.Tenant[:], b.Tenant[:]), bytes.Compare(a.Endpoint[:], b.Endpoint[:]))
}

// streamKeys are keys as the arrays that SQL takes, each once and in order: that is how streams are locked.
func streamKeys(keys []StreamKey) (tenants, endpoints [][16]byte) {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, compareStreams)
	for _, k := range slices.Compact(keys) {
		tenants, endpoints = append(tenants, k.Tenant), append(endpoints, k.Endpoint)
	}
	return tenants, endpoints
}

const (
	// lockStreamsSQL is followed by SKIP LOCKED or nothing, and by lockStreamsEnd.
	lockStreamsSQL = `
SELECT k.tenant_id, k.endpoint_id FROM unnest($1::uuid[], $2::uuid[]) AS k(tenant_id, endpoint_id)
CROSS JOIN LATERAL (
	SELECT FROM stream s WHERE s.tenant_id = k.tenant_id AND s.endpoint_id = k.endpoint_id FOR UPDATE `
	lockStreamsEnd = ` OFFSET 0
) s`

	// streamFactsSQL and streamRowsSQL look at streams after they are locked, so that they see whatever has been put in.
	streamFactsSQL = `
SELECT k.ord - 1, e.ordering = 'fifo', e.deleted_at IS NOT NULL, NOT e.disabled AND e.deleted_at IS NULL, e.on_exhausted, COALESCE(g.state, 0),
	COALESCE(extract(epoch FROM g.next_at - clock_timestamp()), 0)::float8,
	s.held_from, extract(epoch FROM clock_timestamp() - s.held_since)::float8,
	e.app_id, ARRAY [l.deliver_rate, l.deliver_burst, l.app_rate, l.app_burst, e.throttle_rate, e.throttle_burst]
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k(tenant_id, endpoint_id, ord)
CROSS JOIN LATERAL (SELECT * FROM stream s WHERE s.tenant_id = k.tenant_id AND s.endpoint_id = k.endpoint_id OFFSET 0) s
CROSS JOIN LATERAL (SELECT * FROM endpoint e WHERE e.tenant_id = k.tenant_id AND e.id = k.endpoint_id OFFSET 0) e
LEFT JOIN LATERAL (
	SELECT n.deliver_rate, n.deliver_burst, a.throttle_rate AS app_rate, a.throttle_burst AS app_burst
	FROM application a JOIN tenant n ON n.id = a.tenant_id WHERE a.tenant_id = k.tenant_id AND a.id = e.app_id OFFSET 0
) l ON true
LEFT JOIN LATERAL (SELECT * FROM endpoint_gate g WHERE g.tenant_id = k.tenant_id AND g.endpoint_id = k.endpoint_id OFFSET 0) g ON true`

	streamRowsSQL = `
SELECT k.ord - 1, d.state, COALESCE(extract(epoch FROM d.due_at - clock_timestamp()), 0)::float8, d.attempt, d.lost, d.ctid::text
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS k(tenant_id, endpoint_id, ord)
CROSS JOIN LATERAL (
	SELECT d.ctid, d.* FROM delivery d WHERE d.tenant_id = k.tenant_id AND d.endpoint_id = k.endpoint_id AND d.seq > 0
	ORDER BY d.seq LIMIT $3 FOR UPDATE
) d ORDER BY k.ord, d.seq`

	releaseStreamsSQL = `
UPDATE delivery SET lost = CASE WHEN state = 1 THEN lost + 1 ELSE lost END,
	state = 1, feed = feed + 1, due_at = now() + make_interval(secs => $2)
WHERE ctid = ANY ($1::text[]::tid[])
RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, seq`

	// A stream without a row to wait for is looked at again when something is put in.
	setStreamsSQL = `
UPDATE stream s SET due_at = CASE WHEN u.until THEN 'infinity' WHEN u.wait IS NOT NULL THEN clock_timestamp() + make_interval(secs => u.wait)
	ELSE (SELECT now() FROM delivery d WHERE d.tenant_id = s.tenant_id AND d.endpoint_id = s.endpoint_id AND d.seq > 0 LIMIT 1) END,
	held_from = u.held_from, held_since = CASE WHEN u.held_from IS NOT NULL THEN COALESCE(s.held_since, clock_timestamp()) END
FROM unnest($1::uuid[], $2::uuid[], $3::boolean[], $4::float8[], $5::uuid[]) AS u(tenant_id, endpoint_id, until, wait, held_from)
WHERE s.tenant_id = u.tenant_id AND s.endpoint_id = u.endpoint_id`

	// heldStreamSQL finds the first message from $3 on that was owed before the order began. The rows before
	// it have been looked at, and only go away.
	heldStreamSQL = `
SELECT message_id FROM delivery
WHERE tenant_id = $1 AND endpoint_id = $2 AND message_id >= $3 AND trigger = 0 AND seq IS NULL ORDER BY message_id LIMIT 1`

	// dissolveSQL takes rows out of the stream of an endpoint that is not ordered any more.
	dissolveSQL = `
WITH put AS (
	UPDATE delivery SET seq = NULL, state = CASE WHEN state IN (4, 5) THEN 3 ELSE state END,
		due_at = CASE WHEN state IN (1, 2) THEN GREATEST(due_at, now()) END
	WHERE ctid = ANY (ARRAY (
		SELECT ctid FROM delivery WHERE tenant_id = $1 AND endpoint_id = $2 AND seq > 0 ORDER BY seq LIMIT $3 FOR UPDATE
	)) RETURNING tenant_id, endpoint_id, state
), parked AS (SELECT tenant_id, endpoint_id FROM put WHERE state = 3), w AS (` + wakeParkedSQL + `)
SELECT count(*) FROM put`

	// putBackStreamSQL leaves the wake to whoever asks for it next: the stream is locked before its rows, or
	// not at all.
	putBackStreamSQL = `
UPDATE delivery SET state = CASE WHEN seq IS NULL THEN 2 ELSE 4 END, due_at = CASE WHEN seq IS NULL THEN now() END
WHERE ctid = ANY (ARRAY (` + fencedSQL + `))`

	wakeStreamsSQL = `
WITH locked AS MATERIALIZED (
	SELECT k.tenant_id, k.endpoint_id FROM (
		SELECT DISTINCT tenant_id, endpoint_id FROM unnest($1::uuid[], $2::uuid[]) AS k(tenant_id, endpoint_id) ORDER BY 1, 2
	) k CROSS JOIN LATERAL (
		SELECT FROM stream s WHERE s.tenant_id = k.tenant_id AND s.endpoint_id = k.endpoint_id FOR UPDATE OFFSET 0
	) s
)
UPDATE stream s SET due_at = now() FROM locked l WHERE s.tenant_id = l.tenant_id AND s.endpoint_id = l.endpoint_id`

	// streamOfSQL has the streams looked at to which something was sent by hand: it may have been their head.
	// Like tasks, they are locked before any delivery.
	streamOfSQL = wakeStreamsSQL
)

// dissolveShare is how many rows of a stream that is no more lose their place at a time.
const dissolveShare = 1000

// noMessage is less than any message's id.
const noMessage = "00000000-0000-0000-0000-000000000000"

// dueStreamsByTenantSQL goes from tenant to tenant through an index that has only streams with something
// in them.
const dueStreamsByTenantSQL = `
WITH RECURSIVE next AS (
	(SELECT tenant_id, 1 AS n FROM stream WHERE tenant_id > $1 AND due_at <= now() ORDER BY tenant_id LIMIT 1)
	UNION ALL
	SELECT t.tenant_id, next.n + 1 FROM next CROSS JOIN LATERAL (
		SELECT s.tenant_id FROM stream s WHERE s.tenant_id > next.tenant_id AND s.due_at <= now() ORDER BY s.tenant_id LIMIT 1
	) t WHERE next.n < $2
)
SELECT s.tenant_id, s.endpoint_id FROM next CROSS JOIN LATERAL (
	SELECT * FROM stream s WHERE s.tenant_id = next.tenant_id AND s.due_at <= now() ORDER BY s.due_at LIMIT $3
) s ORDER BY next.n, s.due_at`

// DueStreams are the first streams that are to be looked at, at most limit. If there are more, those of one
// tenant may hide the others'; DueStreamsByTenant shows some of each.
func (s *Store) DueStreams(ctx context.Context, limit int) ([]StreamKey, error) {
	return s.dueStreams(ctx, `SELECT tenant_id, endpoint_id FROM stream WHERE due_at <= now() ORDER BY due_at LIMIT $1`, limit)
}

// DueStreamsByTenant are at most each streams that are to be looked at of each of at most tenants tenants
// that have any, behind the tenant after and in the order of the tenants.
func (s *Store) DueStreamsByTenant(ctx context.Context, after webhook.TenantID, tenants, each int) ([]StreamKey, error) {
	return s.dueStreams(ctx, dueStreamsByTenantSQL, after.UUID(), tenants, each)
}

func (s *Store) dueStreams(ctx context.Context, sql string, args ...any) ([]StreamKey, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("look for due streams: %w", err)
	}
	return collectStreams(rows)
}

func collectStreams(rows pgx.Rows) (keys []StreamKey, err error) {
	var k StreamKey
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&k.Tenant), (*[16]byte)(&k.Endpoint)}, func() error {
		keys = append(keys, k)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for streams: %w", err)
	}
	return keys, nil
}

// stream is a locked stream while it is looked at.
type stream struct {
	StreamKey
	webhook.Stream
	ordered, deleted bool
	rates            webhook.Rates
	heldFrom         *[16]byte
	heldFor          *float64 // seconds; nil = it has not been looked at since
	rows             []webhook.StreamRow
	addresses        []string // of rows
	step             webhook.StreamStep
}

// dissolves reports whether a stream is no more, so that what is in it goes by itself.
func (f *stream) dissolves() bool { return !f.ordered || f.deleted && len(f.rows) == 0 }

// StreamWant is how much may go of a stream but for its limits.
type StreamWant struct {
	StreamKey
	Rates webhook.Rates
	N     int
}

// StreamGrant is how much of it may go, and if that is nothing, after what time to ask again.
type StreamGrant struct {
	N    int
	Wait time.Duration
}

// AdmitStreams asks the limits of streams and answers each want. It is called while the streams are locked,
// which whoever puts something into them waits for: it must be quick.
type AdmitStreams func(ctx context.Context, wants []StreamWant) []StreamGrant

// FeedStreams releases what may go of some streams: of each a task of deliveries, in order, for one worker
// to send one after the other. Streams that do not exist are left out, and so are, unless wait is set,
// those that somebody is putting something into; they are returned as busy. If any has limits, admit is
// asked, once, how much may go of each that has; what is not released of that is the caller's to give back.
//
// Anybody may call it at any time for any stream: each is locked while it is looked at, and nothing is
// released while anything of it is out.
func (s *Store) FeedStreams(ctx context.Context, keys []StreamKey, lease time.Duration, wait bool, admit AdmitStreams) (tasks [][]webhook.Delivery, busy []StreamKey, err error) {
	if len(keys) == 0 {
		return nil, nil, nil
	}
	var probes []WakePut
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tasks, busy, probes = nil, nil, nil
		tenants, endpoints := streamKeys(keys)
		mode := "SKIP LOCKED"
		if wait {
			mode = ""
		}
		rows, err := tx.Query(ctx, lockStreamsSQL+mode+lockStreamsEnd, tenants, endpoints)
		if err != nil {
			return err
		}
		locked, err := collectStreams(rows)
		if err != nil {
			return err
		}
		if !wait {
			for i := range tenants {
				k := StreamKey{tenants[i], endpoints[i]}
				if _, ok := slices.BinarySearchFunc(locked, k, compareStreams); !ok {
					busy = append(busy, k)
				}
			}
		}
		if len(locked) == 0 {
			return nil
		}
		streams, err := s.lookAtStreams(ctx, tx, locked)
		if err != nil {
			return err
		}
		keepToLimits(ctx, streams, admit)
		for _, f := range streams {
			if f.step.Release > 0 && f.Gate == webhook.GateOpen {
				probes = append(probes, WakePut{Tenant: f.Tenant, Endpoint: f.Endpoint})
			}
		}
		tasks, err = s.stepStreams(ctx, tx, streams, lease)
		return err
	})
	// Whoever turns a breaker holds its gate and asks for the stream; so not the other way round.
	if err == nil && len(probes) > 0 {
		err = s.BeginProbes(ctx, probes, lease)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("feed %d streams: %w", len(keys), err)
	}
	return tasks, busy, nil
}

// lookAtStreams reads what counts about locked streams and decides what to do with each.
func (s *Store) lookAtStreams(ctx context.Context, tx pgx.Tx, locked []StreamKey) ([]stream, error) {
	tenants, endpoints := streamKeys(locked)
	streams := make([]stream, len(locked))
	for i := range streams {
		streams[i].StreamKey = locked[i]
	}
	var b pgx.Batch
	b.Queue(streamFactsSQL, tenants, endpoints).Query(func(rows pgx.Rows) error {
		var (
			ord       int64
			f         stream
			exhausted string
			gate      int16
			gateLeft  float64
			app       webhook.ApplicationID
			rates     []*int32
		)
		into := []any{&ord, &f.ordered, &f.deleted, &f.Deliverable, &exhausted, &gate, &gateLeft, &f.heldFrom, &f.heldFor,
			(*[16]byte)(&app), &rates}
		_, err := pgx.ForEachRow(rows, into, func() error {
			f.StreamKey, f.rates = locked[ord], ratesOf(rates, app)
			f.OnExhausted, f.Gate, f.GateLeft = webhook.OnExhausted(exhausted), webhook.GateState(gate), seconds(gateLeft)
			streams[ord] = f
			return nil
		})
		return err
	})
	b.Queue(streamRowsSQL, tenants, endpoints, webhook.MaxStreamTask).Query(func(rows pgx.Rows) error {
		var (
			ord     int64
			state   int16
			left    float64
			r       webhook.StreamRow
			address string
		)
		_, err := pgx.ForEachRow(rows, []any{&ord, &state, &left, &r.Attempt, &r.Lost, &address}, func() error {
			r.State, r.Left = webhook.State(state), seconds(left)
			streams[ord].rows, streams[ord].addresses = append(streams[ord].rows, r), append(streams[ord].addresses, address)
			return nil
		})
		return err
	})
	if err := tx.SendBatch(ctx, &b).Close(); err != nil {
		return nil, err
	}
	for i := range streams {
		f := &streams[i]
		if err := s.lookForHeld(ctx, tx, f); err != nil {
			return nil, err
		}
		if !f.dissolves() {
			f.step = f.Next(f.rows)
		}
	}
	return streams, nil
}

// keepToLimits lets no more of streams go than their limits do. A probe and what ends without a request ask
// none. Less than might go is the part at the head.
func keepToLimits(ctx context.Context, streams []stream, admit AdmitStreams) {
	var wants []StreamWant
	var at []int
	for i := range streams {
		f := &streams[i]
		if f.step.Release > 0 && f.Deliverable && f.Gate == webhook.GateNone && f.rates.Any() {
			wants, at = append(wants, StreamWant{f.StreamKey, f.rates, f.step.Release}), append(at, i)
		}
	}
	if len(wants) == 0 {
		return
	}
	for j, granted := range admit(ctx, wants) {
		f := &streams[at[j]]
		if f.step.Release = min(granted.N, f.step.Release); f.step.Release <= 0 {
			f.step = webhook.StreamStep{Wait: max(granted.Wait, time.Millisecond)}
		}
	}
}

// lookForHeld finds out whether a stream still has to wait for what was owed before its order began. Who
// accepted just then may not have seen that it began, so nobody knows before their time is over.
func (s *Store) lookForHeld(ctx context.Context, tx pgx.Tx, f *stream) error {
	if f.Held = f.heldFrom != nil; !f.Held || f.heldFor == nil || seconds(*f.heldFor) < s.longestWrite {
		return nil
	}
	var first [16]byte
	err := tx.QueryRow(ctx, heldStreamSQL, f.Tenant.UUID(), f.Endpoint.UUID(), *f.heldFrom).Scan(&first)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		f.Held, f.heldFrom = false, nil
		return nil
	case err != nil:
		return err
	}
	f.heldFrom = &first
	return nil
}

// stepStreams does what was decided.
func (s *Store) stepStreams(ctx context.Context, tx pgx.Tx, streams []stream, lease time.Duration) ([][]webhook.Delivery, error) {
	var (
		release            []string
		tenants, endpoints [][16]byte
		until              []bool
		waits              []*float64
		held               []*[16]byte
	)
	for _, f := range streams {
		if f.dissolves() {
			if gone, err := s.dissolve(ctx, tx, f); err != nil || gone {
				if err != nil {
					return nil, err
				}
				continue
			}
			f.step = webhook.StreamStep{Wait: time.Millisecond}
		}
		if f.step.Release > 0 {
			release = append(release, f.addresses[:f.step.Release]...)
			f.step.Wait = lease
		}
		var wait *float64
		if f.step.Wait > 0 {
			w := f.step.Wait.Seconds()
			wait = &w
		}
		tenants, endpoints = append(tenants, f.Tenant), append(endpoints, f.Endpoint)
		until, waits, held = append(until, f.step.Until), append(waits, wait), append(held, f.heldFrom)
	}
	var tasks [][]webhook.Delivery
	var b pgx.Batch
	if len(release) > 0 {
		b.Queue(releaseStreamsSQL, release, lease.Seconds()).Query(func(rows pgx.Rows) (err error) {
			tasks, err = collectOrdered(rows)
			return err
		})
	}
	b.Queue(setStreamsSQL, tenants, endpoints, until, waits, held)
	return tasks, tx.SendBatch(ctx, &b).Close()
}

// collectOrdered groups what was released by stream, each in order.
func collectOrdered(rows pgx.Rows) (tasks [][]webhook.Delivery, err error) {
	type placed struct {
		webhook.Delivery
		seq int64
	}
	var (
		all     []placed
		p       placed
		trigger int16
	)
	p.Ordered = true
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&p.Tenant), (*[16]byte)(&p.Message), (*[16]byte)(&p.Endpoint), &trigger,
		&p.Attempt, &p.Feed, &p.seq}, func() error {
		p.Trigger = webhook.Trigger(trigger)
		all = append(all, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(compareStreams(StreamKey{a.Tenant, a.Endpoint}, StreamKey{b.Tenant, b.Endpoint}), cmp.Compare(a.seq, b.seq))
	})
	for i, p := range all {
		if i == 0 || all[i-1].Tenant != p.Tenant || all[i-1].Endpoint != p.Endpoint {
			tasks = append(tasks, nil)
		}
		tasks[len(tasks)-1] = append(tasks[len(tasks)-1], p.Delivery)
	}
	return tasks, nil
}

// dissolve lets a share of what is in a stream that is no more go by itself; gone is true when that was the
// rest.
func (s *Store) dissolve(ctx context.Context, tx pgx.Tx, f stream) (gone bool, err error) {
	var put int
	if err := tx.QueryRow(ctx, dissolveSQL, f.Tenant.UUID(), f.Endpoint.UUID(), dissolveShare).Scan(&put); err != nil || put == dissolveShare {
		return false, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM stream WHERE tenant_id = $1 AND endpoint_id = $2`, f.Tenant.UUID(), f.Endpoint.UUID())
	return true, err
}

// PutBackStream puts released deliveries of a stream that are not to be sent now back into it. FeedStreams is
// to be asked for the stream then; if nobody does, they go when the lease that they had ends.
func (s *Store) PutBackStream(ctx context.Context, deliveries []webhook.Delivery) error {
	if len(deliveries) == 0 {
		return nil
	}
	c := columns(deliveries)
	if _, err := s.pool.Exec(ctx, putBackStreamSQL, c.tenants, c.messages, c.endpoints, c.triggers, c.attempts, c.feeds); err != nil {
		return fmt.Errorf("put %d deliveries back: %w", len(deliveries), err)
	}
	return nil
}

// WakeStreams has the feeder look at streams.
func (s *Store) WakeStreams(ctx context.Context, keys []StreamKey) error {
	tenants, endpoints := streamKeys(keys)
	if _, err := s.pool.Exec(ctx, wakeStreamsSQL, tenants, endpoints); err != nil {
		return fmt.Errorf("wake %d streams: %w", len(tenants), err)
	}
	return nil
}

// SweepStreams has the feeder look at every stream that waits for somebody, and at those that wait for
// nothing although something is in them: there should be none.
func (s *Store) SweepStreams(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `UPDATE stream SET due_at = now() WHERE ctid = ANY (ARRAY (
		SELECT s.ctid FROM stream s WHERE s.due_at = 'infinity' OR s.due_at IS NULL AND (
			SELECT true FROM delivery d WHERE d.tenant_id = s.tenant_id AND d.endpoint_id = s.endpoint_id AND d.seq > 0 LIMIT 1)
		FOR UPDATE SKIP LOCKED))`)
	if err != nil {
		return fmt.Errorf("sweep streams: %w", err)
	}
	return nil
}

// order sees to an endpoint's stream after the endpoint was written; before is its ordering until then.
// What was owed to it before it was ordered has no place in the stream and goes first.
func (v View) order(tx *gorm.DB, before webhook.Ordering, e webhook.Endpoint) error {
	ordered, was := e.Ordering == webhook.OrderingFIFO, before == webhook.OrderingFIFO
	switch {
	case ordered && before == "":
		return tx.Exec(`INSERT INTO stream (tenant_id, endpoint_id) VALUES (?, ?)`, e.TenantID, e.ID).Error
	case ordered && !was:
		return tx.Exec(`INSERT INTO stream (tenant_id, endpoint_id, due_at, held_from) VALUES (?, ?, now(), ?::uuid)
			ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET due_at = now(), held_from = excluded.held_from, held_since = NULL`,
			e.TenantID, e.ID, noMessage).Error
	case ordered || was:
		return tx.Exec(`UPDATE stream SET due_at = now() WHERE tenant_id = ? AND endpoint_id = ?`, e.TenantID, e.ID).Error
	}
	return nil
}

// wakeStreamsOf has the streams of endpoints, a query of their ids, looked at.
func (v View) wakeStreamsOf(tx *gorm.DB, endpoints *gorm.DB) error {
	return tx.Exec(`UPDATE stream SET due_at = now() WHERE tenant_id = ? AND endpoint_id IN (?)`, v.scope.Tenant, endpoints).Error
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
