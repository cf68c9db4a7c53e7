package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestLimitOfConnectionsPerHost(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan struct{}, 2), make(chan struct{})
	s := newSink(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, _, ok := readRequest(in); !ok {
				return
			}
			arrived <- struct{}{}
			<-release
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	c := newClient(t, Options{Policy: loopback(), MaxConnsPerHost: 1})
	done := make(chan Result)
	go func() { done <- c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")}) }()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if res := c.Send(ctx, Request{URL: s.URL, Body: []byte("{}")}); res.Class != webhook.ClassTimeoutConnect {
		t.Errorf("over the limit: %s (%s)", res.Class, res.Error)
	}
	close(release)
	if res := <-done; !res.OK() {
		t.Errorf("%s (%s)", res.Class, res.Error)
	}
	if n := s.connections(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestKeptConnectionsAreDropped(t *testing.T) {
	t.Parallel()
	s := newSink(t, answering(okAnswer))
	c := newClient(t, Options{Policy: loopback()})
	reused := func() bool {
		res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
		if !res.OK() {
			t.Fatalf("%s (%s)", res.Class, res.Error)
		}
		return res.Reused
	}
	if reused() || !reused() {
		t.Fatal("connections are not kept")
	}
	c.CloseIdle()
	if reused() || !reused() {
		t.Error("CloseIdle left a connection")
	}
	if left := time.Until(c.pool.newest.retires); left <= maxConnAge-ageSpread-patience || left > maxConnAge {
		t.Errorf("a connection may be used for another %s", left)
	}
	c.pool.newest.retires = time.Now()
	if reused() || !reused() {
		t.Error("a connection outlived its age limit")
	}
}

// kept gives a pool a connection to an origin, as if a send were done with it.
func kept(t *testing.T, p *pool, to origin, now time.Time) (c *conn, open func() bool) {
	t.Helper()
	if c, err := p.take(t.Context(), origin{host: to.host, port: to.port, secure: !to.secure}, now.Add(patience), now); c != nil || err != nil {
		t.Fatalf("took %v, %v", c, err) // and so there is another host
	}
	p.drop(origin{host: to.host, port: to.port, secure: !to.secure})
	p.mu.Lock()
	if p.hosts[to] == nil {
		p.hosts[to] = &host{at: to}
	}
	p.hosts[to].conns++
	p.mu.Unlock()
	local, remote := net.Pipe()
	t.Cleanup(func() { _ = local.Close(); _ = remote.Close() })
	closed := false
	c = newConn(local)
	c.forget = func() { closed = true }
	p.add(c, to, now)
	p.put(c, now)
	return c, func() bool { return !closed }
}

func TestIdleConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := newPool(0, 2)
	defer p.close()
	p.idleTotal = 3
	a, b := origin{host: "a", port: 80}, origin{host: "b", port: 80}
	_, a1 := kept(t, p, a, now)
	_, a2 := kept(t, p, a, now)
	_, a3 := kept(t, p, a, now)
	if !a1() || !a2() || a3() {
		t.Errorf("of three to a host, with room for two: %v %v %v", a1(), a2(), a3())
	}
	bc, b1 := kept(t, p, b, now)
	if !a1() || !a2() || !b1() {
		t.Error("room for all and one is closed")
	}
	if c, err := p.take(t.Context(), b, now.Add(patience), now); c != bc || err != nil {
		t.Errorf("took %v, %v", c, err)
	}
	p.put(bc, now)
	_, b2 := kept(t, p, b, now)
	if a1() || !a2() || !b1() || !b2() || p.idle != 3 {
		t.Errorf("the oldest goes: %v %v %v %v", a1(), a2(), b1(), b2())
	}
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := newPool(0, 10)
	defer p.close()
	a, b := origin{host: "a", port: 80}, origin{host: "b", port: 80}
	_, first := kept(t, p, a, now)
	_, second := kept(t, p, b, now.Add(time.Second))
	used, third := kept(t, p, a, now)
	if c, err := p.take(t.Context(), a, now.Add(patience), now); c != used || err != nil {
		t.Errorf("took %v, %v, not the last", c, err)
	}
	p.put(used, now.Add(2*time.Second))
	p.sweepAt(now.Add(idleTimeout - 1))
	if !first() || !second() || !third() {
		t.Error("closed too early")
	}
	p.sweepAt(now.Add(idleTimeout))
	if first() || !second() || !third() {
		t.Errorf("at the first's time: %v %v %v", first(), second(), third())
	}
	p.sweepAt(now.Add(idleTimeout + time.Second))
	if second() || !third() || len(p.hosts) != 1 {
		t.Errorf("at the second's time: %v %v", second(), third())
	}
	p.closeIdle()
	if third() || len(p.hosts) != 0 || p.idle != 0 {
		t.Error("one is left")
	}
}

func TestConnectionsRetire(t *testing.T) {
	t.Parallel()
	now := time.Now()
	p := newPool(0, 10)
	defer p.close()
	a := origin{host: "a", port: 80}
	c, open := kept(t, p, a, now)
	if left := c.retires.Sub(now); left > maxConnAge || left <= maxConnAge-ageSpread {
		t.Errorf("retires after %s", left)
	}
	if got, err := p.take(t.Context(), a, c.retires.Add(patience), c.retires.Add(-1)); got != c || err != nil {
		t.Errorf("before its time: %v, %v", got, err)
	}
	p.put(c, c.retires.Add(-1))
	if got, err := p.take(t.Context(), a, c.retires.Add(patience), c.retires); got != nil || err != nil || open() {
		t.Errorf("an idle one at its time: %v, %v, open %v", got, err, open())
	}
	p.drop(a)
	c, open = kept(t, p, a, now)
	if got, err := p.take(t.Context(), a, now.Add(patience), now); got != c || err != nil {
		t.Fatalf("%v, %v", got, err)
	}
	if p.put(c, c.retires); open() || len(p.hosts) != 0 {
		t.Error("a busy one is kept at its time")
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	s := newSink(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, _, ok := readRequest(in); !ok {
				close(gone)
				return
			}
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	c := New(Options{Policy: loopback()})
	if res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")}); !res.OK() {
		t.Fatalf("%s (%s)", res.Class, res.Error)
	}
	// A dial under way, of a send that has given up already.
	dialing := make(chan struct{})
	real := c.dialer.connect
	c.dialer.connect = func(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
		close(dialing)
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-dialing; cancel() }()
	if res := c.Send(ctx, Request{URL: "http://127.0.0.1:1024/", Body: []byte("{}")}); res.Class != webhook.ClassInternal {
		t.Errorf("%s (%s)", res.Class, res.Error)
	}
	c.dialer.connect = real
	c.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Error("a kept connection outlives the client")
	}
	if res := c.Send(t.Context(), Request{URL: s.URL}); res.Class != webhook.ClassInternal || res.Status != 0 {
		t.Errorf("after Close: %s (%s)", res.Class, res.Error)
	}
	if _, _, err := c.dialer.fresh(t.Context(), origin{host: "127.0.0.1", port: s.Addr.Port()}, false); !errors.Is(err, errClosed) {
		t.Errorf("dial after Close: %v", err)
	}
}

// TestConcurrentSends is for the race detector: many sends share hosts, pools and dials.
func TestConcurrentSends(t *testing.T) {
	t.Parallel()
	s := newSink(t, answering(okAnswer))
	c := newClient(t, Options{Policy: loopback(), Resolver: nameServer(t, everyNameIs("127.0.0.1", "127.0.0.9")), Timeout: patience})
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 25 {
				url := fmt.Sprintf("http://%d.example.com:%s/", (worker+i)%4, s.Port)
				if res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")}); !res.OK() {
					t.Errorf("%s (%s)", res.Class, res.Error)
				}
				if i%10 == 9 {
					c.CloseIdle()
				}
			}
		})
	}
	wg.Wait()
}
