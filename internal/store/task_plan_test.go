package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// What happened to a message is found by the message. There is an index by endpoint, too, which looks
// as good to the planner and reads all the endpoint's attempts for every message: with 20,000 of them
// a replay would look at 400 million rows.
func TestATaskReadsOnlyTheAttemptsOfItsMessages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	now := time.Now().UTC().Truncate(time.Millisecond)
	const messages = 200
	var first webhook.MessageID
	for n := range messages {
		m := w.putMessage(t, webhook.Message{ID: messageAt(now), Payload: []byte("{}")})
		if n == 0 {
			first = m.ID
		}
		w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: endpoint.ID, ID: webhook.NewAttemptIDAt(now), Sent: true})
	}
	conn := storetest.Connect(t, w.url)
	for _, sql := range []string{"SET enable_seqscan = off", "SET plan_cache_mode = force_generic_plan", "PREPARE read AS " + store.FactsSQL} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	const all = "ffffffff-ffff-ffff-ffff-ffffffffffff"
	rows, err := conn.Query(t.Context(), fmt.Sprintf(
		`EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE read ('%x', '%x', '%x', '00000000-0000-0000-0000-000000000000', '%s', '', '', NULL, NULL, NULL, %d, '%x', '%s')`,
		w.tenant.ID.UUID(), w.app.ID.UUID(), endpoint.ID.UUID(), all, messages, webhook.NewAttemptIDAt(first.Time().Add(-time.Hour)).UUID(), all),
		pgx.QueryExecModeSimpleProtocol)
	ok(t, err)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	ok(t, err)
	plan := strings.Join(lines, "\n")
	if !strings.Contains(plan, fmt.Sprintf("loops=%d", messages)) {
		t.Errorf("not every message was looked up:\n%s", plan)
	}
	if strings.Contains(plan, "Rows Removed by Filter") || strings.Contains(plan, "endpoint_id_id_idx") {
		t.Errorf("attempts of other messages are read:\n%s", plan)
	}
}
