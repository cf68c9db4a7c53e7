package limits

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/cmd/lab/bench"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// zero is an arbitrary moment.
var zero = time.Unix(1_800_000_000, 0)

func at(seconds float64) time.Time { return zero.Add(time.Duration(seconds * float64(time.Second))) }

// evenly makes times at a rate from one second to another.
func evenly(rate, from, to float64) (times []int64) {
	for i := range int((to - from) * rate) {
		times = append(times, at(from+(float64(i)+0.5)/rate).UnixNano())
	}
	return times
}

func TestLimitsAreKeptWithinTwoPerCent(t *testing.T) {
	for _, test := range []struct {
		got     float64
		doubled int
		offered float64
		met     bool
	}{
		{100, 0, 130, true}, {98, 0, 130, true}, {102, 0, 130, true}, {97.9, 0, 130, false}, {102.1, 0, 130, false},
		{100, 1, 130, false}, // a repeat is not for the limit to explain
		{99, 0, 99, false},   // nobody wanted more
	} {
		m := Measured{Limit: Limit{levelEndpoint, 100, 1}, Got: test.got, Off: off(test.got, 100), Doubled: test.doubled, Offered: test.offered}
		if m.Met() != test.met {
			t.Errorf("%+v", test)
		}
	}
}

func TestRatesAreCountedBetweenTwoMoments(t *testing.T) {
	times := evenly(10, 0, 10)
	for _, test := range []struct {
		from, to, want float64
	}{{0, 10, 10}, {2, 4, 10}, {9, 11, 5}, {20, 30, 0}, {-5, 5, 5}} {
		if got := (stretch{at(test.from), at(test.to)}).rate(times); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}

func TestArrivalsAreThoseOfTheTarget(t *testing.T) {
	records := []traffic.Record{
		{Endpoint: 3, ID: 1, End: 30}, {Endpoint: 2, ID: 1, End: 20}, {Endpoint: 1, ID: 1, End: 1}, {Endpoint: 4, ID: 1, End: 1}, {Endpoint: 2, ID: 1, End: 10},
	}
	if times, doubled := arrivals(records, 2, 2); !slices.Equal(times, []int64{10, 20, 30}) || doubled != 1 {
		t.Errorf("%v %d", times, doubled)
	}
	posts := []traffic.Record{{ID: 7, Status: 202, End: 2}, {ID: 7, Status: 202, End: 1}, {Status: 429, End: 3}, {End: 4}}
	if times := accepted(posts); !slices.Equal(times, []int64{1, 2}) {
		t.Errorf("%v", times)
	}
}

func TestAChangeIsSeen(t *testing.T) {
	during := stretch{at(0), at(10)}
	for _, test := range []struct {
		name     string
		times    []int64
		from, to float64 // when it is seen
		met      bool
	}{
		{"at once", evenly(300, 0, 10), 0, 0, true},
		{"after half a second", append(evenly(100, 0, 0.5), evenly(300, 0.5, 10)...), 0.3, 0.5, true},
		{"too late", append(evenly(100, 0, 1.6), evenly(300, 1.6, 10)...), 1.3, 1.6, false},
		{"never", evenly(100, 0, 10), -1, -1, false},
		{"not for good", append(evenly(300, 0, 5), evenly(100, 5, 10)...), -1, -1, false},
		{"nothing any more", nil, -1, -1, false},
		{"soon, but three per cent too much", evenly(309, 0, 10), 0, 0, false},
	} {
		c := changed(test.times, during, 100, 300)
		if c.Seen < test.from-0.001 || c.Seen > test.to+0.001 || c.Met() != test.met {
			t.Errorf("%s: %+v", test.name, c)
		}
	}
	// A limit that is lowered: what had been released before is still on its way.
	c := changed(append(evenly(300, 0, 0.2), evenly(50, 0.2, 10)...), during, 300, 50)
	if !c.Met() || c.Seen < 0.1 || c.Seen > 0.2 {
		t.Errorf("%+v", c)
	}
}

func TestOptionsSayWhatIsMeasured(t *testing.T) {
	endpoints, err := EndpointLimits("5, 100,5000/7")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Endpoints: endpoints, Overload: 1.3}
	list := o.Limits()
	for _, want := range []Limit{{levelEndpoint, 5, 1}, {levelEndpoint, 5, 5}, {levelEndpoint, 100, 10}, {levelEndpoint, 100, 100}, {levelEndpoint, 5000, 7}} {
		if !slices.Contains(list, want) {
			t.Errorf("%+v is missing", want)
		}
	}
	if len(endpoints) != 5 {
		t.Errorf("%+v", endpoints)
	}
	for _, bad := range []string{"", "x", "0", "10,", "10/", "10/0", "/5"} {
		if _, err := EndpointLimits(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
	levels := make(map[string]int)
	for _, l := range list {
		levels[l.Level]++
		if spent := float64(l.Burst) / (float64(l.Rate) * (o.Overload - 1)); spent > o.warmUp().Seconds() {
			t.Errorf("the burst of %+v takes %.1f s, the warm-up is %v", l, spent, o.warmUp())
		}
	}
	if levels[levelApplication] == 0 || levels[levelTenant] == 0 {
		t.Error(levels)
	}
	shared := target{limit: Limit{levelApplication, 300, 1}, fanOut: 3}
	if got := shared.offers(1.3); got < 129.9 || got > 130.1 {
		t.Errorf("%v messages a second for 3 endpoints", got)
	}
}

func TestTablesShowWhatMissed(t *testing.T) {
	good := Measured{Limit: Limit{levelEndpoint, 100, 10}, Workers: 1, Got: 100.4, Off: 0.4, Offered: 130}
	bad := good
	bad.Workers, bad.Got, bad.Off = 2, 110, 10
	r := Report{
		Machine: bench.Machine{CPUs: 2}, Workers: []int{1, 2, 4}, Measured: []Measured{good, bad},
		Changes: []Change{{Workers: 1, From: 100, To: 300, Seen: 0.25, Got: 300}, {Workers: 2, From: 300, To: 50, Seen: -1, Got: 50}},
	}
	var out strings.Builder
	if err := r.Markdown(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| limit of | per second | burst | 1 worker | 2 workers | 4 workers |\n",
		"| endpoint | 100 | 10 | 100.4 (+0.4 %) | **110.0 (+10.0 %)** | – |\n",
		"| from 100 to 300 | 1 worker | 0.25 s | 300.0 (+0.0 %) |\n",
		"| from 300 to 50 | 2 workers | **never** | **50.0 (+0.0 %)** |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if missed := r.Missed(); len(missed) != 2 || !strings.Contains(missed[0], "110.00/s (+10.0 %)") || !strings.Contains(missed[1], "seen after never") {
		t.Errorf("%q", missed)
	}
	if missed := (Report{}).Missed(); len(missed) != 1 {
		t.Error("nothing was measured, and nothing missed")
	}
}
