package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// phase is how far a send has come.
type phase uint8

const (
	phaseWait    phase = iota // for a connection, before anything is looked up
	phaseDNS                  // name lookup
	phaseConnect              // TCP
	phaseTLS                  // handshake
	phaseAnswer               // request being written, answer awaited
	phaseBody                 // headers are here, the body is not
)

// Timings are the phases of a send. A phase that did not take place, because the connection was kept
// or the send failed before, is 0.
type Timings struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from the request written to the first byte of the answer
	Read      time.Duration // from there to the end of what is read
	Total     time.Duration
}

// flight is what is observed of one send. The transport dials in goroutines of its own that may
// outlive the send (the connection then serves the next one), so everything is behind the mutex.
type flight struct {
	deadline time.Time // the dial's too, which the transport detaches from the send's context
	ownOpen  bool      // may connect to our own listeners

	mu        sync.Mutex
	phase     phase
	setup     setup // of this send's own dial
	reused    bool
	over      *conn // the connection that carried the request
	wrote     time.Time
	firstByte time.Time
}

// setup is how long the steps of making a connection took.
type setup struct{ dns, connect, tls time.Duration }

type flightKey struct{}

func flightOf(ctx context.Context) *flight {
	f, _ := ctx.Value(flightKey{}).(*flight)
	return f
}

// observed is a context in which the transport tells f what it does. No Got1xxResponse hook may be
// added: with it the transport counts the header budget anew for every 1xx, and they never end.
func (f *flight) observed(ctx context.Context) context.Context {
	ctx = context.WithValue(ctx, flightKey{}, f)
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn:              f.gotConn,
		WroteRequest:         f.wroteRequest,
		GotFirstResponseByte: f.gotFirstByte,
	})
}

// enter notes a phase. Phases only go forward: the send's own dial may still be shaking hands when
// another connection became free and carries the request.
func (f *flight) enter(p phase) {
	f.mu.Lock()
	f.phase = max(f.phase, p)
	f.mu.Unlock()
}

// spent notes what a finished or failed step of the send's own dial took.
func (f *flight) spent(s setup) {
	f.mu.Lock()
	if f.phase < phaseAnswer {
		f.setup = s
	}
	f.mu.Unlock()
}

func (f *flight) gotConn(info httptrace.GotConnInfo) {
	var own *conn
	switch c := info.Conn.(type) {
	case *conn:
		own = c
	case *tls.Conn:
		own, _ = c.NetConn().(*conn)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.phase, f.reused, f.setup = phaseAnswer, info.Reused, setup{}
	if own == nil { // cannot be: every connection is made by our dialer
		return
	}
	f.over = own
	if !info.Reused {
		f.setup = own.setup
	}
}

func (f *flight) wroteRequest(httptrace.WroteRequestInfo) {
	f.mu.Lock()
	f.wrote = time.Now()
	f.mu.Unlock()
}

func (f *flight) gotFirstByte() {
	f.mu.Lock()
	f.firstByte = time.Now()
	f.mu.Unlock()
}

// report copies what is known into a result that ends at now, and says how far it came.
func (f *flight) report(res *Result, now time.Time) progress {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := progress{at: f.phase, reused: f.reused}
	res.Reused = f.reused
	if f.over != nil {
		res.RemoteAddr = f.over.remote
		p.ended = f.over.ended.Load()
	}
	res.Timings = Timings{DNS: f.setup.dns, Connect: f.setup.connect, TLS: f.setup.tls, Total: now.Sub(res.Start)}
	if !f.firstByte.IsZero() {
		res.Timings.Read = now.Sub(f.firstByte)
		// A receiver may answer before it has the whole request.
		if !f.wrote.IsZero() && f.firstByte.After(f.wrote) {
			res.Timings.FirstByte = f.firstByte.Sub(f.wrote)
		}
	}
	return p
}

// progress is how far a send has come.
type progress struct {
	at     phase
	reused bool // over a kept connection
	ended  bool // the receiver has ended the connection
}

// conn is a connection that knows how it was made, and can be found when the client closes.
type conn struct {
	net.Conn
	setup  setup // written before the transport gets the connection
	remote netip.AddrPort
	ended  atomic.Bool
	forget func()
	once   sync.Once
}

// Read reads, and notes the end: without it a header that was cut off in the middle looks malformed.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF || errors.Is(err, syscall.ECONNRESET) {
		c.ended.Store(true)
	}
	return n, err
}

// Close closes the connection.
func (c *conn) Close() error {
	c.once.Do(c.forget)
	return c.Conn.Close()
}
