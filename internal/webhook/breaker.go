package webhook

import "time"

// Breaker is the rule by which an endpoint that fails again and again is left alone: its deliveries wait
// instead of burning their attempts, and one of them at a time is tried.
type Breaker struct {
	Failures int           // so many failed attempts in a row …
	Span     time.Duration // … over at least this time open it: one bad moment of many requests does not
	Timeout  int           // as so many failures counts one that timed out: each has held a place for long
	MinWait  time.Duration // until the next probe
	MaxWait  time.Duration // likewise
}

// DefaultBreaker lets a receiver restart unnoticed, and finds one that has come back after a long time
// within five minutes.
var DefaultBreaker = Breaker{Failures: 10, Span: 5 * time.Second, Timeout: 5, MinWait: time.Second, MaxWait: 5 * time.Minute}

// probeShare of the time that a breaker has been open passes until the next probe, so that a receiver
// that was away for a while is found again within about a quarter of that while.
const probeShare = 4

// probePause is how many times as long as the last attempt took passes at least until the next probe: an
// endpoint that lets each request hang has a place for a third of the time.
const probePause = 2

// RampStart is how many deliveries a recovered or resumed endpoint is sent at first.
const RampStart = 8

// NextProbe is how long to wait for the next probe of a breaker that has been open for so long, after an
// attempt that took so long; jitter is uniform in [0, 1).
func (b Breaker) NextProbe(open, took time.Duration, jitter float64) time.Duration {
	wait := min(max(open/probeShare, probePause*took, b.MinWait), b.MaxWait)
	return min(max(scale(wait, 1-Jitter+2*Jitter*jitter), b.MinWait), b.MaxWait)
}

// Health is what an attempt says about its receiver.
type Health uint8

// What it can say.
const (
	HealthUnknown Health = iota // nothing: the receiver was not asked
	HealthGood
	HealthBad
)

// HealthOf is what the end of an attempt says about the receiver. What was never sent, because of us or
// of what is configured, says nothing; whatever else is not a success is bad.
func HealthOf(class ErrorClass) Health {
	switch class {
	case ClassNone:
		return HealthGood
	case ClassCanceled, ClassExpired, ClassPoison, ClassInternal, ClassSecret, ClassInvalidURL, ClassInvalidHeader, ClassBlockedAddress:
		return HealthUnknown
	}
	return HealthBad
}

// Streak is the failed attempts of an endpoint since its last success.
type Streak struct {
	URL      string // that was called; another one has its own streak
	First    time.Time
	Failures int

	timeouts int // among them
	classes  map[ErrorClass]int
	reason   ErrorClass
}

// Fail adds a failure. One of another URL begins anew.
func (s *Streak) Fail(url string, class ErrorClass, at time.Time) {
	if s.Failures == 0 || s.URL != url {
		*s = Streak{URL: url, First: at, classes: map[ErrorClass]int{}}
	}
	s.Failures++
	if class.Timeout() {
		s.timeouts++
	}
	s.classes[class]++
	if s.reason == "" || s.classes[class] >= s.classes[s.reason] {
		s.reason = class
	}
}

// Reason is the class of most of the failures; of equals, the latest.
func (s Streak) Reason() ErrorClass { return s.reason }

// Opens reports whether a streak has come so far that the breaker opens.
func (b Breaker) Opens(s Streak, now time.Time) bool {
	return s.Failures-s.timeouts+s.timeouts*max(1, b.Timeout) >= b.Failures && now.Sub(s.First) >= b.Span
}
