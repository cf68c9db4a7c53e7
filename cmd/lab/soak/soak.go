package soak

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/bench"
)

// Options describe a soak.
type Options struct {
	Binary   string        // the posthaste binary
	Self     string        // the lab's own binary, which is also load, sink and hole
	Dir      string        // for data and logs; must exist
	Rows     int           // deliveries of the tenant that is behind
	Duration time.Duration // of each stretch that is judged
	Keep     bool          // keep data and logs also of stages that passed
	Progress io.Writer     // one line per step
}

// Stage is one bad day of somebody's, on an installation of its own.
type Stage struct {
	Name  string
	Title string // what happens
	run   func(ctx context.Context, s *site, r *Result) error
}

// Stages are all of them, in order.
func Stages() []Stage {
	return []Stage{
		{"backlog", "a tenant without a limit is a million deliveries behind, another posts 10/s", backlog},
		{"limited", "the same, and the tenant that is behind has a limit of 100/s", limited},
		{"blackhole", "500 endpoints take every connection and never answer", blackhole},
		{"dead", "10,000 endpoints refuse connections or never answer", dead},
	}
}

// Result is what a stage came to.
type Result struct {
	Stage   string         `json:"stage"`
	Title   string         `json:"title"`
	Checks  []Check        `json:"checks"`
	Figures map[string]any `json:"figures"` // what else was measured
	Took    float64        `json:"seconds"`
}

// check adds figures that have to be met.
func (r *Result) check(checks ...Check) { r.Checks = append(r.Checks, checks...) }

// Passed reports whether every check was met; with no check nothing was shown.
func (r Result) Passed() bool {
	return len(r.Checks) > 0 && !slices.ContainsFunc(r.Checks, func(c Check) bool { return !c.Met() })
}

// Line is the result in one line.
func (r Result) Line() string {
	verdict := "pass"
	if !r.Passed() {
		verdict = "FAIL"
	}
	texts := make([]string, len(r.Checks))
	for i, c := range r.Checks {
		texts[i] = c.Text()
	}
	return fmt.Sprintf("%s %-9s %s; %.0f s", verdict, r.Stage, strings.Join(texts, "; "), r.Took)
}

// Execute runs one stage. The error is about the rig; what the product did wrong is in the result.
func Execute(ctx context.Context, o Options, stage Stage) (Result, error) {
	began := time.Now()
	result := Result{Stage: stage.Name, Title: stage.Title, Figures: make(map[string]any)}
	dir := filepath.Join(o.Dir, stage.Name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return result, fmt.Errorf("%s: %w", stage.Name, err)
	}
	s, err := open(ctx, o, dir)
	if err != nil {
		return result, fmt.Errorf("%s: %w", stage.Name, err)
	}
	defer s.close()
	if err := stage.run(ctx, s, &result); err != nil {
		return result, fmt.Errorf("%s: %w (logs are in %s)", stage.Name, err, dir)
	}
	result.check(atMost("processes that ended by themselves", float64(s.crashes()), "", 0))
	result.Took = time.Since(began).Seconds()
	s.close()
	gone := filepath.Join(dir, "postgres")
	if result.Passed() && !o.Keep {
		gone = dir
	}
	return result, os.RemoveAll(gone)
}

func (s *site) say(format string, args ...any) {
	_, _ = fmt.Fprintf(s.options.Progress, "  "+format+"\n", args...)
}

// Report is everything a soak found.
type Report struct {
	Began   time.Time     `json:"began"`
	Machine bench.Machine `json:"machine"`
	Commit  string        `json:"commit"`
	Rows    int           `json:"rows"`
	Seconds float64       `json:"secondsJudged"` // of each stretch
	Results []Result      `json:"stages"`
}

// NewReport notes where and on what the soak runs.
func NewReport(ctx context.Context, o Options) Report {
	about := bench.NewReport(ctx)
	return Report{Began: about.Began, Machine: about.Machine, Commit: about.Commit, Rows: o.Rows, Seconds: o.Duration.Seconds()}
}

// Failed names the stages that missed something.
func (r Report) Failed() (names []string) {
	for _, result := range r.Results {
		if !result.Passed() {
			names = append(names, result.Stage)
		}
	}
	return names
}

// Markdown writes the figures as a table for docs/measurements.
func (r Report) Markdown(out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Commit `%s`, %s; %d cores (%s), %s. %d deliveries behind; %.0f s of each stretch are judged.\n",
		r.Commit, r.Began.Format("2006-01-02"), r.Machine.CPUs, r.Machine.Model, r.Machine.Go, r.Rows, r.Seconds)
	for _, result := range r.Results {
		fmt.Fprintf(&text, "\n| %s: %s | measured | has to be | |\n| --- | --- | --- | --- |\n", result.Stage, result.Title)
		for _, c := range result.Checks {
			relation, verdict := "at most", "met"
			if c.AtLeast {
				relation = "at least"
			}
			if !c.Met() {
				verdict = "**missed**"
			}
			fmt.Fprintf(&text, "| %s | %s | %s %s | %s |\n", c.What, quantity(c.Value, c.Unit), relation, quantity(c.Bound, c.Unit), verdict)
		}
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}
