package bench

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Markdown writes the report as tables for docs/measurements. It links to the file that holds the raw
// figures, which is to lie beside the page; an empty name leaves the link out.
func (r Report) Markdown(out io.Writer, name string) error {
	var text strings.Builder
	r.markHead(&text, name)
	r.markScenarios(&text)
	r.markProcessorTime(&text)
	if r.Against != nil {
		r.markComparison(&text)
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("write the tables: %w", err)
	}
	return nil
}

// grouped is a number with a comma between thousands.
func grouped(format string, value float64) string {
	text := fmt.Sprintf(format, value)
	digits := 0
	for digits < len(text) && text[digits] >= '0' && text[digits] <= '9' {
		digits++
	}
	for at := digits - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// mark is the median, and the ends if there is more than one run.
func (s spread) mark(format string, runs int) string {
	text := grouped(format, s.median)
	if runs == 1 {
		return text
	}
	return text + " (" + grouped(format, s.least) + "–" + grouped(format, s.most) + ")"
}

func tableRow(out *strings.Builder, cells ...string) {
	out.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func tableHead(out *strings.Builder, cells ...string) {
	tableRow(out, cells...)
	out.WriteString(strings.Repeat("| --- ", len(cells)) + "|\n")
}

func (r Report) markHead(out *strings.Builder, name string) {
	kernel, _, _ := strings.Cut(r.Machine.Kernel, "-")
	runs := strconv.Itoa(len(r.Runs)) + " runs"
	if len(r.Runs) == 1 {
		runs = "1 run"
	}
	what := fmt.Sprintf("Commit `%s`", r.Commit)
	if r.Against != nil {
		what += fmt.Sprintf(" beside `%s`", r.Against.Commit)
		runs += " of each, in turns"
	}
	fmt.Fprintf(out, "%s, %s; %d cores (%s), Linux %s, %s, PostgreSQL %s with fsync. %s, each on a fresh installation; median (least–most).",
		what, r.Began.Format("2006-01-02"), r.Machine.CPUs, r.Machine.Model, kernel, r.Machine.Go, r.Runs[0].Postgres, runs)
	fmt.Fprintf(out, " Bare POST loop: %s per second.", r.bare().mark("%.0f", len(r.Runs)))
	if name != "" {
		fmt.Fprintf(out, " Raw figures: [%s](%s).", name, name)
	}
	fmt.Fprint(out, "\n\n")
}

func (r Report) markScenarios(out *strings.Builder) {
	tableHead(out, "scenario", "accepts/s", "deliveries/s", "of bare loop", "p50 ms", "p99 ms", "platform CPU, ms per delivery", "lost", "duplicates")
	for _, o := range r.Runs[0].Outcomes {
		if !delivers(o) {
			continue
		}
		cell := func(format string, value func(Outcome) float64) string {
			return r.of(o.Scenario, value).mark(format, len(r.Runs))
		}
		lost, doubled := 0, 0
		for _, run := range r.Runs {
			for _, other := range run.Outcomes {
				if other.Scenario == o.Scenario {
					lost, doubled = lost+other.Lost, doubled+other.Doubled
				}
			}
		}
		tableRow(out, o.Scenario,
			cell("%.0f", func(o Outcome) float64 { return o.Accepts }),
			cell("%.0f", func(o Outcome) float64 { return o.Sustained }),
			cell("%.1f %%", func(o Outcome) float64 { return 100 * o.Ratio }),
			cell("%.1f", func(o Outcome) float64 { return o.P50 }),
			cell("%.1f", func(o Outcome) float64 { return o.P99 }),
			cell("%.3f", func(o Outcome) float64 { return o.Platform }),
			strconv.Itoa(lost), strconv.Itoa(doubled))
	}
}

// markProcessorTime says where the time goes and what memory it takes: medians, peaks.
func (r Report) markProcessorTime(out *strings.Builder) {
	fmt.Fprint(out, "\n")
	parts := slices.Concat(platform, []string{"load", "sink"})
	tableHead(out, slices.Concat([]string{"CPU, ms per delivery"}, parts)...)
	for _, o := range r.Runs[0].Outcomes {
		cells, format, scale := []string{o.Scenario}, "%.3f", 1.0
		if !delivers(o) {
			cells, format, scale = []string{o.Scenario + ", of one core"}, "%.2f %%", 100
		}
		for _, part := range parts {
			if _, measured := o.CPU[part]; !measured {
				cells = append(cells, "–")
				continue
			}
			cells = append(cells, grouped(format, r.of(o.Scenario, func(o Outcome) float64 { return scale * o.CPU[part] }).median))
		}
		tableRow(out, cells...)
	}
	cells := []string{"peak memory, MiB"}
	for _, part := range parts {
		if _, measured := r.Runs[0].Memory[part]; !measured {
			cells = append(cells, "–")
			continue
		}
		cells = append(cells, grouped("%.0f", r.memory(part).most))
	}
	tableRow(out, cells...)
	if note := r.idleNote(); note != "" {
		fmt.Fprintf(out, "\n%s\n", note)
	}
}

func (r Report) markComparison(out *strings.Builder) {
	before, after := len(r.Against.Runs), len(r.Runs)
	fmt.Fprint(out, "\n")
	tableHead(out, "scenario", "figure", "`"+r.Against.Commit+"`", "`"+r.Commit+"`", "change", "worse by more than the spread")
	judged := min(before, after) > 1
	for _, c := range r.compare() {
		verdict := "no"
		switch {
		case !judged:
			verdict = "one run has no spread"
		case c.fell():
			verdict = "**yes**"
		}
		tableRow(out, c.scenario, c.figure, c.before.mark(c.format, before), c.after.mark(c.format, after), fmt.Sprintf("%+.1f %%", 100*c.change()), verdict)
	}
	if note := r.Against.idleNote(); note != "" {
		fmt.Fprintf(out, "\nAt `%s`: %s\n", r.Against.Commit, note)
	}
	fmt.Fprintf(out, "\nBare POST loop beside the runs of `%s`: %s per second. ", r.Against.Commit, r.Against.bare().mark("%.0f", before))
	fallen := r.Fallen()
	switch {
	case !judged:
		fmt.Fprint(out, "One run has no spread to judge by.\n")
	case len(fallen) == 0:
		fmt.Fprint(out, "Nothing got worse by more than the spread, the wider of the two from least to most.\n")
	default:
		fmt.Fprintf(out, "Worse by more than the spread, the wider of the two from least to most: %s.\n", strings.Join(fallen, "; "))
	}
}
