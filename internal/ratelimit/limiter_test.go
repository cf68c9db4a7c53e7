package ratelimit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/webhook"
)

// runner runs scripts on an in-process Redis whose clock is the test's. The queue's tests do the same
// on a real one.
type runner struct {
	client *redis.Client
	runs   int
	err    error
}

func (r *runner) RunScript(ctx context.Context, source string, keys, args [][]string) ([][]int64, error) {
	if r.err != nil {
		return nil, r.err
	}
	answers := make([][]int64, len(keys))
	for i := range keys {
		r.runs++
		arguments := make([]any, len(args[i]))
		for j, a := range args[i] {
			arguments[j] = a
		}
		answer, err := r.client.Eval(ctx, source, keys[i], arguments...).Int64Slice()
		if err != nil {
			return nil, err
		}
		answers[i] = answer
	}
	return answers, nil
}

// epoch is a time with as many digits as the present one.
var epoch = time.UnixMicro(1_790_000_000_123_456)

func start(t *testing.T) (*Limiter, *runner, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	server.SetTime(epoch)
	server.ClockTTL(true)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = client.Close() })
	r := &runner{client: client}
	return New(r), r, server
}

func ask(t *testing.T, l *Limiter, wants ...Want) []Grant {
	t.Helper()
	grants, err := l.Take(t.Context(), wants)
	if err != nil {
		t.Fatal(err)
	}
	return grants
}

func TestWhatIsNotLimitedCostsNoRoundTrip(t *testing.T) {
	t.Parallel()
	l, r, _ := start(t)
	tenant := webhook.NewTenantID()
	wants := []Want{
		{Tenant: tenant, N: 7},
		{Tenant: tenant, N: 3, Limits: []Limit{{On: Deliveries()}}},
		{Tenant: tenant, N: 0, Limits: []Limit{{Deliveries(), Rate{1, 1}}}},
	}
	if got := ask(t, l, wants...); got[0] != (Grant{7, 0}) || got[1] != (Grant{3, 0}) || got[2] != (Grant{}) {
		t.Errorf("granted %+v", got)
	}
	if err := l.GiveBack(t.Context(), wants); err != nil {
		t.Error(err)
	}
	if r.runs != 0 {
		t.Errorf("ran the script %d times", r.runs)
	}
}

func TestWantsShareTheirTenantsBucketsInOrder(t *testing.T) {
	t.Parallel()
	l, r, _ := start(t)
	one, other, app := webhook.NewTenantID(), webhook.NewTenantID(), webhook.NewApplicationID()
	a, b := webhook.NewEndpointID(), webhook.NewEndpointID()
	of := func(tenant webhook.TenantID, endpoint webhook.EndpointID, n int) Want {
		return Want{Tenant: tenant, N: n, Limits: []Limit{
			{Deliveries(), Rate{100, 10}}, {Application(app), Rate{10, 6}}, {Endpoint(endpoint), Rate{50, 4}},
		}}
	}
	got := ask(t, l, of(one, a, 5), of(other, a, 1), of(one, b, 5), of(one, a, 1), of(other, b, 9))
	want := []Grant{{4, 20 * time.Millisecond}, {1, 0}, {2, 100 * time.Millisecond}, {0, 100 * time.Millisecond}, {4, 20 * time.Millisecond}}
	if !slices.Equal(got, want) {
		t.Errorf("granted %+v, want %+v", got, want)
	}
	if r.runs != 2 {
		t.Errorf("ran the script %d times for two tenants", r.runs)
	}
}

func TestMoreWantsThanOneRunTakes(t *testing.T) {
	t.Parallel()
	l, r, _ := start(t)
	wants := make([]Want, 2*maxWants+1)
	tenant := webhook.NewTenantID()
	for i := range wants {
		wants[i] = Want{Tenant: tenant, N: 1, Limits: []Limit{{Deliveries(), Rate{1, maxWants + 1}}, {Endpoint(webhook.NewEndpointID()), Rate{1, 1}}}}
	}
	for i, g := range ask(t, l, wants...) {
		if want := min(1, max(0, maxWants+1-i)); g.N != want {
			t.Fatalf("want %d: granted %d", i, g.N)
		}
	}
	if r.runs != 3 {
		t.Errorf("%d runs", r.runs)
	}
}

func TestKeysAreOfTheTenantAndExpire(t *testing.T) {
	t.Parallel()
	l, _, server := start(t)
	tenant := webhook.NewTenantID()
	limits := []Limit{
		{Deliveries(), Rate{10, 5}}, {Application(webhook.NewApplicationID()), Rate{10, 5}}, {Endpoint(webhook.NewEndpointID()), Rate{10, 5}},
		{Publishes(), Rate{10, 5}}, {APIKey(webhook.NewAPIKeyID()), Rate{10, 5}},
	}
	w := Want{Tenant: tenant, Limits: limits, N: 5}
	ask(t, l, w)
	keys := server.Keys()
	if len(keys) != len(limits) {
		t.Errorf("keys %q", keys)
	}
	for _, key := range keys {
		if !strings.HasPrefix(key, "posthaste:{"+tenant.String()+"}:rate:") {
			t.Errorf("key %q", key)
		}
		if ttl := server.TTL(key); ttl != 501*time.Millisecond {
			t.Errorf("%s expires in %v", key, ttl)
		}
	}
	if err := l.GiveBack(t.Context(), []Want{w}); err != nil || len(server.Keys()) != 0 {
		t.Errorf("after giving back: %v, keys %q", err, server.Keys())
	}
	ask(t, l, w)
	server.SetTime(epoch.Add(502 * time.Millisecond))
	if g := ask(t, l, w); g[0].N != 5 {
		t.Errorf("drained, granted %+v", g)
	}
}

