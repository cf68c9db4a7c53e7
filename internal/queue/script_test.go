package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/webhook"
)

const sum = `local s = redis.call('INCRBY', KEYS[1], ARGV[1]) return {s, ARGV[1] * 2}`

func TestRunScript(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url, ScriptTimeout: patience})
		if _, err := length(t.Context(), q); err != nil { // connects
			t.Fatal(err)
		}
		var sent roundTrips
		q.client.AddHook(&sent)
		keys, args := [][]string{{"a"}, {"b"}, {"a"}}, [][]string{{"1"}, {"10"}, {"2"}}
		for i, trips := range []int{2, 1} { // the first needs the text
			sent.take()
			answers, err := q.RunScript(t.Context(), sum, keys, args)
			if err != nil {
				t.Fatal(err)
			}
			first := int64(i)
			for j, want := range [][]int64{{3*first + 1, 2}, {10*first + 10, 20}, {3*first + 3, 4}} {
				if !slices.Equal(answers[j], want) {
					t.Errorf("run %d: %v, want %v", j, answers[j], want)
				}
			}
			if n, names := sent.take(); n != trips {
				t.Errorf("%d round trips: %s", n, names)
			}
		}
		q.client.ScriptFlush(t.Context())
		if _, err := q.RunScript(t.Context(), sum, keys, args); err != nil {
			t.Error(err)
		}
		_, err := q.RunScript(t.Context(), `return redis.error_reply('ERR of mine')`, keys, args)
		if err == nil || errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "of mine") || !q.Available() {
			t.Errorf("a refusal: %v, available %v", err, q.Available())
		}
	})
}

// An answer that takes too long for a script is no reason to push no tasks; it costs the time limit once,
// and scripts run again as soon as Redis is quick.
func TestSlowScriptsDoNotStopPushes(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s.addr)
	var lines logs
	q := open(t, Options{URL: p.url(), Logger: lines.logger(), ScriptTimeout: 50 * time.Millisecond})
	run := func() error {
		_, err := q.RunScript(t.Context(), sum, [][]string{{"a"}}, [][]string{{"1"}})
		return err
	}
	eventually(t, "scripts run", func() bool { return run() == nil })
	p.hold(true)
	if err := run(); !errors.Is(err, ErrUnavailable) || !q.Available() {
		t.Fatalf("%v, available %v", err, q.Available())
	}
	start := time.Now()
	for range 100 {
		if err := run(); !errors.Is(err, ErrUnavailable) || !q.Available() {
			t.Fatalf("%v, available %v", err, q.Available())
		}
	}
	if took := time.Since(start); took > 100*50*time.Millisecond/2 {
		t.Errorf("100 refusals took %v", took)
	}
	p.hold(false)
	if err := q.Push(t.Context(), [][]webhook.Delivery{deliveries(1)}); err != nil {
		t.Error(err)
	}
	eventually(t, "scripts run again", func() bool { return run() == nil })
	// It is said only when the ping has been late, too, and then both times.
	if slow, quick := lines.count("too slowly"), lines.count("quickly again"); slow != quick {
		t.Errorf("said %d times slow, %d times quick", slow, quick)
	}
}

func TestAnUnreachableRedisStopsScriptsAndPushes(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	q := open(t, Options{URL: s.url(), ScriptTimeout: patience})
	run := func(ctx context.Context) error {
		_, err := q.RunScript(ctx, sum, [][]string{{"a"}}, [][]string{{"1"}})
		return err
	}
	if err := run(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.kill()
	if err := run(t.Context()); !errors.Is(err, ErrUnavailable) || q.Available() {
		t.Errorf("%v, available %v", err, q.Available())
	}
	if !s.start() {
		t.Fatal("redis-server does not start again")
	}
	eventually(t, "scripts run again", func() bool { return run(t.Context()) == nil })
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(over); err == nil || errors.Is(err, ErrUnavailable) || !q.Available() {
		t.Errorf("the caller gave up: %v, available %v", err, q.Available())
	}
}

// observer remembers when, by Redis's clock, the limiter's script ran.
type observer struct {
	*Queue
	mu    sync.Mutex
	times []int64
}

func (o *observer) RunScript(ctx context.Context, source string, keys, args [][]string) ([][]int64, error) {
	answers, err := o.Queue.RunScript(ctx, source, keys, args)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, a := range answers {
		o.times = append(o.times, a[0])
	}
	return answers, err
}

// Several processes that take all they are granted get together, over a real second, exactly what the
// tightest of the limits allows.
func TestRateLimitHoldsAcrossProcesses(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		limits := []ratelimit.Limit{
			{On: ratelimit.Deliveries(), Rate: ratelimit.Rate{PerSecond: 5000, Burst: 5000}},
			{On: ratelimit.Application(webhook.NewApplicationID()), Rate: ratelimit.Rate{PerSecond: 700, Burst: 300}},
			{On: ratelimit.Endpoint(webhook.NewEndpointID()), Rate: ratelimit.Rate{PerSecond: 10_000}},
		}
		want := []ratelimit.Want{{Tenant: webhook.NewTenantID(), Limits: limits, N: 100}}
		var group sync.WaitGroup
		var seen [3]*observer
		var total [3]int64
		start := time.Now()
		for i := range seen {
			seen[i] = &observer{Queue: open(t, Options{URL: url, ScriptTimeout: patience})}
			l := ratelimit.New(seen[i])
			group.Go(func() {
				for {
					over := time.Since(start) > time.Second
					grants, err := l.Take(t.Context(), want)
					if err != nil {
						t.Error(err)
						return
					}
					total[i] += int64(grants[0].N)
					if over {
						return
					}
					select {
					case <-time.After(grants[0].Wait):
					case <-t.Context().Done():
						return
					}
				}
			})
		}
		group.Wait()
		times := slices.Concat(seen[0].times, seen[1].times, seen[2].times)
		elapsed := slices.Max(times) - slices.Min(times)
		if got, allowed := total[0]+total[1]+total[2], 300+elapsed*700/1_000_000; got != allowed {
			t.Errorf("granted %d in %d µs, want %d", got, elapsed, allowed)
		}
	})
}
