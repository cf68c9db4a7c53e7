// Package ratelimit says how many messages may go now, under several limits at once, across all
// processes of an installation. The rule (rule.go) is pure; the limiter (limiter.go) runs the same rule
// as one script in Redis.
package ratelimit

import "time"

// Rate is a limit: so many a second, and so many at once after a pause.
type Rate struct {
	PerSecond int // 0 = no limit
	Burst     int // 0 = DefaultBurst of PerSecond
}

// DefaultBurst is what may go at once unless it is said: a tenth of a second's worth, at least one. It
// is what keeps a limit from being felt as long as nobody exceeds it.
func DefaultBurst(perSecond int) int { return max(1, (perSecond+9)/10) }

// None reports whether the rate limits nothing.
func (r Rate) None() bool { return r.PerSecond <= 0 }

func (r Rate) burst() int {
	if r.Burst <= 0 {
		return DefaultBurst(r.PerSecond)
	}
	return r.Burst
}

// millionths of a message are what a bucket counts: a rate of r messages per second is then exactly r
// of them per microsecond, and nothing is ever rounded.
const millionths = 1_000_000

// Bucket is how much of a limit is used up. This is GCRA, told as a level that drains instead of as
// the theoretical arrival time at which it will have drained. The two are equal as long as the rate
// stays; when it changes, a level is a number of messages whatever the rate, while a stored time
// would be hours of debt under a lower rate and a flood under a higher one. The zero Bucket is empty.
type Bucket struct {
	Level int64 // millionths of a message, at time At
	At    int64 // microseconds
	Rate  Rate  // under which it was charged
}

// drained is the bucket at a moment (microseconds) under a rate: what has drained is gone. If the rate is
// another than before, the level is no higher than its burst, so that a lowered limit leaves no debt. A
// clock that went back takes nothing away and adds nothing.
func (b Bucket) drained(r Rate, now int64) Bucket {
	if elapsed := now - b.At; elapsed > 0 {
		if per := int64(r.PerSecond); elapsed > b.Level/per {
			b.Level = 0
		} else {
			b.Level -= elapsed * per
		}
	}
	if b.Rate != r.full() {
		b.Level = min(b.Level, int64(r.burst())*millionths)
	}
	return Bucket{Level: b.Level, At: now, Rate: r.full()}
}

// full is the rate with its burst spelt out.
func (r Rate) full() Rate { return Rate{r.PerSecond, r.burst()} }

// free is how many messages may go at once.
func (b Bucket) free(r Rate) int64 { return max(0, int64(r.burst())-ceilDiv(b.Level, millionths)) }

// wait is how many microseconds it takes until one message may go; 0 if one may.
func (b Bucket) wait(r Rate) int64 {
	return ceilDiv(max(0, b.Level+millionths-int64(r.burst())*millionths), int64(r.PerSecond))
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

// Grant is the answer to a wish for N.
type Grant struct {
	N    int           // how many may go now
	Wait time.Duration // how long until the next one may; 0 if all may go now
}

// Take grants as many of n as all buckets have room for, and charges them to each bucket. It changes
// buckets; rates are theirs, in the same order. now is in microseconds.
func Take(buckets []Bucket, rates []Rate, n int, now int64) Grant {
	return take(buckets, rates, n, false, now)
}

// TakeWhole grants n as soon as all buckets have room for one, and none of it before. What there is no
// room for is debt that later ones wait for: the rate holds, though n may be more than any burst.
func TakeWhole(buckets []Bucket, rates []Rate, n int, now int64) Grant {
	return take(buckets, rates, n, true, now)
}

func take(buckets []Bucket, rates []Rate, n int, whole bool, now int64) Grant {
	if n <= 0 {
		return Grant{}
	}
	granted, wait := int64(n), int64(0)
	for i, r := range rates {
		if r.None() {
			continue
		}
		if free := buckets[i].drained(r, now).free(r); !whole || free == 0 {
			granted = min(granted, free)
		}
	}
	for i, r := range rates {
		if r.None() {
			continue
		}
		b := buckets[i].drained(r, now)
		b.Level += granted * millionths
		if granted < int64(n) {
			wait = max(wait, b.wait(r))
		}
		// Who is only looked at keeps its time, which saves a write; unless its rate is a new one, or the
		// clock went back, and nothing would drain until it has caught up.
		if granted > 0 || b.Level == 0 || b.Rate != buckets[i].Rate || now < buckets[i].At {
			buckets[i] = b
		}
	}
	return Grant{N: int(granted), Wait: time.Duration(wait) * time.Microsecond}
}

// GiveBack takes n back out of all buckets: what was granted and not used.
func GiveBack(buckets []Bucket, rates []Rate, n int, now int64) {
	if n <= 0 {
		return
	}
	for i, r := range rates {
		if !r.None() {
			buckets[i] = buckets[i].drained(r, now)
			buckets[i].Level = max(0, buckets[i].Level-int64(n)*millionths)
		}
	}
}
