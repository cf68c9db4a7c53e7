package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Wake is an endpoint whose parked deliveries are to be looked at, with all that decides how many of
// them may go.
type Wake struct {
	Tenant   webhook.TenantID
	Endpoint webhook.EndpointID
	Weight   int           // the tenant's share, against others'
	Rates    webhook.Rates // limits
	Gate     webhook.GateState
	Probe    bool // the gate lets one through now
	Take     int  // at most so many; 0 = as many as may
	Resting  bool // all that was parked had been released when it was last looked at
	Rested   bool // for so long that whoever parked meanwhile has committed
}

// wakeFactsSQL adds to the wakes of a relation w what decides about them.
const wakeFactsSQL = `
SELECT w.tenant_id, w.endpoint_id, w.resting_since IS NOT NULL, COALESCE(w.resting_since < now() - make_interval(secs => $2), false),
	COALESCE(w.take, 0), COALESCE(g.state, 0), COALESCE(g.next_at <= now(), false), f.app_id, COALESCE(f.weight, 1),
	ARRAY [f.deliver_rate, f.deliver_burst, f.app_rate, f.app_burst, f.throttle_rate, f.throttle_burst]
FROM w
LEFT JOIN LATERAL (
	SELECT e.app_id, n.weight, n.deliver_rate, n.deliver_burst, a.throttle_rate AS app_rate, a.throttle_burst AS app_burst,
		e.throttle_rate, e.throttle_burst
	FROM endpoint e JOIN application a ON a.tenant_id = e.tenant_id AND a.id = e.app_id JOIN tenant n ON n.id = e.tenant_id
	WHERE e.tenant_id = w.tenant_id AND e.id = w.endpoint_id OFFSET 0
) f ON true
LEFT JOIN LATERAL (
	SELECT g.state, g.next_at FROM endpoint_gate g WHERE g.tenant_id = w.tenant_id AND g.endpoint_id = w.endpoint_id OFFSET 0
) g ON true
ORDER BY w.due_at`

const (
	wakesSQL = `
WITH w AS MATERIALIZED (
	SELECT * FROM endpoint_wake WHERE due_at <= now() ORDER BY due_at LIMIT $1
)` + wakeFactsSQL

	// wakesByTenantSQL looks at a few wakes of each of many tenants, going round the tenants, so that one
	// with ten thousand endpoints does not hide the others. It skips from tenant to tenant through the index.
	wakesByTenantSQL = `
WITH RECURSIVE next AS (
	(SELECT tenant_id, 1 AS n FROM endpoint_wake WHERE tenant_id > $3 ORDER BY tenant_id LIMIT 1)
	UNION ALL
	SELECT t.tenant_id, next.n + 1 FROM next CROSS JOIN LATERAL (
		SELECT w.tenant_id FROM endpoint_wake w WHERE w.tenant_id > next.tenant_id ORDER BY w.tenant_id LIMIT 1
	) t WHERE next.n < $4
), w AS MATERIALIZED (
	SELECT w.* FROM next CROSS JOIN LATERAL (
		SELECT * FROM endpoint_wake w WHERE w.tenant_id = next.tenant_id AND w.due_at <= now() AND w.due_at < 'infinity' ORDER BY w.due_at LIMIT $1
	) w
)` + wakeFactsSQL
)

// Wakes are due wakes, the oldest first, at most limit. If there are more, those of one tenant may hide
// the others'; WakesByTenant shows some of each.
func (s *Store) Wakes(ctx context.Context, limit int) ([]Wake, error) {
	return s.readWakes(ctx, wakesSQL, limit, s.longestWrite.Seconds())
}

// WakesByTenant are at most each due wakes of each of at most tenants tenants that have any wake, behind
// the tenant after.
func (s *Store) WakesByTenant(ctx context.Context, after webhook.TenantID, tenants, each int) ([]Wake, error) {
	return s.readWakes(ctx, wakesByTenantSQL, each, s.longestWrite.Seconds(), after.UUID(), tenants)
}

