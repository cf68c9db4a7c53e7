package ledger

import (
	"fmt"
	"time"
)

// Invariant names one thing that must hold.
type Invariant string

// The invariants.
const (
	Lost    Invariant = "LOST"     // accepted, but neither delivered nor visibly given up
	Ghost   Invariant = "GHOST"    // delivered or stored, but never posted
	Leak    Invariant = "LEAK"     // delivered to another tenant's endpoint, or one that was not asked for
	Twice   Invariant = "TWICE"    // one key, two messages
	Dup     Invariant = "DUP"      // delivered again with no fault to explain it
	Silent  Invariant = "SILENT"   // sent without an attempt row, or a row without a send
	FalseOK Invariant = "FALSE-OK" // recorded as a success that the sink never gave
	Stuck   Invariant = "STUCK"    // still open when everything should have ended
	Order   Invariant = "ORDER"    // an ordered endpoint took a message before one that had been accepted before it was posted
	Sig     Invariant = "SIG"      // the signature does not verify, or the bytes differ from those posted
	API     Invariant = "API"      // the API answered what it never may, or hung
	Late    Invariant = "LATE"     // first sent, or sent again, later than the fault allows
	Slow    Invariant = "SLOW"     // live traffic suffered from what goes on beside it
	Class   Invariant = "CLASS"    // an attempt failed for another reason than the one it was given
	Task    Invariant = "TASK"     // a background task did not end as it should, or its counters do not add up
	Recover Invariant = "RECOVER"  // not back to normal in time after the fault
	Bite    Invariant = "BITE"     // the fault did not happen, so nothing was shown
	Crash   Invariant = "CRASH"    // a process ended in a way nobody asked for
	// Leftover is memory or goroutines that a process took for what was done to it, beyond what it may.
	Leftover Invariant = "LEFTOVER"
)

// Invariants lists all of them in the order they are reported.
var Invariants = []Invariant{Lost, Ghost, Leak, Twice, Dup, Silent, FalseOK, Stuck, Order, Sig, API, Late, Slow, Class, Task, Recover, Bite, Crash, Leftover}

// Finding is one violation.
type Finding struct {
	Invariant Invariant `json:"invariant"`
	Text      string    `json:"text"`
	Message   string    `json:"message,omitempty"` // id, if one is known
}

// Report is what a check found.
type Report struct {
	Findings   []Finding         `json:"findings"`
	Counts     map[Invariant]int `json:"counts"`
	Deliveries int               `json:"deliveries"` // accepted messages times their endpoints
	Delivered  int               `json:"delivered"`
	GivenUp    int               `json:"givenUp"`   // ended visibly without a 2xx
	Unknown    int               `json:"unknown"`   // messages without a definite answer
	Asked      int               `json:"asked"`     // sends that were asked for once more
	Resent     int               `json:"resent"`    // sends after the first 2xx of a delivery that nobody asked for
	Bound      int               `json:"bound"`     // how many of those the faults could explain
	Unlogged   int               `json:"unlogged"`  // sends without an attempt row that a fault explains
	Broken     int               `json:"broken"`    // requests to the API that ended without an answer
	Unavail    int               `json:"unavail"`   // answers 429 and 503
	Requests   int               `json:"requests"`  // requests that reached the sink
	Repeated   int               `json:"repeated"`  // requests to the API beyond the first of a message
	Messages   int               `json:"messages"`  // messages posted
	Endpoints  int               `json:"endpoints"` // endpoints in use
	Ordered    int               `json:"ordered"`   // first successes at ordered endpoints
	Slowest    time.Duration     `json:"slowest"`   // longest from acceptance to first arrival
}

// Add notes a violation that was seen elsewhere.
func (r *Report) Add(invariant Invariant, format string, args ...any) {
	r.add(Finding{Invariant: invariant, Text: fmt.Sprintf(format, args...)})
}

func (r *Report) add(finding Finding) {
	if r.Counts == nil {
		r.Counts = make(map[Invariant]int)
	}
	r.Counts[finding.Invariant]++
	r.Findings = append(r.Findings, finding)
}

// OK reports whether nothing was violated.
func (r Report) OK() bool { return len(r.Findings) == 0 }
