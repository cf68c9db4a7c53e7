package egress

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// isPublicBySpelling says the same as the guard in another way (numbers rather than prefixes), so that
// a slip in the table does not vouch for itself.
func isPublicBySpelling(addr netip.Addr) bool {
	addr = addr.WithZone("")
	b := addr.As16()
	if addr.Is6() && !addr.Is4In6() {
		high := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
		switch {
		case high == 0x0064ff9b && [8]byte(b[4:12]) == [8]byte{}, high == 0x0064ff9b && [8]byte(b[4:12]) == [8]byte{0, 1}:
			return isPublicBySpelling(netip.AddrFrom4([4]byte(b[12:])))
		case high>>29 != 1: // not 001…
			return false
		case high>>9 == 0x20010000>>9, high == 0x20010db8, high>>16 == 0x2002, high>>12 == 0x3fff0000>>12:
			return false
		case high == 0x2620004f && b[4] == 0x80 && b[5] == 0:
			return false
		}
		return true
	}
	v4 := addr.Unmap().As4()
	a, second, third := v4[0], v4[1], v4[2]
	switch {
	case a == 0, a == 10, a == 127, a >= 224:
		return false
	case a == 100 && second >= 64 && second < 128, a == 169 && second == 254, a == 172 && second >= 16 && second < 32:
		return false
	case a == 192 && second == 168, a == 198 && (second == 18 || second == 19):
		return false
	case a == 192 && second == 0 && (third == 0 || third == 2), a == 192 && second == 88 && third == 99:
		return false
	case a == 192 && second == 31 && third == 196, a == 192 && second == 52 && third == 193, a == 192 && second == 175 && third == 48:
		return false
	case a == 198 && second == 51 && third == 100, a == 203 && second == 0 && third == 113:
		return false
	case v4 == [4]byte{168, 63, 129, 16}:
		return false
	}
	return true
}

// recorder stands where the sockets are: it notes what would be dialled and lets nothing out.
type recorder struct {
	mu     sync.Mutex
	dialed []netip.AddrPort
	allow  func(netip.AddrPort) bool // what may go on to the real connect
	next   func(context.Context, netip.AddrPort) (net.Conn, error)
}

func record(c *Client) *recorder {
	r := &recorder{next: c.dialer.connect, allow: func(netip.AddrPort) bool { return false }}
	c.dialer.connect = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		r.mu.Lock()
		r.dialed = append(r.dialed, addr)
		r.mu.Unlock()
		if r.allow(addr) {
			return r.next(ctx, addr)
		}
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return r
}

func (r *recorder) seen() []netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.dialed)
}

// TestRebindingName: the same name is public when it is first asked for and private the next time.
func TestRebindingName(t *testing.T) {
	t.Parallel()
	canary := newSink(t, answering(okAnswer))
	var asked atomic.Int64
	resolver := nameServer(t, func(string) ([]netip.Addr, bool) {
		if asked.Load() == 0 {
			return []netip.Addr{netip.MustParseAddr("93.184.216.34")}, true
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, true
	})
	c := newClient(t, Options{Policy: Policy{AllowHTTP: true}, Resolver: resolver})
	r := record(c)
	url := "http://rebind.example.com:" + canary.Port + "/"

	if res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")}); res.Class != webhook.ClassRefused {
		t.Errorf("public answer: %s (%s)", res.Class, res.Error)
	}
	asked.Store(1)
	for range 3 {
		res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")})
		if res.Class != webhook.ClassBlockedAddress || res.Error != "blocked address" || res.RemoteAddr.IsValid() {
			t.Errorf("private answer: %s (%s) %v", res.Class, res.Error, res.RemoteAddr)
		}
	}
	want := []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("93.184.216.34"), canary.Addr.Port())}
	if got := r.seen(); !slices.Equal(got, want) {
		t.Errorf("dialled %v, want %v", got, want)
	}
	if n := canary.connections(); n != 0 {
		t.Errorf("%d connections to the private address", n)
	}
}