func (s *Store) readWakes(ctx context.Context, sql string, args ...any) ([]Wake, error) {
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("read wakes: %w", err)
	}
	var (
		wakes []Wake
		w     Wake
		gate  int16
		app   *[16]byte
		rates []*int32
	)
	into := []any{(*[16]byte)(&w.Tenant), (*[16]byte)(&w.Endpoint), &w.Resting, &w.Rested, &w.Take, &gate, &w.Probe, &app, &w.Weight, &rates}
	_, err = pgx.ForEachRow(rows, into, func() error {
		w.Gate = webhook.GateState(gate)
		var application webhook.ApplicationID
		if app != nil {
			application = *app
		}
		w.Rates = ratesOf(rates, application)
		wakes = append(wakes, w)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read wakes: %w", err)
	}
	return wakes, nil
}

// Order asks for parked deliveries of an endpoint, the oldest first.
type Order struct {
	Tenant   webhook.TenantID
	Endpoint webhook.EndpointID
	N        int
	// From is where to begin. What has been released leaves its index entry behind until vacuum comes, so
	// a long backlog would be read from its beginning again with every look.
	From webhook.MessageID
}

const parkedSQL = `
UPDATE delivery SET state = 1, feed = feed + 1, due_at = now() + make_interval(secs => $5)
WHERE ctid = ANY (ARRAY (
	SELECT d.ctid FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::uuid[]) AS w(tenant_id, endpoint_id, n, start)
	CROSS JOIN LATERAL (
		SELECT d.ctid FROM delivery d
		WHERE d.tenant_id = w.tenant_id AND d.endpoint_id = w.endpoint_id AND d.state = 3 AND d.message_id >= w.start
		ORDER BY d.message_id LIMIT w.n FOR UPDATE
	) d
)) RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, task_id IS NOT NULL, lost, false`

// ReleaseParked hands out what is ordered, as far as there is that much.
func (s *Store) ReleaseParked(ctx context.Context, orders []Order, lease time.Duration) ([]Fed, error) {
	n := len(orders)
	if n == 0 {
		return nil, nil
	}
	tenants, endpoints, from, counts := make([][16]byte, n), make([][16]byte, n), make([][16]byte, n), make([]int32, n)
	for i, o := range orders {
		tenants[i], endpoints[i], from[i], counts[i] = o.Tenant, o.Endpoint, o.From, int32(o.N)
	}
	rows, err := s.pool.Query(ctx, parkedSQL, tenants, endpoints, counts, from, lease.Seconds())
	if err != nil {
		return nil, fmt.Errorf("release parked deliveries: %w", err)
	}
	fed, err := collectFed(rows)
	if err != nil {
		return nil, fmt.Errorf("release parked deliveries: %w", err)
	}
	return fed, nil
}

// probeSQL looks for the probe while it holds the gate: an endpoint with nothing to send is not marked,
// and one that is marked has had its probe released. What a background task owes goes as a probe like
// anything else.
const probeSQL = `
WITH g AS MATERIALIZED (
	SELECT g.tenant_id, g.endpoint_id, g.state, g.at FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id)
	CROSS JOIN LATERAL (
		SELECT g.ctid AS at, g.* FROM endpoint_gate g WHERE g.tenant_id = u.tenant_id AND g.endpoint_id = u.endpoint_id OFFSET 0
	) g
	WHERE g.state IN (2, 3) AND g.next_at <= now()
), d AS (
	UPDATE delivery SET state = 1, feed = feed + 1, due_at = now() + make_interval(secs => $3)
	WHERE ctid = ANY (ARRAY (
		SELECT d.ctid FROM g CROSS JOIN LATERAL (
			SELECT d.ctid FROM delivery d WHERE d.tenant_id = g.tenant_id AND d.endpoint_id = g.endpoint_id AND d.state = 3
			ORDER BY d.message_id LIMIT 1 FOR UPDATE
		) d
	)) RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, lost
), marked AS (
	UPDATE endpoint_gate g SET state = CASE WHEN p.goes THEN 3 ELSE 2 END,
		next_at = CASE WHEN p.goes THEN now() + make_interval(secs => $3) ELSE g.next_at END
	FROM (
		SELECT g.at, g.state, d.endpoint_id IS NOT NULL AS goes FROM g LEFT JOIN d USING (tenant_id, endpoint_id)
	) p
	WHERE g.ctid = p.at AND (p.goes OR p.state = 3)
)
SELECT tenant_id, message_id, endpoint_id, trigger, attempt, feed, false, lost, false FROM d`

