package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// Options describe a series of faults.
type Options struct {
	Binary         string // posthaste built with the tag failpoint
	Dir            string // for data, logs and evidence; must exist
	Deliveries     int    // per fault, at least
	Seed           uint64
	AttemptTimeout time.Duration
	Keep           bool // keep data and logs also of faults that passed
	Timed          bool // judge latencies, too; where other programs share the machine they say nothing
}

// Result is what one fault came to.
type Result struct {
	Fault    string         `json:"fault"`
	Title    string         `json:"title"`
	Seed     uint64         `json:"seed"`
	Bites    map[string]int `json:"bites"`
	Notes    []string       `json:"notes,omitempty"` // what else was measured
	Report   ledger.Report  `json:"report"`
	Recovery time.Duration  `json:"recovery"`
	Settled  time.Duration  `json:"settled"` // from the last post until nothing was owed
	Took     time.Duration  `json:"took"`
	Dir      string         `json:"dir"` // logs and evidence
}

// Passed reports whether every invariant held and the fault bit.
func (r Result) Passed() bool { return r.Report.OK() }

// Line is the result in one line.
func (r Result) Line() string {
	verdict := "pass"
	if !r.Passed() {
		verdict = "FAIL"
	}
	line := fmt.Sprintf("%s %-4s %d deliveries of %d messages, %d requests at the sink;", verdict, r.Fault, r.Report.Deliveries, r.Report.Messages, r.Report.Requests)
	for _, invariant := range ledger.Invariants {
		if n := r.Report.Counts[invariant]; n > 0 || slices.Contains(alwaysShown, invariant) {
			line += fmt.Sprintf(" %s %d", invariant, n)
		}
	}
	if r.Report.Asked > 0 {
		line += fmt.Sprintf("; asked for again %d", r.Report.Asked)
	}
	for _, note := range r.Notes {
		line += "; " + note
	}
	line += fmt.Sprintf("; sent again %d (at most %d), unlogged %d, unanswered %d, unavailable %d, unknown %d, given up %d; back to normal in %v, slowest first send %v, settled in %v; bites: %s; seed %d, %v",
		r.Report.Resent, r.Report.Bound, r.Report.Unlogged, r.Report.Broken, r.Report.Unavail, r.Report.Unknown, r.Report.GivenUp,
		r.Recovery, r.Report.Slowest.Round(10*time.Millisecond), r.Settled.Round(10*time.Millisecond), bitesText(r.Bites), r.Seed, r.Took.Round(100*time.Millisecond))
	return line
}

// alwaysShown are the invariants whose zero is worth saying.
var alwaysShown = []ledger.Invariant{ledger.Lost, ledger.Ghost, ledger.Leak, ledger.Dup, ledger.Silent, ledger.FalseOK, ledger.Stuck}

// Execute runs one fault on an installation of its own. The error is about the rig; what the product
// did wrong is in the result.
func Execute(ctx context.Context, o Options, f Fault) (Result, error) {
	began := time.Now()
	dir := filepath.Join(o.Dir, f.ID)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return Result{}, fmt.Errorf("%s: %w", f.ID, err)
	}
	s, err := open(ctx, o, f, dir)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", f.ID, err)
	}
	defer s.close()
	result, run, err := s.execute(ctx)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w (logs are in %s)", f.ID, err, dir)
	}
	result.Dir = dir
	if !result.Passed() {
		if err := s.keepEvidence(ctx, result, run); err != nil {
			return result, fmt.Errorf("%s: %w", f.ID, err)
		}
	}
	s.close()
	if s.sinkErr != nil {
		return result, fmt.Errorf("%s: %w", f.ID, s.sinkErr)
	}
	if result.Passed() && !o.Keep {
		err = os.RemoveAll(dir)
	} else {
		err = os.RemoveAll(filepath.Join(dir, "postgres")) // the evidence has been read out of it
	}
	result.Took = time.Since(began)
	return result, err
}

