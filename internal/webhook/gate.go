package webhook

import "time"

// GateState says what keeps an endpoint's deliveries from going; the numbers are the column's.
type GateState int16

// The states.
const (
	GateNone    GateState = 0 // nothing does: there is no row
	GatePaused  GateState = 1 // somebody paused it; its deliveries wait until it is resumed
	GateOpen    GateState = 2 // its circuit breaker is open; one delivery at a time is tried when the next probe is due
	GateProbing GateState = 3 // a probe is under way
)

// Holds reports whether a worker that has been handed a delivery must give it back.
func (g GateState) Holds() bool { return g == GatePaused || g == GateOpen }

// Gate is what keeps an endpoint's deliveries from going, and why.
type Gate struct {
	State    GateState
	Since    time.Time
	Reason   string    // of an open breaker: the error class of the failures; of a pause: who asked for it
	Failures int       // of an open breaker: in a row, probes included
	NextAt   time.Time // of an open breaker: the next probe; zero for a pause
}
