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
