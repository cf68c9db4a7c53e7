package ratelimit

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// script is the rule of rule.go as Redis runs it, on its own clock: one for all processes.
//
//go:embed limiter.lua
var script string

// maxWants is the most wants one run of the script looks at. Redis does nothing else meanwhile; this
// many take it about a millisecond.
const maxWants = 256

// Redis runs a script, in one round trip, once for each element of keys and args, in their order, and
// returns the integers each run answered.
type Redis interface {
	RunScript(ctx context.Context, source string, keys, args [][]string) ([][]int64, error)
}

// Key names what a limit is on, within its tenant.
type Key struct {
	kind byte
	id   [16]byte
}

const (
	deliveries = iota
	application
	endpoint
	publishes
	apiKey
)

// Deliveries is all that is delivered for a tenant.
func Deliveries() Key { return Key{kind: deliveries} }

// Application is what is delivered for one application.
func Application(id webhook.ApplicationID) Key { return Key{application, id} }

// Endpoint is what is delivered to one endpoint.
func Endpoint(id webhook.EndpointID) Key { return Key{endpoint, id} }

// Publishes is all that a tenant publishes.
func Publishes() Key { return Key{kind: publishes} }

// APIKey is what is published with one API key.
func APIKey(id webhook.APIKeyID) Key { return Key{apiKey, id} }

// redisKey is tagged by the tenant, so that on a cluster all of a script's keys are on one node.
func (k Key) redisKey(tenant webhook.TenantID) string {
	name := "posthaste:{" + tenant.String() + "}:rate:"
	switch k.kind {
	case deliveries:
		return name + "deliver"
	case application:
		return name + webhook.ApplicationID(k.id).String()
	case endpoint:
		return name + webhook.EndpointID(k.id).String()
	case publishes:
		return name + "publish"
	default:
		return name + webhook.APIKeyID(k.id).String()
	}
}

// Limit is a rate and what it is on.
type Limit struct {
	On   Key
	Rate Rate
}

// Want asks for N messages under all of its limits; those whose rate is none do not count. If one call
// names a key with different rates, the first holds.
type Want struct {
	Tenant webhook.TenantID
	Limits []Limit
	N      int
	Whole  bool // all of N or none: granted as soon as one would be, and what is too much is debt
}

func (w Want) limited() bool {
	return w.N > 0 && slices.ContainsFunc(w.Limits, func(l Limit) bool { return !l.Rate.None() })
}

// Limiter grants what may go. It is safe for concurrent use.
type Limiter struct{ redis Redis }

// New returns a limiter that keeps its buckets in Redis.
func New(redis Redis) *Limiter { return &Limiter{redis: redis} }

// Take answers each want: as many of its N as all of its limits have room for, charged to all of them.
// The wants of one tenant are served in their order. It is one round trip, and none at all if nothing
// is limited. After an error nothing is granted, though some of it may have been charged.
func (l *Limiter) Take(ctx context.Context, wants []Want) ([]Grant, error) {
	grants := make([]Grant, len(wants))
	for i, w := range wants {
		if w.N > 0 {
			grants[i].N = w.N
		}
	}
	runs := plan(wants, 1)
	answers, err := l.run(ctx, runs)
	if err != nil {
		return nil, fmt.Errorf("ask the rate limits: %w", err)
	}
	for r, run := range runs {
		for j, i := range run.wants {
			answer := answers[r][1+2*j:]
			grants[i] = Grant{N: int(answer[0]), Wait: time.Duration(answer[1]) * time.Microsecond}
		}
	}
	return grants, nil
}

// GiveBack returns the N of each want, which was granted and not used.
func (l *Limiter) GiveBack(ctx context.Context, wants []Want) error {
	if _, err := l.run(ctx, plan(wants, -1)); err != nil {
		return fmt.Errorf("give back to the rate limits: %w", err)
	}
	return nil
}

func (l *Limiter) run(ctx context.Context, runs []*run) ([][]int64, error) {
	if len(runs) == 0 {
		return nil, nil
	}
	keys, args := make([][]string, len(runs)), make([][]string, len(runs))
	for i, r := range runs {
		keys[i], args[i] = r.keys, append(r.rates, r.asks...)
	}
	answers, err := l.redis.RunScript(ctx, script, keys, args)
	if err != nil {
		return nil, err
	}
	for i, r := range runs {
		if want := 1 + 2*len(r.wants); len(answers[i]) != want {
			return nil, fmt.Errorf("the script answered %d numbers instead of %d", len(answers[i]), want)
		}
	}
	return answers, nil
}

// run is one run of the script: the wants of one tenant.
type run struct {
	wants []int // their places among the caller's
	index map[Key]string
	keys  []string
	rates []string // of the keys: rate, burst
	asks  []string // per want: how many, negative to give back; whether all or none; how many keys; which
}

// plan makes of wants the fewest runs. The ones that are not limited are in none.
func plan(wants []Want, sign int) (runs []*run) {
	open := make(map[webhook.TenantID]*run)
	for i, w := range wants {
		if !w.limited() {
			continue
		}
		r := open[w.Tenant]
		if r == nil || len(r.wants) == maxWants {
			r = &run{index: make(map[Key]string)}
			open[w.Tenant] = r
			runs = append(runs, r)
		}
		r.add(i, w, sign)
	}
	return runs
}

func (r *run) add(i int, w Want, sign int) {
	r.wants = append(r.wants, i)
	whole := "0"
	if w.Whole {
		whole = "1"
	}
	r.asks = append(r.asks, strconv.Itoa(sign*w.N), whole, "")
	count := len(r.asks) - 1
	used := 0
	for _, l := range w.Limits {
		if l.Rate.None() {
			continue
		}
		place, known := r.index[l.On]
		if !known {
			r.keys = append(r.keys, l.On.redisKey(w.Tenant))
			r.rates = append(r.rates, strconv.Itoa(l.Rate.PerSecond), strconv.Itoa(l.Rate.burst()))
			place = strconv.Itoa(len(r.keys))
			r.index[l.On] = place
		}
		r.asks = append(r.asks, place)
		used++
	}
	r.asks[count] = strconv.Itoa(used)
}
