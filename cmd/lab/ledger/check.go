package ledger

import (
	"fmt"
	"slices"
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

const (
	// sendMargin is how long before its arrival at the sink, and after the commit of its result, a
	// request counts as under way: what separates the product's view of these moments from ours.
	sendMargin = 20 * time.Millisecond
	// deathLag is how much later than a process's death the sink may see its connections end.
	deathLag = 500 * time.Millisecond
	// unavailableLimit is how fast the API has to say that it is unavailable.
	unavailableLimit = 2 * time.Second
	// schedulingSlack is what a busy two-core machine may add to unavailableLimit.
	schedulingSlack = time.Second
)

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

// Check compares the ledgers.
func Check(run Run) Report {
	c := checker{
		run: run, faults: slices.SortedFunc(slices.Values(run.Faults), func(a, b Fault) int { return a.At.Compare(b.At) }),
		report: Report{Messages: len(run.Messages), Endpoints: len(run.Endpoints), Requests: len(run.Records)},
		bySeq:  make(map[int]*Message), sends: make(map[Pair][]send), rows: make(map[Pair][]Row), asks: make(map[Pair][]Ask), used: make(map[uint64]use),
	}
	for i := range run.Messages {
		c.bySeq[run.Messages[i].Seq] = &run.Messages[i]
	}
	for _, row := range run.Rows {
		c.rows[row.Pair] = append(c.rows[row.Pair], row)
	}
	for _, ask := range run.Asked {
		c.asks[ask.Pair] = append(c.asks[ask.Pair], ask)
	}
	c.keys()
	c.records()
	c.deliveries()
	c.asked()
	c.duplicates()
	c.attempts()
	c.order()
	c.leftOver()
	c.api()
	for _, crash := range run.Crashes {
		c.find(Crash, "", "%s", crash)
	}
	return c.report
}

// send is a request at the sink with the time in which a fault could catch it: from just before it
// arrived until its result was safely recorded.
type send struct {
	Record
	from, until time.Time
	recorded    time.Time // when its result was committed; zero = never, as far as is known
}

type checker struct {
	run    Run
	faults []Fault // by time
	report Report
	bySeq  map[int]*Message
	sends  map[Pair][]send // by arrival; only of messages that were posted
	rows   map[Pair][]Row
	asks   map[Pair][]Ask
	used   map[uint64]use
}

// use is the last request on a connection.
type use struct{ arrived, answered time.Time }

func (c *checker) find(invariant Invariant, message, format string, args ...any) {
	c.report.add(Finding{invariant, fmt.Sprintf(format, args...), message})
}

// keys: however often a message was posted with its key, it is one message.
func (c *checker) keys() {
	accepted, unknown := 0, 0
	for _, message := range c.run.Messages {
		c.report.Repeated += max(message.Tries-1, 0)
		if ids := slices.Compact(slices.Sorted(slices.Values(message.IDs))); len(ids) > 1 {
			c.find(Twice, ids[0], "message %d was answered with %d ids: %v", message.Seq, len(ids), ids)
		}
		switch message.Outcome {
		case Accepted:
			accepted++
		case Unknown:
			unknown++
		}
	}
	c.report.Unknown = unknown
	if c.run.Stored < accepted {
		c.find(Lost, "", "%d messages are stored, but %d were accepted", c.run.Stored, accepted)
	}
	if c.run.Stored > accepted+unknown {
		c.find(Ghost, "", "%d messages are stored, but only %d were accepted and %d have no definite answer", c.run.Stored, accepted, unknown)
	}
}

// records: each request at the sink is of a message that was posted, whole, and at an endpoint that
// it was meant for.
func (c *checker) records() {
	firstID := make(map[int]string)
	for _, record := range c.run.Records {
		message, ok := c.bySeq[record.Seq]
		if !ok || message.Outcome == Refused {
			c.find(Ghost, record.ID, "endpoint %d got %s, which was never posted or was refused", record.Endpoint, record.ID)
			continue
		}
		if record.Endpoint < 0 || record.Endpoint >= len(c.run.Endpoints) {
			c.find(Leak, record.ID, "%s arrived at a path that is no endpoint's", record.ID)
			continue
		}
		if want := c.run.Endpoints[record.Endpoint].Tenant; record.Tenant != want || message.Tenant != want {
			c.find(Leak, record.ID, "%s of tenant %d arrived at endpoint %d of tenant %d", record.ID, message.Tenant, record.Endpoint, want)
		} else if !slices.Contains(message.Endpoints, record.Endpoint) {
			c.find(Leak, record.ID, "%s arrived at endpoint %d, which it was not for", record.ID, record.Endpoint)
		}
		id, seen := firstID[record.Seq]
		if message.Outcome == Accepted {
			id, seen = message.IDs[0], true
		}
		if !seen {
			firstID[record.Seq] = record.ID
		} else if record.ID != id {
			c.find(Twice, record.ID, "message %d is %s but arrived as %s", record.Seq, id, record.ID)
		}
		if !record.Signed {
			c.find(Sig, record.ID, "%s at endpoint %d: the signature does not verify", record.ID, record.Endpoint)
		}
		if record.Hash != message.Hash {
			c.find(Sig, record.ID, "%s at endpoint %d: the body is not the payload that was posted", record.ID, record.Endpoint)
		}
		pair := Pair{record.ID, record.Endpoint}
		c.sends[pair] = append(c.sends[pair], send{Record: record})
		used := c.used[record.Conn]
		if record.Arrived.After(used.arrived) { // requests follow each other on a connection
			c.used[record.Conn] = use{record.Arrived, record.Answered}
		}
	}
	for pair, sends := range c.sends {
		slices.SortFunc(sends, func(a, b send) int { return a.Arrived.Compare(b.Arrived) })
		c.exposure(sends, c.rows[pair])
	}
}

// exposure finds for each send when a fault could have caught it. A row belongs to the send that
// arrived soonest after the row's attempt began.
func (c *checker) exposure(sends []send, rows []Row) {
	for i := range sends {
		sends[i].from = sends[i].Arrived.Add(-sendMargin)
		sends[i].until = sends[i].Answered.Add(c.run.Rules.Lag)
	}
	taken := make([]bool, len(sends))
	for _, row := range slices.SortedFunc(slices.Values(rows), func(a, b Row) int { return b.Started.Compare(a.Started) }) {
		if !row.Sent {
			continue
		}
		for i := range sends {
			// Attempt times have whole milliseconds.
			if !taken[i] && sends[i].Arrived.After(row.Started.Add(-2*time.Millisecond)) {
				taken[i] = true
				if !row.Recorded.IsZero() {
					sends[i].until, sends[i].recorded = row.Recorded.Add(sendMargin), row.Recorded
				}
				break
			}
		}
	}
}

func success(s send) bool { return s.Status/100 == 2 }

// deliveries: what was accepted has reached each of its endpoints or was visibly given up.
func (c *checker) deliveries() {
	for _, message := range c.run.Messages {
		if message.Outcome != Accepted {
			continue
		}
		for _, endpoint := range message.Endpoints {
			c.report.Deliveries++
			pair := Pair{message.IDs[0], endpoint}
			unseen := c.run.Endpoints[endpoint].Unseen
			if sends := c.sends[pair]; len(sends) > 0 && !unseen {
				c.late(message, sends[0])
				c.retriedLate(sends)
			}
			switch {
			case slices.ContainsFunc(c.sends[pair], success):
				c.report.Delivered++
			case (len(c.sends[pair]) > 0 || unseen) && slices.ContainsFunc(c.rows[pair], func(r Row) bool { return r.Final && !r.Success }):
				c.report.GivenUp++ // the receiver refused it to the end, or it could not be sent
			default:
				c.find(Lost, pair.Message, "message %d (%s) never reached endpoint %d: %d requests, %d attempt rows",
					message.Seq, pair.Message, endpoint, len(c.sends[pair]), len(c.rows[pair]))
			}
		}
	}
}

// late: a delivery's first send comes within what the fault may hold it up.
func (c *checker) late(message Message, first send) {
	took := first.Arrived.Sub(message.Answered)
	c.report.Slowest = max(c.report.Slowest, took)
	if limit := c.run.Rules.Latest; limit > 0 && took > limit {
		c.find(Late, first.ID, "%s first reached endpoint %d %v after it was accepted; at most %v are allowed",
			first.ID, first.Endpoint, took.Round(time.Millisecond), limit)
	}
}

// retriedLate: what the receiver refused comes again in time, if it does.
func (c *checker) retriedLate(sends []send) {
	limit := c.run.Rules.Retried
	for i := 1; i < len(sends) && limit > 0; i++ {
		before := sends[i-1]
		if took := sends[i].Arrived.Sub(before.Answered); !success(before) && took > limit {
			c.find(Late, before.ID, "%s came again to endpoint %d %v after it was refused; at most %v are allowed",
				before.ID, before.Endpoint, took.Round(time.Millisecond), limit)
		}
	}
}

// asked: what was asked for once more was sent once more, at least: each request for it is followed
// by a send of its own.
func (c *checker) asked() {
	for pair, asks := range c.asks {
		c.report.Asked += len(asks)
		firm := slices.DeleteFunc(slices.Clone(asks), func(a Ask) bool { return a.Perhaps })
		slices.SortFunc(firm, func(a, b Ask) int { return a.At.Compare(b.At) })
		for i, ask := range firm {
			after := 0
			for _, s := range c.sends[pair] {
				if s.Arrived.After(ask.At) {
					after++
				}
			}
			if missing := len(firm) - i - after; missing > 0 {
				c.find(Lost, pair.Message, "%s was to be sent to endpoint %d again and was not: asked %d times since %s, sent %d times",
					pair.Message, pair.Endpoint, len(firm)-i, ask.At.Format(time.RFC3339Nano), after)
				break
			}
		}
	}
}

// hit reports whether a fault caught a send before its result was recorded.
func (c *checker) hit(s send, f Fault) bool {
	if s.from.After(f.Until) || s.until.Before(f.At) {
		return false
	}
	if !f.OneOf {
		return true
	}
	// Only a process that lived on can have recorded the result afterwards.
	if s.recorded.After(f.Until.Add(sendMargin)) {
		return false
	}
	// A connection that was used after the fault, or ended much later, belongs to a process that was
	// not hit. A request that is held keeps the sink from seeing the end before it has answered.
	used := c.used[s.Conn]
	if used.arrived.After(f.Until.Add(sendMargin)) {
		return false
	}
	ended, ok := c.run.Closed[s.Conn]
	due := f.Until
	if used.answered.After(due) {
		due = used.answered
	}
	return ok && !ended.After(due.Add(deathLag))
}

// catcher is the number of the first fault of a kind that caught a send; -1 if none did. A process
// dies only once, so no other fault can have caught it as well.
func (c *checker) catcher(s send, kind func(Fault) bool) int {
	return slices.IndexFunc(c.faults, func(f Fault) bool { return kind(f) && c.hit(s, f) })
}

func resends(f Fault) bool  { return f.Resends }
func unlogged(f Fault) bool { return f.Unlogged }

// duplicates: for every send after the first 2xx of a delivery somebody asked, or there is an earlier
// send of that very delivery that a fault caught under way, and no fault explains more of them than were under way at
// any one moment of it.
func (c *checker) duplicates() {
	caught := make(map[int][]send)
	blamed := make(map[int]int)
	for pair, sends := range c.sends {
		var explained []int
		for i, s := range sends {
			if fault := c.catcher(s, resends); fault >= 0 {
				caught[fault] = append(caught[fault], s)
				if i < len(sends)-1 {
					explained = append(explained, fault)
				}
			}
		}
		again := 0
		if first := slices.IndexFunc(sends, success); first >= 0 && first < len(sends)-1 {
			again = len(sends) - first - 1
			for _, ask := range c.asks[pair] {
				if again > 0 && ask.At.After(sends[first].Arrived) {
					again--
				}
			}
			c.report.Resent += again
			// A second send that the receiver refuses is retried like any other.
			for _, s := range sends[first+1 : len(sends)-1] {
				if again > 0 && !success(s) {
					again--
				}
			}
		}
		if again > len(explained) {
			c.find(Dup, pair.Message, "%s went to endpoint %d %d times after its success; faults explain %d",
				pair.Message, pair.Endpoint, again, len(explained))
			continue
		}
		for _, fault := range explained[:again] {
			blamed[fault]++
		}
	}
	for i, fault := range c.faults {
		bound := mostAtOnce(caught[i], fault)
		c.report.Bound += bound
		if blamed[i] > bound {
			c.find(Dup, "", "%s at %s led to %d sends more, but at most %d were under way at once",
				fault.What, fault.At.Format(time.RFC3339Nano), blamed[i], bound)
		}
	}
}

// mostAtOnce is the largest number of sends that were under way at one moment of a fault.
func mostAtOnce(sends []send, f Fault) int {
	type edge struct {
		at   time.Time
		step int
	}
	var edges []edge
	for _, s := range sends {
		from := s.from
		if from.Before(f.At) {
			from = f.At
		}
		edges = append(edges, edge{from, 1}, edge{s.until, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if order := a.at.Compare(b.at); order != 0 {
			return order
		}
		return b.step - a.step
	})
	now, most := 0, 0
	for _, e := range edges {
		now += e.step
		most = max(most, now)
	}
	return most
}

// attempts: every request has its attempt row and every row its request; a recorded success is one.
func (c *checker) attempts() {
	for pair, sends := range c.sends {
		rows := 0
		for _, row := range c.rows[pair] {
			if row.Sent {
				rows++
			}
		}
		missing := len(sends) - rows
		if missing <= 0 {
			continue
		}
		bound := 0
		for _, s := range sends {
			if c.catcher(s, unlogged) >= 0 {
				bound++
			}
		}
		c.report.Unlogged += min(missing, bound)
		if missing > bound {
			c.find(Silent, pair.Message, "%s went to endpoint %d %d times, but %d attempts are recorded; faults explain %d",
				pair.Message, pair.Endpoint, len(sends), rows, bound)
		}
	}
	for pair, rows := range c.rows {
		sent := 0
		for _, row := range rows {
			if row.Sent && (row.Success || !c.unseen(pair)) {
				sent++
			}
			if row.Success && !slices.ContainsFunc(c.sends[pair], success) {
				c.find(FalseOK, pair.Message, "%s is recorded as delivered to endpoint %d, which never answered 2xx", pair.Message, pair.Endpoint)
			}
		}
		if sent > len(c.sends[pair])+c.unsent(rows) {
			c.find(Silent, pair.Message, "%s has %d attempts recorded at endpoint %d, which saw %d", pair.Message, sent, pair.Endpoint, len(c.sends[pair]))
		}
	}
}

// unseen reports whether what fails at an endpoint may not have reached the sink.
func (c *checker) unseen(pair Pair) bool {
	return pair.Endpoint >= 0 && c.run.Endpoints[pair.Endpoint].Unseen
}

// unsent is how many attempts a fault may have kept from reaching anybody: they began before it, failed,
// and were recorded after it.
func (c *checker) unsent(rows []Row) (n int) {
	for _, row := range rows {
		if row.Sent && !row.Success && slices.ContainsFunc(c.faults, func(f Fault) bool {
			return f.Unsent && !row.Started.After(f.Until) && !row.Recorded.Before(f.At)
		}) {
			n++
		}
	}
	return n
}

func (c *checker) leftOver() {
	for _, pair := range c.run.Owed {
		c.find(Stuck, pair.Message, "%s is still owed to endpoint %d", pair.Message, pair.Endpoint)
	}
}

// api: during a fault the API may be unavailable, but says so quickly, and never fails otherwise.
func (c *checker) api() {
	for _, try := range c.run.Tries {
		switch {
		case try.Timeout:
			c.find(API, "", "message %d: no answer within %v", try.Seq, try.Took.Round(time.Millisecond))
		case try.Status == 0:
			c.report.Broken++
			if !c.run.Rules.BrokenConnections {
				c.find(API, "", "message %d: the connection broke, though no API process was hurt", try.Seq)
			}
		case try.Status/100 == 2:
		case try.Status == 429 || try.Status == 503:
			c.report.Unavail++
			if !c.run.Rules.Unavailable {
				c.find(API, "", "message %d: answered %d, though nothing it needs was hurt", try.Seq, try.Status)
			}
			if try.Took > unavailableLimit+schedulingSlack {
				c.find(API, "", "message %d: took %v to answer %d", try.Seq, try.Took.Round(time.Millisecond), try.Status)
			}
		default:
			c.find(API, "", "message %d: answered %d", try.Seq, try.Status)
		}
	}
}

// order: at an ordered endpoint, whatever was accepted before a message was posted is taken before it. Of
// messages that were posted at the same time either may be first.
func (c *checker) order() {
	type success struct {
		*Message
		at time.Time
	}
	taken := make(map[int][]success)
	for i := range c.run.Messages {
		m := &c.run.Messages[i]
		if m.Outcome != Accepted {
			continue
		}
		for _, endpoint := range m.Endpoints {
			if !c.run.Endpoints[endpoint].Ordered {
				continue
			}
			sends := c.sends[Pair{m.IDs[0], endpoint}]
			if first := slices.IndexFunc(sends, func(s send) bool { return s.Status/100 == 2 }); first >= 0 {
				taken[endpoint] = append(taken[endpoint], success{m, sends[first].Arrived})
			}
		}
	}
	for endpoint, list := range taken {
		slices.SortFunc(list, func(a, b success) int { return a.at.Compare(b.at) })
		c.report.Ordered += len(list)
		newest := list[0]
		for _, s := range list {
			if s.Answered.Before(newest.Posted) {
				c.find(Order, s.IDs[0], "endpoint %d took %s before %s, which had been accepted %v before the other was posted",
					endpoint, newest.IDs[0], s.IDs[0], newest.Posted.Sub(s.Answered).Round(time.Millisecond))
			}
			if s.Posted.After(newest.Posted) {
				newest = s
			}
		}
	}
}
