package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
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

// dialPlain is the transport's dial for http.
func (d *dialer) dialPlain(ctx context.Context, _, hostport string) (net.Conn, error) {
	ctx, f, done, err := d.begin(ctx)
	if err != nil {
		return nil, &dialError{phaseConnect, err}
	}
	defer done()
	host, port, err := splitDialled(hostport)
	if err != nil {
		return nil, &dialError{phaseConnect, err}
	}
	c, err := d.dial(ctx, f, host, port)
	if err != nil {
		return nil, err // not c, which would be an interface that is not nil
	}
	return c, nil
}

// dialTLS is the transport's dial for https. The handshake is done here rather than by the transport
// so that the send's deadline ends it.
func (d *dialer) dialTLS(ctx context.Context, _, hostport string) (net.Conn, error) {
	ctx, f, done, err := d.begin(ctx)
	if err != nil {
		return nil, &dialError{phaseConnect, err}
	}
	defer done()
	host, port, err := splitDialled(hostport)
	if err != nil {
		return nil, &dialError{phaseConnect, err}
	}
	c, err := d.dial(ctx, f, host, port)
	if err != nil {
		return nil, err
	}

	f.enter(phaseTLS)
	config := d.tls.Clone()
	config.ServerName = host
	secure := tls.Client(c, config)
	start := time.Now()
	handshake, cancel := context.WithTimeout(ctx, maxHandshake)
	defer cancel()
	err = secure.HandshakeContext(handshake)
	c.setup.tls = time.Since(start)
	f.spent(c.setup)
	if err != nil {
		_ = c.Close()
		return nil, &dialError{phaseTLS, err}
	}
	return secure, nil
}

// begin registers a dial. The transport detaches a dial's context from the send that asked for it, so
// the send's deadline and the client's end are put back.
func (d *dialer) begin(ctx context.Context) (context.Context, *flight, func(), error) {
	f := flightOf(ctx)
	if f == nil {
		return nil, nil, nil, errors.New("egress: dial outside a send")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, nil, nil, errClosed
	}
	ctx, expire := context.WithDeadline(ctx, f.deadline)
	ctx, cancel := context.WithCancelCause(ctx)
	d.cancel[&cancel] = struct{}{}
	d.dials.Add(1)
	return ctx, f, func() {
		cancel(nil)
		expire()
		d.mu.Lock()
		delete(d.cancel, &cancel)
		d.mu.Unlock()
		d.dials.Done()
	}, nil
}

func splitDialled(hostport string) (string, uint16, error) {
	host, text, err := net.SplitHostPort(hostport)
	if err != nil {
		return "", 0, fmt.Errorf("split address to dial: %w", err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("read port to dial: %w", err)
	}
	return host, uint16(port), nil
}

// dial resolves, judges and connects.
func (d *dialer) dial(ctx context.Context, f *flight, host string, port uint16) (*conn, error) {
	f.enter(phaseDNS)
	start := time.Now()
	addrs, err := d.resolve(ctx, host)
	took := setup{dns: time.Since(start)}
	if _, literal := netip.ParseAddr(host); literal == nil {
		took.dns = 0
	}
	f.spent(took)
	if err != nil {
		return nil, &dialError{phaseDNS, err}
	}
	// Refused before anything is dialled, so that neither the answer nor its timing tells whether
	// something listens there. control below judges again what is dialled in the end.
	targets := d.allowed(addrs, port, f.ownOpen)
	if len(targets) == 0 {
		return nil, &dialError{phaseConnect, errBlocked}
	}

	f.enter(phaseConnect)
	start = time.Now()
	socket, err := d.race(ctx, targets)
	took.connect = time.Since(start)
	f.spent(took)
	if err != nil {
		return nil, &dialError{phaseConnect, err}
	}
	return d.adopt(socket, took)
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
	f := flightOf(ctx)
	if !d.allows(netip.AddrPortFrom(plain(target.Addr()), target.Port()), f != nil && f.ownOpen) {
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
func (d *dialer) adopt(socket net.Conn, took setup) (*conn, error) {
	c := &conn{Conn: socket, setup: took}
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
