package chaos

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/internal/webhook"
)

// manner is how a guest, a receiver of a tenant of its own, misbehaves until it is mended.
type manner struct {
	name string // what it does; it has to have happened
	// answer is what it does in place of an answer; nil leaves it at that of other receivers. status is
	// what the sender may take it for; 0 = no whole answer.
	answer func(conn net.Conn)
	status int
	host   string // in its URL, in place of the sink's address
	slams  bool   // its connections are reset before anything is read
	hidden bool   // attempts may fail before they reach it
	// classes are what its attempts may fail of. The first has to be seen; none means that they succeed.
	classes []webhook.ErrorClass
	// least and most are how long an attempt takes that fails of the first; most = 0 leaves it open.
	least, most time.Duration
}

func (m *manner) unseen() bool { return m != nil && (m.hidden || m.slams) }

// harmless reports whether a guest behaves like others.
func (m *manner) harmless() bool { return m == nil || m.answer == nil && !m.unseen() }

// invitation is how messages are posted to a fault's guests.
type invitation struct {
	rate     float64
	messages int
	lasts    time.Duration // how long they go on misbehaving after the last message was posted
}

// guestFirst is the number of the first message to guests, above those of the load.
const guestFirst = 1 << 27

// invite makes the tenant of the guests, with one application.
func (s *stage) invite(ctx context.Context) error {
	from, err := s.tenant(ctx, tenants, len(s.fault.guests))
	if err != nil {
		return err
	}
	s.guests = &producer{
		apis: s.load.apis, senders: []sender{from}, name: s.load.name + "-guests", rate: s.fault.invitation.rate, copies: 1, seed: s.options.Seed,
		first: guestFirst, most: s.fault.invitation.messages, tenant: tenants, messages: make(map[int]*ledger.Message),
	}
	s.beside = append(s.beside, s.guests)
	return nil
}

// at is the host and port in a receiver's URL.
func (s *stage) at(r receiver) string {
	switch {
	case r.manner == nil:
		return s.address
	case r.manner.slams:
		return s.slamAddress
	case r.manner.host != "":
		_, port, _ := net.SplitHostPort(s.address) // of a listener of ours
		return net.JoinHostPort(r.manner.host, port)
	}
	return s.address
}

// slammer is a listener that resets connections before anything is read from them.
type slammer struct {
	net.Listener
	until *atomic.Bool  // then it lets them pass
	count *atomic.Int64 // of those that it reset
}

// Accept returns the next connection that is let pass.
func (l slammer) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || l.until.Load() {
			return conn, err
		}
		l.count.Add(1)
		rig.Reset(conn)
	}
}

// misbehave posts messages to the guests and mends them after a while.
func misbehave(ctx context.Context, s *stage) error {
	return s.whileGuests(ctx, func() error { return nil })
}

// whileGuests posts messages to the guests, does something more, and mends them after a while.
func (s *stage) whileGuests(ctx context.Context, more func() error) error {
	if err := s.until(ctx, strikeFrom); err != nil {
		return err
	}
	s.trouble[0] = time.Now()
	s.guests.run(ctx, nil)
	if err := more(); err != nil {
		return err
	}
	if err := rig.Pause(ctx, s.fault.invitation.lasts); err != nil {
		return err
	}
	s.trouble[1] = time.Now()
	s.sink.mended.Store(true)
	return nil
}

// othersWithin is the p99 from posting to arrival of what others are sent while guests misbehave.
const othersWithin = time.Second

// judgeGuests compares the attempts recorded for the guests with what they did, and looks at how the
// others fared meanwhile.
func judgeGuests(s *stage, run ledger.Run) {
	slammed := 0
	for _, row := range run.Rows {
		if row.Pair.Endpoint < 0 {
			continue
		}
		m := s.sink.receivers[row.Pair.Endpoint].manner
		if m == nil {
			continue
		}
		if row.Kept > webhook.MaxKeptResponse {
			s.found(ledger.Class, "%s: %d bytes of an answer were kept", m.name, row.Kept)
		}
		if row.Sent && !row.Success && m.slams {
			slammed++
		}
		s.judgeRow(m, row)
	}
	if n := int(s.sink.slammed.Load()); n != slammed {
		s.found(ledger.Silent, "%d connections were reset at once, but %d attempts are recorded", n, slammed)
	}
	s.judgeOthers(run)
}

// judgeRow judges one attempt at a guest.
func (s *stage) judgeRow(m *manner, row ledger.Row) {
	class := webhook.ErrorClass(row.Class)
	switch {
	case row.Success:
		if len(m.classes) == 0 {
			s.bit(m.name)
		}
	case !slices.Contains(m.classes, class):
		s.found(ledger.Class, "%s: an attempt failed of %q, which is none of %q", m.name, class, m.classes)
	case class != m.classes[0]:
		s.bit("class " + row.Class)
	default:
		s.bit(m.name)
		if s.options.Timed && m.most > 0 && (row.Took < m.least || row.Took > m.most) {
			s.found(ledger.Class, "%s: an attempt took %v, not %v to %v", m.name, row.Took, m.least, m.most)
		}
	}
}

// judgeOthers judges how soon others were sent what was posted for them meanwhile.
func (s *stage) judgeOthers(run ledger.Run) {
	during := slices.DeleteFunc(slices.Clone(run.Messages), func(m ledger.Message) bool {
		return m.Posted.Before(s.trouble[0]) || m.Posted.After(s.trouble[1])
	})
	p99, n := ledger.P99(during, run.Records, run.Endpoints)
	s.note("p99 of %d deliveries to others meanwhile %v", n, p99.Round(100*time.Microsecond))
	if n == 0 {
		s.found(ledger.Bite, "nothing was sent to others meanwhile")
	}
	if s.options.Timed && p99 > othersWithin {
		s.found(ledger.Slow, "p99 from posting to arrival was %v for others; at most %v is allowed", p99, othersWithin)
	}
}

// guestNames are what has to have happened at the guests.
func (f Fault) guestNames() []string {
	names := make([]string, len(f.guests))
	for i, m := range f.guests {
		names[i] = m.name
	}
	return slices.Compact(names)
}

// misbehave lets a guest deal with a request, and counts how many it has at the same time.
func (s *sink) misbehave(number int, conn net.Conn, m *manner) {
	s.mu.Lock()
	s.busy[number]++
	s.busiest[number] = max(s.busiest[number], s.busy[number])
	s.mu.Unlock()
	m.answer(conn)
	s.mu.Lock()
	s.busy[number]--
	s.mu.Unlock()
}

// listen opens what the sink listens on.
func (s *stage) listen() (listeners []net.Listener, err error) {
	for _, address := range []*string{&s.address, &s.slamAddress} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			for _, open := range listeners {
				_ = open.Close()
			}
			return nil, fmt.Errorf("start the sink: %w", err)
		}
		*address = listener.Addr().String()
		listeners = append(listeners, listener)
	}
	listeners[1] = slammer{listeners[1], &s.sink.mended, &s.sink.slammed}
	return listeners, nil
}