// lockGatesSQL comes before a statement that changes gates by their address, which is theirs from then on.
const lockGatesSQL = `
SELECT FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id) ORDER BY 1, 2) u CROSS JOIN LATERAL (
	SELECT FROM endpoint_gate g WHERE g.tenant_id = u.tenant_id AND g.endpoint_id = u.endpoint_id FOR UPDATE OFFSET 0
) g`

// ReleaseProbes hands out one parked delivery of each of some endpoints whose breaker is due to be probed,
// and marks those breakers for as long as a probe may take. One whose endpoint has nothing parked is not
// marked, and one that somebody has turned meanwhile is left alone.
func (s *Store) ReleaseProbes(ctx context.Context, endpoints []Order, lease time.Duration) (fed []Fed, err error) {
	if len(endpoints) == 0 {
		return nil, nil
	}
	var l wakes
	for _, o := range endpoints {
		l.add(endpointKey{o.Tenant, o.Endpoint})
	}
	var b pgx.Batch
	b.Queue(lockGatesSQL, l.tenants, l.endpoints)
	b.Queue(probeSQL, l.tenants, l.endpoints, lease.Seconds()).Query(func(rows pgx.Rows) (err error) {
		fed, err = collectFed(rows)
		return err
	})
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("release probes: %w", err)
	}
	return fed, nil
}

// WakeFate is what becomes of a wake that was looked at.
type WakeFate uint8

// The fates.
const (
	WakeTurn   WakeFate = iota // looked at again as soon as those that were not have been
	WakeLater                  // looked at again after a time; until then everything is parked
	WakeGate                   // looked at again when the endpoint's gate says: its next probe, or when it is resumed
	WakeIdle                   // nothing is left to probe an open breaker with, as far as can be seen
	WakeSleep                  // and nothing can have been missed: looked at when something is parked
	WakeRest                   // nothing is left to release, as far as can be seen
	WakeRemove                 // and nothing can have been missed
)

// WakePut says what becomes of a wake.
type WakePut struct {
	Tenant   webhook.TenantID
	Endpoint webhook.EndpointID
	Fate     WakeFate
	After    time.Duration // of WakeLater
	Take     int           // of WakeLater: at most so many at the next look; 0 = as many as may
}

// firstRest is how soon a wake that is put to rest is looked at again: whoever parked meanwhile and
// saw it awake has committed by then, but for the slowest.
const firstRest = 50 * time.Millisecond

