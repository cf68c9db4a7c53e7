package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/posthaste/posthaste/cmd/lab/bench"
)

// reportCommand prints what lab bench -json wrote as the tables of docs/measurements.
func reportCommand(_ context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	if err := flags.Parse(args); err != nil {
		return usage(err)
	}
	if flags.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: lab report FILE…")
		return errUsage
	}
	for n, path := range flags.Args() {
		report, err := bench.ReadReport(path)
		if err != nil {
			return err
		}
		if n > 0 {
			_, _ = fmt.Fprintln(out)
		}
		if err := report.Markdown(out, filepath.Base(path)); err != nil {
			return err
		}
	}
	return nil
}
