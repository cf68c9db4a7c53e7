package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/chaos"
)

func chaosCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	site := siteFlags(flags, "failpoint")
	names := flags.String("faults", "", "which faults, separated by commas, such as F1,F2; default: all")
	deliveries := flags.Int("deliveries", 10_000, "deliveries per fault, at least")
	seed := flags.Uint64("seed", uint64(time.Now().UnixNano())%1_000_000, "makes the random choices repeatable")
	timeout := flags.Duration("attempt-timeout", 15*time.Second, "how long the platform waits for a receiver; leases follow from it")
	keep := flags.Bool("keep", false, "keep logs also of faults that passed")
	if err := parse(flags, args); err != nil {
		return err
	}
	faults, err := chosenFaults(*names)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return errUsage
	}
	options := chaos.Options{Deliveries: *deliveries, Seed: *seed, AttemptTimeout: *timeout, Keep: *keep, Timed: true}
	if options.Binary, options.Dir, err = site.prepare(ctx); err != nil {
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
	} else if err := site.tidy(options.Dir); err != nil {
		return err
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

func chosenFaults(names string) ([]chaos.Fault, error) {
	return pick("-faults", names, "fault", chaos.Faults(), func(f chaos.Fault) string { return f.ID })
}
