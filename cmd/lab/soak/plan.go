package soak

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// Statement is what Postgres did for one statement of the feeder, over all the times it was run while we
// looked: by EXPLAIN (ANALYZE, BUFFERS) of the very executions, not of imitations.
type Statement struct {
	SQL       string  `json:"sql"`
	Runs      int     `json:"runs"`
	Total     float64 `json:"medianMs"`
	Slowest   float64 `json:"slowestMs"`
	Scan      float64 `json:"medianScanMs"`  // spent in finding rows of the tables that grow with the backlog
	SlowScan  float64 `json:"slowestScanMs"` // the most of one run
	Buffers   float64 `json:"medianBuffers"` // pages looked at
	Most      float64 `json:"mostBuffers"`
	Rows      float64 `json:"medianRows"`    // found
	ReadsAll  bool    `json:"readsAll"`      // it read a whole table that grows with the backlog
	Costliest string  `json:"costliestPlan"` // of the run with the most buffers
}

// planNode is a node of a plan in JSON.
type planNode struct {
	Type     string     `json:"Node Type"`
	Relation string     `json:"Relation Name"`
	Index    string     `json:"Index Name"`
	Time     float64    `json:"Actual Total Time"`
	Loops    float64    `json:"Actual Loops"`
	Rows     float64    `json:"Actual Rows"`
	Hit      float64    `json:"Shared Hit Blocks"`
	Read     float64    `json:"Shared Read Blocks"`
	Plans    []planNode `json:"Plans"`
}

// execution is one entry of the log of auto_explain.
type execution struct {
	SQL  string   `json:"Query Text"`
	Plan planNode `json:"Plan"`
}

// growing are the tables that a backlog makes large.
var growing = []string{"delivery", "endpoint_wake"}

// found is what a plan spent in scans of the tables that grow.
type found struct {
	time, rows float64
	all        bool
}

func (n planNode) found() (sum found) {
	// A TID scan fetches what another node has found.
	if slices.Contains(growing, n.Relation) && strings.HasSuffix(n.Type, "Scan") && n.Type != "Tid Scan" {
		sum = found{time: n.Time * n.Loops, rows: n.Rows * n.Loops, all: n.Type == "Seq Scan" && n.Loops > 0}
	}
	for _, child := range n.Plans {
		more := child.found()
		sum.time, sum.rows, sum.all = sum.time+more.time, sum.rows+more.rows, sum.all || more.all
	}
	return sum
}

// text is a plan in a few words, the way EXPLAIN shows it.
func (n planNode) text(depth int) string {
	line := fmt.Sprintf("%s%s", strings.Repeat("  ", depth), n.Type)
	if n.Index != "" {
		line += " using " + n.Index
	}
	if n.Relation != "" {
		line += " on " + n.Relation
	}
	line += fmt.Sprintf(" (%.3f ms, %.0f rows, %.0f loops, %.0f buffers)\n", n.Time, n.Rows, n.Loops, n.Hit+n.Read)
	for _, child := range n.Plans {
		line += child.text(depth + 1)
	}
	return line
}

// feeders reports whether a statement is one of the feeder's: it looks for what is due, or for what is
// parked, over all tenants. Accepting, reading jobs and recording results name their rows, and the count of
// what is open, for the metrics, is no scan of its.
func feeders(sql string) bool {
	sql = strings.Join(strings.Fields(sql), " ")
	if strings.Contains(sql, "INSERT INTO message") || strings.Contains(sql, "count(*) FROM (SELECT FROM delivery") || !strings.Contains(sql, "delivery") && !strings.Contains(sql, "endpoint_wake") {
		return false
	}
	for _, mark := range []string{"due_at <= now()", "due_at <=now()", "due_at <= $", "due_at <= clock_timestamp()", "state = 3"} {
		if strings.Contains(sql, mark) {
			return true
		}
	}
	return false
}

