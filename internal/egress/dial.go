package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of making a connection.
const (
	maxLookup      = 5 * time.Second // for all answers to a name
	maxConnect     = 10 * time.Second
	maxHandshake   = 10 * time.Second
	maxAddresses   = 8                      // tried of a name's answer, however long it is
	connectStagger = 250 * time.Millisecond // before the next address is tried beside the last (RFC 8305)
)

// errBlocked is the refusal of an address. It carries no detail: what it would say ends up before the
// person who probes.
var errBlocked = errors.New("blocked address")

// errClosed is the end of everything under way when the client closes.
var errClosed = errors.New("egress: client closed")

// dialError is a failure to make a connection and the step that failed.
type dialError struct {
	at  phase
	err error
}

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// dialer makes the connections of a client. lookup and connect are fields so that the rule between
// them can be tested with every answer a resolver could give.
type dialer struct {
	policy  Policy
	lookup  func(ctx context.Context, host string) ([]netip.Addr, error)
	connect func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	tls     *tls.Config

	mu     sync.Mutex
	closed bool
	open   map[*conn]struct{}
	cancel map[*context.CancelCauseFunc]struct{} // dials under way
	dials  sync.WaitGroup
}

func newDialer(o Options) *dialer {
	d := &dialer{
		policy: o.Policy,
		tls: &tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    o.RootCAs,
			NextProtos: []string{"http/1.1"}, // a receiver that speaks HTTP/2 only then says so
		},
		open:   make(map[*conn]struct{}),
		cancel: make(map[*context.CancelCauseFunc]struct{}),
	}
	// The dial's own deadline is the tighter one, and idle connections are closed before a TCP
	// keep-alive would be due.
	sockets := &net.Dialer{Timeout: maxConnect, KeepAlive: -1, ControlContext: d.control}
	d.lookup = lookupWith(o.Resolver)
	d.connect = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		return sockets.DialContext(ctx, "tcp", addr.String())
	}
	return d
}

// fresh makes a connection to an origin. The setup says what the steps took, also of those that failed.
// The whole ends with ctx, which has the send's deadline.
func (d *dialer) fresh(ctx context.Context, to origin, ownOpen bool) (*conn, setup, error) {
	ctx, done, err := d.begin(ctx, ownOpen)
	if err != nil {
		return nil, setup{}, &dialError{phaseConnect, err}
	}
	defer done()
	c, took, err := d.dial(ctx, to, ownOpen)
	if err != nil || !to.secure {
		return c, took, err
	}

	config := d.tls.Clone()
	config.ServerName = to.host
	secure := tls.Client(c, config)
	start := time.Now()
	handshake, cancel := context.WithTimeout(ctx, maxHandshake)
	defer cancel()
	err = secure.HandshakeContext(handshake)
	took.tls = time.Since(start)
	if err != nil {
		_ = c.Close()
		return nil, took, &dialError{phaseTLS, err}
	}
	c.secured(secure)
	return c, took, nil
}

// ownOpenKey marks the context of a dial that may reach our own listeners.
type ownOpenKey struct{}

// begin registers a dial, so that the client's end is the dial's, too.
func (d *dialer) begin(ctx context.Context, ownOpen bool) (context.Context, func(), error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, errClosed
	}
	if ownOpen {
		ctx = context.WithValue(ctx, ownOpenKey{}, true)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	d.cancel[&cancel] = struct{}{}
	d.dials.Add(1)
	return ctx, func() {
		cancel(nil)
		d.mu.Lock()
		delete(d.cancel, &cancel)
		d.mu.Unlock()
		d.dials.Done()
	}, nil
}

// dial resolves, judges and connects.
func (d *dialer) dial(ctx context.Context, to origin, ownOpen bool) (_ *conn, took setup, _ error) {
	start := time.Now()
	addrs, err := d.resolve(ctx, to.host)
	if _, literal := netip.ParseAddr(to.host); literal != nil {
		took.dns = time.Since(start)
	}
	if err != nil {
		return nil, took, &dialError{phaseDNS, err}
	}
	// Refused before anything is dialled, so that neither the answer nor its timing tells whether
	// something listens there. control below judges again what is dialled in the end.
	targets := d.allowed(addrs, to.port, ownOpen)
	if len(targets) == 0 {
		return nil, took, &dialError{phaseConnect, errBlocked}
	}

	start = time.Now()
	socket, err := d.race(ctx, targets)
	took.connect = time.Since(start)
	if err != nil {
		return nil, took, &dialError{phaseConnect, err}
	}
	c, err := d.adopt(socket)
	return c, took, err
}

