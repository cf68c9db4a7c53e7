package egress

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// TestQueriesEndWithTheirLookup: when a lookup is given up, its sockets close, long before the
// resolver's own time limit.
func TestQueriesEndWithTheirLookup(t *testing.T) {
	t.Parallel()
	queries := make(chan net.Conn, 16)
	silent := nameServer(t, func(string) ([]netip.Addr, bool) { return nil, false })
	lookup := lookupWith(&net.Resolver{Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := silent.Dial(ctx, network, address)
		if err == nil {
			queries <- c
		}
		return c, err
	}})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	start := time.Now()
	if _, err := lookup(ctx, "sink.example.com."); err == nil {
		t.Error("resolved")
	}
	for range 2 { // A and AAAA
		c := <-queries
		for { // closed by a goroutine, hence soon
			if err := c.SetDeadline(time.Time{}); errors.Is(err, net.ErrClosed) {
				break
			}
			if time.Since(start) > 2*time.Second {
				t.Fatal("the query's socket is open still")
			}
		}
	}
}

// TestLookupsDoNotShareTheirFate: one who gives up leaves another's lookup of the same name alone.
func TestLookupsDoNotShareTheirFate(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}, 16), make(chan struct{})
	resolver := nameServer(t, func(string) ([]netip.Addr, bool) {
		asked <- struct{}{}
		<-release
		return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, true
	})
	lookup := lookupWith(resolver)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := lookup(ctx, "sink.example.com."); err == nil {
			t.Error("resolved although given up")
		}
	})
	<-asked
	wg.Go(func() {
		if addrs, err := lookup(t.Context(), "sink.example.com."); err != nil || len(addrs) != 1 {
			t.Errorf("%v, %v", addrs, err)
		}
	})
	cancel()
	close(release)
	wg.Wait()
}
