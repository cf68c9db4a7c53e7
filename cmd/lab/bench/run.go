package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/wire"
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
func (r Run) bareLoop() float64 { return percentile(append([]float64(nil), r.Bare...), 50) }

const (
	// drainQuiet is how long nothing may arrive before the rest counts as lost.
	drainQuiet = 40 * time.Second
	// drainPoll is how often the sink is asked; often enough to add nothing to the result.
	drainPoll = 20 * time.Millisecond
	// childWait is how long a child of the lab may take beyond its given duration.
	childWait = 30 * time.Second
)

// session is one run under way.
type session struct {
	Options
	rig     *rig.Rig
	api     *rig.Keeper
	worker  *rig.Keeper
	sink    *rig.Process
	at      addresses // of the sink
	control wire.Client
	key     string
	apps    map[int]string // application by fan-out
	files   int
}

// Measure makes a fresh installation and runs every scenario on it.
func Measure(ctx context.Context, o Options) (run Run, err error) {
	began := time.Now()
	installation, err := rig.Open(ctx, rig.Options{
		Dir: o.Dir, Binary: o.Binary, MaxConnections: 100,
		// Sizes a small server would have; durability stays as Postgres has it by default.
		PostgresSettings: map[string]string{"shared_buffers": "256MB", "max_wal_size": "2GB"},
	})
	if err != nil {
		return Run{}, err
	}
	defer installation.Close()
	s := &session{Options: o, rig: installation, apps: make(map[int]string)}
	defer s.control.Close()
	if err := s.start(ctx); err != nil {
		return Run{}, err
	}
	run = Run{Postgres: installation.PostgresVersion(), Memory: make(map[string]int64), Installed: time.Since(began).Seconds()}
	var peak rig.PeakMemory
	stopPeak := s.watch(ctx, &peak)
	defer stopPeak()
	if err := s.scenarios(ctx, &run); err != nil {
		return run, err
	}
	stopPeak()
	for name, pid := range s.single() {
		if run.Memory[name], err = rig.PeakResident(pid); err != nil {
			return run, err
		}
	}
	run.Memory["postgres"] = peak.Bytes("postgres")
	return run, errors.Join(s.api.Stop(), s.worker.Stop())
}

// single lists the parts that are one process each.
func (s *session) single() map[string]int {
	return map[string]int{"api": s.api.PID(), "worker": s.worker.PID(), "redis": s.rig.RedisPID(), "sink": s.sink.PID()}
}

// parts lists every part that lives as long as the run.
func (s *session) parts() map[string]int {
	parts := s.single()
	parts["postgres"] = s.rig.PostgresPID()
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
	if s.sink, s.at, err = s.listening(ctx, "sink"); err != nil {
		return err
	}
	s.control = wire.Client{Address: s.at.Control}
	if s.api, err = s.rig.Keep("api", "api", nil); err != nil {
		return err
	}
	if s.worker, err = s.rig.Keep("worker", "worker", nil); err != nil {
		return err
	}
	if err := errors.Join(s.api.Ready(ctx), s.worker.Ready(ctx)); err != nil {
		return err
	}
	tenant, err := s.rig.NewTenant(ctx, "bench")
	if err != nil {
		return err
	}
	s.key = tenant.Key
	for _, scenario := range append([]Scenario{{FanOut: 1}}, s.Scenarios...) {
		if scenario.FanOut == 0 || s.apps[scenario.FanOut] != "" {
			continue
		}
		if s.apps[scenario.FanOut], err = s.application(tenant, scenario.FanOut); err != nil {
			return err
		}
	}
	return nil
}

// application makes an application with so many endpoints, all at the sink.
func (s *session) application(tenant rig.Tenant, fanOut int) (string, error) {
	api := rig.NewAPI(s.api.Address, tenant.Key)
	defer api.Close()
	application, err := api.Application(fmt.Sprintf("fan-out-%d", fanOut))
	if err != nil {
		return "", err
	}
	for n := range fanOut {
		if _, err := api.Endpoint(application, "http://"+s.at.Address+endpointPath+strconv.Itoa(n), ""); err != nil {
			return "", err
		}
	}
	return application, nil
}

// listening starts a child of the lab that says where it listens.
func (s *session) listening(ctx context.Context, args ...string) (*rig.Process, addresses, error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, addresses{}, fmt.Errorf("start lab %s: %w", args[0], err)
	}
	defer func() { _ = reader.Close() }()
	process, err := s.rig.Start(s.spec(writer, args...))
	_ = writer.Close() // the child has its own
	if err != nil {
		return nil, addresses{}, err
	}
	stop := context.AfterFunc(ctx, process.Kill)
	defer stop()
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		return nil, addresses{}, fmt.Errorf("start lab %s: it said nothing: %w", args[0], err)
	}
	var at addresses
	if err := json.Unmarshal(line, &at); err != nil {
		return nil, addresses{}, fmt.Errorf("start lab %s: %w", args[0], err)
	}
	return process, at, nil
}

func (s *session) spec(out *os.File, args ...string) rig.Spec {
	return rig.Spec{
		Name: "lab " + args[0], Path: s.Self, Args: args, Out: out, Dir: s.Dir,
		Env: []string{"PATH=" + os.Getenv("PATH"), keyVariable + "=" + s.key},
		Log: filepath.Join(s.Dir, "lab-"+args[0]+".log"),
	}
}

// keyVariable hands the API key to the load child, out of sight of the process list.
const keyVariable = "LAB_API_KEY"

// APIKey is the key the bench handed to this process.
func APIKey() string { return os.Getenv(keyVariable) }

// finish runs a child of the lab to its end and returns what it printed and the processor time it took.
func (s *session) finish(ctx context.Context, limit time.Duration, args ...string) ([]byte, time.Duration, error) {
	path := s.file(args[0] + ".out")
	out, err := os.Create(path)
	if err != nil {
		return nil, 0, fmt.Errorf("run lab %s: %w", args[0], err)
	}
	process, err := s.rig.Start(s.spec(out, args...))
	_ = out.Close()
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit+childWait)
	defer cancel()
	select {
	case <-process.Done():
	case <-ctx.Done():
		process.Kill()
		<-process.Done()
		return nil, 0, fmt.Errorf("run lab %s: %w", args[0], context.Cause(ctx))
	}
	state, _ := process.Exit()
	if !state.Success() {
		log, _ := os.ReadFile(filepath.Join(s.Dir, "lab-"+args[0]+".log"))
		return nil, 0, fmt.Errorf("run lab %s: %s\n%s", args[0], state, log)
	}
	printed, err := os.ReadFile(path)
	return printed, state.UserTime() + state.SystemTime(), err
}

func (s *session) file(name string) string {
	s.files++
	return filepath.Join(s.Dir, strconv.Itoa(s.files)+"-"+name)
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
	server, at, err := s.listening(ctx, "bare-server")
	if err != nil {
		return 0, err
	}
	defer func() {
		server.Kill()
		<-server.Done()
	}()
	printed, _, err := s.finish(ctx, s.Bare, "bare-client", "-address", at.Address, "-duration", s.Bare.String())
	if err != nil {
		return 0, err
	}
	var result bareResult
	if err := json.Unmarshal(printed, &result); err != nil {
		return 0, fmt.Errorf("read the bare loop's result: %w", err)
	}
	return float64(result.Requests) / result.Seconds, nil
}
