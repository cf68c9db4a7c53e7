package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

// Report is everything a bench found.
type Report struct {
	Began   time.Time `json:"began"`
	Machine Machine   `json:"machine"`
	Side
	// Against is another commit that was run in turns with this one; nil if there was none.
	Against *Side `json:"against,omitempty"`
}

// Side is what the runs of one commit came to.
type Side struct {
	Commit string `json:"commit"` // with "+changes" if the tree differed from it
	Runs   []Run  `json:"runs"`
}

// Machine is where it was measured.
type Machine struct {
	CPUs   int    `json:"cpus"`
	Model  string `json:"model"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// NewReport notes where and on what the bench runs.
func NewReport(ctx context.Context) Report {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return Report{
		Began: time.Now().UTC(), Side: Side{Commit: commit(ctx)},
		Machine: Machine{CPUs: runtime.NumCPU(), Model: cpuModel(), Kernel: strings.TrimSpace(string(kernel)), Go: runtime.Version()},
	}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := bytes.Cut(text, []byte("model name"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	return strings.Trim(string(line), "\t :")
}

// commit is the present commit; empty where there is no repository.
func commit(ctx context.Context) string {
	hash, err := exec.CommandContext(ctx, "git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return ""
	}
	status, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output()
	name := strings.TrimSpace(string(hash))
	if err != nil || len(status) > 0 {
		name += "+changes"
	}
	return name
}

// Violations lists what must not happen in any run.
func (s Side) Violations() []string {
	var list []string
	for n, run := range s.Runs {
		for _, o := range run.Outcomes {
			if o.Lost != 0 || o.Doubled != 0 || o.Foreign != 0 || o.Refused != 0 || o.Broken != 0 {
				list = append(list, fmt.Sprintf("run %d, %s: %d lost, %d duplicates, %d foreign, %d refused, %d unanswered",
					n+1, o.Scenario, o.Lost, o.Doubled, o.Foreign, o.Refused, o.Broken))
			}
		}
	}
	return list
}

// spread is the middle and both ends of some values.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	slices.Sort(values)
	if len(values) == 0 {
		return spread{}
	}
	middle := values[len(values)/2]
	if len(values)%2 == 0 {
		middle = (values[len(values)/2-1] + middle) / 2
	}
	return spread{middle, values[0], values[len(values)-1]}
}

// text shows the median, and the ends if there is more than one run.
func (s spread) text(format string, runs int) string {
	if runs == 1 {
		return fmt.Sprintf(format, s.median)
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.median, s.least, s.most)
}

// of gathers one figure of one scenario over all runs.
func (s Side) of(scenario string, figure func(Outcome) float64) spread {
	var values []float64
	for _, run := range s.Runs {
		for _, o := range run.Outcomes {
			if o.Scenario == scenario {
				values = append(values, figure(o))
			}
		}
	}
	return spreadOf(values)
}

func (s Side) bare() spread {
	var values []float64
	for _, run := range s.Runs {
		values = append(values, run.bareLoop())
	}
	return spreadOf(values)
}

// memory is the peak memory of one part over all runs, in MiB.
func (s Side) memory(part string) spread {
	var values []float64
	for _, run := range s.Runs {
		values = append(values, float64(run.Memory[part])/(1<<20))
	}
	return spreadOf(values)
}

// idleNote says when idle was measured, and what spoils it; it is empty if it was not, or not noted.
func (s Side) idleNote() string {
	var waits []float64
	spoilt := ""
	for n, run := range s.Runs {
		for _, o := range run.Outcomes {
			if o.Settled > 0 {
				waits = append(waits, o.Settled)
			}
			if o.Unsettled != "" {
				spoilt += fmt.Sprintf(" In run %d %s even then.", n+1, o.Unsettled)
			}
		}
	}
	if len(waits) == 0 {
		return ""
	}
	return fmt.Sprintf("Idle begins when the product has rested for %.0f s and Postgres has worked off what the load left to vacuum and to write out, or %.0f s later: here %s s after the load.%s",
		idleRest.Seconds(), idlePatience.Seconds(), spreadOf(waits).text("%.0f", len(waits)), spoilt)
}

// Print writes tables for people: median over the runs, with the least and the most in brackets.
func (r Report) Print(out io.Writer) {
	if len(r.Runs) == 0 {
		return
	}
	runs := len(r.Runs)
	_, _ = fmt.Fprintf(out, "\nPosthaste bench, %s, commit %s, %d run(s)\n%d × %s, Linux %s, %s, PostgreSQL %s with fsync, %d-byte payload\n",
		r.Began.Format(time.RFC3339), r.Commit, runs, r.Machine.CPUs, r.Machine.Model, r.Machine.Kernel, r.Machine.Go, r.Runs[0].Postgres, traffic.PayloadSize)
	_, _ = fmt.Fprintf(out, "bare POST loop, 16 connections: %s /s\n\n", r.bare().text("%.0f", runs))

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) }
	row("scenario", "accepts/s", "deliveries/s", "of bare loop", "steady/s", "drain ms", "p50 ms", "p95 ms", "p99 ms", "lost", "dup")
	for _, o := range r.Runs[0].Outcomes {
		if o.FanOut == 0 {
			continue
		}
		cell := func(format string, figure func(Outcome) float64) string {
			return r.of(o.Scenario, figure).text(format, runs)
		}
		row(o.Scenario,
			cell("%.0f", func(o Outcome) float64 { return o.Accepts }),
			cell("%.0f", func(o Outcome) float64 { return o.Sustained }),
			cell("%.1f %%", func(o Outcome) float64 { return 100 * o.Ratio }),
			cell("%.0f", func(o Outcome) float64 { return o.Steady }),
			cell("%.0f", func(o Outcome) float64 { return o.DrainMS }),
			cell("%.1f", func(o Outcome) float64 { return o.P50 }),
			cell("%.1f", func(o Outcome) float64 { return o.P95 }),
			cell("%.1f", func(o Outcome) float64 { return o.P99 }),
			cell("%.0f", func(o Outcome) float64 { return float64(o.Lost) }),
			cell("%.0f", func(o Outcome) float64 { return float64(o.Doubled) }))
	}
	_ = table.Flush()

	_, _ = fmt.Fprintln(out, "\nprocessor time, ms per delivery (idle: per cent of one core)")
	parts := append(append([]string(nil), platform...), "load", "sink")
	row(append([]string{"scenario", "platform"}, parts...)...)
	for _, o := range r.Runs[0].Outcomes {
		format, scale := "%.3f", 1.0
		if o.FanOut == 0 {
			format, scale = "%.2f %%", 100
		}
		cells := []string{o.Scenario, r.of(o.Scenario, func(o Outcome) float64 { return scale * o.Platform }).text(format, runs)}
		for _, part := range parts {
			if _, measured := o.CPU[part]; !measured {
				cells = append(cells, "–")
				continue
			}
			cells = append(cells, r.of(o.Scenario, func(o Outcome) float64 { return scale * o.CPU[part] }).text(format, runs))
		}
		row(cells...)
	}
	_ = table.Flush()
	if note := r.idleNote(); note != "" {
		_, _ = fmt.Fprintln(out, note)
	}

	_, _ = fmt.Fprintln(out, "\npeak memory, MiB")
	parts = append(append([]string(nil), platform...), "sink")
	row(parts...)
	cells := make([]string, 0, len(parts))
	for _, part := range parts {
		cells = append(cells, r.memory(part).text("%.0f", runs))
	}
	row(cells...)
	_ = table.Flush()
	r.printTargets(out)
}

// target is a figure the project promises to keep.
type target struct {
	name      string
	scenarios []string // what it is made of
	figure    func(Side) float64
	format    string
	bound     float64
	atLeast   bool
}

// medianOf is the median of one figure of a scenario.
func medianOf(scenario string, figure func(Outcome) float64) func(Side) float64 {
	return func(s Side) float64 { return s.of(scenario, figure).median }
}

func ofBareLoop(o Outcome) float64 { return 100 * o.Ratio }

func ratioTarget(name, scenario string, bound float64) target {
	return target{"deliveries/s, " + name + ", of bare loop", []string{scenario}, medianOf(scenario, ofBareLoop), "%.1f %%", bound, true}
}

func sustained(o Outcome) float64 { return o.Sustained }

// scaling is how many times as much two workers deliver as one.
func scaling(s Side) float64 {
	one := s.of(oneWorker, sustained).median
	if one == 0 {
		return 0
	}
	return s.of(twoWorkers, sustained).median / one
}

var targets = []target{
	ratioTarget("fan-out 1", "closed 64", 18),
	ratioTarget("fan-out 5", "closed 64, fan-out 5", 38),
	ratioTarget("fan-out 1, limits", "closed 64, limits", 14),
	ratioTarget("fan-out 5, limits", "closed 64, fan-out 5, limits", 30),
	{"platform processor time per delivery", []string{"closed 64"}, medianOf("closed 64", func(o Outcome) float64 { return o.Platform }), "%.3f ms", 0.28, false},
	{"p50 at 100/s", []string{"open 100/s"}, medianOf("open 100/s", func(o Outcome) float64 { return o.P50 }), "%.1f ms", 3.5, false},
	{"p99 at 100/s", []string{"open 100/s"}, medianOf("open 100/s", func(o Outcome) float64 { return o.P99 }), "%.1f ms", 12, false},
	{"idle, of one core", []string{"idle"}, medianOf("idle", func(o Outcome) float64 { return 100 * o.Platform }), "%.2f %%", 1, false},
	{"slow receiver, two workers to one", []string{oneWorker, twoWorkers}, scaling, "%.2f", 1.6, true},
}

// measured reports whether every scenario of a target was run.
func (t target) measured(s Side) bool {
	return !slices.ContainsFunc(t.scenarios, func(name string) bool {
		return !slices.ContainsFunc(s.Runs[0].Outcomes, func(o Outcome) bool { return o.Scenario == name })
	})
}

// printTargets compares medians with what is promised; scenarios that were not run are left out.
func (r Report) printTargets(out io.Writer) {
	_, _ = fmt.Fprintln(out, "\ntargets")
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, t := range targets {
		if !t.measured(r.Side) {
			continue
		}
		value, relation, verdict := t.figure(r.Side), "at most", "met"
		met := value <= t.bound
		if t.atLeast {
			relation, met = "at least", value >= t.bound
		}
		if !met {
			verdict = "MISSED"
		}
		_, _ = fmt.Fprintf(table, "%s\t"+t.format+"\t%s "+t.format+"\t%s\n", t.name, value, relation, t.bound, verdict)
	}
	_ = table.Flush()
}

// ReadReport reads a report that rig.WriteJSON wrote.
func ReadReport(path string) (Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Report{}, fmt.Errorf("read a report: %w", err)
	}
	var report Report
	if err := json.Unmarshal(text, &report); err != nil {
		return Report{}, fmt.Errorf("read a report: %s: %w", path, err)
	}
	if len(report.Runs) == 0 || report.Against != nil && len(report.Against.Runs) == 0 {
		return Report{}, fmt.Errorf("read a report: %s holds no runs", path)
	}
	return report, nil
}

// line is one scenario in one line, shown as it ends.
func (o Outcome) line() string {
	if o.FanOut == 0 {
		text := fmt.Sprintf("%s: %.2f %% of a core, from %.0f s after the load on", o.Scenario, 100*o.Platform, o.Settled)
		if o.Unsettled != "" {
			text += ", when " + o.Unsettled
		}
		return text
	}
	return fmt.Sprintf("%s: %.0f accepts/s, %.0f deliveries/s, p50 %.1f p99 %.1f ms, %.3f ms of processor time each, %d lost, %d duplicates",
		o.Scenario, o.Accepts, o.Sustained, o.P50, o.P99, o.Platform, o.Lost, o.Doubled)
}
