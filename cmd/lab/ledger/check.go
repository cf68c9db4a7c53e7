package ledger

import (
	"fmt"
	"slices"
	"time"
)

const (
	// unavailableLimit is how fast the API has to say that it is unavailable.
	unavailableLimit = 2 * time.Second
	// schedulingSlack is what a busy two-core machine may add to unavailableLimit.
	schedulingSlack = time.Second
)

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
