package webhook

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBreakerOpens(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	b := DefaultBreaker
	for _, c := range []struct {
		say      string
		failures int           // negative: timeouts
		after    time.Duration // from the first to now
		opens    bool
	}{
		{"nothing failed", 0, time.Hour, false},
		{"one less than it takes", b.Failures - 1, time.Hour, false},
		{"as many as it takes", b.Failures, time.Hour, true},
		{"just long enough", b.Failures, b.Span, true},
		{"a little too fast", 10 * b.Failures, b.Span - 1, false},
		{"not answered, but for one more", -(b.Failures/b.Timeout - 1), time.Hour, false},
		{"not answered", -(b.Failures / b.Timeout), time.Hour, true},
	} {
		var s Streak
		for range c.failures {
			s.Fail("https://a", ClassServerError, start)
		}
		for range -c.failures {
			s.Fail("https://a", ClassTimeoutHeaders, start)
		}
		if got := b.Opens(s, start.Add(c.after)); got != c.opens {
			t.Errorf("%s: opens %t", c.say, got)
		}
	}
}

func TestAnotherURLIsAnotherStreak(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	var s Streak
	for range DefaultBreaker.Failures {
		s.Fail("https://old", ClassRefused, start)
	}
	s.Fail("https://new", ClassDNS, start.Add(time.Hour))
	if s.Failures != 1 || !s.First.Equal(start.Add(time.Hour)) || s.Reason() != ClassDNS {
		t.Errorf("%+v", s)
	}
}

func TestTheReasonIsMostOfTheFailures(t *testing.T) {
	for _, c := range []struct {
		classes []ErrorClass
		want    ErrorClass
	}{
		{[]ErrorClass{ClassDNS}, ClassDNS},
		{[]ErrorClass{ClassDNS, ClassRefused}, ClassRefused},
		{[]ErrorClass{ClassDNS, ClassDNS, ClassRefused}, ClassDNS},
		{[]ErrorClass{ClassRefused, ClassDNS, ClassServerError, ClassDNS}, ClassDNS},
	} {
		var s Streak
		for _, class := range c.classes {
			s.Fail("u", class, time.Time{})
		}
		if got := s.Reason(); got != c.want {
			t.Errorf("%v: %s, want %s", c.classes, got, c.want)
		}
	}
}

// Every class is said to be one or the other here, so that a new one is thought about.
func TestWhatSaysNothingAboutTheReceiver(t *testing.T) {
	silent := map[ErrorClass]bool{
		ClassCanceled: true, ClassExpired: true, ClassPoison: true, ClassInternal: true, ClassSecret: true,
		ClassInvalidURL: true, ClassInvalidHeader: true, ClassBlockedAddress: true,
	}
	if HealthOf(ClassNone) != HealthGood {
		t.Error("a success is not good")
	}
	for _, class := range ErrorClasses {
		want := HealthBad
		if silent[class] {
			want = HealthUnknown
		}
		if got := HealthOf(class); got != want {
			t.Errorf("%s: %d, want %d", class, got, want)
		}
	}
}

func TestNextProbe(t *testing.T) {
	b := DefaultBreaker
	for _, c := range []struct{ open, took, want time.Duration }{
		{0, 0, b.MinWait}, {4 * time.Second, 0, b.MinWait}, {8 * time.Second, time.Second, 2 * time.Second}, {time.Minute, 0, 15 * time.Second},
		{20 * time.Minute, 0, b.MaxWait}, {90 * 24 * time.Hour, 0, b.MaxWait}, {-time.Hour, 0, b.MinWait},
		{0, 15 * time.Second, 30 * time.Second}, {2 * time.Minute, 15 * time.Second, 30 * time.Second},
		{4 * time.Minute, 15 * time.Second, time.Minute}, {0, time.Hour, b.MaxWait},
	} {
		if got := b.NextProbe(c.open, c.took, 0.5); got != c.want {
			t.Errorf("open for %s, %s long tried: %s, want %s", c.open, c.took, got, c.want)
		}
	}
}

func TestNextProbeStaysWithinItsBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := DefaultBreaker
		open := time.Duration(rapid.Int64Range(0, int64(100*24*time.Hour)).Draw(t, "open"))
		jitter := rapid.Float64Range(0, 0.999999).Draw(t, "jitter")
		got := b.NextProbe(open, 0, jitter)
		if got < b.MinWait || got > b.MaxWait {
			t.Fatalf("%s is out of bounds", got)
		}
		if longer := b.NextProbe(2*open, 0, jitter); longer < got {
			t.Fatalf("open for twice as long waits less: %s, %s", longer, got)
		}
		if open >= 8*b.MinWait && open <= b.MaxWait && (got < open/6 || got > open/3) {
			t.Fatalf("open for %s waits %s", open, got)
		}
	})
}

// However failures come, the breaker opens at the first moment that has both enough of them and enough
// time since the first, and never before.
func TestBreakerOpensByCountAndTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := Breaker{Failures: rapid.IntRange(1, 20).Draw(t, "failures"), Span: time.Duration(rapid.IntRange(0, 100).Draw(t, "span")),
			Timeout: rapid.IntRange(0, 4).Draw(t, "timeout")}
		gaps := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 60).Draw(t, "gaps")
		var s Streak
		now, first := time.Unix(0, 0), time.Unix(0, int64(gaps[0]))
		counted := 0
		for i, gap := range gaps {
			now = now.Add(time.Duration(gap))
			class := rapid.SampledFrom(ErrorClasses).Draw(t, "class")
			s.Fail("u", class, now)
			if counted++; class.Timeout() {
				counted += max(1, b.Timeout) - 1
			}
			if want := counted >= b.Failures && now.Sub(first) >= b.Span; b.Opens(s, now) != want {
				t.Fatalf("after %d failures in %s: opens %t", i+1, now.Sub(first), !want)
			}
		}
	})
}
