package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Accept is one message on its way in.
type Accept struct {
	Message     webhook.Message // ID minted by the caller; ApplicationID is filled by the store
	Application string          // id or uid
	Idempotency *Idempotency    // nil = none
}

// Idempotency is what makes a repeated publish the same publish.
type Idempotency struct {
	Key       [32]byte // hash of principal, route and the caller's key
	BodyHash  [32]byte
	CheckBody bool   // refuse the key with another body, instead of answering as the first time
	Note      []byte // what the answer says besides the message; a repeat is told it again
}

// Accepted is what became of an Accept.
type Accepted struct {
	Message    webhook.Message    // as stored; the first one's, if Replayed
	Replayed   bool               // an earlier publish with the same key had been accepted
	Note       []byte             // the first one's, if Replayed
	Deliveries []webhook.Delivery // what it owes; those with a feed are handed out
	Rates      []webhook.Rates    // the limits of each of Deliveries; nil = none has any
	Streams    []StreamKey        // those that have something for FeedStreams now
	Err        error              // refused: nothing of it was written
}

// Release says how the deliveries of a batch leave the accept transaction.
type Release struct {
	Released bool          // handed out at once; else parked, because the window is full. Those of a later time wait for it
	Lease    time.Duration // of those handed out
}

// maxAcceptRounds bounds how often a publish is tried again because the row it lost to vanished.
const maxAcceptRounds = 3

// Accept writes messages and one row per owed delivery in one transaction per batch. When it returns,
// what has no Err is on disk. It answers in order, one Accepted per Accept.
//
// A message that breaks a constraint fails alone: the batch is split until it is by itself. A batch
// whose commit got no answer fails whole, as unavailable, and is never tried again here, because it
// may have happened.
func (s *Store) Accept(ctx context.Context, batch []Accept, r Release) []Accepted {
	out := make([]Accepted, len(batch))
	for _, round := range distinct(batch) {
		s.acceptRound(ctx, batch, round, r, out, maxAcceptRounds, s.ordered.expected(batch, round))
	}
	return out
}

// distinct splits a batch so that no round holds the same idempotency key or event id twice: the
// second one must find the first one committed, as it would from another process.
func distinct(batch []Accept) (rounds [][]int) {
	type name struct {
		tenant webhook.TenantID
		text   string
	}
	seen := make(map[name]int)
	for i, a := range batch {
		round := 0
		var names []name
		if a.Idempotency != nil {
			names = append(names, name{a.Message.TenantID, "k" + string(a.Idempotency.Key[:])})
		}
		if a.Message.EventID != "" {
			names = append(names, name{a.Message.TenantID, "e" + a.Application + "\x00" + a.Message.EventID})
		}
		for _, n := range names {
			round = max(round, seen[n])
		}
		for _, n := range names {
			seen[n] = round + 1
		}
		for len(rounds) <= round {
			rounds = append(rounds, nil)
		}
		rounds[round] = append(rounds[round], i)
	}
	return rounds
}

func (s *Store) acceptRound(ctx context.Context, batch []Accept, round []int, r Release, out []Accepted, tries int, ordered bool) {
	if len(round) == 0 {
		return
	}
	failpoint.Hit(failpoint.APIBeforeCommit)
	err := failpoint.Error(failpoint.StoreAccept)
	if err == nil && ordered {
		if round, err = s.refuseDelayed(ctx, s.pool, batch, round, out); err == nil && len(round) == 0 {
			return
		}
	}
	if err == nil {
		err = s.acceptStatement(ctx, s.pool, 0, ordered, batch, round, r, out)
	}
	switch {
	case err == nil:
		failpoint.Hit(failpoint.APIAfterCommit)
	case isUnnumbered(err) && tries > 0:
		s.acceptRound(ctx, batch, round, r, out, tries-1, true)
		return
	case isBadRow(err) && len(round) > 1:
		half := len(round) / 2
		s.acceptRound(ctx, batch, round[:half], r, out, tries, ordered)
		s.acceptRound(ctx, batch, round[half:], r, out, tries, ordered)
		return
	case isUnique(err): // a concurrent publish committed the same key or event id first
	case isRolledBack(err) && tries > 0:
		s.acceptRound(ctx, batch, round, r, out, tries-1, ordered)
		return
	default:
		for _, i := range round {
			out[i] = Accepted{Err: webhook.Unavailable(err, "The message could not be stored; try again")}
		}
		return
	}
	var lost []int
	for _, i := range round {
		if out[i].Message.ID.IsZero() && out[i].Err == nil {
			lost = append(lost, i)
		}
	}
	if again := s.resolveLost(ctx, s.pool, batch, lost, out); len(again) > 0 {
		if tries > 0 {
			s.acceptRound(ctx, batch, again, r, out, tries-1, ordered)
			return
		}
		for _, i := range again {
			out[i] = Accepted{Err: webhook.Unavailable(errors.New("accept kept losing"), "The message could not be stored; try again")}
		}
	}
}

