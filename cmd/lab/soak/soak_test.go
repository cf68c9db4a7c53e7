package soak

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zero is an arbitrary moment.
var zero = time.Unix(1_800_000_000, 0)

func at(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

// arrived is an arrival some seconds after zero.
func arrived(id uint64, endpoint uint16, sent, end float64) traffic.Record {
	return traffic.Record{ID: id, Endpoint: endpoint, Sent: at(sent).UnixNano(), End: at(end).UnixNano()}
}

// steady makes so many arrivals in every second from one to another, evenly.
func steady(perSecond, from, to int) (list []traffic.Record) {
	for second := from; second < to; second++ {
		for i := range perSecond {
			list = append(list, arrived(uint64(second*1_000_000+i), 0, 0, float64(second)+float64(i)/float64(perSecond)))
		}
	}
	return list
}

func TestChecksAreMetUpToTheirBound(t *testing.T) {
	for _, test := range []struct {
		check Check
		met   bool
		text  string
	}{
		{atMost("p50", 50, "ms", 50), true, "p50 50 ms (≤ 50 ms)"},
		{atMost("p50", 50.01, "ms", 50), false, "p50 50 ms (≤ 50 ms) MISSED"},
		{atLeast("kept", 80, "%", 80), true, "kept 80 % (≥ 80 %)"},
		{atLeast("kept", 79.99, "%", 80), false, "kept 80 % (≥ 80 %) MISSED"},
		{atMost("lost", 1, "", 0), false, "lost 1 (≤ 0) MISSED"},
		{atMost("nothing", math.NaN(), "", 1), false, "nothing NaN (≤ 1) MISSED"},
	} {
		if test.check.Met() != test.met || test.check.Text() != test.text {
			t.Errorf("%q: %v", test.check.Text(), test.check.Met())
		}
	}
	for value, want := range map[float64]string{0: "0", 0.328: "0.328", 3.58: "3.58", 12.34: "12.3", 7200: "7200", 0.0004: "0"} {
		if got := quantity(value, ""); got != want {
			t.Errorf("%v is %q, want %q", value, got, want)
		}
	}
}

func TestAStageWithoutChecksHasNotPassed(t *testing.T) {
	if (Result{}).Passed() {
		t.Error("nothing was shown")
	}
	r := Result{Stage: "s", Checks: []Check{atMost("a", 1, "", 1)}}
	if !r.Passed() || !strings.HasPrefix(r.Line(), "pass s ") {
		t.Error(r.Line())
	}
	r.check(atMost("b", 2, "", 1))
	if r.Passed() || !strings.HasPrefix(r.Line(), "FAIL s ") || !strings.Contains(r.Line(), "b 2 (≤ 1) MISSED") {
		t.Error(r.Line())
	}
	report := Report{Results: []Result{{Stage: "good", Checks: []Check{atMost("a", 0, "", 0)}}, r}}
	if got := report.Failed(); !slices.Equal(got, []string{"s"}) {
		t.Error(got)
	}
	var out strings.Builder
	if err := report.Markdown(&out); err != nil || !strings.Contains(out.String(), "| b | 2 | at most 1 | **missed** |") || !strings.Contains(out.String(), "| a | 0 | at most 0 | met |") {
		t.Error(out.String(), err)
	}
}

func TestMessagesAreFollowed(t *testing.T) {
	post := func(id uint64, status uint16) traffic.Record {
		return traffic.Record{ID: id, Status: status, Sent: at(0).UnixNano(), End: at(0.01).UnixNano()}
	}
	posts := []traffic.Record{post(1, 202), post(2, 202), post(3, 202), post(4, 202), post(5, 503), post(0, 0)}
	arrivals := []traffic.Record{arrived(1, 0, 0, 0.1), arrived(2, 0, 0, 0.2), arrived(3, 0, 0, 0.3), arrived(3, 0, 0, 9), arrived(99, 0, 0, 5)}
	want := journey{Posted: 6, Accepted: 4, Lost: 1, Doubled: 1, P50: 200, P99: 300, Slowest: 300, Accept50: 10, Accept99: 10}
	if got := follow(posts, arrivals); got != want {
		t.Errorf("%+v", got)
	}
	if checks := want.whole("who", 4, time.Second); !checks[0].Met() || checks[1].Met() || checks[2].Met() {
		t.Errorf("%+v", checks)
	}
	if checks := (journey{Accepted: 97}).whole("who", 10, 10*time.Second); checks[0].Met() {
		t.Error("a load that fell behind is taken for one")
	}
	if got := postedBefore([]traffic.Record{arrived(1, 0, 1, 2), arrived(2, 0, 2, 3)}, at(2)); len(got) != 1 || got[0].ID != 1 {
		t.Errorf("%v", got)
	}
	if got := follow(nil, arrivals); got != (journey{}) {
		t.Errorf("%+v", got)
	}
}

func TestSecondsAreCounted(t *testing.T) {
	list := append(steady(10, 0, 3), arrived(7, 0, 0, -0.5), arrived(8, 0, 0, 3))
	if got := perSecond(list, stretch{at(0), at(3.7)}); !slices.Equal(got, []float64{10, 10, 10}) {
		t.Errorf("%v", got)
	}
	if got := perSecond(list, stretch{at(1), at(1)}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := rate(list, stretch{at(0), at(2)}); got != 10 {
		t.Error(got)
	}
	for want, values := range map[float64][]float64{0: nil, 2: {3, 1, 2}, 2.5: {4, 1, 2, 3}} {
		if got := median(values); got != want {
			t.Errorf("%v: %v", values, got)
		}
	}
	if got := arrivalsOf([]traffic.Record{arrived(1, 9, 0, 0), arrived(2, 10, 0, 0), arrived(3, 14, 0, 0), arrived(4, 15, 0, 0)}, endpoints{10, 5}); len(got) != 2 || got[0].ID != 2 || got[1].ID != 3 {
		t.Errorf("%v", got)
	}
}

// missed lists the checks of a result that were not met.
func missed(r Result) (list []string) {
	for _, c := range r.Checks {
		if !c.Met() {
			list = append(list, c.What)
		}
	}
	return list
}

func TestTheShareOfWhoIsBehind(t *testing.T) {
	for _, test := range []struct {
		name   string
		alone  int
		beside []traffic.Record
		rows   int
		missed []string
	}{
		{"kept", 100, steady(80, 5, 25), 1 << 20, nil},
		{"not kept", 100, steady(79, 5, 25), 1 << 20, []string{"who is behind: rate kept"}},
		{"a slow second among fast ones", 100, append(append(steady(100, 5, 10), steady(1, 10, 11)...), steady(100, 11, 25)...), 1 << 20, nil},
		{"nothing arrived", 0, nil, 1 << 20, []string{"who is behind: rate kept", "its rate alone"}},
		{"gone after 12 seconds, which is enough", 100, steady(100, 5, 17), 500 + 1200, nil},
		{"gone after 3 seconds", 100, steady(100, 5, 8), 500 + 300, []string{"seconds until its backlog was gone"}},
		{"a delivery twice", 100, append(steady(100, 5, 25), arrived(6_000_000, 0, 0, 20)), 1 << 20, []string{"its duplicates"}},
	} {
		c := crowd{rows: test.rows, big: append(steady(test.alone, 0, 5), test.beside...), alone: stretch{at(0), at(5)}, together: stretch{at(5), at(25)}}
		r := Result{Figures: make(map[string]any)}
		if c.judgeShare(&r); !slices.Equal(missed(r), test.missed) {
			t.Errorf("%s: %v", test.name, missed(r))
		}
	}
}

func TestALimitIsKept(t *testing.T) {
	for perSecond, want := range map[int][]string{
		100: nil, 98: nil, 102: nil, 97: {"who is limited: off its 100/s"}, 103: {"who is limited: off its 100/s"}, 0: {"who is limited: off its 100/s"},
	} {
		c := crowd{rows: 1 << 20, big: steady(perSecond, 0, 20), together: stretch{at(0), at(20)}}
		r := Result{Figures: make(map[string]any)}
		if c.judgeLimit(&r); !slices.Equal(missed(r), want) {
			t.Errorf("%d/s: %v", perSecond, missed(r))
		}
	}
}

func TestBesideIsComparedWithAlone(t *testing.T) {
	for _, test := range []struct {
		alone, beside float64
		met           bool
	}{{10, 20, true}, {10, 20.1, false}, {0, 0, false}} {
		r := Result{}
		r.judgeBeside("who", journey{P99: test.alone}, journey{P99: test.beside})
		if r.Passed() != test.met {
			t.Errorf("%+v", test)
		}
	}
}

const exposition = `# HELP posthaste_feeder_scan_seconds Duration.
# TYPE posthaste_feeder_scan_seconds histogram
posthaste_feeder_scan_seconds_bucket{le="0.001"} 50
posthaste_feeder_scan_seconds_bucket{le="0.004"} 98
posthaste_feeder_scan_seconds_bucket{le="0.008"} 99
posthaste_feeder_scan_seconds_bucket{le="+Inf"} 100
posthaste_feeder_scan_seconds_sum 0.25
posthaste_feeder_scan_seconds_count 100
posthaste_attempts_total{class="success",trigger="scheduled"} 1000
posthaste_attempts_total{class="timeout_headers",trigger="scheduled"} 20
posthaste_attempts_total{class="connection_refused",trigger="manual"} 3
posthaste_attempts_total{class="expired",trigger="scheduled"} 7
process_open_fds 1.2e+01
`

func TestMetricsAreRead(t *testing.T) {
	m, err := parseMetrics([]byte(exposition))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.durations(scanMetric); got != (durations{Count: 100, Mean: 2.5, P99: 8}) {
		t.Errorf("%+v", got)
	}
	if all, failed := m.attempts(); all != 1023 || failed != 23 {
		t.Errorf("%v %v", all, failed)
	}
	if all, failed := m.since(metrics{`posthaste_attempts_total{class="success",trigger="scheduled"}`: 400}).attempts(); all != 623 || failed != 23 {
		t.Errorf("%v %v", all, failed)
	}
	if got := m.since(m).durations(scanMetric); got != (durations{}) {
		t.Errorf("%+v", got)
	}
	if m["process_open_fds"] != 12 {
		t.Error(m)
	}
	for _, bad := range []string{"nothing", "name value"} {
		if _, err := parseMetrics([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func TestPlansAreReadFromTheLog(t *testing.T) {
	entry := func(sql string, scan string, time float64, buffers int) string {
		plan := fmt.Sprintf(`{"Query Text": %q, "Plan": {"Node Type": "ModifyTable", "Relation Name": "delivery", "Actual Total Time": %v, "Actual Loops": 1, "Shared Hit Blocks": %d, "Shared Read Blocks": 1,
			"Plans": [{"Node Type": "Limit", "Actual Total Time": 9, "Actual Loops": 1, "Plans": [
				{"Node Type": %q, "Relation Name": "delivery", "Index Name": "delivery_due", "Actual Total Time": %v, "Actual Rows": 5, "Actual Loops": 2}]},
				{"Node Type": "Tid Scan", "Relation Name": "delivery", "Actual Total Time": 50, "Actual Loops": 1}]}}`, sql, time*10, buffers, scan, time)
		line, err := json.Marshal(map[string]string{"message": "duration: 1 ms  plan:\n" + plan, "ps": "idle"})
		if err != nil {
			t.Fatal(err)
		}
		return string(line) + "\n"
	}
	const look = "UPDATE delivery SET state = 1 WHERE due_at <= now()"
	log := `{"message":"database system is ready"}` + "\n" +
		entry(look, "Index Scan", 1, 100) + entry(look, "Index Scan", 3, 300) + entry(look, "Index Scan", 2, 200) +
		entry("INSERT INTO message SELECT … due_at <= now() …", "Seq Scan", 99, 1) +
		entry("SELECT * FROM delivery WHERE tenant_id = $1", "Seq Scan", 99, 1) +
		entry("SELECT 1 FROM endpoint_wake\nWHERE  due_at <=\tnow()", "Seq Scan", 4, 1) +
		`{"message": "duration: 1 ms  plan:\n{\"Query Te`
	statements := summarise(parsePlans(log))
	if len(statements) != 2 {
		t.Fatalf("%+v", statements)
	}
	if s := statements[0]; !s.ReadsAll || s.Scan != 8 || s.Runs != 1 {
		t.Errorf("%+v", s)
	}
	s := statements[1]
	if s.SQL != look || s.Runs != 3 || s.Scan != 4 || s.SlowScan != 6 || s.Total != 20 || s.Slowest != 30 || s.Buffers != 201 || s.Most != 301 || s.Rows != 10 || s.ReadsAll {
		t.Errorf("%+v", s)
	}
	if !strings.Contains(s.Costliest, "    Index Scan using delivery_due on delivery (3.000 ms, 5 rows, 2 loops, 0 buffers)\n") {
		t.Error(s.Costliest)
	}
	r := Result{Figures: make(map[string]any)}
	if r.judgePlans(statements, "at first", 1); !slices.Equal(missed(r), []string{"its slowest scan by the plans, median", "statements that read a whole table"}) {
		t.Error(missed(r))
	}
	r = Result{Figures: make(map[string]any)}
	if r.judgePlans(nil, "at first", 1); len(missed(r)) == 0 {
		t.Error("nothing was explained, and that was enough")
	}
}

func TestABacklogIsSpreadOverItsEndpointsAndThePast(t *testing.T) {
	tenant := rig.Tenant{ID: webhook.NewTenantID().String()}
	application := webhook.NewApplicationID()
	p := place{application: application.String()}
	var ids [][16]byte
	for range 3 {
		id := webhook.NewEndpointID()
		ids, p.endpoints = append(ids, id), append(p.endpoints, id.String())
	}
	r, err := newRows(tenant, p, 6, zero)
	if err != nil {
		t.Fatal(err)
	}
	if r.application != application.UUID() || r.endpoint(0) != ids[0] || r.endpoint(4) != ids[1] || !slices.Equal(r.endpoints, ids) {
		t.Errorf("%+v", r)
	}
	for i := range 6 {
		if want := zero.Add(-overdue + time.Duration(i)*10*time.Minute); !r.due(i).Equal(want) {
			t.Errorf("%d is due at %v, want %v", i, r.due(i), want)
		}
		if i > 0 && slices.Compare(r.messages[i-1][:], r.messages[i][:]) >= 0 {
			t.Error("ids do not ascend")
		}
	}
	if _, err := newRows(rig.Tenant{ID: "org_x"}, p, 1, zero); err == nil {
		t.Error("that is no tenant")
	}
	if _, err := newRows(tenant, place{application: p.application, endpoints: []string{"ep_x"}}, 1, zero); err == nil {
		t.Error("that is no endpoint")
	}
}

func TestUnhealthyEndpointsAreHostsOfTheirOwn(t *testing.T) {
	seen := make(map[string]bool)
	for n := range graves * graveEach {
		h := host(n)
		if seen[h] || !strings.HasPrefix(h, "127.") || strings.HasPrefix(h, "127.0.") {
			t.Fatalf("%d is at %s", n, h)
		}
		seen[h] = true
	}
	if got := hostURL(258, "80"); got != "http://127.1.1.2:80/258" {
		t.Error(got)
	}
}
