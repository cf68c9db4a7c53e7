package queue

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestEveryDeliveryIsHandledOnce(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url})
		handle, handled := collect()
		run(t, q, handle)

		const pushers, pushes = 4, 10
		owed := make(map[webhook.Delivery]int)
		var mu sync.Mutex
		var pushing sync.WaitGroup
		for p := range pushers {
			pushing.Go(func() {
				for i := range pushes {
					var tasks [][]webhook.Delivery
					for size := range 1 + (p+i)%5 {
						tasks = append(tasks, deliveries(1+(size*11+i)%MaxTaskDeliveries))
					}
					mu.Lock()
					for _, ds := range tasks {
						for _, d := range ds {
							owed[d]++
						}
					}
					mu.Unlock()
					if err := q.Push(t.Context(), tasks); err != nil {
						t.Error(err)
					}
				}
			})
		}
		pushing.Wait()
		for left := len(owed); left > 0; {
			for _, d := range receive(t, handled) {
				if owed[d] != 1 {
					t.Fatalf("%v was handled twice or never pushed", d)
				}
				owed[d]--
				left--
			}
		}
		if n, err := length(t.Context(), q); n != 0 || err != nil {
			t.Errorf("length %d, %v", n, err)
		}
	})
}

func TestTaskSizes(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url})
		for size, ok := range map[int]bool{0: false, 1: true, MaxTaskDeliveries: true, MaxTaskDeliveries + 1: false} {
			before, _ := length(t.Context(), q)
			err := q.Push(t.Context(), [][]webhook.Delivery{deliveries(1), deliveries(size)})
			after, _ := length(t.Context(), q)
			if ok != (err == nil) || ok != (after == before+2) || !ok && after != before {
				t.Errorf("a task of %d: %v, length from %d to %d", size, err, before, after)
			}
		}
		if err := q.Push(t.Context(), nil); err != nil {
			t.Errorf("nothing to push: %v", err)
		}
	})
}

func TestLengthCountsWaitingTasksOfAllQueues(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url})
		tasks := make([][]webhook.Delivery, maxRoundTrip+1) // and one round trip more
		for i := range tasks {
			tasks[i] = deliveries(1)
		}
		if err := q.Push(t.Context(), tasks); err != nil {
			t.Fatal(err)
		}
		if n, err := length(t.Context(), q); n != len(tasks) || err != nil {
			t.Errorf("length %d, %v; want %d", n, err, len(tasks))
		}
		for _, name := range q.names[:q.live] {
			if n := q.client.LLen(t.Context(), pendingKey(name)).Val(); n < maxRoundTrip/DefaultQueues {
				t.Errorf("%s has %d tasks; they are not spread", name, n)
			}
		}
	})
}

// What background tasks owe has a queue of its own, which does not count as live work.
func TestLanesHaveQueuesOfTheirOwn(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url})
		bulk, live := deliveries(3), deliveries(2)
		for i := range bulk {
			bulk[i].Lane = webhook.LaneBulk
		}
		if err := q.Push(t.Context(), [][]webhook.Delivery{append(slices.Clone(bulk), live...)}); err == nil {
			t.Error("a task that is both is pushed")
		}
		if err := q.Push(t.Context(), [][]webhook.Delivery{bulk, live}); err != nil {
			t.Fatal(err)
		}
		if n, err := q.Lengths(t.Context()); n != (Lengths{Live: 1, Bulk: 1}) || err != nil {
			t.Errorf("lengths %+v, %v; want one live and one bulk task", n, err)
		}
		got := make(chan []webhook.Delivery, 2)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- q.Run(ctx, func(_ context.Context, d []webhook.Delivery) error { got <- d; return nil })
		}()
		for range 2 {
			want := live
			d := <-got
			if d[0].Lane == webhook.LaneBulk {
				want = bulk
			}
			if !slices.Equal(d, want) {
				t.Errorf("got %+v, want %+v", d, want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// roundTrips counts what a client sends.
type roundTrips struct {
	mu    sync.Mutex
	trips int
	names []string
}

func (r *roundTrips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (r *roundTrips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		r.sent(cmd)
		return next(ctx, cmd)
	}
}

func (r *roundTrips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		r.sent(cmds...)
		return next(ctx, cmds)
	}
}

func (r *roundTrips) sent(cmds ...redis.Cmder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trips++
	for _, cmd := range cmds {
		r.names = append(r.names, cmd.Name())
	}
}

func (r *roundTrips) take() (trips int, names string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	trips, names = r.trips, strings.Join(r.names, " ")
	r.trips, r.names = 0, nil
	return trips, names
}

func TestPushIsOneRoundTrip(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		tasks := make([][]webhook.Delivery, maxRoundTrip)
		for i := range tasks {
			tasks[i] = deliveries(1)
		}
		for _, private := range []bool{false, true} {
			q := open(t, Options{URL: url, Private: private})
			pushOne(t, q) // Redis learns the script, the client connects
			var sent roundTrips
			q.client.AddHook(&sent)
			if err := q.Push(t.Context(), tasks); err != nil {
				t.Fatal(err)
			}
			trips, names := sent.take()
			if trips != 1 || strings.Count(names, "evalsha") != len(tasks) {
				t.Errorf("%d round trips: %s", trips, names)
			}
			if wakes := strings.Count(names, "publish"); private && wakes != 0 || !private && wakes != 1 {
				t.Errorf("private %v: %d wake-ups published", private, wakes)
			}
		}
	})
}

