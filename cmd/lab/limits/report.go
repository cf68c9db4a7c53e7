package limits

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/bench"
)

// Report is everything that was measured.
type Report struct {
	Began    time.Time     `json:"began"`
	Machine  bench.Machine `json:"machine"`
	Commit   string        `json:"commit"`
	Seconds  float64       `json:"secondsMeasured"`
	Workers  []int         `json:"workers"`
	Measured []Measured    `json:"limits"`
	Changes  []Change      `json:"changes"`
}

// NewReport notes where and on what it is measured.
func NewReport(ctx context.Context, o Options) Report {
	about := bench.NewReport(ctx)
	return Report{Began: about.Began, Machine: about.Machine, Commit: about.Commit, Seconds: o.Duration.Seconds(), Workers: o.Workers}
}

// Missed lists what was not kept.
func (r Report) Missed() (list []string) {
	for _, m := range r.Measured {
		if !m.Met() {
			list = append(list, fmt.Sprintf("%s of %d/s, burst %d, %d workers: %.2f/s (%+.1f %%), %d duplicates, %.0f/s were offered",
				m.Level, m.Rate, m.Burst, m.Workers, m.Got, m.Off, m.Doubled, m.Offered))
		}
	}
	for _, c := range r.Changes {
		if !c.Met() {
			list = append(list, fmt.Sprintf("changed from %d/s to %d/s, %d workers: seen after %s, then %.2f/s (%+.1f %%)",
				c.From, c.To, c.Workers, seenText(c.Seen), c.Got, c.Off))
		}
	}
	if len(r.Measured) == 0 {
		list = append(list, "nothing was measured")
	}
	return list
}

func seenText(seconds float64) string {
	if seconds < 0 {
		return "never"
	}
	return fmt.Sprintf("%.2f s", seconds)
}

// marked is a figure that stands out if it missed.
func marked(text string, met bool) string {
	if met {
		return text
	}
	return "**" + text + "**"
}

// Markdown writes the tables for docs/measurements.
func (r Report) Markdown(out io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "Commit `%s`, %s; %d cores (%s), %s. Over %.0f s each, all at once; off by more than %.0f %% in bold.\n\n",
		r.Commit, r.Began.Format("2006-01-02"), r.Machine.CPUs, r.Machine.Model, r.Machine.Go, r.Seconds, tolerance)
	text.WriteString("| limit of | per second | burst |")
	for _, n := range r.Workers {
		fmt.Fprintf(&text, " %s |", processes(n))
	}
	text.WriteString("\n| --- | --- | --- |" + strings.Repeat(" --- |", len(r.Workers)) + "\n")
	var limits []Limit
	for _, m := range r.Measured {
		if !slices.Contains(limits, m.Limit) {
			limits = append(limits, m.Limit)
		}
	}
	for _, l := range limits {
		fmt.Fprintf(&text, "| %s | %d | %d |", l.Level, l.Rate, l.Burst)
		for _, n := range r.Workers {
			cell := "–"
			for _, m := range r.Measured {
				if m.Limit == l && m.Workers == n {
					cell = marked(fmt.Sprintf("%.1f (%+.1f %%)", m.Got, m.Off), m.Met())
				}
			}
			fmt.Fprintf(&text, " %s |", cell)
		}
		text.WriteString("\n")
	}
	text.WriteString("\n| an endpoint's limit changed | with | shows after | then per second |\n| --- | --- | --- | --- |\n")
	for _, c := range r.Changes {
		fmt.Fprintf(&text, "| from %d to %d | %s | %s | %s |\n", c.From, c.To, processes(c.Workers),
			marked(seenText(c.Seen), c.Seen >= 0 && c.Seen <= changeWithin), marked(fmt.Sprintf("%.1f (%+.1f %%)", c.Got, c.Off), c.Met()))
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write the table: %w", err)
	}
	return nil
}

func processes(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}
