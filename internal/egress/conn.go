package egress

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// origin is what connections are kept for.
type origin struct {
	secure bool
	host   string // a name, or an address without brackets
	port   uint16
}

// setup is how long the steps of making a connection took.
type setup struct{ dns, connect, tls time.Duration }

// conn is a connection that can be kept, asked whether it is still good, and found when the client
// closes. Requests are spoken through stream. One goroutine at a time has it, or the pool.
type conn struct {
	net.Conn // the socket
	stream   net.Conn
	raw      syscall.RawConn // of the socket; nil if it has none
	remote   netip.AddrPort

	tlsVersion uint16
	certExpiry time.Time

	// asking is set while alive asks: Read then takes what is there and does not wait.
	asking bool
	asked  func(fd uintptr) bool // made once, because every send asks
	heard  error                 // what asked came to

	// Of the pool.
	host         *host
	generation   uint64
	retires      time.Time // not used after it
	since        time.Time // idle
	older, newer *conn     // among all that are idle

	forget func()
	once   sync.Once
}

func newConn(socket net.Conn) *conn {
	c := &conn{Conn: socket}
	c.stream = c.Conn
	if addr, ok := socket.RemoteAddr().(*net.TCPAddr); ok {
		at := addr.AddrPort()
		c.remote = netip.AddrPortFrom(plain(at.Addr()), at.Port())
	}
	if s, ok := socket.(syscall.Conn); ok {
		c.raw, _ = s.SyscallConn()
	}
	c.asked = func(fd uintptr) bool { c.heard = listen(fd); return true }
	return c
}

// secured makes a connection speak through TLS.
func (c *conn) secured(stream *tls.Conn) {
	c.stream = stream
	state := stream.ConnectionState()
	c.tlsVersion = state.Version
	if len(state.PeerCertificates) > 0 {
		c.certExpiry = state.PeerCertificates[0].NotAfter
	}
}

// errUnasked is the end of a kept connection on which the receiver said something by itself.
var errUnasked = errors.New("egress: unsolicited bytes")

// errSilent says that nothing came in. TLS takes it for a passing error, because it is a timeout.
var errSilent net.Error = silent{}

type silent struct{}

func (silent) Error() string   { return "egress: nothing came in" }
func (silent) Timeout() bool   { return true }
func (silent) Temporary() bool { return true }

// alive reports whether a kept connection may carry another request: it has not ended, and nothing came
// in since the last answer, be it on the socket or left over in TLS. Its deadline must lie ahead.
func (c *conn) alive() bool {
	if c.stream == c.Conn {
		return c.ask() == errSilent
	}
	c.asking = true
	defer func() { c.asking = false }()
	_, err := c.stream.Read(make([]byte, 1))
	return err == errSilent
}

// ask looks at the socket without waiting. Where that is not possible, a dead connection is found out
// by the request that is sent over it, and fails.
func (c *conn) ask() error {
	if c.raw == nil {
		return errSilent
	}
	if err := c.raw.Read(c.asked); err != nil {
		return io.EOF // closed, or its deadline has passed
	}
	return c.heard
}

// Read reads from the socket; it is what TLS reads through.
func (c *conn) Read(p []byte) (int, error) {
	if c.asking {
		return 0, c.ask()
	}
	return c.Conn.Read(p)
}

// Close closes the connection at once, whatever is under way on it.
func (c *conn) Close() error {
	c.once.Do(c.forget)
	return c.Conn.Close()
}

// leave closes an idle connection, in TLS with a word of farewell. That may wait for the receiver to
// take it, so it is not for the way of a send.
func (c *conn) leave() {
	if c.stream != c.Conn {
		_ = c.stream.Close()
	}
	_ = c.Close()
}