func (s *stage) execute(ctx context.Context) (Result, ledger.Run, error) {
	ended, err := s.strikeUnderLoad(ctx)
	if err != nil {
		return Result{}, ledger.Run{}, err
	}
	if s.fault.afterwards != nil {
		if err := s.fault.afterwards(ctx, s); err != nil {
			return Result{}, ledger.Run{}, err
		}
	}
	posted := time.Now()
	if err := s.settle(ctx); err != nil {
		return Result{}, ledger.Run{}, err
	}
	result := Result{Fault: s.fault.ID, Title: s.fault.Title, Seed: s.options.Seed, Settled: time.Since(posted)}
	crashes := s.crashes()
	run, err := s.evidence(ctx)
	if err != nil {
		return Result{}, ledger.Run{}, err
	}
	run.Crashes = append(crashes, s.stop()...)
	result.Report = ledger.Check(run)
	if s.fault.judge != nil {
		s.fault.judge(s, run)
	}
	for _, finding := range s.extra.Findings {
		result.Report.Add(finding.Invariant, "%s", finding.Text)
	}
	result.Notes = s.notes
	var normal bool
	if result.Recovery, normal = ledger.Recovery(run, ended); !normal || result.Recovery > s.fault.recovery {
		result.Report.Add(ledger.Recover, "p99 from post to arrival was not below a second within %v after the fault (%v, stayed there: %v)",
			s.fault.recovery, result.Recovery, normal)
	}
	if result.Bites, err = s.allBites(result.Report); err != nil {
		return Result{}, ledger.Run{}, err
	}
	for _, name := range s.needed() {
		if result.Bites[name] == 0 {
			result.Report.Add(ledger.Bite, "%q never happened", name)
		}
	}
	return result, run, nil
}

// strikeUnderLoad posts messages while the fault does its work, and for a while after; it returns when
// the fault had ended.
func (s *stage) strikeUnderLoad(ctx context.Context) (ended time.Time, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	finish := make(chan struct{})
	var posting sync.WaitGroup
	posting.Go(func() { s.load.run(ctx, finish) })
	err = s.fault.strike(ctx, s)
	ended = time.Now()
	if err == nil {
		err = errors.Join(s.until(ctx, 1), rig.Pause(ctx, time.Until(ended.Add(tail))))
	}
	if err != nil {
		cancel()
	}
	close(finish)
	posting.Wait()
	return ended, err
}

// lease is how long a delivery stays with the process it was handed to.
func (s *stage) lease() time.Duration { return s.options.AttemptTimeout + leaseMargin }

// settle waits until nothing is owed, or until everything that could still happen should have; what is
// owed then is stuck.
func (s *stage) settle(ctx context.Context) error {
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = poll(ctx, s.lease()+leaseSlack+retriesTake, "all deliveries to end", func() (bool, error) {
		var open bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM delivery)").Scan(&open); err != nil {
			return false, fmt.Errorf("look for open deliveries: %w", err)
		}
		return !open, nil
	})
	if errors.Is(err, errNotInTime) {
		return nil
	}
	return err
}

// crashes lists the processes that ended otherwise than by a kill, and notes the kills of workers as
// what may explain a second send.
func (s *stage) crashes() []string {
	var list []string
	for _, keeper := range s.all() {
		for _, exit := range keeper.Exits() {
			switch {
			case exit.Asked:
				continue
			case !exit.Killed:
				list = append(list, fmt.Sprintf("%s (process %d): %s at %s", exit.Name, exit.PID, exit.How, exit.At.Format(time.RFC3339Nano)))
				continue
			}
			if slices.Contains(s.workers, keeper) {
				// The kernel reports an end some milliseconds after it.
				s.broke(ledger.Fault{
					What: "kill of " + exit.Name, At: exit.At.Add(-50 * time.Millisecond), Until: exit.At,
					OneOf: true, Resends: true, Unlogged: true,
				})
			}
		}
	}
	return list
}

// needed lists what has to have happened.
func (s *stage) needed() []string {
	names := slices.Concat(s.fault.needs, s.fault.guestNames())
	for _, p := range slices.Concat(s.fault.apiPoints, s.fault.workerPoints) {
		names = append(names, p.name)
	}
	return names
}

// allBites counts everything that was done, or was seen to have been done, to the installation.
func (s *stage) allBites(report ledger.Report) (map[string]int, error) {
	bites, err := s.failpointBites()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.bites {
		bites[name] += n
	}
	if n := s.sink.heldSoFar(); n > 0 {
		bites["request held"] = n
	}
	if report.Unavail > 0 {
		bites["API unavailable"] = report.Unavail
	}
	return bites, nil
}