// TestWallHoldsAlone takes away everything before the dial: a plain dialer that resolves for itself
// still cannot get past control.
func TestWallHoldsAlone(t *testing.T) {
	t.Parallel()
	canary := newSink(t, answering(okAnswer))
	c := newClient(t, Options{Policy: Policy{AllowHTTP: true}})
	bare := net.Dialer{ControlContext: c.dialer.control, Resolver: nameServer(t, everyNameIs("127.0.0.1", "::1"))}
	for _, address := range []string{
		"rebind.example.com:" + canary.Port, "127.0.0.1:" + canary.Port, "[::1]:" + canary.Port, "[::]:" + canary.Port,
		"0.0.0.0:" + canary.Port, ":" + canary.Port, "[::ffff:127.0.0.1]:" + canary.Port, "[fe80::1%lo]:" + canary.Port,
		"169.254.169.254:80", "[64:ff9b::7f00:1]:80",
	} {
		socket, err := bare.DialContext(t.Context(), "tcp", address)
		if err == nil {
			_ = socket.Close()
		}
		if !errors.Is(err, errBlocked) {
			t.Errorf("dial %s: %v, want it blocked", address, err)
		}
	}
	if n := canary.connections(); n != 0 {
		t.Errorf("%d connections to refused addresses", n)
	}
}

func TestWallRefusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	for _, row := range [][2]string{
		{"tcp4", ""}, {"tcp4", "127.0.0.1"}, {"tcp4", "example.com:443"}, {"tcp4", "8.8.8.8"}, {"tcp4", "8.8.8.8:"},
		{"tcp4", "8.8.8.8:http"}, {"tcp4", "8.8.8.8:0"}, {"tcp4", "8.8.8.8:25"}, {"tcp6", "[::1%lo]:443"}, {"tcp6", "[::"},
		{"tcp6", "2606:4700:4700::1111:443:"}, {"udp4", "8.8.8.8:443"}, {"unix", "/tmp/socket"}, {"", ""}, {"tcp4", "8.8.8.8:99999"},
	} {
		if err := c.dialer.control(t.Context(), row[0], row[1], nil); !errors.Is(err, errBlocked) {
			t.Errorf("control(%q, %q) = %v", row[0], row[1], err)
		}
	}
	for _, row := range [][2]string{{"tcp4", "8.8.8.8:443"}, {"tcp6", "[2606:4700:4700::1111]:443"}, {"tcp6", "[2606:4700:4700::1111%eth0]:443"}} {
		if err := c.dialer.control(t.Context(), row[0], row[1], nil); err != nil {
			t.Errorf("control(%q, %q) = %v", row[0], row[1], err)
		}
	}
}

// TestMixedAnswer: of an answer with public and private addresses only the public ones are dialled,
// at most maxAddresses of them, families in turn.
func TestMixedAnswer(t *testing.T) {
	t.Parallel()
	answer := []string{"10.0.0.1", "127.0.0.1", "::1", "fd00::1", "169.254.169.254"}
	for i := range 20 {
		answer = append(answer, netip.AddrFrom4([4]byte{93, 184, 216, byte(i + 1)}).String())
	}
	answer = append(answer, "2606:4700::1", "2606:4700::2")
	c := newClient(t, Options{Policy: Policy{AllowHTTP: true}, Resolver: nameServer(t, everyNameIs(answer...))})
	r := record(c)
	res := c.Send(t.Context(), Request{URL: "http://mixed.example.com/", Body: []byte("{}")})
	if res.Class != webhook.ClassRefused {
		t.Errorf("class %s (%s)", res.Class, res.Error)
	}
	dialed := r.seen()
	v6 := 0
	for _, addr := range dialed {
		if !isPublicBySpelling(addr.Addr()) {
			t.Errorf("dialled %s", addr)
		}
		if addr.Addr().Is6() {
			v6++
		}
	}
	if len(dialed) != maxAddresses || v6 != 2 {
		t.Errorf("dialled %d addresses, %d of them IPv6: %v", len(dialed), v6, dialed)
	}
}