// acceptSQL writes a batch in one statement, hence in one transaction and one round trip. Messages
// whose application is missing, or whose key or event id is already taken, are left out of it and are
// looked at afterwards; one that loses against a transaction that has not ended yet waits for it at
// the unique index. Keys are inserted in order, else two batches could wait for each other. Of each
// statement there is one for batches that owe something to ordered endpoints, under true.
var (
	acceptSQL = map[bool]string{false: acceptOwed + acceptTold, true: acceptOwed + acceptOrderedTold}
	// acceptLimitedSQL stops short of writing more deliveries than it is told to.
	acceptLimitedSQL = map[bool]string{false: acceptOwed + acceptLimit + acceptTold, true: acceptOwed + acceptLimit + acceptOrderedTold}
)

const (
	acceptLimit = `
	LIMIT $18`

	// Deliveries to an endpoint whose wake is set for later are parked behind what waits for that: it is
	// paused, its breaker is open, or it has had all it may have for now.
	acceptOwed = `
WITH t AS MATERIALIZED (
	SELECT * FROM (
		SELECT u.tenant_id, u.id, u.event_type, u.event_id, u.channels::text[] AS channels, u.tags::text[] AS tags,
			u.payload, u.content_type, u.expires_at, u.deliver_at, u.key, u.body_hash, u.note,
			a.id AS app_id, a.throttle_rate AS app_rate, a.throttle_burst AS app_burst, n.deliver_rate, n.deliver_burst
		FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[],
			$9::bytea[], $10::timestamptz[], $11::bytea[], $12::bytea[], $15::text[], $16::bytea[], $17::timestamptz[])
			AS u(tenant_id, app_id, app_uid, id, event_type, event_id, channels, tags, payload, expires_at, key, body_hash, content_type, note, deliver_at)
		CROSS JOIN LATERAL (
			SELECT a.id, a.throttle_rate, a.throttle_burst FROM application a
			WHERE a.tenant_id = u.tenant_id AND a.id = u.app_id AND a.deleted_at IS NULL
			UNION ALL
			SELECT a.id, a.throttle_rate, a.throttle_burst FROM application a
			WHERE a.tenant_id = u.tenant_id AND a.uid = u.app_uid AND a.deleted_at IS NULL
			LIMIT 1
		) a
		CROSS JOIN LATERAL (SELECT n.deliver_rate, n.deliver_burst FROM tenant n WHERE n.id = u.tenant_id OFFSET 0) n
	) f
	WHERE (key IS NULL OR NOT EXISTS (SELECT FROM idempotency i WHERE i.tenant_id = f.tenant_id AND i.key = f.key))
	AND (event_id IS NULL OR NOT EXISTS (
		SELECT FROM event_id e WHERE e.tenant_id = f.tenant_id AND e.app_id = f.app_id AND e.event_id = f.event_id))
), k AS (
	INSERT INTO idempotency (tenant_id, key, body_hash, message_id, app_id, response)
	SELECT tenant_id, key, body_hash, id, app_id, note FROM t WHERE key IS NOT NULL ORDER BY tenant_id, key
), ev AS (
	INSERT INTO event_id (tenant_id, app_id, event_id, message_id)
	SELECT tenant_id, app_id, event_id, id FROM t WHERE event_id IS NOT NULL ORDER BY tenant_id, app_id, event_id
), m AS (
	INSERT INTO message (tenant_id, app_id, id, event_type, event_id, channels, tags, payload, content_type, expires_at, deliver_at)
	SELECT tenant_id, app_id, id, event_type, event_id, channels, tags, payload, content_type, expires_at, deliver_at FROM t
), o AS MATERIALIZED (
	SELECT t.tenant_id, t.id AS message_id, e.id AS endpoint_id, t.deliver_at,
		CASE WHEN e.ordering = 'fifo' THEN 4 WHEN t.deliver_at IS NOT NULL THEN 2 WHEN $13 AND NOT e.held THEN 1 ELSE 3 END AS state,
		CASE WHEN e.throttle_rate IS NOT NULL OR t.app_rate IS NOT NULL OR t.deliver_rate IS NOT NULL THEN ARRAY [
			t.deliver_rate, t.deliver_burst, t.app_rate, t.app_burst, e.throttle_rate, e.throttle_burst] END AS rates
	FROM t CROSS JOIN LATERAL (
		SELECT e.id, e.ordering, e.throttle_rate, e.throttle_burst, COALESCE((
			SELECT CASE WHEN w.resting_since IS NULL THEN w.due_at > now() ELSE w.take IS NOT NULL END FROM endpoint_wake w
			WHERE w.tenant_id = e.tenant_id AND w.endpoint_id = e.id), false) AS held
		FROM endpoint e
		WHERE e.tenant_id = t.tenant_id AND e.app_id = t.app_id AND e.deleted_at IS NULL AND NOT e.disabled
		AND (e.event_types IS NULL OR t.event_type = ANY (e.event_types))
		AND (e.channels IS NULL OR e.channels && t.channels)
		OFFSET 0
	) e`
	acceptTold = `
), d AS (
	INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, feed, state, due_at)
	SELECT tenant_id, message_id, endpoint_id, 0, CASE WHEN state = 1 THEN 1 ELSE 0 END, state,
		CASE WHEN state = 2 THEN deliver_at WHEN state = 1 THEN now() + make_interval(secs => $14) END
	FROM o
), parked AS (
	SELECT tenant_id, endpoint_id FROM o WHERE state = 3
), w AS (` + wakeParkedSQL + `)
SELECT t.id, t.app_id, o.endpoint_id, COALESCE(o.state, 0), o.rates, NULL::boolean FROM t LEFT JOIN o ON o.message_id = t.id`
)

