package bench

import (
	"fmt"
	"slices"
)

// figure is one number of a scenario that two commits are compared by.
type figure struct {
	name   string
	format string
	value  func(Outcome) float64
	more   bool               // more is better
	of     func(Outcome) bool // the scenarios it says something about
}

func delivers(o Outcome) bool { return o.FanOut > 0 }

// atWill are the scenarios that post as fast as answers come: elsewhere the rate is the one given.
func atWill(o Outcome) bool { return delivers(o) && o.Rate == 0 }

// inTime are the scenarios whose latency is that of a delivery. With more endpoints than one,
// messages are accepted faster than they are delivered, and latency is the length of the queue.
func inTime(o Outcome) bool { return o.FanOut == 1 }

var figures = []figure{
	{"accepts/s", "%.0f", func(o Outcome) float64 { return o.Accepts }, true, atWill},
	{"deliveries/s", "%.0f", func(o Outcome) float64 { return o.Sustained }, true, atWill},
	{"of bare loop", "%.1f %%", func(o Outcome) float64 { return 100 * o.Ratio }, true, atWill},
	{"p50 ms", "%.1f", func(o Outcome) float64 { return o.P50 }, false, inTime},
	{"p99 ms", "%.1f", func(o Outcome) float64 { return o.P99 }, false, inTime},
	{"platform CPU, ms per delivery", "%.3f", func(o Outcome) float64 { return o.Platform }, false, delivers},
	{"platform CPU, of one core", "%.2f %%", func(o Outcome) float64 { return 100 * o.Platform }, false, func(o Outcome) bool { return !delivers(o) }},
}

// comparison is one figure of both commits.
type comparison struct {
	scenario, figure, format string
	before, after            spread
	more                     bool
}

// change is how much the median grew, as a share of the earlier one.
func (c comparison) change() float64 {
	if c.before.median == 0 {
		return 0
	}
	return c.after.median/c.before.median - 1
}

// fell reports whether the median got worse by more than runs of one and the same commit differ: by
// more than the wider of both spreads, from the least to the most.
func (c comparison) fell() bool {
	loss := c.before.median - c.after.median
	if !c.more {
		loss = -loss
	}
	return loss > max(c.before.most-c.before.least, c.after.most-c.after.least)
}

// compare sets both commits side by side, by scenario; scenarios that only one of them has are left out.
func (r Report) compare() []comparison {
	if r.Against == nil || len(r.Runs) == 0 || len(r.Against.Runs) == 0 {
		return nil
	}
	var list []comparison
	for _, o := range r.Runs[0].Outcomes {
		if !slices.ContainsFunc(r.Against.Runs[0].Outcomes, func(other Outcome) bool { return other.Scenario == o.Scenario }) {
			continue
		}
		for _, f := range figures {
			if f.of(o) {
				list = append(list, comparison{o.Scenario, f.name, f.format, r.Against.of(o.Scenario, f.value), r.of(o.Scenario, f.value), f.more})
			}
		}
	}
	for _, part := range platform {
		list = append(list, comparison{"all", "peak memory of " + part + ", MiB", "%.0f", r.Against.memory(part), r.memory(part), false})
	}
	return list
}

// Fallen names the figures that got worse by more than the spread. With a single run on either side
// there is no spread, and so no answer.
func (r Report) Fallen() []string {
	if r.Against == nil || min(len(r.Runs), len(r.Against.Runs)) < 2 {
		return nil
	}
	var list []string
	for _, c := range r.compare() {
		if c.fell() {
			list = append(list, fmt.Sprintf("%s: %s", c.scenario, c.figure))
		}
	}
	return list
}
