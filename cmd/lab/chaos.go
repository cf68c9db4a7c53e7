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

	"github.com/posthaste/posthaste/cmd/lab/chaos"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

func chaosCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	binary := flags.String("bin", "bin/posthaste-failpoint", "the posthaste binary with failpoints; built when missing, and always when it is this default")
	build := flags.Bool("build", false, "build the binary first although -bin names it")
	names := flags.String("faults", "", "which faults, separated by commas, such as F1,F2; default: all")
	deliveries := flags.Int("deliveries", 10_000, "deliveries per fault, at least")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano())%1_000_000, "makes the random choices repeatable")
	timeout := flags.Duration("attempt-timeout", 15*time.Second, "how long the platform waits for a receiver; leases follow from it")
	keep := flags.Bool("keep", false, "keep logs also of faults that passed")
	dir := flags.String("dir", "", "where logs and evidence go; default: a new temporary directory")
	if err := parse(flags, args); err != nil {
		return err
	}
	faults, err := chosenFaults(*names)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return errUsage
	}
	options := chaos.Options{Deliveries: *deliveries, Seed: *seed, AttemptTimeout: *timeout, Keep: *keep, Timed: true}
	if options.Binary, err = rig.Binary(ctx, *binary, "failpoint", *build || !given(flags, "bin")); err != nil {
		return err
	}
	if options.Dir, err = directory(*dir, "posthaste-chaos-"); err != nil {
		return err
	}
	passed, failed := 0, 0
	for _, fault := range faults {
		result, err := chaos.Execute(ctx, options, fault)
		if err != nil {
			failed++
			_, _ = fmt.Fprintf(out, "FAIL %s the rig: %v\n", fault.ID, err)
			if ctx.Err() != nil {
				break
			}
			continue
		}
		_, _ = fmt.Fprintln(out, result.Line())
		if result.Passed() {
			passed++
			continue
		}
		failed++
		printFindings(out, result)
	}
	_, _ = fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	if failed > 0 || *keep {
		_, _ = fmt.Fprintln(out, "logs and evidence are in", options.Dir)
	} else if *dir == "" {
		if err := os.Remove(options.Dir); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d faults broke the promise; -seed %d repeats them", failed, len(faults), *seed)
	}
	return nil
}

// findingsShown is how many findings are printed; the rest is in the evidence.
const findingsShown = 10

func printFindings(out io.Writer, result chaos.Result) {
	for i, finding := range result.Report.Findings {
		if i == findingsShown {
			_, _ = fmt.Fprintf(out, "       … and %d more\n", len(result.Report.Findings)-findingsShown)
			return
		}
		_, _ = fmt.Fprintf(out, "       %s: %s\n", finding.Invariant, finding.Text)
	}
}

// chosenFaults are the faults named; none named means all.
func chosenFaults(names string) ([]chaos.Fault, error) {
	all := chaos.Faults()
	if names == "" {
		return all, nil
	}
	var list []chaos.Fault
	for name := range strings.SplitSeq(names, ",") {
		at := slices.IndexFunc(all, func(f chaos.Fault) bool { return strings.EqualFold(f.ID, strings.TrimSpace(name)) })
		if at < 0 {
			known := make([]string, len(all))
			for i, f := range all {
				known[i] = f.ID
			}
			return nil, fmt.Errorf("-faults: %q is no fault; there are %s", name, strings.Join(known, ", "))
		}
		list = append(list, all[at])
	}
	return list, nil
}
