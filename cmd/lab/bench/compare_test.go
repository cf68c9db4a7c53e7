package bench

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// side makes runs whose figures are the given ones; processor time and latency move the other way.
func side(commit string, rates ...float64) Side {
	s := Side{Commit: commit}
	for _, rate := range rates {
		s.Runs = append(s.Runs, Run{
			Bare: []float64{10000}, Postgres: "15.1", Memory: map[string]int64{"api": 10 << 20, "worker": 20 << 20, "postgres": 30 << 20, "redis": 5 << 20},
			Outcomes: []Outcome{
				{Scenario: "open 100/s", FanOut: 1, Rate: 100, Accepts: 100, Sustained: 100, P50: 2000 / rate, P99: 4000 / rate, Platform: 0.5, CPU: map[string]float64{"api": 0.1}},
				{Scenario: "closed 64", FanOut: 1, Accepts: rate, Sustained: rate, Ratio: rate / 10000, P50: 10, P99: 20, Platform: 200 / rate, CPU: map[string]float64{"api": 0.1}},
				{Scenario: "closed 64, fan-out 5", FanOut: 5, Accepts: 500, Sustained: 2500, P50: rate, P99: rate, Platform: 0.1},
				{Scenario: "idle", Platform: 0.01, CPU: map[string]float64{"api": 0.01}},
			},
		})
	}
	return s
}

func TestOnlyWhatIsWorseThanTheSpreadFell(t *testing.T) {
	tests := []struct {
		name          string
		before, after spread
		more, fell    bool
	}{
		{"the same", spread{100, 90, 110}, spread{100, 90, 110}, true, false},
		{"less by the spread", spread{100, 90, 110}, spread{80, 75, 85}, true, false},
		{"less by more", spread{100, 90, 110}, spread{79.9, 75, 85}, true, true},
		{"less, but the later runs differ as much", spread{100, 99, 101}, spread{79.9, 70, 91}, true, false},
		{"more is better", spread{100, 99, 101}, spread{200, 199, 201}, true, false},
		{"more is worse", spread{100, 99, 101}, spread{103, 102, 103}, false, true},
		{"less is better", spread{100, 99, 101}, spread{50, 50, 50}, false, false},
	}
	for _, test := range tests {
		if got := (comparison{before: test.before, after: test.after, more: test.more}).fell(); got != test.fell {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

func TestCommitsAreComparedByWhatAScenarioSays(t *testing.T) {
	report := Report{Side: side("new", 800, 810, 805), Against: new(side("old", 1000, 1005, 1010))}
	want := []string{
		"open 100/s: p50 ms", "open 100/s: p99 ms", "closed 64: accepts/s", "closed 64: deliveries/s", "closed 64: of bare loop",
		"closed 64: platform CPU, ms per delivery",
	}
	if got := report.Fallen(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	var names []string
	for _, c := range report.compare() {
		names = append(names, c.scenario+": "+c.figure)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "open 100/s") && strings.Contains(name, "/s: deliveries") || strings.Contains(name, "fan-out 5: p") && !strings.Contains(name, "platform") {
			t.Errorf("%s says nothing about the product", name)
		}
	}
	if !slices.Contains(names, "idle: platform CPU, of one core") || !slices.Contains(names, "all: peak memory of worker, MiB") {
		t.Errorf("%q", names)
	}
	better := Report{Side: *report.Against, Against: &report.Side}
	if got := better.Fallen(); len(got) != 0 {
		t.Errorf("got better: %q", got)
	}
	once := Report{Side: side("new", 800), Against: new(side("old", 1000))}
	if got := once.Fallen(); len(got) != 0 {
		t.Errorf("one run has no spread: %q", got)
	}
	report.Against.Runs[0].Outcomes = report.Against.Runs[0].Outcomes[:1]
	for _, c := range report.compare() {
		if c.scenario == "closed 64" {
			t.Errorf("compared with nothing: %+v", c)
		}
	}
}

func TestMarkdown(t *testing.T) {
	report := Report{
		Began: time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC), Machine: Machine{2, "CPU", "6.1.2-x", "go1"},
		Side: side("new", 8000, 8100, 8050), Against: new(side("old", 9999, 10005, 10010)),
	}
	var out strings.Builder
	if err := report.Markdown(&out, "x.json"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Commit `new` beside `old`, 2026-11-23; 2 cores (CPU), Linux 6.1.2, go1, PostgreSQL 15.1 with fsync. 3 runs of each, in turns,",
		"Bare POST loop: 10,000 (10,000–10,000) per second. Raw figures: [x.json](x.json).\n\n| scenario | accepts/s |",
		"| closed 64 | 8,050 (8,000–8,100) | 8,050 (8,000–8,100) | 80.5 % (80.0 %–81.0 %) | 10.0 (10.0–10.0) |",
		"| idle, of one core | 1.00 % | – |", "| peak memory, MiB | 10 | 20 | 30 | 5 | – | – |",
		"| scenario | figure | `old` | `new` | change | worse by more than the spread |\n| --- | --- | --- | --- | --- | --- |\n",
		"| closed 64 | deliveries/s | 10,005 (9,999–10,010) | 8,050 (8,000–8,100) | -19.5 % | **yes** |",
		"| closed 64 | p50 ms | 10.0 (10.0–10.0) | 10.0 (10.0–10.0) | +0.0 % | no |",
		"from least to most: open 100/s: p50 ms; open 100/s: p99 ms; closed 64: accepts/s;",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	out.Reset()
	if err := (Report{Side: side("new", 8000)}).Markdown(&out, ""); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "Raw figures") || strings.Contains(text, "spread") || !strings.Contains(text, "1 run, each") {
		t.Error(text)
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for value, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 45349: "45,349", 1234567: "1,234,567"} {
		if got := grouped("%.0f", value); got != want {
			t.Errorf("%v: %s", value, got)
		}
	}
	if got := grouped("%.1f ms", 12345.67); got != "12,345.7 ms" {
		t.Error(got)
	}
}

func TestReportsSurviveTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "report.json")
	want := Report{Began: time.Unix(1_800_000_000, 0).UTC(), Side: side("new", 1, 2), Against: new(side("old", 3, 4))}
	if err := rig.WriteJSON(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadReport(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v", got, err)
	}
	// The measurements kept with the project are of this form.
	kept, err := filepath.Glob("../../../docs/measurements/*.json")
	if err != nil || len(kept) == 0 {
		t.Fatal(kept, err)
	}
	for _, path := range kept {
		if report, err := ReadReport(path); err != nil || report.Commit == "" || len(report.Runs[0].Outcomes) == 0 {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := rig.WriteJSON(path, Report{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadReport(path); err == nil {
		t.Error("a report without runs was read")
	}
	if _, err := ReadReport(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file was read")
	}
}