func TestSentinelLivesAsLongAsTheData(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		one, other := open(t, Options{URL: url}), open(t, Options{URL: url})
		sentinel := func(q *Queue) string {
			value, err := q.Sentinel(t.Context())
			if err != nil || len(value) != 32 {
				t.Fatalf("sentinel %q, %v", value, err)
			}
			return value
		}
		first := sentinel(one)
		if sentinel(one) != first || sentinel(other) != first {
			t.Error("it changed though nothing was lost")
		}
		if ttl := one.client.TTL(t.Context(), sentinelKey).Val(); ttl != -1 {
			t.Errorf("it expires: %v", ttl)
		}
		one.client.FlushAll(t.Context())
		if second := sentinel(other); second == first || sentinel(one) != second {
			t.Error("it did not change, or differs between processes")
		}
	})
}

func TestCheck(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	q := open(t, Options{URL: s.url()})
	for policy, evicts := range map[string]bool{"noeviction": false, "allkeys-lru": true, "volatile-ttl": true} {
		q.client.ConfigSet(t.Context(), "maxmemory-policy", policy)
		h, err := q.Check(t.Context())
		if err != nil || h.MaxMemoryPolicy != policy || h.MayEvict() != evicts || h.RTT <= 0 || h.UsedMemory <= 0 {
			t.Errorf("%s: %+v, %v", policy, h, err)
		}
	}
	s.kill()
	if h, err := q.Check(t.Context()); !errors.Is(err, ErrUnavailable) || h != (Health{}) {
		t.Errorf("server gone: %+v, %v", h, err)
	}
}

func TestCheckWithoutMemoryFacts(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: strings.Replace(url, "redis://", "redis://guest:guest@", 1)})
		admin := open(t, Options{URL: url})
		if strings.Contains(t.Name(), "redis-server") { // miniredis lacks the facts anyway
			if err := admin.client.Do(t.Context(), "acl", "setuser", "guest", "on", ">guest", "~*", "&*", "+@all", "-info").Err(); err != nil {
				t.Fatal(err)
			}
		} else {
			q = admin
		}
		if h, err := q.Check(t.Context()); err != nil || h.MaxMemoryPolicy != "" || h.MayEvict() {
			t.Errorf("%+v, %v", h, err)
		}
	})
}

func TestOpenOptions(t *testing.T) {
	const url = "redis://127.0.0.1:1/0"
	for name, test := range map[string]struct {
		options Options
		ok      bool
	}{
		"defaults":           {Options{URL: url}, true},
		"tls":                {Options{URL: "rediss://redis.example.com:6380/1"}, true},
		"unix":               {Options{URL: "unix:///run/redis.sock?db=2"}, true},
		"no url":             {Options{}, false},
		"another scheme":     {Options{URL: "http://127.0.0.1:6379"}, false},
		"bad database":       {Options{URL: "redis://127.0.0.1:6379/x"}, false},
		"most queues":        {Options{URL: url, Queues: MaxQueues}, true},
		"a queue too many":   {Options{URL: url, Queues: MaxQueues + 1}, false},
		"fewer than none":    {Options{URL: url, Queues: -1}, false},
		"most handlers":      {Options{URL: url, Concurrency: MaxConcurrency}, true},
		"a handler too many": {Options{URL: url, Concurrency: MaxConcurrency + 1}, false},
		"no handler":         {Options{URL: url, Concurrency: -1}, false},
		"negative timeout":   {Options{URL: url, Timeout: -1}, false},
		"negative grace":     {Options{URL: url, Grace: -1}, false},
	} {
		q, err := Open(test.options)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if err := q.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestThePasswordIsNotShown(t *testing.T) {
	for _, url := range []string{
		"redis://:hunter2@127.0.0.1:port/0", "redis://u:hunter2@[::1/0", "redis://:hunter2@h/x", "http://:hunter2@h", "redis://:hunter2%@h",
	} {
		if _, err := Open(Options{URL: url}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// length is how many tasks wait, over all lanes.
func length(ctx context.Context, q *Queue) (int, error) {
	n, err := q.Lengths(ctx)
	return n.Live + n.Fed + n.Bulk, err
}