const (
	// Locks are taken in the order in which accepts take them, or each could wait for the other.
	lockWakesSQL = `
SELECT FROM (SELECT * FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id) ORDER BY 1, 2) u CROSS JOIN LATERAL (
	SELECT FROM endpoint_wake w WHERE w.tenant_id = u.tenant_id AND w.endpoint_id = u.endpoint_id FOR UPDATE OFFSET 0
) w`

	// Wakes are looked up one by one and changed by their address: joined by their keys, all there are would be
	// read in the order of the index. One that somebody changes meanwhile has another address and is left as
	// that one wants it.
	wakeAtSQL = `
CROSS JOIN LATERAL (
	SELECT w.ctid AS at FROM endpoint_wake w WHERE w.tenant_id = u.tenant_id AND w.endpoint_id = u.endpoint_id OFFSET 0
) k`
	wakesAtSQL = `(ARRAY (SELECT k.at FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id)` + wakeAtSQL + `))`

	turnSQL = `UPDATE endpoint_wake SET due_at = now(), resting_since = NULL, take = NULL
WHERE ctid = ANY ` + wakesAtSQL + ` AND due_at <= now()`

	laterSQL = `UPDATE endpoint_wake w SET due_at = now() + make_interval(secs => u.after), resting_since = NULL, take = NULLIF(u.take, 0)
FROM (
	SELECT k.at, u.after, u.take FROM unnest($1::uuid[], $2::uuid[], $3::float8[], $4::integer[]) AS u(tenant_id, endpoint_id, after, take)` +
		wakeAtSQL + `
) u WHERE w.ctid = u.at AND w.due_at <= now()`

	// The gate's row is locked, so that it cannot go before the wake waits for it: whoever removes a gate
	// wakes the endpoint afterwards.
	gateSQL = `WITH g AS MATERIALIZED (
	SELECT g.tenant_id, g.endpoint_id, CASE WHEN g.state = 1 THEN 'infinity' ELSE GREATEST(g.next_at, now()) END AS until
	FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id)
	CROSS JOIN LATERAL (
		SELECT * FROM endpoint_gate g WHERE g.tenant_id = u.tenant_id AND g.endpoint_id = u.endpoint_id FOR SHARE OFFSET 0
	) g
)
UPDATE endpoint_wake w SET due_at = u.until, resting_since = NULL, take = NULL
FROM (SELECT k.at, u.until FROM g u ` + wakeAtSQL + `) u WHERE w.ctid = u.at AND w.due_at <= now()`

	// A gate that has been turned since the look is not idle: what is parked was perhaps not looked for.
	// A resting wake that has a take makes accept park: what comes is the probe, and goes by way of the feeder,
	// alone. It is never removed, but sleeps, since it is what says so.
	idleSQL = `WITH g AS MATERIALIZED (
	SELECT g.tenant_id, g.endpoint_id, u.sleeps FROM unnest($1::uuid[], $2::uuid[], $3::boolean[]) AS u(tenant_id, endpoint_id, sleeps)
	CROSS JOIN LATERAL (
		SELECT * FROM endpoint_gate g WHERE g.tenant_id = u.tenant_id AND g.endpoint_id = u.endpoint_id AND g.state IN (2, 3)
		AND g.next_at <= now() FOR SHARE OFFSET 0
	) g
)
UPDATE endpoint_wake w SET resting_since = COALESCE(w.resting_since, now()), take = 1,
	due_at = CASE WHEN u.sleeps AND w.resting_since < now() - make_interval(secs => $5) THEN 'infinity'
		ELSE now() + GREATEST(now() - w.resting_since, make_interval(secs => $4)) END
FROM (SELECT k.at, u.sleeps FROM g u ` + wakeAtSQL + `) u WHERE w.ctid = u.at AND w.due_at <= now()`

	// A resting wake is looked at less and less often.
	restSQL = `UPDATE endpoint_wake SET resting_since = COALESCE(resting_since, now()), take = NULL,
	due_at = now() + GREATEST(now() - resting_since, make_interval(secs => $3))
WHERE ctid = ANY ` + wakesAtSQL + ` AND due_at <= now()`

	removeSQL = `DELETE FROM endpoint_wake
WHERE ctid = ANY ` + wakesAtSQL + ` AND resting_since < now() - make_interval(secs => $3)`
)

// PutWakes settles wakes that were looked at.
//
// A wake whose parked rows are all released rests for longer than a statement may take, and is still
// looked at now and then. By the end of that whoever parked and saw it awake has committed, so that a
// look sees their rows; whoever parks and sees it resting wakes it, and waits for us if we are just
// removing it. So no parked row is forgotten, and a busy endpoint's wake is not a lock that every
// accept and the feeder fight for.
func (s *Store) PutWakes(ctx context.Context, puts []WakePut) error {
	var lists [WakeRemove + 1]wakes
	var all wakes
	var idle wakes
	var sleeps []bool
	var after []float64
	var take []int32
	for _, p := range puts {
		k := endpointKey{p.Tenant, p.Endpoint}
		lists[p.Fate].add(k)
		switch p.Fate {
		case WakeGate:
			continue
		case WakeIdle, WakeSleep:
			idle.add(k)
			sleeps = append(sleeps, p.Fate == WakeSleep)
			continue
		case WakeLater:
			after, take = append(after, p.After.Seconds()), append(take, int32(p.Take))
		case WakeTurn, WakeRest, WakeRemove:
		}
		all.add(k)
	}
	fail := func(err error) error { return fmt.Errorf("settle %d wakes: %w", len(puts), err) }
	// Apart, since who pauses or resumes locks the gate before the wake.
	if l := lists[WakeGate]; len(l.tenants) > 0 {
		if _, err := s.pool.Exec(ctx, gateSQL, l.tenants, l.endpoints); err != nil {
			return fail(err)
		}
	}
	if len(sleeps) > 0 {
		if _, err := s.pool.Exec(ctx, idleSQL, idle.tenants, idle.endpoints, sleeps, firstRest.Seconds(), s.longestWrite.Seconds()); err != nil {
			return fail(err)
		}
	}
	if len(all.tenants) == 0 {
		return nil
	}
	var b pgx.Batch
	b.Queue(lockWakesSQL, all.tenants, all.endpoints)
	for fate, l := range lists {
		if len(l.tenants) == 0 {
			continue
		}
		switch WakeFate(fate) {
		case WakeTurn:
			b.Queue(turnSQL, l.tenants, l.endpoints)
		case WakeLater:
			b.Queue(laterSQL, l.tenants, l.endpoints, after, take)
		case WakeGate, WakeIdle, WakeSleep: // done
		case WakeRest:
			b.Queue(restSQL, l.tenants, l.endpoints, firstRest.Seconds())
		case WakeRemove:
			b.Queue(removeSQL, l.tenants, l.endpoints, s.longestWrite.Seconds())
		}
	}
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return fail(err)
	}
	return nil
}

