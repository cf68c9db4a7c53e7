package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/bench"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

func benchCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	site := siteFlags(flags, "")
	against := flags.String("against", "", "build this commit too and run both in turns, with this checkout's load generator and sink")
	runs := flags.Int("runs", 1, "passes over all scenarios, each on a fresh installation; with -against 5 of each commit unless given")
	duration := flags.Duration("duration", 10*time.Second, "how long each scenario posts")
	idle := flags.Duration("idle", 20*time.Second, "how long to watch the idle platform")
	only := flags.String("only", "", "run only the scenarios whose names contain one of these, separated by commas")
	jsonPath := flags.String("json", "", "write the results to this file as JSON")
	profile := flags.String("profile", "", `"cpu" fetches processor profiles during every scenario that posts`)
	if err := parse(flags, args); err != nil {
		return err
	}
	if *profile != "" && *profile != "cpu" {
		fmt.Fprintln(os.Stderr, `-profile must be "cpu"`)
		return errUsage
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the lab's own binary: %w", err)
	}
	path, place, err := site.prepare(ctx)
	if err != nil {
		return err
	}
	report := bench.NewReport(ctx)
	var otherPath string
	if *against != "" {
		if !given(flags, "runs") {
			*runs = comparedRuns
		}
		otherPath = filepath.Join(place, "posthaste-against")
		name, err := rig.BuildCommit(ctx, *against, otherPath)
		if err != nil {
			return err
		}
		report.Against = &bench.Side{Commit: name}
	}
	options := bench.Options{
		Self: self, Scenarios: chosen(bench.Scenarios(*duration, *idle), *only),
		Bare: 4 * time.Second, Warmup: 3 * time.Second, Profile: *profile == "cpu", Progress: out,
	}
	turns := []turn{{&report.Side, path, ""}}
	if report.Against != nil {
		turns = append(turns, turn{report.Against, otherPath, "-against"})
	}
	if err := measure(ctx, turns, *runs, place, options); err != nil {
		return err
	}
	if *jsonPath != "" {
		if err := rig.WriteJSON(*jsonPath, report); err != nil {
			return err
		}
	}
	report.Print(out)
	if report.Against != nil {
		_, _ = fmt.Fprintln(out)
		if err := report.Markdown(out, jsonName(*jsonPath)); err != nil {
			return err
		}
	}
	if violations := report.Violations(); len(violations) > 0 {
		return fmt.Errorf("the platform did not keep its promise (logs are in %s):\n%s", place, strings.Join(violations, "\n"))
	}
	if options.Profile {
		_, _ = fmt.Fprintln(out, "\nprofiles are in", place)
		return nil
	}
	return site.tidy(place)
}

// comparedRuns is how often each of two commits is run: enough for a median and a spread.
const comparedRuns = 5

// turn is one commit's part of a run.
type turn struct {
	side   *bench.Side
	binary string
	suffix string // of its directory
}

// measure runs each commit so many times, in turns: A B B A A B and so on. So none of them always runs
// on the machine as the other left it, and slow drifts cancel out.
func measure(ctx context.Context, turns []turn, runs int, place string, options bench.Options) error {
	for n := 1; n <= runs; n++ {
		for _, t := range turns {
			_, _ = fmt.Fprintf(options.Progress, "run %d of %d, commit %s\n", n, runs, t.side.Commit)
			options.Dir = filepath.Join(place, strconv.Itoa(n)+t.suffix)
			if err := os.Mkdir(options.Dir, 0o755); err != nil {
				return err
			}
			options.Binary = t.binary
			result, err := bench.Measure(ctx, options)
			if err != nil {
				return fmt.Errorf("run %d: %w (logs are in %s)", n, err, options.Dir)
			}
			t.side.Runs = append(t.side.Runs, result)
		}
		slices.Reverse(turns)
	}
	return nil
}

// jsonName is how the tables call the file with the raw figures.
func jsonName(path string) string {
	if path == "" {
		return ""
	}
	return filepath.Base(path)
}

// chosen keeps the scenarios whose names contain one of the words.
func chosen(all []bench.Scenario, only string) []bench.Scenario {
	if only == "" {
		return all
	}
	return slices.DeleteFunc(all, func(s bench.Scenario) bool {
		return !slices.ContainsFunc(strings.Split(only, ","), func(word string) bool { return strings.Contains(s.Name, word) })
	})
}
