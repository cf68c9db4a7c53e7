// Lab measures Posthaste and breaks it on purpose, from outside: it starts the real binary beside a
// real Postgres and Redis, posts messages, receives them, and compares both ends.
//
//	lab bench    how much, how fast, at what cost, next to a bare POST loop
//	lab report   what a bench wrote down, as tables in Markdown
//	lab chaos    kill, restart and empty things under load; nothing accepted may be lost
//	lab limits   how exactly limits are kept, and how soon a changed one shows
//	lab soak     give one tenant, or many endpoints, a bad day; the others may not notice
//
// The other commands are parts of these, run as processes of their own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/bench"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage) || errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("wrong usage")

// commands are the subcommands by name.
var commands = map[string]func(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error{
	"bench":       benchCommand,
	"report":      reportCommand,
	"chaos":       chaosCommand,
	"limits":      limitsCommand,
	"soak":        soakCommand,
	"sink":        sinkCommand,
	"hole":        holeCommand,
	"load":        loadCommand,
	"bare-server": bareServerCommand,
	"bare-client": bareClientCommand,
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "usage: lab bench|chaos|limits|soak [flags], lab report FILE…; lab bench -help shows the flags")
		return errUsage
	}
	return commands[args[0]](ctx, flag.NewFlagSet("lab "+args[0], flag.ContinueOnError), args[1:], out)
}

// parse reads the flags; the flag package has printed what is wrong.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return usage(err)
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "%s takes no arguments besides flags\n", flags.Name())
		return errUsage
	}
	return nil
}

// usage is what a failure to read the flags comes to.
func usage(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return errUsage
}

func sinkCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	delay := flags.Duration("delay", 0, "how long to keep each answer")
	if err := parse(flags, args); err != nil {
		return err
	}
	return traffic.RunSink(ctx, *delay, out)
}

func holeCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	if err := parse(flags, args); err != nil {
		return err
	}
	return traffic.RunHole(ctx, out)
}

func bareServerCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	if err := parse(flags, args); err != nil {
		return err
	}
	return bench.RunBareServer(ctx, out)
}

func bareClientCommand(ctx context.Context, flags *flag.FlagSet, args []string, out io.Writer) error {
	address := flags.String("address", "", "host:port of the bare server")
	duration := flags.Duration("duration", 5*time.Second, "how long to post")
	if err := parse(flags, args); err != nil {
		return err
	}
	return bench.RunBareClient(ctx, *address, *duration, out)
}

func loadCommand(ctx context.Context, flags *flag.FlagSet, args []string, _ io.Writer) error {
	load := traffic.Load{Key: traffic.APIKey()}
	flags.StringVar(&load.Address, "address", "", "host:port of the API")
	applications := flags.String("app", "", "ids of the applications to post to in turn, separated by commas")
	flags.IntVar(&load.Conns, "conns", 16, "keep-alive connections")
	flags.Float64Var(&load.Rate, "rate", 0, "messages per second; 0 posts as fast as answers come")
	flags.DurationVar(&load.Duration, "duration", 5*time.Second, "how long to post")
	flags.StringVar(&load.Out, "out", "", "file for the records")
	if err := parse(flags, args); err != nil {
		return err
	}
	load.Applications = strings.Split(*applications, ",")
	return traffic.RunLoad(ctx, load)
}
