package webhook

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// receiver is an endpoint as Concurrency sees it.
type receiver struct {
	c    Concurrency
	now  time.Time
	most int
}

func newReceiver(start, most int) *receiver {
	return &receiver{c: StartConcurrency(start), now: time.Unix(1e9, 0), most: most}
}

// round begins as many requests as may be, or n if that is less, and ends them all after the same time.
func (r *receiver) round(n int, class ErrorClass, status int, took time.Duration) *receiver {
	n = min(n, r.c.Allow(r.most))
	begun := r.now
	r.now = r.now.Add(took)
	for i := range n {
		r.c = r.c.After(Answer{Class: class, HTTPStatus: status, Begun: begun, Ended: r.now, UnderWay: n - i, Most: r.most})
	}
	return r
}

const all = 1 << 20

func (r *receiver) good(rounds int, took time.Duration) *receiver {
	for range rounds {
		r.round(all, ClassNone, 200, took)
	}
	return r
}

func TestConcurrency(t *testing.T) {
	const ms = time.Millisecond
	timeout := func(r *receiver) *receiver { return r.round(all, ClassTimeoutHeaders, 0, 15*time.Second) }
	for name, test := range map[string]struct {
		r         *receiver
		low, high int
	}{
		"at the start":                     {newReceiver(128, 512), 128, 128},
		"a start of nothing":               {newReceiver(0, 512), 1, 1},
		"never over what it may":           {newReceiver(128, 20), 20, 20},
		"young and good it grows quickly":  {newReceiver(16, 512).good(6, 5*ms), 64, 512},
		"up to its bound":                  {newReceiver(16, 100).good(50, 5*ms), 100, 100},
		"however slow, if that is usual":   {newReceiver(16, 100).good(50, 3*time.Second), 100, 100},
		"unused it does not grow":          {newReceiver(16, 512).round(7, ClassNone, 200, 5*ms), 16, 16},
		"one round of timeouts":            {timeout(newReceiver(64, 512).good(1, ms)), 1, 1},
		"a single timeout":                 {newReceiver(64, 512).round(1, ClassTimeoutConnect, 0, time.Second), 1, 1},
		"429 halves":                       {newReceiver(64, 64).round(all, ClassRateLimited, 429, 5*ms), 32, 32},
		"503 halves":                       {newReceiver(64, 64).round(all, ClassServerError, 503, 5*ms), 32, 32},
		"other errors say nothing":         {newReceiver(64, 512).round(all, ClassServerError, 500, 5*ms), 64, 64},
		"nor does a refusal":               {newReceiver(64, 512).round(all, ClassRefused, 0, 5*ms), 64, 64},
		"never below one":                  {timeout(timeout(timeout(timeout(newReceiver(2, 512))))), 1, 1},
		"hasty is not slow":                {newReceiver(64, 64).good(20, ms).good(1, 400*ms), 64, 64},
		"much longer than usual":           {newReceiver(64, 64).good(20, 5*ms).round(all, ClassNone, 200, 2*time.Second), 40, 50},
		"a little longer than usual":       {newReceiver(64, 64).good(20, time.Second).round(all, ClassNone, 200, 2*time.Second), 64, 64},
		"it comes back from 429":           {newReceiver(64, 64).round(all, ClassRateLimited, 429, 5*ms).good(12, 5*ms), 64, 64},
		"and from silence, with an answer": {timeout(newReceiver(64, 64)).good(100, 5*ms), 64, 64},
	} {
		if got := test.r.c.Allow(test.r.most); got < test.low || got > test.high {
			t.Errorf("%s: %d, want %d to %d", name, got, test.low, test.high)
		}
	}
}

func TestNoRequestTeachesNothing(t *testing.T) {
	r := newReceiver(16, 512)
	before := r.c
	if r.round(1, ClassCanceled, 0, time.Minute); r.c != before {
		t.Errorf("%+v, was %+v", r.c, before)
	}
}

