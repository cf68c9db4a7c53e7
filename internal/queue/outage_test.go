package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestEmptiedRedisIsUsedOn(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		worker, api := open(t, Options{URL: url}), open(t, Options{URL: url})
		dependOnWakes(worker)
		handle, handled := collect()
		run(t, worker, handle)
		eventually(t, "wake-ups are proven", worker.wakes.proven)
		for range 3 {
			before, err := api.Sentinel(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 2 * DefaultQueues {
				mustHandle(t, api, handled)
				mustHandle(t, worker, handled)
			}
			api.client.FlushAll(t.Context())
			api.client.ScriptFlush(t.Context())
			if after, err := api.Sentinel(t.Context()); err != nil || after == before {
				t.Errorf("sentinel %q after %q, %v", after, before, err)
			}
			if n, err := length(t.Context(), api); n != 0 || err != nil {
				t.Errorf("length %d, %v", n, err)
			}
		}
		mustHandle(t, api, handled)
		// asynq's own tools must see the queues too.
		if n := api.client.SCard(t.Context(), "asynq:queues").Val(); n == 0 {
			t.Error("no queue is registered after the flush")
		}
	})
}

func TestRestartedRedisIsUsedOn(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	var lines logs
	worker := open(t, Options{URL: s.url(), Logger: lines.logger()})
	api := open(t, Options{URL: s.url()})
	handle, handled := collect()
	run(t, worker, handle)
	for range 2 {
		eventually(t, "wake-ups are proven", worker.wakes.proven)
		mustHandle(t, api, handled)
		before, err := api.Sentinel(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.kill()
		for _, q := range []*Queue{api, worker} {
			if err := q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)}); !errors.Is(err, ErrUnavailable) || q.Available() {
				t.Errorf("server gone: %v, available %v", err, q.Available())
			}
		}
		if !s.start() {
			t.Fatal("redis-server does not start again")
		}
		eventually(t, "it is available again", func() bool { return api.Available() && worker.Available() })
		mustHandle(t, api, handled)
		mustHandle(t, worker, handled)
		if after, err := api.Sentinel(t.Context()); err != nil || after == before {
			t.Errorf("sentinel %q after %q, %v", after, before, err)
		}
	}
	if down, up := lines.count("redis is unavailable"), lines.count("available again"); down != 2 || up != 2 {
		t.Errorf("said %d times that it went and %d times that it came back", down, up)
	}
}

func TestItStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.kill()
	q := open(t, Options{URL: s.url()})
	handle, handled := collect()
	run(t, q, handle)
	if _, err := length(t.Context(), q); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	if !s.start() {
		t.Fatal("redis-server does not start again")
	}
	eventually(t, "it is available", q.Available)
	mustHandle(t, q, handled)
}

// With a Redis that takes connections and says nothing, the first caller waits for the timeout and
// nobody else waits at all.
func TestSilentRedisCostsOneTimeout(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.addr)
	q := open(t, Options{URL: p.url(), Timeout: 100 * time.Millisecond})
	eventually(t, "it works", func() bool {
		return q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)}) == nil
	})
	var sent roundTrips
	q.client.AddHook(&sent)
	p.hold(true)
	if err := q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	sent.take()
	calls := []func() error{
		func() error { return q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)}) },
		func() error { _, err := length(t.Context(), q); return err },
		func() error { _, err := q.Sentinel(t.Context()); return err },
	}
	for range 100 {
		for _, call := range calls {
			if err := call(); !errors.Is(err, ErrUnavailable) || q.Available() {
				t.Fatalf("%v, available %v", err, q.Available())
			}
		}
	}
	_, names := sent.take()
	for _, name := range strings.Fields(names) {
		if name != "ping" && name != "hello" {
			t.Errorf("while it is away it was sent %s", name)
		}
	}
	if _, err := q.Check(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("check: %v", err)
	}
	p.hold(false)
	eventually(t, "it is available again", q.Available)
	eventually(t, "it works again", func() bool {
		return q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)}) == nil
	})
}

func TestACallerWhoGaveUpShutsNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.addr)
	q := open(t, Options{URL: p.url()})
	if _, err := length(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	p.hold(true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := length(ctx, q); err == nil || errors.Is(err, ErrUnavailable) || !q.Available() {
		t.Errorf("%v, available %v", err, q.Available())
	}
}

// The worker's connections hang too; what waits on them must not outlast the grace.
func TestStopWithASilentRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.addr)
	q := open(t, Options{URL: p.url(), Grace: 50 * time.Millisecond})
	handle, handled := collect()
	stop := run(t, q, handle)
	mustHandle(t, q, handled)
	eventually(t, "wake-ups are proven", q.wakes.proven)
	p.hold(true)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A subscription that hears nothing any more, on a connection that stays up, is given up.
func TestADeafSubscriptionIsNoticed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.addr)
	q := open(t, Options{URL: p.url()})
	q.wakes.probes = probes{idle: 10 * time.Millisecond, timeout: 100 * time.Millisecond, backoff: time.Millisecond}
	handle, handled := collect()
	run(t, q, handle)
	eventually(t, "wake-ups are proven", q.wakes.proven)
	p.hold(true)
	eventually(t, "wake-ups are doubted", func() bool { return !q.wakes.proven() })
	p.hold(false)
	eventually(t, "wake-ups are proven again", q.wakes.proven)
	eventually(t, "it is available", q.Available)
	mustHandle(t, q, handled)
}

// A Redis that is full refuses at once: that is no outage, and what can be read is still read.
func TestFullRedis(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	q := open(t, Options{URL: s.url()})
	handle, handled := collect()
	run(t, q, handle)
	before, err := q.Sentinel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	q.client.ConfigSet(t.Context(), "maxmemory", "1")
	err = q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)})
	if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "OOM") || !q.Available() {
		t.Errorf("push: %v, available %v", err, q.Available())
	}
	if after, err := q.Sentinel(t.Context()); err != nil || after != before {
		t.Errorf("sentinel %q after %q, %v", after, before, err)
	}
	if _, err := length(t.Context(), q); err != nil {
		t.Errorf("length: %v", err)
	}
	q.client.ConfigSet(t.Context(), "maxmemory", "0")
	mustHandle(t, q, handled)
}
