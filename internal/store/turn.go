package store

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// TurnKind is a way in which a breaker can be turned.
type TurnKind uint8

// The ways. Whatever is turned already, or paused, stays as it is.
const (
	// TurnOpen opens it after a streak of failures; the first probe is due after Wait. An endpoint is left
	// alone that is no longer what failed: deleted, disabled or given another URL.
	TurnOpen TurnKind = iota
	// TurnProbeFailed puts off the next probe for Wait; Reason says why this one failed. Of several probes
	// under way the first counts.
	TurnProbeFailed
	// TurnProbeAgain has the endpoint probed anew after Wait, because what was to be its probe was not sent.
	TurnProbeAgain
	// TurnClose lets the endpoint's deliveries go again, few at first.
	TurnClose
)

// Turn is what is to become of an endpoint's breaker.
type Turn struct {
	Kind     TurnKind
	Tenant   webhook.TenantID
	Endpoint webhook.EndpointID
	URL      string // that failed
	Reason   webhook.ErrorClass
	Failures int // in a row
	Wait     time.Duration
}

const (
	turnOf = `FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::integer[], $6::float8[])
	WITH ORDINALITY AS u(tenant_id, endpoint_id, url, reason, failures, wait, ord)`

	// The lock on the endpoint keeps it from being disabled or deleted between the look and the commit:
	// whoever does that removes the gate.
	openBreakersSQL = `
WITH e AS MATERIALIZED (
	SELECT u.* ` + turnOf + ` CROSS JOIN LATERAL (
		SELECT FROM endpoint e WHERE e.tenant_id = u.tenant_id AND e.id = u.endpoint_id AND e.url = u.url
		AND e.deleted_at IS NULL AND NOT e.disabled FOR SHARE OFFSET 0
	) e
), g AS (
	INSERT INTO endpoint_gate (tenant_id, endpoint_id, state, since, reason, failures, next_at)
	SELECT e.tenant_id, e.endpoint_id, 2, now(), e.reason, e.failures, now() + make_interval(secs => e.wait) FROM e ORDER BY e.ord
	ON CONFLICT (tenant_id, endpoint_id) DO NOTHING
	RETURNING tenant_id, endpoint_id, next_at AS wake_at, NULL::integer AS take
)` + wakeGateSQL + turnedSQL

	// gatesAtSQL looks gates up one by one, which are locked already.
	gatesAtSQL = `
WITH k AS MATERIALIZED (
	SELECT u.*, g.at ` + turnOf + ` CROSS JOIN LATERAL (
		SELECT g.ctid AS at FROM endpoint_gate g WHERE g.tenant_id = u.tenant_id AND g.endpoint_id = u.endpoint_id OFFSET 0
	) g
), g AS (`

	probesFailedSQL = gatesAtSQL + `
	UPDATE endpoint_gate g SET state = 2, failures = g.failures + 1, reason = k.reason, next_at = now() + make_interval(secs => k.wait)
	FROM k WHERE g.ctid = k.at AND g.state = 3
	RETURNING g.tenant_id, g.endpoint_id, g.next_at AS wake_at, NULL::integer AS take
)` + wakeGateSQL + turnedSQL

	probesAgainSQL = gatesAtSQL + `
	UPDATE endpoint_gate g SET state = 2, next_at = now() + make_interval(secs => k.wait)
	FROM k WHERE g.ctid = k.at AND g.state = 3
	RETURNING g.tenant_id, g.endpoint_id, g.next_at AS wake_at, NULL::integer AS take
)` + wakeGateSQL + turnedSQL

	// What a breaker that closes lets go at first stands in failures.
	closeBreakersSQL = gatesAtSQL + `
	DELETE FROM endpoint_gate g USING k WHERE g.ctid = k.at AND g.state IN (2, 3)
	RETURNING g.tenant_id, g.endpoint_id, now() AS wake_at, k.failures AS take
)` + wakeGateSQL + turnedSQL

	turnedSQL = ` RETURNING tenant_id, endpoint_id`
)

var turnSQLs = [...]string{TurnOpen: openBreakersSQL, TurnProbeFailed: probesFailedSQL, TurnProbeAgain: probesAgainSQL, TurnClose: closeBreakersSQL}

// TurnBreakers turns breakers and says which of them it did. Several turns of one endpoint are made one
// after the other. After an error those that are not said to have been turned may have been.
func (s *Store) TurnBreakers(ctx context.Context, turns []Turn) ([]bool, error) {
	done := make([]bool, len(turns))
	for _, round := range rounds(turns) {
		if err := s.turnRound(ctx, turns, round, done); err != nil {
			return done, fmt.Errorf("turn %d breakers: %w", len(turns), err)
		}
	}
	return done, nil
}

// rounds puts turns into lists that can be made together, as indices: of one kind, no endpoint twice, and in
// the order in which gates are locked. One endpoint's turns stay in their order.
func rounds(turns []Turn) [][]int {
	type list struct {
		nth  int
		kind TurnKind
	}
	nth := make(map[endpointKey]int)
	in := make(map[list][]int)
	var order []list
	for i, t := range turns {
		k := endpointKey{t.Tenant, t.Endpoint}
		l := list{nth[k], t.Kind}
		nth[k]++
		if in[l] == nil {
			order = append(order, l)
		}
		in[l] = append(in[l], i)
	}
	slices.SortFunc(order, func(a, b list) int { return cmp.Or(cmp.Compare(a.nth, b.nth), cmp.Compare(a.kind, b.kind)) })
	out := make([][]int, len(order))
	for i, l := range order {
		out[i] = in[l]
		slices.SortFunc(out[i], func(a, b int) int {
			return cmp.Or(bytes.Compare(turns[a].Tenant[:], turns[b].Tenant[:]), bytes.Compare(turns[a].Endpoint[:], turns[b].Endpoint[:]))
		})
	}
	return out
}

func (s *Store) turnRound(ctx context.Context, turns []Turn, round []int, done []bool) error {
	var (
		l             wakes
		urls, reasons []string
		failures      []int32
		waits         []float64
		at            = make(map[endpointKey]int, len(round))
	)
	kind := turns[round[0]].Kind
	for _, i := range round {
		t := turns[i]
		k := endpointKey{t.Tenant, t.Endpoint}
		l.add(k)
		at[k] = i
		if kind == TurnClose {
			t.Failures = webhook.RampStart
		}
		urls, reasons = append(urls, t.URL), append(reasons, string(t.Reason))
		failures, waits = append(failures, int32(t.Failures)), append(waits, t.Wait.Seconds())
	}
	var b pgx.Batch
	if kind != TurnOpen {
		b.Queue(lockGatesSQL, l.tenants, l.endpoints)
	}
	b.Queue(turnSQLs[kind], l.tenants, l.endpoints, urls, reasons, failures, waits).Query(func(rows pgx.Rows) error {
		var k endpointKey
		_, err := pgx.ForEachRow(rows, []any{(*[16]byte)(&k.tenant), (*[16]byte)(&k.endpoint)}, func() error {
			done[at[k]] = true
			return nil
		})
		return err
	})
	return s.pool.SendBatch(ctx, &b).Close()
}
