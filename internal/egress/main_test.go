package egress

import (
	"bufio"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // where net/http writes what receivers send unasked
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen before it gives up.
const patience = 20 * time.Second

// loopback is the policy of a development machine.
func loopback() Policy {
	return Policy{AllowNetworks: prefixes("127.0.0.0/8", "::1/128"), AllowHTTP: true}
}

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	c := New(o)
	t.Cleanup(c.Close)
	return c
}

// sink is a TCP listener whose every connection is given to serve.
type sink struct {
	URL  string
	Addr netip.AddrPort
	Port string
	done chan struct{} // closed when the test is over

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	count int // connections accepted
	wg    sync.WaitGroup
}

func newSink(t testing.TB, serve func(net.Conn)) *sink {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveSink(t, listener, serve)
}

func serveSink(t testing.TB, listener net.Listener, serve func(net.Conn)) *sink {
	t.Helper()
	s := &sink{conns: map[net.Conn]struct{}{}, done: make(chan struct{})}
	s.Addr = netip.MustParseAddrPort(listener.Addr().String())
	s.Port = strconv.Itoa(int(s.Addr.Port()))
	s.URL = "http://" + listener.Addr().String()
	s.wg.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.count++
			s.conns[c] = struct{}{}
			s.mu.Unlock()
			s.wg.Go(func() {
				defer func() {
					s.mu.Lock()
					delete(s.conns, c)
					s.mu.Unlock()
					_ = c.Close()
				}()
				serve(c)
			})
		}
	})
	t.Cleanup(func() {
		close(s.done)
		_ = listener.Close()
		s.mu.Lock()
		for c := range s.conns {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.wg.Wait()
	})
	return s
}

// connections is how many were accepted so far.
func (s *sink) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// readRequest reads the exact bytes of one request, whose body has a length; ok is false at the
// connection's end.
func readRequest(in *bufio.Reader) (raw string, header http.Header, ok bool) {
	var head strings.Builder
	for !strings.HasSuffix(head.String(), "\r\n\r\n") {
		line, err := in.ReadString('\n')
		if err != nil {
			return "", nil, false
		}
		head.WriteString(line)
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String())))
	if err != nil || req.ContentLength < 0 {
		return "", nil, false
	}
	body := make([]byte, req.ContentLength)
	if _, err := io.ReadFull(in, body); err != nil {
		return "", nil, false
	}
	return head.String() + string(body), req.Header, true
}

// answering serves the same raw answer to every request of a connection.
func answering(answer string) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, _, ok := readRequest(in); !ok {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// nameServer is a DNS server on loopback; answer gives the addresses of a name (without final dot),
// ok=false no answer at all.
func nameServer(t testing.TB, answer func(name string) (addrs []netip.Addr, ok bool)) *net.Resolver {
	t.Helper()
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { serveNames(packets, answer) })
	t.Cleanup(func() { _ = packets.Close(); wg.Wait() })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", packets.LocalAddr().String())
	}}
}

func serveNames(packets net.PacketConn, answer func(string) ([]netip.Addr, bool)) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		var query dnsmessage.Message
		if query.Unpack(buffer[:n]) != nil || len(query.Questions) != 1 {
			continue
		}
		q := query.Questions[0]
		reply := dnsmessage.Message{
			Header:    dnsmessage.Header{ID: query.ID, Response: true, RecursionAvailable: true},
			Questions: query.Questions,
		}
		addrs, ok := answer(strings.TrimSuffix(q.Name.String(), "."))
		if !ok {
			continue
		}
		if addrs == nil {
			reply.RCode = dnsmessage.RCodeNameError
		}
		for _, addr := range addrs {
			resource := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 0}
			switch {
			case addr.Is4() && q.Type == dnsmessage.TypeA:
				reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: resource, Body: &dnsmessage.AResource{A: addr.As4()}})
			case addr.Is6() && q.Type == dnsmessage.TypeAAAA:
				reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: resource, Body: &dnsmessage.AAAAResource{AAAA: addr.As16()}})
			}
		}
		packed, err := reply.Pack()
		if err != nil {
			continue
		}
		_, _ = packets.WriteTo(packed, from)
	}
}

// everyNameIs answers every question with the same addresses.
func everyNameIs(addrs ...string) func(string) ([]netip.Addr, bool) {
	return func(string) ([]netip.Addr, bool) {
		out := []netip.Addr{}
		for _, a := range addrs {
			out = append(out, netip.MustParseAddr(a))
		}
		return out, true
	}
}
