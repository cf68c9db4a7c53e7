package soak

import "context"

const (
	// holes is how many endpoints never answer; each is an application's only one.
	holes = 500
	// holeRate is how many messages per second go to all of them together.
	holeRate = 100
	// healthyRate is how many go to healthy endpoints.
	healthyRate = 100
	// slower is how many times as long healthy endpoints may have to wait beside them.
	slower = 2.0
	// measurable is the least that can be true of a p99, in milliseconds.
	measurable = 0.1
)

// blackhole measures healthy endpoints alone and then beside ones that take every connection and never
// answer, from the first message to them on: nothing is known of them then.
func blackhole(ctx context.Context, s *site, r *Result) error {
	n, err := s.neighbours(ctx)
	if err != nil {
		return err
	}
	port, err := s.holePort(ctx)
	if err != nil {
		return err
	}
	sick, err := s.applications(n.unlucky(), "hole", holes, 1, func(number int) string { return hostURL(number, port) })
	if err != nil {
		return err
	}
	if err := s.work(ctx); err != nil {
		return err
	}
	if _, err := s.talk(ctx, n, healthyRate, s.options.Duration/6); err != nil { // warm-up
		return err
	}
	alone, err := s.talk(ctx, n, healthyRate, s.options.Duration)
	if err != nil {
		return err
	}
	s.say("healthy endpoints alone: p99 %.1f and %.1f ms", alone[0].P99, alone[1].P99)
	before, err := scrape(s.worker.Address)
	if err != nil {
		return err
	}
	load := s.post(ctx, n.unlucky(), sick, holeRate, s.options.Duration)
	beside, err := s.talk(ctx, n, healthyRate, s.options.Duration)
	if err != nil {
		<-load.done
		return err
	}
	posts, err := load.wait()
	if err != nil {
		return err
	}
	after, err := scrape(s.worker.Address)
	if err != nil {
		return err
	}
	grown := after.since(before)
	_, failed := grown.attempts()
	toHoles := follow(posts, nil)
	r.Figures["alone"], r.Figures["beside"], r.Figures["attemptsThatFailed"] = alone, beside, failed
	r.check(
		atLeast("accepted for the holes of what was to be posted", toHoles.keptPace(holeRate, s.options.Duration), "%", pace),
		atLeast("attempts at them that failed", failed, "", 1),
	)
	for i, g := range n.groups {
		r.judgeBeside(g.who, alone[i], beside[i])
		r.check(alone[i].whole(g.who+" alone", healthyRate/2, s.options.Duration)...)
		r.check(beside[i].whole(g.who+" beside", healthyRate/2, s.options.Duration)...)
	}
	return nil
}

// judgeBeside compares the p99 of one group's messages with what it was alone.
func (r *Result) judgeBeside(who string, alone, beside journey) {
	r.check(
		atLeast(who+": p99 alone", alone.P99, "ms", measurable),
		atMost(who+": p99 beside them", beside.P99, "ms", slower*alone.P99),
	)
}
