package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestAttemptsAreCountedByHowTheyEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, other := storetest.Endpoint(t, w.Store, w.app, "https://example.com"), storetest.Endpoint(t, w.Store, w.app, "https://example.com/other")
	m := w.putMessage(t, webhook.Message{})
	at := time.Now().UTC().Truncate(time.Millisecond)
	put := func(at time.Time, e webhook.Endpoint, status webhook.Status, sent bool, class webhook.ErrorClass, times int) {
		for range times {
			w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID, ID: webhook.NewAttemptIDAt(at), Status: status, Sent: sent, Class: class})
		}
	}
	put(at, e, webhook.StatusSuccess, true, webhook.ClassNone, 3)
	put(at, e, webhook.StatusFail, true, webhook.ClassServerError, 2)
	put(at, e, webhook.StatusFail, false, webhook.ClassSecret, 2) // tried, though no request came of it
	put(at, e, webhook.StatusCanceled, false, webhook.ClassCanceled, 1)
	put(at, e, webhook.StatusFail, false, webhook.ClassExpired, 5) // ends, not attempts
	put(at, e, webhook.StatusFail, false, webhook.ClassPoison, 5)
	put(at, other, webhook.StatusSuccess, true, webhook.ClassNone, 7)
	for _, c := range []struct {
		since, until time.Time
		any          bool
	}{{at, at.Add(time.Millisecond), true}, {at.Add(-time.Hour), at, false}, {at.Add(time.Millisecond), at.Add(time.Hour), false}} {
		got, err := w.view.CountAttempts(t.Context(), w.app.ID.String(), e.ID.String(), c.since, c.until)
		ok(t, err)
		if all := got.Success == 3 && got.Fail == 4 && got.Canceled == 1; all != c.any || !c.any && got.Success+got.Fail+got.Canceled != 0 {
			t.Errorf("from %v until %v: %+v", c.since, c.until, got)
		}
	}
}

func TestOpenDeliveriesAreCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, other := storetest.Endpoint(t, w.Store, w.app, "https://example.com"), storetest.Endpoint(t, w.Store, w.app, "https://example.com/other")
	at := time.Now().UTC().Truncate(time.Millisecond)
	open := func(e webhook.Endpoint, state webhook.State, attempt int16, at time.Time) {
		w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, attempt, state, due_at) VALUES ($1, $2, $3, 0, $4, $5, $6)`,
			w.tenant.ID.UUID(), messageAt(at).UUID(), e.ID.UUID(), attempt, state, at)
	}
	for _, state := range []webhook.State{webhook.StateReleased, webhook.StateWaiting, webhook.StateParked} {
		open(e, state, 0, at)
		open(e, state, 0, at)
		open(e, state, 3, at)
		open(other, state, 1, at)
		open(e, state, 0, at.Add(-time.Hour))
		open(e, state, 0, at.Add(time.Hour))
	}
	got, err := w.view.CountAttempts(t.Context(), w.app.ID.String(), e.ID.String(), at, at.Add(time.Millisecond))
	ok(t, err)
	if got.Pending != 6 || got.Sending != 3 {
		t.Errorf("%+v", got)
	}
}

// However much a tenant owes, only so much of it is read, without sorting the rest: also when vacuum
// has told the planner that the table is empty.
func TestCountingWhatIsOpenIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	w.exec(t, `VACUUM ANALYZE delivery`)
	const rows = 50_000
	w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state, due_at)
		SELECT $1, (left($3::text, 12) || '70008' || lpad(to_hex(n), 15, '0'))::uuid, $2, 0, CASE WHEN n % 2 = 0 THEN 2 ELSE 3 END, now()
		FROM generate_series(1, $4) n`, w.tenant.ID.UUID(), e.ID.UUID(), fmt.Sprintf("%x", messageAt(time.Now()).UUID()), rows)
	var count statement
	ok(t, w.WatchReads(func(sql string, values []any) {
		if strings.Contains(sql, "FROM delivery") {
			count = statement{sql, slices.Clone(values)}
		}
	}))
	got, err := w.view.CountAttempts(t.Context(), w.app.ID.String(), e.ID.String(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	ok(t, err)
	if got.Pending != 30_000 {
		t.Errorf("%d of %d are counted, want half of the newest 20,000 and 20,000 parked ones", got.Pending, rows)
	}
	conn := storetest.Connect(t, w.url)
	for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
		_, err := conn.Exec(t.Context(), strings.ReplaceAll(strings.Join(store.CountOpenPlan, "; "), "LOCAL ", "")+
			"; SET enable_seqscan = off; SET plan_cache_mode = "+mode+"; DEALLOCATE ALL; PREPARE open AS "+count.sql)
		ok(t, err)
		var values []string
		for _, v := range count.values {
			values = append(values, literal(t, v))
		}
		found, err := conn.Query(t.Context(), "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE open ("+strings.Join(values, ", ")+")", pgx.QueryExecModeSimpleProtocol)
		ok(t, err)
		lines, err := pgx.CollectRows(found, pgx.RowTo[string])
		ok(t, err)
		plan := strings.Join(lines, "\n")
		if strings.Contains(plan, "Sort") || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "rows=50000") || strings.Contains(plan, "rows=25000") {
			t.Errorf("%s: reads all of it:\n%s", mode, plan)
		}
	}
}
