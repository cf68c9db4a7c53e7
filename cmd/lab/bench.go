package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/bench"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

func benchCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	binary := flags.String("bin", "bin/posthaste", "the posthaste binary; built when missing, and always when it is this default")
	build := flags.Bool("build", false, "build the binary first although -bin names it")
	runs := flags.Int("runs", 1, "passes over all scenarios, each on a fresh installation")
	duration := flags.Duration("duration", 10*time.Second, "how long each scenario posts")
	idle := flags.Duration("idle", 20*time.Second, "how long to watch the idle platform")
	only := flags.String("only", "", "run only the scenarios whose names contain one of these, separated by commas")
	jsonPath := flags.String("json", "", "write the results to this file as JSON")
	profile := flags.String("profile", "", `"cpu" fetches processor profiles during every scenario that posts`)
	dir := flags.String("dir", "", "keep data and logs in this new directory; default: a temporary one, removed if all went well")
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
	path, err := rig.Binary(ctx, *binary, "", *build || !given(flags, "bin"))
	if err != nil {
		return err
	}
	place, err := directory(*dir, "posthaste-bench-")
	if err != nil {
		return err
	}
	report := bench.NewReport(ctx)
	options := bench.Options{
		Binary: path, Self: self, Scenarios: chosen(bench.Scenarios(*duration, *idle), *only),
		Bare: 4 * time.Second, Warmup: 3 * time.Second, Profile: *profile == "cpu", Progress: out,
	}
	for n := 1; n <= *runs; n++ {
		_, _ = fmt.Fprintf(out, "run %d of %d\n", n, *runs)
		if options.Dir, err = numbered(place, n); err != nil {
			return err
		}
		result, err := bench.Measure(ctx, options)
		if err != nil {
			return fmt.Errorf("run %d: %w (logs are in %s)", n, err, options.Dir)
		}
		report.Runs = append(report.Runs, result)
	}
	report.Print(out)
	if *jsonPath != "" {
		if err := report.WriteJSON(*jsonPath); err != nil {
			return err
		}
	}
	if violations := report.Violations(); len(violations) > 0 {
		return fmt.Errorf("the platform did not keep its promise (logs are in %s):\n%s", place, strings.Join(violations, "\n"))
	}
	if *dir == "" && !options.Profile {
		return os.RemoveAll(place)
	}
	_, _ = fmt.Fprintln(out, "\nfiles are in", place)
	return nil
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
