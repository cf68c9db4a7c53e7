package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/limits"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

func limitsCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	site := siteFlags(flags, "")
	rates := flags.String("rates", "10,100,1000", "limits of endpoints, per second, separated by commas, each with two bursts or with the one behind a slash, such as 5000/500; all are measured at once")
	overload := flags.Float64("overload", 1.3, "how much is posted, of what a limit allows; more than 1")
	workers := flags.String("workers", "1,2,4", "numbers of worker processes, separated by commas")
	duration := flags.Duration("duration", 30*time.Second, "how long each measurement takes")
	jsonPath := flags.String("json", "", "write the results to this file as JSON")
	if err := parse(flags, args); err != nil {
		return err
	}
	options := limits.Options{Duration: *duration, Overload: *overload, Progress: out}
	var err error
	if options.Endpoints, err = limits.EndpointLimits(*rates); err != nil {
		err = fmt.Errorf("-rates: %w", err)
	} else if options.Workers, err = numbers(*workers); err != nil {
		err = fmt.Errorf("-workers: %w", err)
	} else if options.Overload <= 1 {
		err = errors.New("-overload must be more than 1")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return errUsage
	}
	if options.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("find the lab's own binary: %w", err)
	}
	if options.Binary, options.Dir, err = site.prepare(ctx); err != nil {
		return err
	}
	report := limits.NewReport(ctx, options)
	if err := limits.Measure(ctx, options, &report); err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, options.Dir)
	}
	if *jsonPath != "" {
		if err := rig.WriteJSON(*jsonPath, report); err != nil {
			return err
		}
	}
	_, _ = fmt.Fprintln(out)
	if err := report.Markdown(out); err != nil {
		return err
	}
	if missed := report.Missed(); len(missed) > 0 {
		return fmt.Errorf("limits were not kept (logs are in %s):\n%s", options.Dir, strings.Join(missed, "\n"))
	}
	return site.tidy(options.Dir)
}

// numbers reads positive numbers separated by commas, and puts them in order.
func numbers(text string) (list []int, err error) {
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is no positive number", word)
		}
		list = append(list, n)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
