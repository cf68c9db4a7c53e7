package chaos

import (
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
)

func TestBusiestSecond(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(milliseconds ...int) (list []time.Time) {
		for _, m := range milliseconds {
			list = append(list, start.Add(time.Duration(m)*time.Millisecond))
		}
		return list
	}
	for _, test := range []struct {
		moments []time.Time
		want    int
	}{
		{nil, 0},
		{at(5), 1},
		{at(0, 999), 2},
		{at(0, 1000), 1},
		{at(2500, 0, 600, 1500, 1599, 1600), 3},
	} {
		if got := busiestSecond(test.moments); got != test.want {
			t.Errorf("%v: %d, want %d", test.moments, got, test.want)
		}
	}
}

func TestAWallOfRetriesIsFound(t *testing.T) {
	up := time.Unix(1000, 0)
	judge := func(arrivals func(i int) time.Duration) ledger.Report {
		s := &stage{options: Options{Timed: true}, bites: make(map[string]int)}
		s.trouble = [2]time.Time{up.Add(-downFor), up}
		run := ledger.Run{Messages: []ledger.Message{{Seq: 1, Posted: up.Add(-time.Second)}, {Seq: 2, Posted: up.Add(time.Second)}}}
		run.Records = append(run.Records, ledger.Record{Seq: 1, Status: 500, Arrived: up.Add(-time.Second)})
		for i := range 150 {
			run.Records = append(run.Records, ledger.Record{Seq: 2, Status: 200, Arrived: up.Add(arrivals(i))})
		}
		run.Records[1].Seq = 1
		judgeReturn(s, run)
		if s.bites["request refused"] != 1 {
			t.Errorf("bites %v", s.bites)
		}
		return s.extra
	}
	evenly := func(i int) time.Duration { return time.Duration(i+1) * upFor / 151 }
	if report := judge(evenly); !report.OK() {
		t.Error(report.Findings)
	}
	if report := judge(func(i int) time.Duration { return max(evenly(i), 5*time.Second) }); report.Counts[ledger.Slow] != 1 {
		t.Errorf("a third at once: %v", report.Findings)
	}
	late := func(i int) time.Duration {
		if i == 0 {
			return drainMost + 1
		}
		return evenly(i)
	}
	if report := judge(late); report.Counts[ledger.Slow] != 1 {
		t.Errorf("delivered late: %v", report.Findings)
	}
}
