package soak

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
)

const (
	// graves is how many applications have only dead endpoints, and each how many. Half of them refuse
	// connections, the other half take them and never answer.
	graves    = 50
	graveEach = 200
	// graveRate is how many messages per second go to them, each to all the endpoints of one application.
	graveRate = 50
	// besideDead is how many messages per second go to healthy endpoints.
	besideDead = 50

	// restAfter is how long after the last post the installation is at rest; restFor is how long it is
	// watched then.
	restAfter = 40 * time.Second
	restFor   = 30 * time.Second
)

// What has to be met.
const (
	healthyP99 = 1000.0 // ms
	// acquaintance is for how long the healthy endpoints are posted to before: a worker knows those that
	// answer, and ten thousand that it has never heard of come beside them.
	acquaintance = 5 * time.Second
	// burnt is the most attempts per second that may fail once it is known who is dead, in per cent of
	// what is owed: the rule of the breaker, a probe whenever a quarter of the time it has been open has
	// passed, comes to an average of 22 from 10 to 30 seconds after it opened. probesEvery is how
	// often at most a dead endpoint may be tried when nothing is posted.
	burnt       = 20.0
	probesEvery = 20 * time.Second
	restCPU     = 80.0 // per cent of one core, all processes together
)

// dead posts to very many endpoints that take nothing, and watches those that do, and what it costs when
// posting has ended.
func dead(ctx context.Context, s *site, r *Result) error {
	n, err := s.neighbours(ctx)
	if err != nil {
		return err
	}
	hole, err := s.holePort(ctx)
	if err != nil {
		return err
	}
	closed, err := refusingPort()
	if err != nil {
		return err
	}
	began := time.Now()
	sick, err := s.applications(n.unlucky(), "dead", graves, graveEach, func(number int) string {
		if number%2 == 0 {
			return hostURL(number, hole)
		}
		return hostURL(number, closed)
	})
	if err != nil {
		return err
	}
	s.say("%d dead endpoints, made in %v", graves*graveEach, time.Since(began).Round(time.Second))
	if err := s.work(ctx); err != nil {
		return err
	}
	if _, err := s.talk(ctx, n, besideDead, acquaintance); err != nil {
		return err
	}
	load := s.post(ctx, n.unlucky(), sick, graveRate, s.options.Duration)
	var atFirst, known metrics
	watched := make(chan error, 1)
	go func() { watched <- s.getsToKnow(ctx, &atFirst, &known) }()
	beside, err := s.talk(ctx, n, besideDead, s.options.Duration)
	posts, loadErr := load.wait()
	watchErr := <-watched
	for _, err := range []error{err, loadErr, watchErr} {
		if err != nil {
			return err
		}
	}
	toDead := follow(posts, nil)
	_, first := atFirst.attempts()
	_, later := known.attempts()
	atFirstFor, knownFor := s.getToKnow().Seconds(), (s.options.Duration - s.getToKnow()).Seconds()
	r.Figures["beside"] = beside
	r.Figures["failedPerSecond"] = map[string]float64{"first two thirds": first / atFirstFor, "last third": later / knownFor}
	const owed = graveRate * graveEach
	r.check(
		atLeast("accepted for the dead of what was to be posted", toDead.keptPace(graveRate, s.options.Duration), "%", pace),
		atMost("attempts that failed, last third", later/knownFor, "/s", owed*burnt/100),
	)
	for i, g := range n.groups {
		r.check(atMost(g.who+": p99", beside[i].P99, "ms", healthyP99))
		r.check(beside[i].whole(g.who, besideDead/2, s.options.Duration)...)
	}
	return s.rest(ctx, r)
}

// getToKnow is the part of the time that is judged after which it is known who is dead: to see that an
// endpoint hangs takes a place, and time.
func (s *site) getToKnow() time.Duration { return s.options.Duration * 2 / 3 }

// getsToKnow counts what happens until then, and in the rest of the time.
func (s *site) getsToKnow(ctx context.Context, first, second *metrics) error {
	var at [3]metrics
	for i, pause := range []time.Duration{0, s.getToKnow(), s.options.Duration - s.getToKnow()} {
		if pause > 0 {
			if err := rig.Pause(ctx, pause); err != nil {
				return err
			}
		}
		var err error
		if at[i], err = scrape(s.worker.Address); err != nil {
			return err
		}
	}
	*first, *second = at[1].since(at[0]), at[2].since(at[1])
	return nil
}

// rest measures what dead endpoints cost when nobody posts.
func (s *site) rest(ctx context.Context, r *Result) error {
	if err := rig.Pause(ctx, restAfter); err != nil {
		return err
	}
	before, err := scrape(s.worker.Address)
	if err != nil {
		return err
	}
	used, err := s.platformCPU()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := rig.Pause(ctx, restFor); err != nil {
		return err
	}
	usedThen, err := s.platformCPU()
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := scrape(s.worker.Address)
	if err != nil {
		return err
	}
	_, failed := after.since(before).attempts()
	r.check(
		atMost("attempts that failed, at rest", failed/took.Seconds(), "/s", graves*graveEach/probesEvery.Seconds()),
		atMost("processor at rest, of one core", 100*float64(usedThen-used)/float64(took), "%", restCPU),
	)
	return nil
}
