// Command testenv runs a command, usually go test, beside one Postgres and one real Redis that all the
// packages it tests share:
//
//	go run ./internal/storetest/testenv -- go test ./...
//
// It exits as the command did. A server that the environment names already is used as it is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/posthaste/posthaste/internal/embedded"
)

// What the tests read, as storetest has it; repeated here so that this program builds in a second and
// whatever the packages under test are like.
const (
	postgresVariable = "TEST_DATABASE_URL"
	redisVariable    = "TEST_REDIS_URL"
	connections      = 300
)

// Exit codes of our own, which no test command uses.
const (
	exitUsage = 2
	exitSetUp = 125 // a server did not start or stop
	exitNoRun = 127 // the command could not be run
)

func main() { os.Exit(run()) }

func run() int {
	redis := flag.String("redis", "auto", "a real Redis: require, auto (when there is one) or none (tests use one in memory)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: testenv [-redis=require|auto|none] [--] command [arguments]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		return exitUsage
	}
	if *redis != "require" && *redis != "auto" && *redis != "none" {
		fmt.Fprintf(os.Stderr, "testenv: -redis is %q; it must be require, auto or none\n", *redis)
		return exitUsage
	}

	// From here on a signal is the command's, and must not end us before the servers are stopped.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)

	starting, started := context.WithCancel(context.Background())
	defer started()
	env, err := start(starting, *redis, signals, started)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		return exitSetUp
	}
	code := command(flag.Args(), signals)
	if err := env.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		code = max(code, exitSetUp)
	}
	return code
}

// environment is what the command finds running.
type environment struct {
	dir      string
	postgres *embedded.Postgres
	redis    *embedded.RedisServer
}

// start starts the servers and names them in our own environment, which the command inherits. A signal
// gives the start up.
func start(ctx context.Context, redis string, signals <-chan os.Signal, giveUp func()) (environment, error) {
	type outcome struct {
		env environment
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		var env environment
		err := env.start(ctx, redis)
		done <- outcome{env, err}
	}()
	var interrupted os.Signal
	for {
		select {
		case interrupted = <-signals:
			giveUp()
		case o := <-done:
			if o.err == nil && interrupted != nil {
				o.err = fmt.Errorf("stopped by signal: %v", interrupted)
			}
			if o.err != nil {
				return environment{}, errors.Join(o.err, o.env.stop())
			}
			return o.env, nil
		}
	}
}

func (e *environment) start(ctx context.Context, redis string) (err error) {
	if os.Getenv(postgresVariable) == "" {
		if e.dir, err = os.MkdirTemp("", "posthaste-testenv-"); err != nil {
			return err
		}
		e.postgres, err = embedded.StartPostgres(ctx, embedded.PostgresOptions{
			Dir:            e.dir,
			BundleDirs:     embedded.RepositoryBundle(),
			MaxConnections: connections,
		})
		if err != nil {
			return err
		}
		if err := os.Setenv(postgresVariable, e.postgres.URL("postgres")); err != nil {
			return err
		}
	}
	switch {
	case redis == "none":
		return os.Unsetenv(redisVariable)
	case os.Getenv(redisVariable) != "":
		return nil
	}
	e.redis, err = embedded.StartRedisServer(ctx, embedded.RedisServerOptions{Listen: "127.0.0.1:0"})
	if errors.Is(err, embedded.ErrNoRedis) && redis == "auto" {
		fmt.Fprintln(os.Stderr, "testenv: no redis-server found; tests use a Redis in memory only")
		return nil
	}
	if err != nil {
		return err
	}
	return os.Setenv(redisVariable, e.redis.URL(0))
}

func (e environment) stop() error {
	var errs []error
	if e.redis != nil {
		errs = append(errs, e.redis.Stop(context.Background()))
	}
	if e.postgres != nil {
		if err := e.postgres.Err(); err != nil { // it should not have ended yet
			errs = append(errs, err)
		}
		errs = append(errs, e.postgres.StopImmediate(context.Background()))
	}
	if e.dir != "" {
		errs = append(errs, os.RemoveAll(e.dir))
	}
	return errors.Join(errs...)
}

// command runs the command to its end, passing signals on, and gives its exit code; one ended by a
// signal gives 128 and its number, as in a shell.
func command(args []string, signals <-chan os.Signal) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		return exitNoRun
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			// A Ctrl-C reached the command as well; a second one does it no harm.
			_ = cmd.Process.Signal(s)
		case err := <-done:
			var exit *exec.ExitError
			switch {
			case err == nil:
				return 0
			case !errors.As(err, &exit):
				fmt.Fprintln(os.Stderr, "testenv:", err)
				return exitNoRun
			}
			if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
				return 128 + int(status.Signal())
			}
			return exit.ExitCode()
		}
	}
}
