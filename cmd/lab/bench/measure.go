package bench

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// platform lists the parts whose cost is the product's.
var platform = []string{"api", "worker", "postgres", "redis"}

// measure runs one scenario until everything it accepted has been delivered and recorded.
func (s *session) measure(ctx context.Context, scenario Scenario) (Outcome, error) {
	if err := s.employ(ctx, scenario.Workers, scenario.Sends); err != nil {
		return Outcome{}, err
	}
	if scenario.FanOut == 0 {
		return s.idle(ctx, scenario)
	}
	sink := s.sink
	if scenario.Delay > 0 {
		sink = s.slow
	}
	if err := sink.Reset(); err != nil {
		return Outcome{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	stopProfile := func() {}
	if s.Profile {
		stopProfile = s.profile(scenario)
	}
	posts, loadCPU, err := s.load(ctx, scenario)
	stopProfile()
	if err != nil {
		return Outcome{}, fmt.Errorf("%s: %w", scenario.Name, err)
	}
	owed := 0
	for _, post := range posts {
		if post.Status == http.StatusAccepted {
			owed += scenario.FanOut
		}
	}
	if err := s.drain(ctx, sink, owed); err != nil {
		return Outcome{}, fmt.Errorf("%s: %w", scenario.Name, err)
	}
	after, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	arrivals, err := sink.Records()
	if err != nil {
		return Outcome{}, err
	}
	outcome, err := evaluate(scenario, posts, arrivals)
	if err != nil {
		return outcome, err
	}
	state, err := sink.State()
	if err != nil {
		return outcome, err
	}
	outcome.Foreign += state.Foreign
	outcome.CPU = map[string]float64{"load": perDelivery(loadCPU, outcome)}
	for name := range before {
		outcome.CPU[name] = perDelivery(after[name]-before[name], outcome)
	}
	for _, name := range platform {
		outcome.Platform += outcome.CPU[name]
	}
	return outcome, nil
}

func perDelivery(cpu time.Duration, o Outcome) float64 {
	return traffic.Milliseconds(int64(cpu)) / float64(max(o.deliveries()-o.Lost, 1))
}

func (s *session) cpu() (map[string]time.Duration, error) {
	used := make(map[string]time.Duration)
	for name, pids := range s.parts() {
		for _, pid := range pids {
			cpu, err := rig.CPU(pid)
			if err != nil {
				return nil, fmt.Errorf("processor time of %s: %w", name, err)
			}
			used[name] += cpu
		}
	}
	return used, nil
}

// load runs the load child and reads what it wrote down.
func (s *session) load(ctx context.Context, scenario Scenario) ([]traffic.Record, time.Duration, error) {
	return s.children.Load(ctx, traffic.Load{
		Address: s.api.Address, Applications: []string{s.apps[scenario.audience()]}, Key: s.tenants[scenario.Limited].Key,
		Conns: scenario.Conns, Rate: scenario.Rate, Duration: scenario.Duration,
	})
}

// drain waits until everything owed has arrived and its results are recorded. When nothing arrives any
// more, the rest is lost, which the evaluation then shows.
func (s *session) drain(ctx context.Context, sink *traffic.Sink, owed int) error {
	count, since := -1, time.Now()
	for {
		state, err := sink.State()
		if err != nil {
			return err
		}
		if state.Count >= owed {
			break
		}
		if state.Count != count {
			count, since = state.Count, time.Now()
		}
		if time.Since(since) > drainQuiet {
			return nil
		}
		if err := rig.Pause(ctx, drainPoll); err != nil {
			return err
		}
	}
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for deadline := time.Now().Add(drainQuiet); ; {
		var open bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM delivery)").Scan(&open); err != nil {
			return fmt.Errorf("look for open deliveries: %w", err)
		}
		if !open || time.Now().After(deadline) {
			return nil
		}
		if err := rig.Pause(ctx, drainPoll); err != nil {
			return err
		}
	}
}

// profileWait is how long a profile may take beyond the time it covers.
const profileWait = 30 * time.Second

// profile fetches processor profiles of both roles while a scenario runs; a binary that does not offer
// them is left alone.
func (s *session) profile(scenario Scenario) (wait func()) {
	duration := scenario.Duration * 3 / 4
	var fetching sync.WaitGroup
	for _, keeper := range slices.Concat([]*rig.Keeper{s.api}, s.workers) {
		fetching.Go(func() {
			client := wire.Client{Address: keeper.Address, Timeout: duration + profileWait}
			defer client.Close()
			path := fmt.Sprintf("/debug/pprof/profile?seconds=%d", max(int(duration.Seconds()), 1))
			answer, err := client.Do("GET", path, "", nil)
			if err != nil || answer.Status != http.StatusOK {
				s.say("  no profile of %s: it offers none", keeper.Name)
				return
			}
			file := filepath.Join(s.Dir, strings.Map(fileRune, keeper.Name+"-"+scenario.Name)+".pprof")
			if err := os.WriteFile(file, answer.Body, 0o644); err != nil {
				s.say("  no profile of %s: %v", keeper.Name, err)
				return
			}
			s.say("  profile of %s: %s", keeper.Name, file)
		})
	}
	return fetching.Wait
}

// fileRune keeps the names of scenarios usable as names of files.
func fileRune(r rune) rune {
	if r == ' ' || r == '/' {
		return '-'
	}
	if r == ',' {
		return -1
	}
	return r
}
