package webhook

import "time"

// Trigger says why a delivery exists.
type Trigger uint8

// The triggers; the numbers are the wire's.
const (
	TriggerScheduled Trigger = 0 // the message matched the endpoint; retried by the schedule
	TriggerManual    Trigger = 1 // somebody asked for it; one attempt
)

// State is where an open delivery stands. The numbers are the column's.
type State int16

// The states.
const (
	StateReleased State = 1 // handed to the queue; due_at is the end of its lease
	StateWaiting  State = 2 // next try at a known time, due_at
	StateParked   State = 3 // may not go now; no due_at, but its endpoint has a wake
	StateFIFO     State = 4 // waits for its turn in its stream; no due_at, but the stream has one
	StateBlocked  State = 5 // at the head of its stream with its attempts used up, until somebody decides
)

// DeliveryKey names one delivery: a message owed to an endpoint, and why.
type DeliveryKey struct {
	Tenant   TenantID
	Message  MessageID
	Endpoint EndpointID
	Trigger  Trigger
}

// Fence is what a worker must still find on the row to be allowed to act on it: the attempt it would
// make and the handing-out it was given. Every handing-out raises Feed, every attempt sets it back.
type Fence struct {
	Attempt int16 // attempts already made
	Feed    int16
}

// Delivery is one open delivery as it was handed out.
type Delivery struct {
	DeliveryKey
	Fence
	Lane    Lane
	Ordered bool // one of a stream: those of its task go one after the other
}

// LeaseMargin is how much longer than an attempt a delivery stays with the worker it was handed to:
// time for the queue, the read and the result's commit.
const LeaseMargin = 15 * time.Second

// A delivery whose lease ended AloneAfter times without a word is handed out alone, so that whatever
// it does to a worker it does to nobody else's delivery. Only such starts are counted further, up to
// PoisonAfter, when it is ended: time in a queue behind slow receivers is no evidence against it.
const (
	AloneAfter  = 5
	PoisonAfter = AloneAfter + 3
)

// Policy is how deliveries are retried.
type Policy struct {
	Schedule []time.Duration // wait after the first failed attempt, the second, …; its length + 1 attempts
}

// DefaultSchedule makes 8 attempts over about 27.6 hours.
var DefaultSchedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour,
}

// Jitter is the share by which a wait is moved at random, either way, so that what failed together
// does not come back together.
const Jitter = 0.2

// Status is how an attempt ended; the numbers are the wire's.
type Status int16

// The statuses.
const (
	StatusSuccess  Status = 0
	StatusPending  Status = 1
	StatusFail     Status = 2
	StatusSending  Status = 3
	StatusCanceled Status = 4
)

// Outcome is what becomes of a delivery after an attempt.
type Outcome struct {
	Final bool          // it ends, in Status
	Wait  time.Duration // not final: until the next attempt
	Free  bool          // not final: the attempt is shown, but none of the schedule's is spent
	// Blocked: not final, but there is no next attempt; it stays at the head of its stream until somebody
	// decides.
	Blocked bool
}

// After decides what follows an attempt. made counts this attempt, retryAfter is what the receiver
// asked for (0 = nothing), jitter is uniform in [0, 1). A receiver that names a time is obeyed within
// one and two times the step: earlier would defeat the schedule, later would let a stranger hold our
// rows. It is never called before the time it named, so its jitter only adds.
func (p Policy) After(success bool, trigger Trigger, made int, retryAfter time.Duration, jitter float64) Outcome {
	if success || trigger == TriggerManual || made > len(p.Schedule) {
		return Outcome{Final: true}
	}
	step := p.Schedule[made-1]
	if retryAfter > 0 {
		wait := min(max(step, retryAfter), 2*step)
		return Outcome{Wait: min(wait+scale(wait, Jitter*jitter), 2*step)}
	}
	return Outcome{Wait: scale(step, 1-Jitter+2*Jitter*jitter)}
}

func scale(d time.Duration, by float64) time.Duration { return time.Duration(float64(d) * by) }

// Attempts is how many attempts a delivery gets at most.
func (p Policy) Attempts() int { return len(p.Schedule) + 1 }
