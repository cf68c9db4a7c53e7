package soak

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

const (
	// behindEndpoints is how many endpoints the tenant that is behind has; they are the sink's first.
	behindEndpoints = 10
	// besideAt is the sink's number of the other tenant's endpoint.
	besideAt = 100
	// besideRate is what the other tenant posts, in messages per second.
	besideRate = 10

	// limitRate and limitBurst are what the tenant that is behind may have, in the stage with a limit.
	limitRate  = 100
	limitBurst = 10

	// explainFor is how long plans are looked at, before and after what is timed.
	explainFor = time.Second
	// startUp is what is left out at the beginning of each stretch.
	startUp = time.Second
)

// What has to be met.
const (
	besideP50 = 50.0  // ms, end to end
	besideP99 = 500.0 // ms
	keptShare = 80.0  // per cent of its rate alone that the tenant that is behind keeps
	scanLimit = 5.0   // ms
	memoryCap = 50.0  // MB of Redis
	rateError = 2.0   // per cent
	enough    = 20.0  // s beside the other while there is a backlog, or half of what was asked for if that is less
)

func backlog(ctx context.Context, s *site, r *Result) error { return behind(ctx, s, r, false) }
func limited(ctx context.Context, s *site, r *Result) error { return behind(ctx, s, r, true) }

// behind loads a backlog for one tenant, lets it be delivered alone for a while, and then beside another
// tenant's messages.
func behind(ctx context.Context, s *site, r *Result, withLimit bool) error {
	big, err := s.rig.NewTenant(ctx, "behind")
	if err != nil {
		return err
	}
	small, err := s.rig.NewTenant(ctx, "beside")
	if err != nil {
		return err
	}
	if withLimit {
		if err := s.rig.LimitTenant(ctx, big, limitRate, limitBurst); err != nil {
			return err
		}
	}
	late, err := s.applications(big, "behind", 1, behindEndpoints, s.sink.URL)
	if err != nil {
		return err
	}
	beside, err := s.applications(small, "beside", 1, 1, func(int) string { return s.sink.URL(besideAt) })
	if err != nil {
		return err
	}
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	memory := s.watchMemory(ctx)
	defer memory.stop()
	keys, err := newRows(big, late[0], s.options.Rows, time.Now())
	if err != nil {
		return err
	}
	visible, err := keys.load(ctx, conn)
	if err != nil {
		return err
	}
	s.say("%d deliveries are due, loaded in %v", s.options.Rows, visible.Sub(keys.now).Round(time.Second))
	// The feeder knows that what comes to be due does so from now on, and looks further back only now and
	// then. What was due long ago is what it finds when it starts, as after an outage.
	if err := s.work(ctx); err != nil {
		return err
	}
	plans := planWatch{conn: conn}
	if err := s.explain(ctx, r, &plans, "at first", 1); err != nil {
		return err
	}

	// At first the feeder puts what it found in order. The other one may not notice, but what is delivered
	// meanwhile is not the rate of who is behind.
	first, err := s.post(ctx, small, beside, besideRate, s.options.Duration/4).wait()
	if err != nil {
		return err
	}
	alone := stretch{from: time.Now().Add(startUp)}
	if !withLimit {
		if err := rig.Pause(ctx, startUp+s.options.Duration/6); err != nil {
			return err
		}
	}
	alone.to = time.Now()
	before, err := s.scrapes()
	if err != nil {
		return err
	}
	together := stretch{from: time.Now()}
	load := s.post(ctx, small, beside, besideRate, s.options.Duration)
	posts, err := load.wait()
	if err != nil {
		return err
	}
	together.to = together.from.Add(s.options.Duration)
	after, err := s.scrapes()
	if err != nil {
		return err
	}
	used, err := memory.end()
	if err != nil {
		return err
	}
	// Now there are the remains of everything that was delivered, too. Without a limit nothing else may be left.
	least := 0
	if withLimit {
		least = 1
	}
	if err := s.explain(ctx, r, &plans, "in the end", least); err != nil {
		return err
	}
	if err := s.settle(ctx, beside...); err != nil {
		return err
	}
	arrivals, err := s.sink.Records()
	if err != nil {
		return err
	}
	state, err := s.sink.State()
	if err != nil {
		return err
	}
	together.from = together.from.Add(startUp)
	of := crowd{rows: s.options.Rows, big: arrivalsOf(arrivals, endpoints{0, behindEndpoints}), alone: alone, together: together}
	if withLimit {
		of.judgeLimit(r)
	} else {
		of.judgeShare(r)
	}
	atOther := arrivalsOf(arrivals, endpoints{besideAt, 1})
	// Only what was posted while there was a backlog says what one does.
	atFirst, later := follow(first, atOther), follow(postedBefore(posts, of.together.to), atOther)
	r.Figures["besideAtFirst"], r.Figures["beside"] = atFirst, later
	r.check(
		atMost("the other at first: p50", atFirst.P50, "ms", besideP50), atMost("p99", atFirst.P99, "ms", besideP99),
		atMost("the other: p50", later.P50, "ms", besideP50), atMost("p99", later.P99, "ms", besideP99),
	)
	r.check(follow(slices.Concat(first, posts), atOther).whole("the other", besideRate, s.options.Duration*5/4)...)
	worked := after.worker.since(before.worker)
	looks := worked.durations(scanMetric)
	r.Figures["feederScans"], r.Figures["resultCommits"] = looks, worked.durations(resultMetric)
	r.Figures["acceptCommits"] = after.api.since(before.api).durations(acceptMetric)
	r.check(atLeast("the feeder's looks", float64(looks.Count), "", 1), atMost("one of them by its metric, mean", looks.Mean, "ms", scanLimit))
	r.check(atMost("most memory of Redis", used, "MB", memoryCap), atLeast("looks at it", float64(memory.looks), "", math.Floor(s.options.Duration.Seconds()/2)))
	r.check(atMost("requests that are nobody's", float64(state.Foreign), "", 0))
	return nil
}

