package dispatch

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Limiter says how many may go under limits; ratelimit.Limiter is it.
type Limiter interface {
	Take(ctx context.Context, wants []ratelimit.Want) ([]ratelimit.Grant, error)
	GiveBack(ctx context.Context, wants []ratelimit.Want) error
}

// want is so many deliveries to an endpoint under its limits.
type want struct {
	tenant   webhook.TenantID
	endpoint webhook.EndpointID
	rates    webhook.Rates
	n        int
}

// grant is how many of a want may go, and how long until the limits are worth asking again if that is
// not all.
type grant struct {
	n    int
	wait time.Duration
}

// leastBurst is what every rate grants at once: with one, each look that comes late would cost a part of
// the rate.
const leastBurst = 2

// burstOf is how much a rate grants at once, at least a twentieth of a second's worth: what waits is
// looked at about that often, so a smaller burst would be a lower rate.
func burstOf(r webhook.Rate) int {
	burst := r.Burst
	if burst == 0 {
		burst = ratelimit.DefaultBurst(r.PerSecond)
	}
	return max(burst, (r.PerSecond+19)/20, leastBurst)
}

func (w want) limits() ratelimit.Want {
	out := ratelimit.Want{Tenant: w.tenant, N: w.n}
	for _, l := range []struct {
		on   ratelimit.Key
		rate webhook.Rate
	}{
		{ratelimit.Deliveries(), w.rates.OverTenant},
		{ratelimit.Application(w.rates.Application), w.rates.OverApplication},
		{ratelimit.Endpoint(w.endpoint), w.rates.Endpoint},
	} {
		if l.rate.PerSecond > 0 {
			out.Limits = append(out.Limits, ratelimit.Limit{On: l.on, Rate: ratelimit.Rate{PerSecond: l.rate.PerSecond, Burst: burstOf(l.rate)}})
		}
	}
	return out
}

// patience is how long to leave a limit alone that has been reached: until half of what it grants at
// once is there again, so that those looks are few, and none of the rate is lost between two of them.
func (w want) patience() time.Duration {
	shortest := limitedEvery
	for _, r := range []webhook.Rate{w.rates.OverTenant, w.rates.OverApplication, w.rates.Endpoint} {
		if r.PerSecond > 0 {
			shortest = min(shortest, time.Duration(burstOf(r))*time.Second/time.Duration(2*r.PerSecond))
		}
	}
	return shortest
}

// admit asks the limits how many of each want may go. When they do not answer nothing may, for a moment.
func (d *Dispatcher) admit(ctx context.Context, wants []want) []grant {
	out := make([]grant, len(wants))
	if len(wants) == 0 {
		return out
	}
	asks := make([]ratelimit.Want, len(wants))
	for i, w := range wants {
		asks[i] = w.limits()
	}
	grants, err := d.limiter.Take(ctx, asks)
	for i := range out {
		if err != nil {
			out[i].wait = limitedEvery
			continue
		}
		out[i].n = grants[i].N
		if out[i].n < wants[i].n {
			out[i].wait = max(grants[i].Wait, wants[i].patience())
		}
	}
	if err != nil {
		d.log.Debug("the rate limits did not answer; what is limited waits", "error", err)
	}
	return out
}

// admitEvenly is admit for many endpoints at once, of which sharing counts those under limits that they
// share with others of their tenant. Such a limit is shared evenly: the first would take all of it. That
// lowers wants. Who gets nothing waits in line, and who got something goes behind who got nothing.
func (d *Dispatcher) admitEvenly(ctx context.Context, wants []want, sharing map[webhook.TenantID]int) []grant {
	for i := range wants {
		w := &wants[i]
		if k := sharing[w.tenant]; k > 1 {
			w.n = min(w.n, max(1, sharedBurst(w.rates)/k))
		}
	}
	denied := make(map[webhook.TenantID]int)
	grants := d.admit(ctx, wants)
	for i, w := range wants {
		g := &grants[i]
		if g.n == w.n {
			continue
		}
		if g.n == 0 {
			g.wait += inLine(w.rates, denied[w.tenant])
			denied[w.tenant]++
		}
		g.wait = min(g.wait, limitedLatest)
	}
	for i, w := range wants {
		if g := &grants[i]; g.wait > 0 && g.n > 0 {
			g.wait = min(g.wait+inLine(w.rates, denied[w.tenant]), limitedLatest)
		}
	}
	return grants
}

// inLine is how long those before take at a limit that many share.
func inLine(r webhook.Rates, before int) time.Duration {
	if r.OverTenant.PerSecond == 0 {
		return 0
	}
	return time.Duration(before) * time.Second / time.Duration(r.OverTenant.PerSecond)
}

// sharedBurst is how much the limits that an endpoint shares with others grant at once.
func sharedBurst(r webhook.Rates) int {
	n := unbounded
	for _, rate := range []webhook.Rate{r.OverTenant, r.OverApplication} {
		if rate.PerSecond > 0 {
			n = min(n, burstOf(rate))
		}
	}
	return n
}

// giveBack returns what was granted and not used. If it cannot be, a little less than allowed goes.
func (d *Dispatcher) giveBack(ctx context.Context, unused []want) {
	if len(unused) == 0 {
		return
	}
	asks := make([]ratelimit.Want, len(unused))
	for i, w := range unused {
		asks[i] = w.limits()
	}
	if err := d.limiter.GiveBack(ctx, asks); err != nil {
		d.log.Debug("grants could not be given back", "error", err)
	}
}

// admitted are those of released deliveries that their limits let go now; the others are parked until
// the limits are worth asking again.
func (d *Dispatcher) admitted(ctx context.Context, deliveries []webhook.Delivery, rates []webhook.Rates) []webhook.Delivery {
	type group struct{ members []webhook.Delivery }
	var (
		goes   = make([]webhook.Delivery, 0, len(deliveries))
		wants  []want
		groups []group
		at     = make(map[endpoint]int)
	)
	for i, delivery := range deliveries {
		if i >= len(rates) || !rates[i].Any() {
			goes = append(goes, delivery)
			continue
		}
		k := endpoint{delivery.Tenant, delivery.Endpoint}
		g, known := at[k]
		if !known {
			g = len(groups)
			at[k] = g
			groups = append(groups, group{})
			wants = append(wants, want{tenant: k.tenant, endpoint: k.endpoint, rates: rates[i]})
		}
		groups[g].members = append(groups[g].members, delivery)
		wants[g].n++
	}
	held := make(map[time.Duration][]webhook.Delivery)
	for g, granted := range d.admit(ctx, wants) {
		goes = append(goes, groups[g].members[:granted.n]...)
		if rest := groups[g].members[granted.n:]; len(rest) > 0 {
			held[granted.wait] = append(held[granted.wait], rest...)
		}
	}
	for wait, rest := range held {
		d.metrics.Throttled.Add(float64(len(rest)))
		d.PutBack(rest, store.Hold{For: wait})
	}
	return goes
}
