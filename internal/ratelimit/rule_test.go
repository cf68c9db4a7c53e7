package ratelimit

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDefaultBurst(t *testing.T) {
	t.Parallel()
	for rate, want := range map[int]int{0: 1, 1: 1, 10: 1, 11: 2, 20: 2, 100: 10, 65535: 6554} {
		if got := DefaultBurst(rate); got != want {
			t.Errorf("of %d/s: %d, want %d", rate, got, want)
		}
	}
}

const second = 1_000_000

func TestRule(t *testing.T) {
	t.Parallel()
	type step struct {
		at   int64
		rate Rate
		n    int
		want Grant
	}
	back := func(at int64, r Rate, n int) step { return step{at, r, -n, Grant{}} }
	ten := Rate{10, 3}
	for name, steps := range map[string][]step{
		"burst, then one by one": {
			{second, ten, 5, Grant{3, second / 10 * time.Microsecond}},
			{second + 99_999, ten, 1, Grant{0, time.Microsecond}},
			{second + 100_000, ten, 1, Grant{1, 0}},
			{second + 100_000, ten, 1, Grant{0, 100 * time.Millisecond}},
			{second + 250_000, ten, 2, Grant{1, 50 * time.Millisecond}},
			{second + 300_000, ten, 1, Grant{1, 0}},
		},
		"a pause gives the burst and no more": {
			{0, ten, 3, Grant{3, 0}},
			{3600 * second, ten, 100, Grant{3, 100 * time.Millisecond}},
		},
		"no limit": {
			{0, Rate{}, 1 << 30, Grant{1 << 30, 0}},
		},
		"nothing asked, nothing to wait for": {
			{0, ten, 3, Grant{3, 0}},
			{0, ten, 0, Grant{0, 0}},
		},
		"the burst is a tenth of a second's worth unless said": {
			{0, Rate{PerSecond: 100}, 100, Grant{10, 10 * time.Millisecond}},
		},
		"the wait is rounded up to what is enough": {
			{0, Rate{3, 1}, 2, Grant{1, 333_334 * time.Microsecond}},
			{333_333, Rate{3, 1}, 1, Grant{0, time.Microsecond}},
			{333_334, Rate{3, 1}, 1, Grant{1, 0}},
		},
		"a lowered limit leaves no debt of the old one": {
			{0, Rate{1000, 5000}, 5000, Grant{5000, 0}},
			{0, Rate{1, 1}, 1, Grant{0, time.Second}},
			{second, Rate{1, 1}, 1, Grant{1, 0}},
		},
		"a raised limit is no flood": {
			{0, Rate{1, 2}, 2, Grant{2, 0}},
			{0, Rate{1000, 100}, 500, Grant{98, time.Millisecond}},
			{10_000, Rate{1000, 100}, 500, Grant{10, time.Millisecond}},
		},
		"a clock that goes back drains from where it is": {
			{3600 * second, ten, 3, Grant{3, 0}},
			{0, ten, 1, Grant{0, 100 * time.Millisecond}},
			{100_000, ten, 2, Grant{1, 100 * time.Millisecond}},
		},
		"what is given back may go again": {
			{0, ten, 3, Grant{3, 0}},
			back(0, ten, 2),
			{0, ten, 3, Grant{2, 100 * time.Millisecond}},
			back(0, ten, 50),
			{0, ten, 5, Grant{3, 100 * time.Millisecond}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bucket := make([]Bucket, 1)
			for i, s := range steps {
				if s.n < 0 {
					GiveBack(bucket, []Rate{s.rate}, -s.n, s.at)
				} else if got := Take(bucket, []Rate{s.rate}, s.n, s.at); got != s.want {
					t.Errorf("step %d: granted %+v, want %+v", i, got, s.want)
				}
			}
		})
	}
}

// What is granted is the least of what each limit has room for, and each is charged with exactly that.
func TestNestedLimitsAreChargedAlike(t *testing.T) {
	t.Parallel()
	rates := []Rate{{100, 10}, {}, {10, 4}, {50, 7}}
	buckets := make([]Bucket, 4)
	if got, want := Take(buckets, rates, 9, second), (Grant{4, 100 * time.Millisecond}); got != want {
		t.Errorf("granted %+v, want %+v", got, want)
	}
	full := func(r Rate) Bucket { return Bucket{4 * millionths, second, r} }
	if want := []Bucket{full(rates[0]), {}, full(rates[2]), full(rates[3])}; !slices.Equal(buckets, want) {
		t.Errorf("charged %v, want %v", buckets, want)
	}
}

