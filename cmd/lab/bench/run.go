package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// Options describe a bench.
type Options struct {
	Binary    string // the posthaste binary
	Self      string // the lab's own binary, which is also sink, load and bare loop
	Dir       string // for data, logs and profiles; must exist
	Scenarios []Scenario
	Bare      time.Duration // of one bare loop
	Warmup    time.Duration
	Profile   bool      // fetch processor profiles while posting
	Progress  io.Writer // one line per step
}

// Run is what one pass over all scenarios came to.
type Run struct {
	Bare      []float64        `json:"bareLoopPerSecond"` // each time it was measured
	Outcomes  []Outcome        `json:"scenarios"`
	Memory    map[string]int64 `json:"peakMemoryBytes"`
	Postgres  string           `json:"postgres"`
	Installed float64          `json:"installSeconds"` // from nothing to ready
}

// bareLoop is the figure to compare with.
func (r Run) bareLoop() float64 { return traffic.Percentile(append([]float64(nil), r.Bare...), 50) }

const (
	// drainQuiet is how long nothing may arrive before the rest counts as lost.
	drainQuiet = 40 * time.Second
	// drainPoll is how often the sink is asked; often enough to add nothing to the result.
	drainPoll = 20 * time.Millisecond
)

// session is one run under way.
type session struct {
	Options
	rig      *rig.Rig
	children *traffic.Children
	api      *rig.Keeper
	workers  []*rig.Keeper
	sends    int           // allowed at once in each worker; 0 = as many as by default
	sink     *traffic.Sink // answers at once
	slow     *traffic.Sink // keeps answers for a while; nil unless a scenario wants it
	tenants  map[bool]rig.Tenant
	apps     map[audience]string
	memory   map[string]int64 // peaks of processes that have ended
}

// audience is whom a scenario posts to; each is an application of its own.
type audience struct {
	fanOut  int
	limited bool
	slow    bool
}

func (s Scenario) audience() audience { return audience{s.FanOut, s.Limited, s.Delay > 0} }

// Measure makes a fresh installation and runs every scenario on it.
func Measure(ctx context.Context, o Options) (run Run, err error) {
	began := time.Now()
	installation, err := rig.Open(ctx, rig.Options{
		Dir: o.Dir, Binary: o.Binary, MaxConnections: 100, PostgresSettings: rig.SmallServer(),
	})
	if err != nil {
		return Run{}, err
	}
	defer installation.Close()
	s := &session{
		Options: o, rig: installation, children: &traffic.Children{Rig: installation, Self: o.Self, Dir: o.Dir},
		tenants: make(map[bool]rig.Tenant), apps: make(map[audience]string), memory: make(map[string]int64),
	}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return Run{}, err
	}
	run = Run{Postgres: installation.PostgresVersion(), Memory: s.memory, Installed: time.Since(began).Seconds()}
	var peak rig.PeakMemory
	stopPeak := s.watch(ctx, &peak)
	defer stopPeak()
	if err := s.scenarios(ctx, &run); err != nil {
		return run, err
	}
	stopPeak()
	for name, pids := range s.parts() {
		if name == "postgres" {
			continue
		}
		for _, pid := range pids {
			if err := s.notePeak(name, pid); err != nil {
				return run, err
			}
		}
	}
	run.Memory["postgres"] = peak.Bytes("postgres")
	return run, errors.Join(s.api.Stop(), s.dismiss())
}

func (s *session) close() {
	for _, sink := range []*traffic.Sink{s.sink, s.slow} {
		if sink != nil {
			sink.Close()
		}
	}
}

// notePeak keeps the most memory that any process of a part ever took.
func (s *session) notePeak(name string, pid int) error {
	peak, err := rig.PeakResident(pid)
	if err != nil {
		return err
	}
	s.memory[name] = max(s.memory[name], peak)
	return nil
}

// parts lists the processes of every part that lives as long as the run, by its name.
func (s *session) parts() map[string][]int {
	parts := map[string][]int{
		"api": {s.api.PID()}, "redis": {s.rig.RedisPID()}, "sink": {s.sink.Process.PID()}, "postgres": {s.rig.PostgresPID()},
	}
	for _, worker := range s.workers {
		parts["worker"] = append(parts["worker"], worker.PID())
	}
	if s.slow != nil {
		parts["sink"] = append(parts["sink"], s.slow.Process.PID())
	}
	return parts
}

func (s *session) watch(ctx context.Context, peak *rig.PeakMemory) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { peak.Run(ctx, map[string]int{"postgres": s.rig.PostgresPID()}) })
	return func() {
		cancel()
		watching.Wait()
	}
}

func (s *session) start(ctx context.Context) error {
	var err error
	if s.sink, err = s.children.Sink(ctx, 0); err != nil {
		return err
	}
	if s.api, err = s.rig.Keep("api", "api", nil); err != nil {
		return err
	}
	if err := s.employ(ctx, 1, 0); err != nil {
		return err
	}
	if err := s.api.Ready(ctx); err != nil {
		return err
	}
	for _, scenario := range append([]Scenario{{FanOut: 1}}, s.Scenarios...) {
		if scenario.Delay > 0 && s.slow == nil {
			if s.slow, err = s.children.Sink(ctx, scenario.Delay); err != nil {
				return err
			}
		}
		if to := scenario.audience(); to.fanOut > 0 && s.apps[to] == "" {
			if s.apps[to], err = s.application(ctx, to); err != nil {
				return err
			}
		}
	}
	return nil
}

