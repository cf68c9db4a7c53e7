package chaos

import (
	"context"
	"net"
	"slices"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// sleepyGuests is how many guests there are, of which one sleeps.
	sleepyGuests = 50
	// sleeps is how long it does, unless the sender has enough of it before.
	sleeps = 30 * time.Second
)

// sleepy are receivers of which one keeps every request waiting.
func sleepy() []*manner {
	list := []*manner{{
		name: "attempt timed out", classes: []webhook.ErrorClass{webhook.ClassTimeoutHeaders},
		least: bombTimeout - timeoutSlack, most: bombTimeout + timeoutSlack,
		answer: func(conn net.Conn) {
			if conn.SetReadDeadline(time.Now().Add(sleeps)) == nil {
				untilClosed(conn)
			}
		},
	}}
	for len(list) < sleepyGuests {
		list = append(list, &manner{name: "others taken"})
	}
	return list
}

// judgeSleep looks, besides what every guest is judged by, at how many requests the one that sleeps had
// at the same time.
func judgeSleep(s *stage, run ledger.Run) {
	judgeGuests(s, run)
	busiest := s.sink.busiest[tenants*endpointsPerTenant]
	s.note("the one that sleeps had %d requests at once", busiest)
	if most := s.fault.atOnce; most > 0 && busiest > most {
		s.found(ledger.Slow, "the one that sleeps had %d requests at once; at most %d are allowed", busiest, most)
	}
}

const (
	// downFor is how long no receiver takes anything. The fault's schedule outlasts it.
	downFor     = 20 * time.Second
	downRetries = "1s,2s,4s,8s,16s"
	downRate    = 100
	// downBefore is how long everything goes well before.
	downBefore = 4 * time.Second
	// upFor is the time afterwards that is looked at.
	upFor = 15 * time.Second
	// peakMost is how many times the mean of that time the requests of its busiest second may be.
	peakMost = 3
	// drainMost is how long what has gathered may take to be delivered.
	drainMost = 60 * time.Second
)

// takeDown has every receiver refuse everything for a while.
func takeDown(ctx context.Context, s *stage) error {
	if err := rig.Pause(ctx, downBefore); err != nil {
		return err
	}
	s.trouble[0] = time.Now()
	refused := s.sink.refuseAll(100)
	err := rig.Pause(ctx, downFor)
	s.trouble[1] = time.Now()
	s.sink.refuseAll(0)
	if err != nil {
		return err
	}
	s.bits("receiver down", refused)
	return rig.Pause(ctx, upFor)
}

// refuseAll makes all receivers refuse so many per cent from now on, and returns how many there are.
func (s *sink) refuseAll(percent int32) (receivers int) {
	for _, r := range s.receivers {
		if r.refuses != nil {
			r.refuses.Store(percent)
			receivers++
		}
	}
	return receivers
}

// judgeReturn judges by what the sink saw: retries may not come all at once when the receivers are back,
// and what has gathered has to be delivered soon.
func judgeReturn(s *stage, run ledger.Run) {
	up := s.trouble[1]
	var arrivals []time.Time
	refused := 0
	for _, record := range run.Records {
		if record.Arrived.After(up) && record.Arrived.Before(up.Add(upFor)) {
			arrivals = append(arrivals, record.Arrived)
		}
		if record.Status/100 == 5 && record.Arrived.After(s.trouble[0]) && record.Arrived.Before(up) {
			refused++
		}
	}
	s.bits("request refused", refused)
	peak := busiestSecond(arrivals)
	mean := float64(len(arrivals)) / upFor.Seconds()
	s.note("%d requests refused; then %d in the busiest second, %.0f on average", refused, peak, mean)
	if s.options.Timed && float64(peak) > peakMost*mean {
		s.found(ledger.Slow, "%d requests came in one second, and %.0f on average; at most %d times that are allowed", peak, mean, peakMost)
	}
	drained := s.drained(run)
	s.note("what had gathered was delivered in %v", drained.Round(10*time.Millisecond))
	if s.options.Timed && drained > drainMost {
		s.found(ledger.Slow, "what had gathered was delivered in %v; at most %v are allowed", drained, drainMost)
	}
}

// drained is how long after the receivers' return the last delivery of what was posted before arrived.
func (s *stage) drained(run ledger.Run) time.Duration {
	before := make(map[int]bool)
	for _, m := range run.Messages {
		before[m.Seq] = m.Posted.Before(s.trouble[1])
	}
	last := s.trouble[1]
	for _, record := range run.Records {
		if before[record.Seq] && record.Status/100 == 2 && record.Arrived.After(last) {
			last = record.Arrived
		}
	}
	return last.Sub(s.trouble[1])
}

// busiestSecond is how many moments at most lie within a second.
func busiestSecond(moments []time.Time) (most int) {
	slices.SortFunc(moments, time.Time.Compare)
	first := 0
	for i, at := range moments {
		for at.Sub(moments[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}