// resolve gives the addresses of a host, in the order to try them.
func (d *dialer) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	if len(d.policy.AllowNetworks) == 0 && !strings.HasSuffix(host, ".") {
		// A final dot keeps the resolver from trying the name inside the machine's own search domains,
		// where "billing.default" may be a neighbour. Whoever opened networks may want just that.
		host += "."
	}
	ctx, cancel := context.WithTimeout(ctx, maxLookup)
	defer cancel()
	return d.lookup(ctx, host)
}

// allowed is what of a name's addresses may be dialled, families taking turns so that one broken
// family does not use up the tries.
func (d *dialer) allowed(addrs []netip.Addr, port uint16, ownOpen bool) []netip.AddrPort {
	var first, second []netip.AddrPort
	for _, addr := range addrs {
		target := netip.AddrPortFrom(plain(addr), port)
		switch {
		case !d.allows(target, ownOpen):
		case len(first) == 0 || first[0].Addr().Is4() == target.Addr().Is4():
			first = append(first, target)
		default:
			second = append(second, target)
		}
	}
	var out []netip.AddrPort
	for i := 0; len(out) < maxAddresses && (i < len(first) || i < len(second)); i++ {
		if i < len(first) {
			out = append(out, first[i])
		}
		if i < len(second) && len(out) < maxAddresses {
			out = append(out, second[i])
		}
	}
	return out
}

func (d *dialer) allows(target netip.AddrPort, ownOpen bool) bool {
	return d.policy.AllowsAddr(target.Addr()) && d.policy.AllowsPort(target.Port()) &&
		(ownOpen || !d.policy.Own.listens(target, interfaceAddrs))
}

// control is the wall: it sees the address that the kernel is about to connect to, after all
// resolving, and there is no step after it. What it cannot read it refuses.
func (d *dialer) control(ctx context.Context, network, address string, _ syscall.RawConn) error {
	if network != "tcp4" && network != "tcp6" {
		return errBlocked
	}
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return errBlocked
	}
	ownOpen, _ := ctx.Value(ownOpenKey{}).(bool)
	if !d.allows(netip.AddrPortFrom(plain(target.Addr()), target.Port()), ownOpen) {
		return errBlocked
	}
	return nil
}

// race connects to the first address that answers. The next one is tried when the last has failed or
// kept us waiting; every try has ended when it returns.
func (d *dialer) race(ctx context.Context, targets []netip.AddrPort) (net.Conn, error) {
	if len(targets) == 1 {
		return d.connect(ctx, targets[0])
	}
	type outcome struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan outcome, len(targets))
	started, ended := 0, 0
	try := func() {
		target := targets[started]
		started++
		go func() {
			c, err := d.connect(ctx, target)
			results <- outcome{c, err}
		}()
	}
	stagger := time.NewTicker(connectStagger)
	defer stagger.Stop()

	var winner net.Conn
	var failure error
	for try(); ended < started; {
		more := winner == nil && started < len(targets)
		var next <-chan time.Time
		if more {
			next = stagger.C
		}
		select {
		case <-next:
			try()
		case r := <-results:
			ended++
			switch {
			case r.err == nil && winner == nil:
				winner = r.conn
				cancel()
			case r.err == nil:
				_ = r.conn.Close()
			default:
				// The first says most, being of the address the resolver liked best, but one about a
				// family of addresses that this machine has no way to says nothing.
				if failure == nil || isUnroutable(failure) {
					failure = r.err
				}
				if more {
					try()
					stagger.Reset(connectStagger)
				}
			}
		}
	}
	if winner != nil {
		return winner, nil
	}
	return nil, failure
}

// adopt registers a connection, unless the client closed meanwhile.
func (d *dialer) adopt(socket net.Conn) (*conn, error) {
	c := newConn(socket)
	if addr, ok := socket.RemoteAddr().(*net.TCPAddr); ok {
		at := addr.AddrPort()
		c.remote = netip.AddrPortFrom(plain(at.Addr()), at.Port())
	}
	c.forget = func() {
		d.mu.Lock()
		delete(d.open, c)
		d.mu.Unlock()
	}
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.open[c] = struct{}{}
	}
	d.mu.Unlock()
	if closed {
		_ = socket.Close()
		return nil, &dialError{phaseConnect, errClosed}
	}
	return c, nil
}

// close ends the dials under way, waits for them, and closes every connection.
func (d *dialer) close() {
	d.mu.Lock()
	d.closed = true
	for cancel := range d.cancel {
		(*cancel)(errClosed)
	}
	d.mu.Unlock()
	d.dials.Wait()

	d.mu.Lock()
	open := make([]*conn, 0, len(d.open))
	for c := range d.open {
		open = append(open, c)
	}
	d.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
}
