package webhook

import "time"

// Ordering says whether an endpoint's messages go one after the other.
type Ordering string

// The orderings.
const (
	OrderingNone Ordering = "none" // each by itself, as soon as it may
	OrderingFIFO Ordering = "fifo" // in the order in which they were accepted, the next when the one before it has ended
)

// OnExhausted says what becomes of an ordered endpoint's line when the message at its head has used up its
// attempts.
type OnExhausted string

// What can become of it.
const (
	ExhaustedBlocks OnExhausted = "block" // everything waits until the head is skipped, or taken after all
	ExhaustedSkips  OnExhausted = "skip"  // the head ends as failed, and the next goes
)

// MaxStreamTask is how many deliveries of a stream are handed out together. One worker sends them one
// after the other.
const MaxStreamTask = 32

// HeldStreamPause lies between two looks at a stream that waits for what was owed before its order began.
const HeldStreamPause = time.Second

// StreamRow is what counts about one of the deliveries at the head of a stream.
type StreamRow struct {
	State   State
	Left    time.Duration // until its due_at, by the clock of Postgres
	Attempt int16         // attempts made
	Lost    int16         // leases that ended without a word since
}

// Stream is what counts about an ordered endpoint when it is decided what may go to it.
type Stream struct {
	Deliverable bool // the endpoint exists and is enabled; else what it is owed ends without a request
	OnExhausted OnExhausted
	Gate        GateState
	GateLeft    time.Duration // until the next probe of an open or probing gate
	Held        bool          // what was owed before the order began is not gone yet
}

// StreamStep is what is to be done with a stream.
type StreamStep struct {
	Release int           // so many, from the head
	Wait    time.Duration // nothing now; look again after that
	Until   bool          // nothing, until somebody says so
}

// Next decides what may go of a stream whose first rows, in order, are given: only ever a part that begins
// at the head, and nothing while anything of it is out.
func (s Stream) Next(rows []StreamRow) StreamStep {
	out := time.Duration(0)
	for _, r := range rows {
		if r.State == StateReleased {
			out = max(out, r.Left)
		}
	}
	switch {
	case len(rows) == 0:
		return StreamStep{}
	case out > 0:
		return StreamStep{Wait: out}
	case s.Held:
		return StreamStep{Wait: HeldStreamPause}
	case s.Deliverable && s.Gate == GatePaused:
		return StreamStep{Until: true}
	case s.Deliverable && s.Gate == GateOpen && s.GateLeft > 0:
		return StreamStep{Wait: s.GateLeft}
	}
	head := rows[0]
	switch {
	case head.State == StateWaiting && head.Left > 0:
		return StreamStep{Wait: head.Left}
	case head.State == StateBlocked && s.Deliverable && s.OnExhausted == ExhaustedBlocks:
		return StreamStep{Until: true}
	}
	most := min(len(rows), MaxStreamTask)
	// What failed before, what probes and what may have killed its worker goes alone: most likely, whatever
	// went with it would only have to be put back.
	if s.Deliverable && (head.Attempt > 0 || s.Gate == GateOpen || s.Gate == GateProbing) || head.Lost > AloneAfter {
		most = 1
	}
	n := 1
	for n < most && (rows[n].State == StateFIFO || rows[n].State == StateReleased) && rows[n].Lost <= AloneAfter {
		n++
	}
	return StreamStep{Release: n}
}