// scrapes are the metrics of both processes at one moment.
type scrapes struct{ api, worker metrics }

func (s *site) scrapes() (both scrapes, err error) {
	if both.api, err = scrape(s.api.Address); err != nil {
		return both, err
	}
	both.worker, err = scrape(s.worker.Address)
	return both, err
}

// postedBefore are the posts that were begun before a moment.
func postedBefore(posts []traffic.Record, end time.Time) []traffic.Record {
	return slices.DeleteFunc(slices.Clone(posts), func(p traffic.Record) bool { return p.Sent >= end.UnixNano() })
}

// explain looks at what the feeder has Postgres do, where Postgres can tell; so many statements at least.
func (s *site) explain(ctx context.Context, r *Result, plans *planWatch, when string, least int) error {
	if !s.plans {
		r.Figures["plans "+when] = "not looked at: this Postgres has no auto_explain"
		return nil
	}
	statements, err := plans.look(ctx, explainFor)
	if err != nil {
		return err
	}
	r.judgePlans(statements, when, least)
	return nil
}

// judgePlans judges what the feeder had Postgres do.
func (r *Result) judgePlans(statements []Statement, when string, least int) {
	r.Figures["plans "+when] = statements
	var slowest float64
	whole := 0
	for _, s := range statements {
		slowest = max(slowest, s.Scan)
		if s.ReadsAll {
			whole++
		}
	}
	r.check(
		atLeast("statements of the feeder that were explained "+when, float64(len(statements)), "", float64(least)),
		atMost("its slowest scan by the plans, median", slowest, "ms", scanLimit),
		atMost("statements that read a whole table", float64(whole), "", 0),
	)
}

// crowd is what arrived for the tenant that is behind.
type crowd struct {
	rows            int
	big             []traffic.Record
	alone, together stretch
}

// clip ends the time together where the backlog ran out: from there on nobody was behind.
func (c *crowd) clip() {
	if len(c.big) < c.rows {
		return
	}
	var last int64
	for _, arrival := range c.big {
		last = max(last, arrival.End)
	}
	if end := time.Unix(0, last); end.Before(c.together.to) {
		c.together.to = end
	}
}

// doubled is how many arrived more than once.
func (c *crowd) doubled() int {
	seen := make(map[uint64]bool, len(c.big))
	for _, arrival := range c.big {
		seen[arrival.ID] = true
	}
	return len(c.big) - len(seen)
}

// judgeShare compares what the tenant had alone with what it had beside the other: medians of seconds.
func (c *crowd) judgeShare(r *Result) {
	asked := c.together.length().Seconds()
	c.clip()
	alone, together := perSecond(c.big, c.alone), perSecond(c.big, c.together)
	r.Figures["aloneEachSecond"], r.Figures["besideEachSecond"] = alone, together
	kept := 0.0
	if median(alone) > 0 {
		kept = 100 * median(together) / median(alone)
	}
	r.Figures["alonePerSecond"], r.Figures["besidePerSecond"] = median(alone), median(together)
	r.check(
		atLeast("who is behind: rate kept", kept, "%", keptShare),
		atLeast("its rate alone", median(alone), "/s", 1),
		atLeast("seconds until its backlog was gone", c.together.length().Seconds(), "s", min(asked/2, enough)),
		atMost("its duplicates", float64(c.doubled()), "", 0),
	)
}

// judgeLimit compares the tenant's rate with its limit.
func (c *crowd) judgeLimit(r *Result) {
	c.clip()
	got := rate(c.big, c.together)
	r.Figures["besideEachSecond"], r.Figures["besidePerSecond"] = perSecond(c.big, c.together), got
	r.check(
		atMost("who is limited: off its 100/s", 100*math.Abs(got-limitRate)/limitRate, "%", rateError),
		atMost("its duplicates", float64(c.doubled()), "", 0),
	)
}
