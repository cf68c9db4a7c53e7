package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// platform lists the parts whose cost is the product's.
var platform = []string{"api", "worker", "postgres", "redis"}

// measure runs one scenario until everything it accepted has been delivered and recorded.
func (s *session) measure(ctx context.Context, scenario Scenario) (Outcome, error) {
	if scenario.FanOut == 0 {
		return s.idle(ctx, scenario)
	}
	if _, err := s.ask("/reset", ""); err != nil {
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
		if post.status == http.StatusAccepted {
			owed += scenario.FanOut
		}
	}
	if err := s.drain(ctx, owed); err != nil {
		return Outcome{}, fmt.Errorf("%s: %w", scenario.Name, err)
	}
	after, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	path := s.file("sink.records")
	if _, err := s.ask("/dump", path); err != nil {
		return Outcome{}, err
	}
	arrivals, err := readRecords(path)
	if err != nil {
		return Outcome{}, err
	}
	_ = os.Remove(path)
	outcome, err := evaluate(scenario, posts, arrivals)
	if err != nil {
		return outcome, err
	}
	state, err := s.state()
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
	return milliseconds(int64(cpu)) / float64(max(o.deliveries()-o.Lost, 1))
}

// idleSettle lets the echoes of the work before pass: autovacuum, garbage collection, checkpoints' start.
const idleSettle = 3 * time.Second

// idle measures what the platform costs when there is nothing to do, as a share of one core.
func (s *session) idle(ctx context.Context, scenario Scenario) (Outcome, error) {
	if err := pause(ctx, idleSettle); err != nil {
		return Outcome{}, err
	}
	before, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	began := time.Now()
	if err := pause(ctx, scenario.Duration); err != nil {
		return Outcome{}, err
	}
	after, err := s.cpu()
	if err != nil {
		return Outcome{}, err
	}
	took := time.Since(began)
	outcome := Outcome{Scenario: scenario.Name, CPU: make(map[string]float64)}
	for _, name := range platform {
		outcome.CPU[name] = float64(after[name]-before[name]) / float64(took)
		outcome.Platform += outcome.CPU[name]
	}
	return outcome, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

func (s *session) cpu() (map[string]time.Duration, error) {
	used := make(map[string]time.Duration)
	for name, pid := range s.parts() {
		cpu, err := rig.CPU(pid)
		if err != nil {
			return nil, fmt.Errorf("processor time of %s: %w", name, err)
		}
		used[name] = cpu
	}
	return used, nil
}

// load runs the load child and reads what it wrote down.
func (s *session) load(ctx context.Context, scenario Scenario) ([]record, time.Duration, error) {
	path := s.file("load.records")
	_, cpu, err := s.finish(ctx, scenario.Duration, "load",
		"-address", s.api.Address, "-app", s.apps[scenario.FanOut], "-conns", strconv.Itoa(scenario.Conns),
		"-rate", strconv.FormatFloat(scenario.Rate, 'f', -1, 64), "-duration", scenario.Duration.String(), "-out", path)
	if err != nil {
		return nil, 0, err
	}
	posts, err := readRecords(path)
	_ = os.Remove(path)
	return posts, cpu, err
}

// drain waits until everything owed has arrived and its results are recorded. When nothing arrives any
// more, the rest is lost, which the evaluation then shows.
func (s *session) drain(ctx context.Context, owed int) error {
	count, since := -1, time.Now()
	for {
		state, err := s.state()
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
		if err := pause(ctx, drainPoll); err != nil {
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
		if err := pause(ctx, drainPoll); err != nil {
			return err
		}
	}
}

// ask makes one request to the sink's control port.
func (s *session) ask(path, body string) ([]byte, error) {
	answer, err := s.control.Do("POST", path, "", []byte(body))
	if err != nil {
		return nil, fmt.Errorf("ask the sink: %w", err)
	}
	if answer.Status/100 != 2 {
		return nil, fmt.Errorf("ask the sink: %s: %d %s", path, answer.Status, answer.Body)
	}
	return answer.Body, nil
}

func (s *session) state() (state sinkState, err error) {
	text, err := s.ask("/count", "")
	if err != nil {
		return state, err
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("ask the sink: %w", err)
	}
	return state, nil
}

// profile fetches processor profiles of both roles while a scenario runs; a binary that does not offer
// them is left alone.
func (s *session) profile(scenario Scenario) (wait func()) {
	duration := scenario.Duration * 3 / 4
	var fetching sync.WaitGroup
	for _, keeper := range []*rig.Keeper{s.api, s.worker} {
		fetching.Go(func() {
			client := wire.Client{Address: keeper.Address, Timeout: duration + childWait}
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
