package ledger

import (
	"slices"
	"time"
)

const (
	// sendMargin is how long before its arrival at the sink, and after the commit of its result, a
	// request counts as under way: what separates the product's view of these moments from ours.
	sendMargin = 20 * time.Millisecond
	// deathLag is how much later than a process's death the sink may see its connections end.
	deathLag = 500 * time.Millisecond
)

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
