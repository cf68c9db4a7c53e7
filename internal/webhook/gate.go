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

// EndpointState is in one word how an endpoint's deliveries go.
type EndpointState string

// The states, the first that holds.
const (
	EndpointPaused    EndpointState = "paused"    // somebody paused it
	EndpointOpen      EndpointState = "open"      // its breaker is open
	EndpointProbing   EndpointState = "probing"   // likewise, and one delivery is being tried
	EndpointDisabled  EndpointState = "disabled"  // it gets nothing
	EndpointDraining  EndpointState = "draining"  // it takes up again what gathered, more and more at once
	EndpointThrottled EndpointState = "throttled" // it has had as much as it may have, or can take, for now
	EndpointActive    EndpointState = "active"
)

// EndpointStates lists every state.
var EndpointStates = []EndpointState{
	EndpointActive, EndpointPaused, EndpointOpen, EndpointProbing, EndpointDraining, EndpointThrottled, EndpointDisabled,
}

// Wake is when what is parked for an endpoint is looked at.
type Wake struct {
	DueAt   time.Time // zero = not before the gate opens
	Resting bool      // nothing was parked when it was last looked at
	Take    int       // so many then; 0 = as many as may
}

// drainPace is how long a draining endpoint is left alone at most between two looks; one that is left for
// longer is throttled.
const drainPace = time.Second

// StateOf is how an endpoint's deliveries go. w is nil if nothing is parked and nothing was lately.
func StateOf(disabled bool, g GateState, w *Wake, now time.Time) EndpointState {
	switch {
	case g == GatePaused:
		return EndpointPaused
	case g == GateOpen:
		return EndpointOpen
	case g == GateProbing:
		return EndpointProbing
	case disabled:
		return EndpointDisabled
	case w == nil || w.Resting:
		return EndpointActive
	case w.Take > 0 && w.DueAt.Before(now.Add(drainPace)):
		return EndpointDraining
	case w.DueAt.After(now):
		return EndpointThrottled
	}
	return EndpointActive
}