// employ replaces the workers by so many, each of which may have so many sends under way; 0 leaves that
// to the product.
func (s *session) employ(ctx context.Context, count, sends int) error {
	count = max(count, 1)
	if len(s.workers) == count && s.sends == sends {
		return nil
	}
	if err := s.dismiss(); err != nil {
		return err
	}
	s.sends = sends
	environment := func(int) []string {
		if sends == 0 {
			return nil
		}
		return []string{"POSTHASTE_WORKER_CONCURRENCY=" + strconv.Itoa(sends)}
	}
	for n := range count {
		name := "worker"
		if n > 0 {
			name += "-" + strconv.Itoa(n+1)
		}
		worker, err := s.rig.Keep(name, "worker", environment)
		if err != nil {
			return err
		}
		s.workers = append(s.workers, worker)
	}
	for _, worker := range s.workers {
		if err := worker.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// dismiss stops the workers in order.
func (s *session) dismiss() error {
	for _, worker := range s.workers {
		if err := s.notePeak("worker", worker.PID()); err != nil {
			return err
		}
	}
	var problems []error
	for _, worker := range s.workers {
		problems = append(problems, worker.Stop())
	}
	s.workers = nil
	return errors.Join(problems...)
}

// highRate is a limit that no scenario comes near: the highest the API takes.
const highRate = 65535

// undefinedColumn is what Postgres says of a limit that a commit it is compared with does not have yet.
const undefinedColumn = "42703"

// tenant makes the tenant that has limits, or the one that has none, once.
func (s *session) tenant(ctx context.Context, limited bool) (rig.Tenant, error) {
	if made, ok := s.tenants[limited]; ok {
		return made, nil
	}
	name := "bench"
	if limited {
		name += "-limited"
	}
	made, err := s.rig.NewTenant(ctx, name)
	if err != nil {
		return made, err
	}
	if limited {
		err := s.rig.LimitTenant(ctx, made, 2*highRate, 2*highRate)
		if missing := (*pgconn.PgError)(nil); errors.As(err, &missing) && missing.Code == undefinedColumn {
			err = nil
		}
		if err != nil {
			return made, err
		}
	}
	s.tenants[limited] = made
	return made, nil
}

// application makes an application with endpoints of its kind, all at one sink.
func (s *session) application(ctx context.Context, to audience) (string, error) {
	tenant, err := s.tenant(ctx, to.limited)
	if err != nil {
		return "", err
	}
	api := rig.NewAPI(s.api.Address, tenant.Key)
	defer api.Close()
	name, sink := fmt.Sprintf("fan-out-%d", to.fanOut), s.sink
	if to.slow {
		name, sink = name+"-slow", s.slow
	}
	application, err := api.Application(name)
	if err != nil {
		return "", err
	}
	limit := map[string]int{"throttleRate": highRate}
	if to.limited {
		if err := api.Patch("/api/v1/app/"+application, limit); err != nil {
			return "", err
		}
	}
	for n := range to.fanOut {
		endpoint, err := api.Endpoint(application, sink.URL(n), "")
		if err != nil {
			return "", err
		}
		if to.limited {
			if err := api.Patch("/api/v1/app/"+application+"/endpoint/"+endpoint, limit); err != nil {
				return "", err
			}
		}
	}
	return application, nil
}

func (s *session) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.Progress, format+"\n", args...)
}

// scenarios runs all of them, with the bare loop before, in the middle and after.
func (s *session) scenarios(ctx context.Context, run *Run) error {
	bare := func() error {
		rate, err := s.bare(ctx)
		run.Bare = append(run.Bare, rate)
		s.say("  bare POST loop: %.0f/s", rate)
		return err
	}
	if err := bare(); err != nil {
		return err
	}
	if s.Warmup > 0 {
		if _, err := s.measure(ctx, Scenario{Name: "warm-up", Conns: 16, FanOut: 1, Duration: s.Warmup}); err != nil {
			return err
		}
	}
	for i, scenario := range s.Scenarios {
		outcome, err := s.measure(ctx, scenario)
		if err != nil {
			return err
		}
		run.Outcomes = append(run.Outcomes, outcome)
		s.say("  %s", strings.TrimSpace(outcome.line()))
		if i == len(s.Scenarios)/2 {
			if err := bare(); err != nil {
				return err
			}
		}
	}
	if err := bare(); err != nil {
		return err
	}
	for i := range run.Outcomes {
		run.Outcomes[i].Ratio = run.Outcomes[i].Sustained / run.bareLoop()
	}
	return nil
}

func (s *session) bare(ctx context.Context) (float64, error) {
	server, at, err := s.children.Listening(ctx, "bare-server")
	if err != nil {
		return 0, err
	}
	defer func() {
		server.Kill()
		<-server.Done()
	}()
	printed, _, err := s.children.Finish(ctx, s.Bare, "", "bare-client", "-address", at.Address, "-duration", s.Bare.String())
	if err != nil {
		return 0, err
	}
	var result bareResult
	if err := json.Unmarshal(printed, &result); err != nil {
		return 0, fmt.Errorf("read the bare loop's result: %w", err)
	}
	return float64(result.Requests) / result.Seconds, nil
}