// summarise puts the executions of each of the feeder's statements together, the slowest scan first.
func summarise(executions []execution) []Statement {
	type runs struct{ total, scan, buffers, rows []float64 }
	var (
		order []string
		by    = make(map[string]*runs)
		list  = make(map[string]*Statement)
	)
	for _, e := range executions {
		if !feeders(e.SQL) {
			continue
		}
		if by[e.SQL] == nil {
			order = append(order, e.SQL)
			by[e.SQL], list[e.SQL] = &runs{}, &Statement{SQL: e.SQL}
		}
		r, s, f, buffers := by[e.SQL], list[e.SQL], e.Plan.found(), e.Plan.Hit+e.Plan.Read
		if s.Costliest == "" || buffers > s.Most {
			s.Costliest = e.Plan.text(0)
		}
		r.total, r.scan = append(r.total, e.Plan.Time), append(r.scan, f.time)
		r.buffers, r.rows = append(r.buffers, buffers), append(r.rows, f.rows)
		s.ReadsAll = s.ReadsAll || f.all
		s.Slowest, s.SlowScan, s.Most = max(s.Slowest, e.Plan.Time), max(s.SlowScan, f.time), max(s.Most, buffers)
	}
	var all []Statement
	for _, sql := range order {
		s, r := *list[sql], by[sql]
		s.Runs, s.Total, s.Scan, s.Buffers, s.Rows = len(r.total), median(r.total), median(r.scan), median(r.buffers), median(r.rows)
		all = append(all, s)
	}
	slices.SortStableFunc(all, func(a, b Statement) int { return cmp.Compare(b.Scan, a.Scan) })
	return all
}

// parsePlans reads the plans in the server's log, one JSON object a line.
func parsePlans(log string) []execution {
	var list []execution
	for line := range strings.Lines(log) {
		var entry struct{ Message string }
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue // the last line may be cut
		}
		_, plan, ok := strings.Cut(entry.Message, "plan:\n")
		if !ok {
			continue
		}
		var e execution
		if json.Unmarshal([]byte(plan), &e) == nil {
			list = append(list, e)
		}
	}
	return list
}

// logSettings make the server write a log that plans can be read from.
var logSettings = map[string]string{
	"logging_collector": "on", "log_destination": "jsonlog", "log_directory": "log", "log_filename": "plans",
	"log_rotation_age": "0", "log_rotation_size": "0",
}

// readyPlans prepares the server for planWatch, before the product connects; it reports whether the
// server can.
func readyPlans(ctx context.Context, conn *pgx.Conn) (bool, error) {
	if _, err := conn.Exec(ctx, "LOAD 'auto_explain'"); err != nil {
		return false, nil // it comes with most packages, but not with all
	}
	for _, sql := range []string{
		"ALTER SYSTEM SET auto_explain.log_analyze = on", "ALTER SYSTEM SET auto_explain.log_buffers = on",
		"ALTER SYSTEM SET auto_explain.log_format = json", "ALTER SYSTEM SET session_preload_libraries = 'auto_explain'",
		"SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return false, fmt.Errorf("prepare to look at plans: %w", err)
		}
	}
	return true, nil
}

// planWatch has the server explain what it does, now and then.
type planWatch struct {
	conn *pgx.Conn
	read int // bytes of the log that were looked at
}

// look has the server explain everything it does for a while, and returns what the feeder had it do. It
// costs the server some time, so nothing is timed meanwhile.
func (w *planWatch) look(ctx context.Context, during time.Duration) ([]Statement, error) {
	explain := func(from string) error {
		if _, err := w.conn.Exec(ctx, "ALTER SYSTEM SET auto_explain.log_min_duration = "+from); err != nil {
			return fmt.Errorf("look at plans: %w", err)
		}
		if _, err := w.conn.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
			return fmt.Errorf("look at plans: %w", err)
		}
		return nil
	}
	if err := explain("0"); err != nil {
		return nil, err
	}
	if err := rig.Pause(ctx, during); err != nil {
		return nil, err
	}
	if err := explain("-1"); err != nil {
		return nil, err
	}
	if err := rig.Pause(ctx, time.Second); err != nil { // until every process has heard of it
		return nil, err
	}
	var log string
	if err := w.conn.QueryRow(ctx, "SELECT pg_read_file(pg_current_logfile('jsonlog'))").Scan(&log); err != nil {
		return nil, fmt.Errorf("look at plans: %w", err)
	}
	grown := log[min(w.read, len(log)):]
	w.read = len(log)
	return summarise(parsePlans(grown)), nil
}
