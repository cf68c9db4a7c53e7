package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/traffic"
	"github.com/posthaste/posthaste/internal/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// child runs a part of the bench that says where it listens, as its process would.
func child(t *testing.T, run func(context.Context, io.Writer) error) traffic.Addresses {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, writer) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var at traffic.Addresses
	if err := json.Unmarshal(line, &at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestBareLoop(t *testing.T) {
	at := child(t, RunBareServer)
	var out strings.Builder
	if err := RunBareClient(t.Context(), at.Address, 50*time.Millisecond, &out); err != nil {
		t.Fatal(err)
	}
	var result bareResult
	if err := json.Unmarshal([]byte(out.String()), &result); err != nil || result.Requests < 1 || result.Seconds < 0.05 {
		t.Errorf("%+v %v", result, err)
	}
	if err := RunBareClient(t.Context(), "127.0.0.1:1", 50*time.Millisecond, &out); err == nil {
		t.Error("nothing listens there")
	}
}

// posted and arrived make records at milliseconds after an arbitrary moment.
func posted(seq uint32, sent, answered int64, status uint16) traffic.Record {
	return traffic.Record{Seq: seq, Status: status, ID: uint64(seq) + 100, Sent: 1e18 + sent*1e6, End: 1e18 + answered*1e6}
}

func arrived(seq uint32, endpoint uint16, sent, at int64) traffic.Record {
	return traffic.Record{Seq: seq, Endpoint: endpoint, ID: uint64(seq) + 100, Sent: 1e18 + sent*1e6, End: 1e18 + at*1e6}
}

func TestEvaluate(t *testing.T) {
	scenario := Scenario{Name: "test", FanOut: 2, Duration: time.Second}
	posts := []traffic.Record{posted(0, 0, 10, 202), posted(1, 500, 520, 202), posted(2, 600, 610, 503), posted(3, 700, 800, 0)}
	arrivals := []traffic.Record{
		arrived(0, 0, 0, 20), arrived(0, 1, 0, 30), arrived(1, 0, 500, 600), arrived(1, 1, 500, 2000),
	}
	clean, err := evaluate(scenario, posts, arrivals)
	if err != nil {
		t.Fatal(err)
	}
	want := Outcome{
		Scenario: "test", FanOut: 2, Posted: 4, Accepted: 2, Refused: 1, Broken: 1,
		Accepts: 2 / traffic.Seconds(520e6), AcceptP50: 10, AcceptP99: 20,
		Sustained: 2, Steady: 1 / 0.75, DrainMS: 1480, P50: 30, P95: 1500, P99: 1500,
	}
	if fmt.Sprintf("%+v", clean) != fmt.Sprintf("%+v", want) {
		t.Errorf("\n%+v\n%+v", clean, want)
	}
	tests := []struct {
		name                  string
		arrivals              []traffic.Record
		lost, double, foreign int
	}{
		{"lost", arrivals[1:], 1, 0, 0},
		{"doubled", append(arrivals[:4:4], arrivals[0]), 0, 1, 0},
		{"never posted", append(arrivals[:4:4], arrived(9, 0, 0, 1)), 0, 0, 1},
		{"not accepted", append(arrivals[:4:4], arrived(2, 0, 600, 700)), 0, 0, 1},
		{"under another id", append(arrivals[1:4:4], traffic.Record{Seq: 0, ID: 1}), 1, 0, 1},
		{"nothing", nil, 4, 0, 0},
	}
	for _, test := range tests {
		o, err := evaluate(scenario, posts, test.arrivals)
		if err != nil || o.Lost != test.lost || o.Doubled != test.double || o.Foreign != test.foreign {
			t.Errorf("%s: %+v %v", test.name, o, err)
		}
	}
	if _, err := evaluate(scenario, posts[2:], nil); err == nil {
		t.Error("nothing accepted is no result")
	}
}

func TestReport(t *testing.T) {
	run := func(sustained float64) Run {
		return Run{Bare: []float64{1000, 3000, 2000}, Memory: map[string]int64{"api": 3 << 20}, Outcomes: []Outcome{
			{Scenario: "closed 64", FanOut: 1, Sustained: sustained, Ratio: sustained / 2000, Platform: 0.2, CPU: map[string]float64{"api": 0.1}},
			{Scenario: "idle", Platform: 0.03, CPU: map[string]float64{"api": 0.03}},
		}}
	}
	report := Report{Side: Side{Runs: []Run{run(400), run(500), run(200)}}}
	var out strings.Builder
	report.Print(&out)
	for _, want := range []string{
		"400 (200–500)", "2000 (2000–2000) /s", "20.0 %    at least 18.0 %   met", "3.00 %    at most 1.00 %    MISSED", "3 (3–3)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	if v := report.Violations(); len(v) != 0 {
		t.Error(v)
	}
	report.Runs[1].Outcomes[0].Doubled = 1
	if v := report.Violations(); len(v) != 1 || !strings.Contains(v[0], "run 2, closed 64: 0 lost, 1 duplicates") {
		t.Error(v)
	}
}

func TestTwoWorkersAreComparedWithOne(t *testing.T) {
	run := func(one, two float64) Run {
		return Run{Bare: []float64{1000}, Outcomes: []Outcome{
			{Scenario: oneWorker, FanOut: 5, Sustained: one}, {Scenario: twoWorkers, FanOut: 5, Sustained: two},
		}}
	}
	for _, test := range []struct {
		one, two float64
		want     string
	}{{1000, 1600, "1.60  at least 1.60  met"}, {1000, 1590, "1.59  at least 1.60  MISSED"}, {0, 10, "0.00  at least 1.60  MISSED"}} {
		var out strings.Builder
		report := Report{Side: Side{Runs: []Run{run(test.one, test.two)}}}
		report.printTargets(&out)
		if !strings.Contains(out.String(), test.want) {
			t.Errorf("%v to %v: %s", test.two, test.one, out.String())
		}
	}
	var out strings.Builder
	only := run(1000, 2000)
	only.Outcomes = only.Outcomes[:1]
	Report{Side: Side{Runs: []Run{only}}}.printTargets(&out)
	if strings.Contains(out.String(), "two workers") {
		t.Errorf("one of two was run: %s", out.String())
	}
}

func TestScenariosHaveTheirOwnAudience(t *testing.T) {
	names := make(map[string]bool)
	for _, s := range Scenarios(time.Second, time.Second) {
		if names[s.Name] {
			t.Errorf("%s twice", s.Name)
		}
		names[s.Name] = true
		if s.Limited != strings.HasSuffix(s.Name, "limits") || (s.Delay > 0) != (s.Workers > 0) {
			t.Errorf("%+v", s)
		}
	}
	for _, target := range targets {
		for _, name := range target.scenarios {
			if !names[name] {
				t.Errorf("%s is judged by %s, which is none", target.name, name)
			}
		}
	}
	fast, limited := Scenario{FanOut: 5}, Scenario{FanOut: 5, Limited: true}
	slow := Scenario{FanOut: 5, Delay: time.Millisecond}
	if fast.audience() == limited.audience() || fast.audience() == slow.audience() {
		t.Error("they share endpoints")
	}
}
