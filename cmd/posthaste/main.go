// Posthaste is a webhook platform in one binary: the server, its worker, a development setup and the
// commands of its operator.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/failpoint"
)

// Exit codes.
const (
	exitFailed = 1 // it was tried and did not work
	exitUsage  = 2 // the command line or a setting is wrong
)

func main() {
	if err := failpoint.Configure(); err != nil {
		fmt.Fprintln(os.Stderr, "posthaste:", err)
		os.Exit(exitUsage)
	}
	// The first signal asks for an orderly stop. After it the default is back in force, so that a
	// second one ends the process at once.
	ctx, restore := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, restore)
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr, os.Environ()}))
}

// run executes one command line and returns its exit code.
func run(ctx context.Context, args []string, s streams) int {
	root := rootCommand(s)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := exitFailed
	if isUsage(err) {
		code = exitUsage
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(s.err, "posthaste: "+strings.TrimRight(line, "\n"))
	}
	return code
}

// usageError is a mistake in the command line.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func isUsage(err error) bool {
	var usage usageError
	var config *app.ConfigError
	return errors.As(err, &usage) || errors.As(err, &config)
}