// A full bucket that is only looked at must still drain when the clock has gone back.
func TestClockOfRedisGoesBack(t *testing.T) {
	t.Parallel()
	l, _, server := start(t)
	w := Want{Tenant: webhook.NewTenantID(), N: 1, Limits: []Limit{{Deliveries(), Rate{1, 1}}}}
	ask(t, l, w)
	server.SetTime(epoch.Add(-time.Hour))
	if g := ask(t, l, w); g[0] != (Grant{0, time.Second}) {
		t.Errorf("granted %+v", g)
	}
	server.SetTime(epoch.Add(-time.Hour + time.Second))
	if g := ask(t, l, w); g[0].N != 1 {
		t.Errorf("granted %+v", g)
	}
}

func TestNoAnswerIsAnError(t *testing.T) {
	t.Parallel()
	l, r, _ := start(t)
	r.err = errors.New("away")
	wants := []Want{{Tenant: webhook.NewTenantID(), N: 1, Limits: []Limit{{Deliveries(), Rate{1, 1}}}}}
	if g, err := l.Take(t.Context(), wants); g != nil || !errors.Is(err, r.err) {
		t.Errorf("%v, %v", g, err)
	}
	if err := l.GiveBack(t.Context(), wants); !errors.Is(err, r.err) {
		t.Error(err)
	}
}

func TestWhatIsStoredByOthersIsAnEmptyBucket(t *testing.T) {
	t.Parallel()
	l, _, server := start(t)
	w := Want{Tenant: webhook.NewTenantID(), N: 3, Limits: []Limit{{Deliveries(), Rate{1, 2}}}}
	if err := server.Set(Deliveries().redisKey(w.Tenant), "nonsense"); err != nil {
		t.Fatal(err)
	}
	if g := ask(t, l, w); g[0] != (Grant{2, time.Second}) {
		t.Errorf("granted %+v", g)
	}
}

// The script is the rule: on random wishes under random, changing rates at random times, forwards and
// backwards, both grant the same.
func TestScriptAgreesWithTheRule(t *testing.T) {
	t.Parallel()
	l, _, server := start(t)
	rapid.Check(t, func(t *rapid.T) {
		tenant := webhook.NewTenantID()
		keys := []Key{Deliveries(), Application(webhook.NewApplicationID()), Endpoint(webhook.NewEndpointID()), Endpoint(webhook.NewEndpointID())}
		model, written := make(map[Key]Bucket), make(map[Key]Rate) // under which rate a bucket was written
		at, wentBack := epoch.UnixMicro(), false
		steps := rapid.IntRange(1, 30).Draw(t, "steps")
		for range steps {
			pause := rapid.OneOf(rapid.Int64Range(0, 1000), rapid.Int64Range(0, 3*second), rapid.Int64Range(-second, 0)).Draw(t, "pause")
			at += pause
			wentBack = wentBack || pause < 0
			server.SetTime(time.UnixMicro(at))
			for k, b := range model {
				if server.Exists(k.redisKey(tenant)) {
					continue
				}
				// Whether a time to live heeds a clock that goes back is the server's business.
				if !wentBack && b.Level > 0 && b.drained(written[k], at).Level > 0 {
					t.Fatalf("%+v is gone at %d, under %+v", b, at, written[k])
				}
				model[k] = Bucket{}
			}
			rate := make(map[Key]Rate)
			for _, k := range keys {
				rate[k] = rates().Draw(t, "rate")
				if rapid.IntRange(0, 4).Draw(t, "limited") == 0 {
					rate[k] = Rate{}
				}
			}
			var wants []Want
			var want []Grant
			give := rapid.IntRange(0, 3).Draw(t, "give back") == 0
			for range rapid.IntRange(1, 5).Draw(t, "wants") {
				w := Want{Tenant: tenant, N: rapid.OneOf(rapid.IntRange(-1, 5), rapid.IntRange(0, 100_000)).Draw(t, "n"), Whole: rapid.IntRange(0, 3).Draw(t, "whole") == 0}
				var buckets []Bucket
				var rs []Rate
				used := append(keys[:2:2], keys[2+rapid.IntRange(0, 1).Draw(t, "endpoint")])
				for _, k := range used {
					w.Limits = append(w.Limits, Limit{k, rate[k]})
					buckets, rs = append(buckets, model[k]), append(rs, rate[k])
				}
				if give {
					GiveBack(buckets, rs, w.N, at)
				} else {
					want = append(want, take(buckets, rs, w.N, w.Whole, at))
				}
				for i, k := range used {
					if model[k] != buckets[i] {
						model[k], written[k] = buckets[i], rate[k]
					}
				}
				wants = append(wants, w)
			}
			if give {
				if err := l.GiveBack(context.Background(), wants); err != nil {
					t.Fatal(err)
				}
				continue
			}
			got, err := l.Take(context.Background(), wants)
			if err != nil || !slices.Equal(got, want) {
				t.Fatalf("%v: wants %+v: granted %+v, the rule %+v", err, wants, got, want)
			}
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	wants := make([]Want, 64)
	for i := range wants {
		wants[i] = Want{Tenant: webhook.NewTenantID(), N: 1, Limits: []Limit{
			{Deliveries(), Rate{100, 10}}, {Application(webhook.NewApplicationID()), Rate{10, 6}}, {Endpoint(webhook.NewEndpointID()), Rate{50, 4}},
		}}
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(plan(wants, 1)) != 64 {
			b.Fatal("wrong")
		}
	}
}