func TestConcurrencyFallsOncePerRound(t *testing.T) {
	r := newReceiver(64, 64)
	begun := r.now
	for range 64 {
		r.now = r.now.Add(time.Millisecond)
		r.c = r.c.After(Answer{Class: ClassRateLimited, HTTPStatus: 429, Begun: begun, Ended: r.now, UnderWay: 64, Most: 64})
	}
	if got := r.c.Allow(64); got != 32 {
		t.Errorf("after 64 answers of one round: %d, want 32", got)
	}
	r.c = r.c.After(Answer{Class: ClassRateLimited, HTTPStatus: 429, Begun: r.now, Ended: r.now.Add(1), UnderWay: 32, Most: 64})
	if got := r.c.Allow(64); got != 16 {
		t.Errorf("after one more of the next: %d, want 16", got)
	}
}

func TestConcurrencyOfARequestThatLasts(t *testing.T) {
	late := func(c Concurrency) int {
		begun := time.Unix(1e9, 0).Add(time.Hour)
		return c.Late(Answer{Begun: begun, Ended: begun.Add(time.Second), UnderWay: 40, Most: 64}).Allow(64)
	}
	if got := late(newReceiver(64, 64).good(5, 5*time.Millisecond).c); got != 20 {
		t.Errorf("of a quick endpoint: %d, want half of what is under way", got)
	}
	if got := late(newReceiver(64, 64).good(5, 2*time.Second).c); got != 64 {
		t.Errorf("of one that takes longer usually: %d, want 64", got)
	}
}

func TestSlowEndpoints(t *testing.T) {
	for name, test := range map[string]struct {
		r    *receiver
		slow bool
	}{
		"nothing known":        {newReceiver(4, 4), false},
		"quick":                {newReceiver(4, 4).good(3, 10*time.Millisecond), false},
		"just quick":           {newReceiver(4, 4).good(3, time.Second-1), false},
		"slow":                 {newReceiver(4, 4).good(3, time.Second), true},
		"silent":               {newReceiver(4, 4).good(3, time.Millisecond).round(1, ClassTimeoutConnect, 0, 10*time.Millisecond), true},
		"answering after that": {newReceiver(4, 4).round(1, ClassTimeoutConnect, 0, 10*time.Millisecond).good(1, time.Millisecond), false},
	} {
		if got := test.r.c.Slow(time.Second); got != test.slow {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Whatever comes back, the limit stays within its bounds, moves by one step at a time upwards, and is
// back at its bound after enough good rounds.
func TestConcurrencyStaysWithinBoundsAndRecovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 600).Draw(t, "most")
		r := newReceiver(rapid.IntRange(0, 600).Draw(t, "start"), most)
		for range rapid.IntRange(0, 200).Draw(t, "answers") {
			before := r.c
			begun := r.now.Add(-time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "took")))
			r.now = r.now.Add(time.Duration(rapid.Int64Range(0, int64(time.Second)).Draw(t, "later")))
			a := Answer{
				Class:    rapid.SampledFrom(append([]ErrorClass{ClassNone, ClassNone, ClassNone}, ErrorClasses...)).Draw(t, "class"),
				Begun:    begun,
				Ended:    r.now,
				UnderWay: rapid.IntRange(1, 600).Draw(t, "under way"), Most: most,
			}
			if a.Class == ClassNone {
				a.HTTPStatus = 200
			}
			if rapid.Bool().Draw(t, "late") {
				r.c = r.c.Late(a)
			} else {
				r.c = r.c.After(a)
			}
			if got := r.c.Allow(most); got < 1 || got > most {
				t.Fatalf("%d is not within 1 and %d", got, most)
			}
			if r.c.limit > before.limit+1 {
				t.Fatalf("from %d to %d by one answer", before.limit, r.c.limit)
			}
			if r.c.limit < before.limit && r.c.limit < min(before.limit, a.UnderWay)/2 {
				t.Fatalf("from %d to %d with %d under way", before.limit, r.c.limit, a.UnderWay)
			}
		}
		r.good(400, 10*time.Millisecond)
		if got := r.c.Allow(most); got != most {
			t.Fatalf("%d of %d after a long time without trouble", got, most)
		}
	})
}