// acceptStatement writes a round; limit is how many deliveries it may write, 0 = any number. One that is
// not said to be ordered fails, as isUnnumbered, if it meets an ordered endpoint.
func (s *Store) acceptStatement(ctx context.Context, q querier, limit int, ordered bool, batch []Accept, round []int, r Release, out []Accepted) error {
	n := len(round)
	tenants, ids := make([][16]byte, n), make([][16]byte, n)
	apps, appUIDs := make([]*[16]byte, n), make([]*string, n)
	types, eventIDs := make([]string, n), make([]*string, n)
	channels, tags := make([]*string, n), make([]*string, n)
	payloads, expiries, delays := make([][]byte, n), make([]time.Time, n), make([]*time.Time, n)
	contentTypes := make([]*string, n)
	keys, bodies, notes := make([][]byte, n), make([][]byte, n), make([][]byte, n)
	at := make(map[webhook.MessageID]int, n)
	for j, i := range round {
		a := &batch[i]
		m := &a.Message
		at[m.ID] = i
		tenants[j], ids[j] = m.TenantID, m.ID
		apps[j], appUIDs[j] = applicationRef(a.Application)
		types[j], eventIDs[j] = m.EventType, optional(m.EventID)
		channels[j], tags[j] = arrayLiteral(m.Channels), arrayLiteral(m.Tags)
		payloads[j], contentTypes[j], expiries[j] = m.Payload, optional(m.ContentType), m.ExpiresAt
		if !m.DeliverAt.IsZero() {
			delays[j] = &m.DeliverAt
		}
		if a.Idempotency != nil {
			var err error
			if notes[j], err = s.sealNote(a); err != nil {
				return err
			}
			keys[j], bodies[j] = a.Idempotency.Key[:], a.Idempotency.BodyHash[:]
		}
	}
	sql, args := acceptSQL[ordered], []any{tenants, apps, appUIDs, ids, types, eventIDs, channels, tags,
		payloads, expiries, keys, bodies, r.Released, r.Lease.Seconds(), contentTypes, notes, delays}
	if limit > 0 {
		sql, args = acceptLimitedSQL[ordered], append(args, limit)
	}
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("accept %d messages: %w", n, err)
	}
	var (
		id       webhook.MessageID
		app      webhook.ApplicationID
		endpoint *[16]byte
		state    int16
		rates    []*int32
		due      *bool
		written  []Accepted
		where    = make(map[webhook.MessageID]int, n)
	)
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&id), (*[16]byte)(&app), &endpoint, &state, &rates, &due}, func() error {
		w, ok := where[id]
		if !ok {
			w = len(written)
			where[id] = w
			m := batch[at[id]].Message
			m.ApplicationID = app
			written = append(written, Accepted{Message: m})
		}
		if endpoint != nil {
			m := &written[w].Message
			d := webhook.Delivery{DeliveryKey: webhook.DeliveryKey{
				Tenant: m.TenantID, Message: id, Endpoint: *endpoint, Trigger: webhook.TriggerScheduled,
			}}
			switch webhook.State(state) {
			case webhook.StateReleased:
				d.Feed = 1
			case webhook.StateFIFO:
				d.Ordered = true
				s.ordered.saw(batch[at[id]])
				if due != nil && *due {
					written[w].Streams = append(written[w].Streams, StreamKey{m.TenantID, *endpoint})
				}
			}
			written[w].add(d, rates, app)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("accept %d messages: %w", n, err)
	}
	for _, w := range written {
		out[at[w.Message.ID]] = w
	}
	return nil
}