// TestSecondAddressIsUsed: a name's dead address does not fail the send.
func TestSecondAddressIsUsed(t *testing.T) {
	t.Parallel()
	s := newSink(t, answering(okAnswer))
	c := newClient(t, Options{Policy: loopback(), Resolver: nameServer(t, everyNameIs("127.0.0.9", "127.0.0.1"))})
	res := c.Send(t.Context(), Request{URL: "http://two.example.com:" + s.Port, Body: []byte("{}")})
	if !res.OK() || res.RemoteAddr != s.Addr {
		t.Errorf("%s (%s), over %s", res.Class, res.Error, res.RemoteAddr)
	}
}

// TestSilentAddressIsOvertaken: while the first address keeps silent, the second is tried beside it.
func TestSilentAddressIsOvertaken(t *testing.T) {
	t.Parallel()
	s := newSink(t, answering(okAnswer))
	c := newClient(t, Options{Policy: loopback(), Timeout: patience})
	c.dialer.lookup = func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}, nil
	}
	real, ended := c.dialer.connect, make(chan struct{})
	c.dialer.connect = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
		if addr.Addr() == netip.MustParseAddr("127.0.0.9") {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}
		return real(ctx, addr)
	}
	res := c.Send(t.Context(), Request{URL: "http://two.example.com:" + s.Port, Body: []byte("{}")})
	if !res.OK() || res.Timings.Total > patience/2 {
		t.Errorf("%s (%s) after %s", res.Class, res.Error, res.Timings.Total)
	}
	select {
	case <-ended:
	default:
		t.Error("the silent try goes on")
	}
}

// TestSearchDomainsAreNotTried: a name is looked up as it stands, whatever the machine's search list.
func TestSearchDomainsAreNotTried(t *testing.T) {
	t.Parallel()
	var asked []string
	c := newClient(t, Options{})
	c.dialer.lookup = func(_ context.Context, host string) ([]netip.Addr, error) {
		asked = append(asked, host)
		return nil, &net.DNSError{IsNotFound: true}
	}
	if res := c.Send(t.Context(), Request{URL: "https://billing.default.example", Body: []byte("{}")}); res.Class != webhook.ClassDNS {
		t.Errorf("class %s", res.Class)
	}
	if !slices.Equal(asked, []string{"billing.default.example."}) {
		t.Errorf("looked up %q", asked)
	}
}

// TestEnvironmentProxyIsNotUsed: a proxy would dial for us, behind every check.
func TestEnvironmentProxyIsNotUsed(t *testing.T) {
	canary := newSink(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy"))
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, canary.URL)
	}
	t.Setenv("NO_PROXY", "")
	s := newSink(t, answering(okAnswer))
	closing := newSink(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	// Not a loopback name: net/http never proxies those, which would prove nothing.
	c := newClient(t, Options{Policy: loopback(), Resolver: nameServer(t, everyNameIs("127.0.0.1"))})
	if res := c.Send(t.Context(), Request{URL: "http://sink.example.com:" + s.Port, Body: []byte("{}")}); !res.OK() || string(res.Body) != "ok" {
		t.Errorf("%s (%s) %q", res.Class, res.Error, res.Body)
	}
	if res := c.Send(t.Context(), Request{URL: "https://sink.example.com:" + closing.Port, Body: []byte("{}")}); res.Class != webhook.ClassReset {
		t.Errorf("%s (%s)", res.Class, res.Error)
	}
	if n := canary.connections(); n != 0 {
		t.Errorf("%d connections to the proxy", n)
	}
}