// wakes is a list of endpoints as the arrays that SQL takes.
type wakes struct{ tenants, endpoints [][16]byte }

func (w *wakes) add(k endpointKey) {
	w.tenants, w.endpoints = append(w.tenants, k.tenant), append(w.endpoints, k.endpoint)
}

// ratesSQL reads the limits of endpoints.
const ratesSQL = `
SELECT u.ord - 1, e.app_id, ARRAY [n.deliver_rate, n.deliver_burst, a.throttle_rate, a.throttle_burst, e.throttle_rate, e.throttle_burst]
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS u(tenant_id, endpoint_id, ord)
JOIN LATERAL (SELECT * FROM endpoint e WHERE e.tenant_id = u.tenant_id AND e.id = u.endpoint_id OFFSET 0) e ON true
JOIN application a ON a.tenant_id = e.tenant_id AND a.id = e.app_id JOIN tenant n ON n.id = e.tenant_id`

// Rates are the limits that hold for deliveries, one each, as they are now.
func (s *Store) Rates(ctx context.Context, deliveries []webhook.Delivery) ([]webhook.Rates, error) {
	at := make(map[endpointKey]int, len(deliveries))
	var l wakes
	for _, d := range deliveries {
		if k := (endpointKey{d.Tenant, d.Endpoint}); !has(at, k) {
			at[k] = len(at)
			l.add(k)
		}
	}
	rows, err := s.pool.Query(ctx, ratesSQL, l.tenants, l.endpoints)
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	var (
		ord   int64
		app   webhook.ApplicationID
		rates []*int32
		found = make([]webhook.Rates, len(at))
	)
	_, err = pgx.ForEachRow(rows, []any{&ord, (*[16]byte)(&app), &rates}, func() error {
		found[ord] = ratesOf(rates, app)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read limits: %w", err)
	}
	out := make([]webhook.Rates, len(deliveries))
	for i, d := range deliveries {
		out[i] = found[at[endpointKey{d.Tenant, d.Endpoint}]]
	}
	return out, nil
}

// BeginProbes marks the breakers of endpoints whose probe has been released otherwise than by ReleaseProbes,
// for as long as a probe may take. Gates that are no longer what they were are left.
func (s *Store) BeginProbes(ctx context.Context, probes []WakePut, within time.Duration) error {
	var l wakes
	for _, p := range probes {
		l.add(endpointKey{p.Tenant, p.Endpoint})
	}
	var b pgx.Batch
	b.Queue(lockGatesSQL, l.tenants, l.endpoints)
	b.Queue(`UPDATE endpoint_gate g SET state = 3, next_at = now() + make_interval(secs => $3)
		FROM unnest($1::uuid[], $2::uuid[]) AS u(tenant_id, endpoint_id) CROSS JOIN LATERAL (
			SELECT g.ctid AS at FROM endpoint_gate g WHERE g.tenant_id = u.tenant_id AND g.endpoint_id = u.endpoint_id OFFSET 0
		) k
		WHERE g.ctid = k.at AND g.state IN (2, 3) AND g.next_at <= now()`,
		l.tenants, l.endpoints, within.Seconds())
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("begin %d probes: %w", len(probes), err)
	}
	return nil
}