// add appends a delivery and its limits.
func (a *Accepted) add(d webhook.Delivery, rates []*int32, app webhook.ApplicationID) {
	if rates != nil && a.Rates == nil {
		a.Rates = make([]webhook.Rates, len(a.Deliveries))
	}
	a.Deliveries = append(a.Deliveries, d)
	if a.Rates != nil {
		a.Rates = append(a.Rates, ratesOf(rates, app))
	}
}

// ratesOf reads rates and bursts as SQL gives them: the tenant's, the application's, the endpoint's.
func ratesOf(columns []*int32, app webhook.ApplicationID) (r webhook.Rates) {
	r.Application = app
	for i, into := range []*int{&r.OverTenant.PerSecond, &r.OverTenant.Burst, &r.OverApplication.PerSecond, &r.OverApplication.Burst,
		&r.Endpoint.PerSecond, &r.Endpoint.Burst} {
		if i < len(columns) && columns[i] != nil {
			*into = int(*columns[i])
		}
	}
	return r
}

// lostSQL says for each publish that wrote nothing what it lost to.
const lostSQL = `
SELECT u.ord - 1, f.app_id, k.message_id, k.app_id, k.body_hash, k.response, k.created_at < now() - make_interval(secs => $7),
	EXISTS (SELECT FROM event_id e WHERE e.tenant_id = u.tenant_id AND e.app_id = f.app_id AND e.event_id = u.event_id)
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::text[]) WITH ORDINALITY
	AS u(tenant_id, app_id, app_uid, key, event_id, ord)
CROSS JOIN LATERAL (SELECT COALESCE(
	(SELECT a.id FROM application a WHERE a.tenant_id = u.tenant_id AND a.id = u.app_id AND a.deleted_at IS NULL),
	(SELECT a.id FROM application a WHERE a.tenant_id = u.tenant_id AND a.uid = u.app_uid AND a.deleted_at IS NULL)
) AS app_id) f
LEFT JOIN LATERAL (SELECT * FROM idempotency i WHERE i.tenant_id = u.tenant_id AND i.key = u.key OFFSET 0) k ON true
ORDER BY u.ord LIMIT $6`