// FuzzGuard: whatever URL passes and whatever a resolver answers, nothing but a public address is
// dialled, and control agrees.
func FuzzGuard(f *testing.F) {
	f.Add("https://example.com/", []byte{127, 0, 0, 1, 93, 184, 216, 34}, false)
	f.Add("https://[::ffff:127.0.0.1]:8443/", []byte{}, false)
	f.Add("https://8.8.8.8/", []byte{}, false)
	v6 := netip.MustParseAddr("64:ff9b::a9fe:a9fe").As16()
	f.Add("https://example.com:8443/", v6[:], true)
	v6 = netip.MustParseAddr("2002:7f00:1::").As16()
	f.Add("https://example.com/", v6[:], true)
	f.Fuzz(func(t *testing.T, url string, answer []byte, six bool) {
		c := New(Options{Timeout: patience})
		defer c.Close()
		c.dialer.lookup = func(context.Context, string) (addrs []netip.Addr, _ error) {
			size := 4
			if six {
				size = 16
			}
			for chunk := range slices.Chunk(answer, size) {
				if addr, ok := netip.AddrFromSlice(chunk); ok {
					addrs = append(addrs, addr)
				}
			}
			return append(addrs, netip.Addr{}), nil
		}
		c.dialer.connect = func(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
			if !isPublicBySpelling(target.Addr()) || refusedPorts[target.Port()] || target.Port() == 0 {
				t.Errorf("%q with answer %x: dialled %s", url, answer, target)
			}
			network := "tcp6"
			if target.Addr().Is4() {
				network = "tcp4"
			}
			if err := c.dialer.control(ctx, network, target.String(), nil); err != nil {
				t.Errorf("control refuses %s, which was judged before", target)
			}
			return nil, syscall.ECONNREFUSED
		}
		res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")})
		if res.OK() || res.Status != 0 || res.Error == "" {
			t.Errorf("%q: %+v", url, res)
		}
		for _, addr := range []string{"127.0.0.1", "169.254"} {
			if strings.Contains(res.Error, addr) {
				t.Errorf("%q: the error tells an address: %s", url, res.Error)
			}
		}
		// The wall by itself, on the raw answer.
		if addr, ok := netip.AddrFromSlice(answer); ok {
			err := c.dialer.control(t.Context(), "tcp6", netip.AddrPortFrom(addr, 443).String(), nil)
			if (err == nil) != isPublicBySpelling(addr) {
				t.Errorf("control(%s) = %v", addr, err)
			}
		}
	})
}

// TestDeadlinesByPhase: one deadline covers everything, and the class tells where it passed.
func TestDeadlinesByPhase(t *testing.T) {
	t.Parallel()
	const deadline = time.Second // long enough to get as far as is meant to, also on a busy machine
	silent := func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<16)); _, _ = c.Read(make([]byte, 1)) }
	for _, row := range []struct {
		name, scheme string
		serve        func(net.Conn)
		resolver     func(string) ([]netip.Addr, bool)
		connect      func(context.Context, netip.AddrPort) (net.Conn, error)
		want         webhook.ErrorClass
	}{
		{name: "dns", scheme: "http", resolver: func(string) ([]netip.Addr, bool) { return nil, false }, want: webhook.ClassTimeoutDNS},
		{name: "connect", scheme: "http", want: webhook.ClassTimeoutConnect, connect: func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
		{name: "tls", scheme: "https", serve: silent, want: webhook.ClassTimeoutTLS},
		{name: "headers", scheme: "http", serve: silent, want: webhook.ClassTimeoutHeaders},
		{name: "body", scheme: "http", want: webhook.ClassTimeoutBody, serve: func(c net.Conn) {
			_, _, _ = readRequest(bufio.NewReader(c))
			if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")); err == nil {
				silent(c)
			}
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			serve := row.serve
			if serve == nil {
				serve = answering(okAnswer)
			}
			s := newSink(t, serve)
			resolver := row.resolver
			if resolver == nil {
				resolver = everyNameIs("127.0.0.1")
			}
			c := newClient(t, Options{Policy: loopback(), Timeout: deadline, Resolver: nameServer(t, resolver)})
			if row.connect != nil {
				c.dialer.connect = row.connect
			}
			res := c.Send(t.Context(), Request{URL: row.scheme + "://sink.example.com:" + s.Port, Body: []byte("{}")})
			if res.Class != row.want {
				t.Errorf("class %s (%s), want %s", res.Class, res.Error, row.want)
			}
			if res.Timings.Total < deadline || res.Timings.Total > 2*deadline {
				t.Errorf("ended after %s", res.Timings.Total)
			}
		})
	}
}
