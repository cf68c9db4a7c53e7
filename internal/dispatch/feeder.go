package dispatch

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// wakeLimit is how many wakes one look takes in at most. When there are more, it takes wakesEach of each
	// of so many tenants.
	wakeLimit = 256
	wakesEach = 4
)

// Feeder releases parked deliveries of endpoints whose wake is due, and what is due in streams. Only the process that leads has one
// at work; it is not safe for concurrent use.
type Feeder struct {
	d       *Dispatcher
	planner planner
	// from is how far each endpoint's parked deliveries have been released.
	from map[endpoint]webhook.MessageID
	// after and afterStream are the last tenants looked at, when not all can be.
	after, afterStream webhook.TenantID
}

type endpoint struct {
	tenant   webhook.TenantID
	endpoint webhook.EndpointID
}

// NewFeeder makes a Feeder.
func (d *Dispatcher) NewFeeder() *Feeder {
	return &Feeder{d: d, from: make(map[endpoint]webhook.MessageID)}
}

// Forget makes the next look begin at the beginning of everything.
func (f *Feeder) Forget() { clear(f.from) }

// Wakes is what one look found and did.
type Wakes struct {
	Fed  []store.Fed   // to be pushed
	Seen int           // wakes that were due
	More bool          // there may be others that are
	Scan time.Duration // to find them
}

// FeedWakes releases about room parked deliveries of endpoints whose wake is due, each tenant its share,
// as far as limits, pauses and breakers let them. What it returns has been released; it is the caller's
// to push.
func (f *Feeder) FeedWakes(ctx context.Context, room int, lease time.Duration) (found Wakes, err error) {
	start := time.Now()
	wakes, err := f.due(ctx)
	found.Scan = time.Since(start)
	if err != nil || len(wakes) == 0 {
		return found, err
	}
	found.Seen, found.More = len(wakes), len(wakes) >= wakeLimit
	looks := f.ask(ctx, wakes, room)
	var probes, orders []store.Order
	for i, w := range wakes {
		order := store.Order{Tenant: w.Tenant, Endpoint: w.Endpoint, N: looks[i].granted}
		switch {
		case looks[i].granted == 0:
		case w.Gate != webhook.GateNone:
			probes = append(probes, order)
		default:
			order.From = f.from[endpoint{w.Tenant, w.Endpoint}]
			looks[i].partly = !order.From.IsZero()
			orders = append(orders, order)
		}
	}
	if found.Fed, err = f.d.store.ReleaseProbes(ctx, probes, lease); err != nil {
		return found, err
	}
	fed, err := f.d.store.ReleaseParked(ctx, orders, lease)
	if err != nil {
		return found, err
	}
	found.Fed = append(found.Fed, fed...)
	f.settle(ctx, wakes, looks, found.Fed)
	return found, nil
}

// due are the wakes to look at now.
func (f *Feeder) due(ctx context.Context) ([]store.Wake, error) {
	wakes, err := f.d.store.Wakes(ctx, wakeLimit)
	if err != nil || len(wakes) < wakeLimit {
		return wakes, err
	}
	fair, err := f.d.store.WakesByTenant(ctx, f.after, wakeLimit/wakesEach, wakesEach)
	if err != nil {
		return nil, err
	}
	f.after = webhook.TenantID{}
	for _, w := range fair { // they come by their time; the next look goes on behind the last tenant
		if slices.Compare(w.Tenant[:], f.after[:]) > 0 {
			f.after = w.Tenant
		}
	}
	if len(fair) == 0 {
		return wakes, nil
	}
	// A tenant that has few others beside it gets the rest.
	known := make(map[endpoint]bool, len(fair))
	for _, w := range fair {
		known[endpoint{w.Tenant, w.Endpoint}] = true
	}
	for _, w := range wakes {
		if len(fair) < wakeLimit && !known[endpoint{w.Tenant, w.Endpoint}] {
			fair = append(fair, w)
		}
	}
	return fair, nil
}

// ask plans and asks the limits.
func (f *Feeder) ask(ctx context.Context, wakes []store.Wake, room int) []look {
	looks := make([]look, len(wakes))
	sharing := make(map[webhook.TenantID]int) // endpoints under the same tenant's limit
	for _, w := range wakes {
		if w.Rates.OverTenant.PerSecond > 0 || w.Rates.OverApplication.PerSecond > 0 {
			sharing[w.Tenant]++
		}
	}
	var wants []want
	var at []int
	for i, n := range f.planner.share(wakes, room) {
		w := wakes[i]
		looks[i] = look{asked: n, granted: n}
		if n == 0 || w.Gate != webhook.GateNone || !w.Rates.Any() {
			continue
		}
		wants = append(wants, want{tenant: w.Tenant, endpoint: w.Endpoint, rates: w.Rates, n: n})
		at = append(at, i)
	}
	grants := f.d.admitEvenly(ctx, wants, sharing)
	for j, i := range at {
		looks[i].asked, looks[i].granted, looks[i].wait = wants[j].n, grants[j].n, grants[j].wait
	}
	return looks
}

// settle puts away the wakes that were looked at. What was released is released: it goes to the queue
// whether or not they could be.
func (f *Feeder) settle(ctx context.Context, wakes []store.Wake, looks []look, fed []store.Fed) {
	last := make(map[endpoint]webhook.MessageID, len(wakes))
	released := make(map[endpoint]int, len(wakes))
	for _, d := range fed {
		k := endpoint{d.Tenant, d.Endpoint}
		released[k]++
		if m := last[k]; slices.Compare(d.Message[:], m[:]) > 0 {
			last[k] = d.Message
		}
	}
	puts := make([]store.WakePut, 0, len(wakes))
	var unused []want
	for i, w := range wakes {
		k, l := endpoint{w.Tenant, w.Endpoint}, &looks[i]
		l.released = released[k]
		switch {
		case l.granted == 0:
		case l.released < l.granted:
			delete(f.from, k)
			if w.Gate == webhook.GateNone && w.Rates.Any() {
				unused = append(unused, want{tenant: w.Tenant, endpoint: w.Endpoint, rates: w.Rates, n: l.granted - l.released})
			}
		default:
			f.from[k] = last[k]
		}
		if put, settled := fate(w, *l); settled {
			puts = append(puts, put)
		}
	}
	f.d.giveBack(ctx, unused)
	slices.SortFunc(puts, func(a, b store.WakePut) int {
		return cmp.Or(slices.Compare(a.Tenant[:], b.Tenant[:]), slices.Compare(a.Endpoint[:], b.Endpoint[:]))
	})
	if err := f.d.store.PutWakes(ctx, puts); err != nil {
		f.d.log.Warn("wakes could not be put away; they will be looked at again", "error", err)
	}
}
