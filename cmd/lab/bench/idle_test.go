package bench

import (
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/storetest"
)

// TestWhatALoadLeavesIsSeen has a table of the product's, whose own settings count, and one that is as
// Postgres has them by default.
func TestWhatALoadLeavesIsSeen(t *testing.T) {
	conn := storetest.Connect(t, storetest.Migrated(t))
	exec := func(sql string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	due := func() bool {
		t.Helper()
		exec("SELECT pg_stat_force_next_flush()")
		l, err := left(t.Context(), conn)
		if err != nil {
			t.Fatal(err)
		}
		return l.due
	}
	// Whatever is due counts; nobody else is to work it off meanwhile.
	exec("CREATE TABLE plain (n int) WITH (autovacuum_enabled = off)")
	exec("CREATE TABLE patient (n int, text text) WITH (autovacuum_enabled = off, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_scale_factor = 0, autovacuum_analyze_threshold = 100000)")
	exec("VACUUM ANALYZE")
	if due() {
		t.Fatal("after a vacuum a table is due")
	}
	steps := []struct {
		sql  string
		want bool
	}{
		{"INSERT INTO plain SELECT generate_series(1, 40)", false},
		{"INSERT INTO plain SELECT generate_series(1, 20)", true}, // 50 changes make an ANALYZE due
		{"VACUUM ANALYZE plain", false},
		{"DELETE FROM plain WHERE n > 10", false},
		{"INSERT INTO patient SELECT generate_series(1, 2500)", true}, // more than 1000 inserts
		{"VACUUM patient", false},
		{"DELETE FROM patient WHERE n < 2000", false}, // far more than by default
		{"DELETE FROM patient", true},
		{"VACUUM patient", false},
		{"INSERT INTO patient SELECT n, (SELECT string_agg(random()::text, '' ) FROM generate_series(1, 500) WHERE n > 0) FROM generate_series(1, 150) n", false},
		{"DELETE FROM patient", false}, // long texts lie beside the table and go by its settings
	}
	for _, step := range steps {
		exec(step.sql)
		if got := due(); got != step.want {
			t.Errorf("%s: due is %v", step.sql, got)
		}
	}
}

func TestReportsSayWhenIdleBegan(t *testing.T) {
	idle := func(settled float64, unsettled string) Run {
		return Run{Outcomes: []Outcome{{Scenario: "idle", Settled: settled, Unsettled: unsettled}}}
	}
	if note := (Side{Runs: []Run{idle(0, "")}}).idleNote(); note != "" {
		t.Error(note) // it was made before this was noted
	}
	spoilt := leftovers{due: true, vacuum: true, checkpoint: true}.String()
	for _, test := range []struct {
		runs []Run
		want string
	}{
		{[]Run{idle(10.2, "")}, "here 10 s after the load."},
		{[]Run{idle(12, ""), idle(31, ""), idle(70, spoilt)}, "here 31 (12–70) s after the load. In run 3 autovacuum was at work and a checkpoint was under way even then."},
	} {
		side := Side{Runs: test.runs}
		if note := side.idleNote(); !strings.HasSuffix(note, test.want) {
			t.Error(note)
		}
		var page strings.Builder
		if err := (Report{Side: side, Against: &side}).Markdown(&page, ""); err != nil || strings.Count(page.String(), test.want) != 2 {
			t.Errorf("%v %s", err, page.String())
		}
	}
	if text := (leftovers{due: true}).String(); text != "a table waited for autovacuum" {
		t.Error(text)
	}
}