// More than any burst goes as a whole, once, and is waited for by what comes after it; a new rate knows
// nothing of the debt.
func TestWholeIsGrantedOnCredit(t *testing.T) {
	t.Parallel()
	rate, bucket := []Rate{{10, 3}}, make([]Bucket, 1)
	for i, step := range []struct {
		at   int64
		n    int
		want Grant
	}{
		{0, 100, Grant{100, 0}},
		{0, 1, Grant{0, 9800 * time.Millisecond}},
		{9_799_999, 100, Grant{0, time.Microsecond}},
		{9_800_000, 100, Grant{100, 0}},
		{9_800_000, 0, Grant{}},
	} {
		if got := TakeWhole(bucket, rate, step.n, step.at); got != step.want {
			t.Errorf("step %d: granted %+v, want %+v", i, got, step.want)
		}
	}
	if got := Take(bucket, rate, 1, 9_800_000); got != (Grant{0, 10 * time.Second}) {
		t.Errorf("in debt, granted %+v", got)
	}
	if got := Take(bucket, []Rate{{10, 4}}, 1, 9_800_000); got != (Grant{0, 100 * time.Millisecond}) {
		t.Errorf("under a new rate, granted %+v", got)
	}
}

func rates() *rapid.Generator[Rate] {
	return rapid.Custom(func(t *rapid.T) Rate {
		return Rate{
			PerSecond: rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 65535)).Draw(t, "per second"),
			Burst:     rapid.OneOf(rapid.IntRange(0, 5), rapid.IntRange(1, 65535)).Draw(t, "burst"),
		}
	})
}

// Whoever always takes all that is granted, and asks before the bucket has run dry, gets rate × time +
// burst: not one less, not one more.
func TestGrantedIsRateTimesTimePlusBurst(t *testing.T) {
	t.Parallel()
	check := func(t rapid.TB, rate Rate, duration int64, pause func(most int64) int64) {
		buckets, rates := make([]Bucket, 1), []Rate{rate}
		start := int64(1_790_000_000) * second
		most := int64(rate.burst()-1) * second / int64(rate.PerSecond)
		total, now := 0, start
		for {
			total += Take(buckets, rates, 1<<30, now).N
			if now == start+duration {
				break
			}
			now = min(start+duration, now+pause(most))
		}
		if want := int64(rate.burst()) + duration*int64(rate.PerSecond)/second; int64(total) != want {
			t.Errorf("%+v: granted %d in %d µs, want %d", rate, total, duration, want)
		}
	}
	for _, rate := range []Rate{{1, 2}, {3, 2}, {7, 70}, {100, 0}, {999, 10}, {65535, 100}, {65535, 65535}} {
		check(t, rate, 10*second, func(most int64) int64 { return most })
		check(t, rate, 10*second, func(most int64) int64 { return max(1, most/3) })
	}
	rapid.Check(t, func(t *rapid.T) {
		rate := rates().Filter(func(r Rate) bool { return r.burst() > 1 }).Draw(t, "rate")
		most := int64(rate.burst()-1) * second / int64(rate.PerSecond)
		check(t, rate, rapid.Int64Range(0, 100*most).Draw(t, "duration"), func(most int64) int64 {
			return rapid.Int64Range(max(1, most/2), most).Draw(t, "pause")
		})
	})
}

// However it is asked, no stretch of time ever sees more than rate × its length + burst, and a wait
// that is honoured is rewarded.
func TestNeverMoreThanTheRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rates := rapid.SliceOfN(rates(), 1, 3).Draw(t, "rates")
		buckets := make([]Bucket, len(rates))
		type grant struct {
			at int64
			n  int
		}
		var grants []grant
		now := int64(second)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			n := rapid.IntRange(0, 100).Draw(t, "n")
			g := Take(buckets, rates, n, now)
			if g.N > n || g.N < 0 || (g.N == n) != (g.Wait == 0) {
				t.Fatalf("asked for %d, granted %+v", n, g)
			}
			grants = append(grants, grant{now, g.N})
			if g.Wait > 0 && rapid.Bool().Draw(t, "wait") {
				now += g.Wait.Microseconds()
				if g := Take(buckets, rates, 1, now); g.N != 1 {
					t.Fatalf("not granted after the wait: %+v", g)
				}
				grants = append(grants, grant{now, 1})
			}
			now += rapid.Int64Range(0, 2*second).Draw(t, "pause")
		}
		for i := range grants {
			sum := int64(0)
			for _, g := range grants[i:] {
				sum += int64(g.n)
				for _, r := range rates {
					if most := int64(r.burst()) + (g.at-grants[i].at)*int64(r.PerSecond)/second; sum > most {
						t.Fatalf("%d in %d µs under %+v", sum, g.at-grants[i].at, r)
					}
				}
			}
		}
	})
}
