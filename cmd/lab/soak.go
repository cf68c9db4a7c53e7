package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/soak"
)

func soakCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	site := siteFlags(flags, "")
	only := flags.String("only", "", "which stages, separated by commas, such as backlog,dead; default: all")
	rows := flags.Int("rows", 1_000_000, "deliveries that one tenant is behind")
	duration := flags.Duration("duration", time.Minute, "how long each stretch that is judged takes")
	jsonPath := flags.String("json", "", "write the results to this file as JSON")
	keep := flags.Bool("keep", false, "keep logs also of stages that passed")
	if err := parse(flags, args); err != nil {
		return err
	}
	stages, err := chosenStages(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return errUsage
	}
	options := soak.Options{Rows: *rows, Duration: *duration, Keep: *keep, Progress: out}
	if options.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("find the lab's own binary: %w", err)
	}
	if options.Binary, options.Dir, err = site.prepare(ctx); err != nil {
		return err
	}
	report := soak.NewReport(ctx, options)
	for _, stage := range stages {
		_, _ = fmt.Fprintf(out, "%s: %s\n", stage.Name, stage.Title)
		result, err := soak.Execute(ctx, options, stage)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(out, result.Line())
		report.Results = append(report.Results, result)
		if *jsonPath != "" { // after each stage, so that an interrupt leaves what there is
			if err := rig.WriteJSON(*jsonPath, report); err != nil {
				return err
			}
		}
	}
	_, _ = fmt.Fprintln(out)
	if err := report.Markdown(out); err != nil {
		return err
	}
	failed := report.Failed()
	if len(failed) > 0 || *keep {
		_, _ = fmt.Fprintln(out, "\nlogs are in", options.Dir)
	} else if err := site.tidy(options.Dir); err != nil {
		return err
	}
	if len(failed) > 0 {
		return fmt.Errorf("missed in %s", strings.Join(failed, ", "))
	}
	return nil
}

func chosenStages(names string) ([]soak.Stage, error) {
	return pick("-only", names, "stage", soak.Stages(), func(s soak.Stage) string { return s.Name })
}