// resolveLost answers those that wrote nothing and returns those that should try again, because what
// they lost to is gone or has outlived its time.
func (s *Store) resolveLost(ctx context.Context, q querier, batch []Accept, lost []int, out []Accepted) (again []int) {
	if len(lost) == 0 {
		return nil
	}
	n := len(lost)
	tenants, apps, appUIDs := make([][16]byte, n), make([]*[16]byte, n), make([]*string, n)
	keys, eventIDs := make([][]byte, n), make([]*string, n)
	for j, i := range lost {
		a := &batch[i]
		tenants[j] = a.Message.TenantID
		apps[j], appUIDs[j] = applicationRef(a.Application)
		if a.Idempotency != nil {
			keys[j] = a.Idempotency.Key[:]
		}
		eventIDs[j] = optional(a.Message.EventID)
	}
	fail := func(err error) {
		for _, i := range lost {
			out[i] = Accepted{Err: webhook.Unavailable(err, "The message could not be stored; try again")}
		}
	}
	rows, err := q.Query(ctx, lostSQL, tenants, apps, appUIDs, keys, eventIDs, n, webhook.IdempotencyRetention.Seconds())
	if err != nil {
		fail(err)
		return nil
	}
	type finding struct {
		Ord int64
		App *[16]byte
		firstPublish
		EventTaken bool
	}
	findings, err := pgx.CollectRows(rows, pgx.RowToStructByPos[finding])
	if err != nil {
		fail(err)
		return nil
	}
	for _, f := range findings {
		i := lost[f.Ord]
		a := &batch[i]
		switch {
		case f.BodyHash != nil && *f.Expired:
			if err := s.forgetKey(ctx, a.Message.TenantID, a.Idempotency.Key); err != nil {
				out[i] = Accepted{Err: webhook.Unavailable(err, "The message could not be stored; try again")}
				continue
			}
			again = append(again, i)
		case f.BodyHash != nil:
			out[i] = s.replay(ctx, a, f.firstPublish)
		case f.App == nil:
			out[i] = Accepted{Err: webhook.ErrNotFound}
		case f.EventTaken:
			out[i] = Accepted{Err: errEventTaken}
		default:
			again = append(again, i)
		}
	}
	return again
}

var errEventTaken = webhook.Conflict("conflict", "A message with this eventId exists in the application")

// errKeyReused says that an idempotency key came back with another request.
var errKeyReused error = &webhook.Error{
	Kind: webhook.KindInvalid, Code: "idempotency_key_reused",
	Detail: "This idempotency key was used for another request in the last 12 hours",
}

func (s *Store) forgetKey(ctx context.Context, tenant webhook.TenantID, key [32]byte) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM idempotency WHERE tenant_id = $1 AND key = $2
		AND created_at < now() - make_interval(secs => $3)`,
		tenant.UUID(), key[:], webhook.IdempotencyRetention.Seconds())
	return err
}

// isBadRow reports that Postgres refused a value or a constraint: the fault of one row, so the others
// can be saved by leaving it out.
func isBadRow(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (strings.HasPrefix(pg.Code, "22") || strings.HasPrefix(pg.Code, "23"))
}

func isUnique(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505"
}

// isRolledBack reports that Postgres itself says nothing was written and that the same may succeed: a
// deadlock or a serialisation failure.
func isRolledBack(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "40") && pg.Code != "40003"
}

// applicationRef is a ref as SQL takes it: an id or a uid, or neither for what can be none.
func applicationRef(ref string) (id *[16]byte, uid *string) {
	if parsed, err := webhook.ParseID[webhook.ApplicationID](ref); err == nil {
		return (*[16]byte)(&parsed), nil
	}
	if !storable(ref) {
		return nil, nil
	}
	return nil, &ref
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// arrayLiteral writes a text[] as Postgres reads it; arrays of arrays must be rectangular there, so a
// column of them travels as text.
func arrayLiteral(items []string) *string {
	if items == nil {
		return nil
	}
	var b strings.Builder
	b.WriteByte('{')
	for i, item := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		for j := range len(item) {
			if item[j] == '"' || item[j] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(item[j])
		}
		b.WriteByte('"')
	}
	b.WriteByte('}')
	text := b.String()
	return &text
}
