package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/internal/storetest"
)

// roleVariable makes the test binary play testenv itself, or the command it runs.
const roleVariable = "TESTENV_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "testenv":
		_ = os.Setenv(roleVariable, "command")
		os.Exit(run())
	case "command":
		os.Exit(report())
	}
	goleak.VerifyTestMain(m)
}

// report prints what a command finds in its environment, and whether it works.
func report() int {
	ctx := context.Background()
	if at := os.Getenv(postgresVariable); at != "" {
		conn, err := pgx.Connect(ctx, at)
		if err != nil {
			fmt.Println("postgres:", err)
			return 1
		}
		var limit, fsync string
		err = conn.QueryRow(ctx, "SELECT current_setting('max_connections'), current_setting('fsync')").Scan(&limit, &fsync)
		fmt.Println("postgres:", limit, fsync, err)
		_ = conn.Close(ctx)
	}
	if at := os.Getenv(redisVariable); at != "" {
		options, err := redis.ParseURL(at)
		if err != nil {
			fmt.Println("redis:", err)
			return 1
		}
		client := redis.NewClient(options)
		fmt.Println("redis:", client.ConfigGet(ctx, "databases").Val()["databases"])
		_ = client.Close()
	}
	return 7
}

// testenv prepares a run whose temporary directory is the test's own, which is empty again afterwards.
func testenv(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	temp, err := os.MkdirTemp("", "phv-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(temp, 0o755); err != nil { // root's Postgres must be able to enter it
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		_ = os.RemoveAll(temp)
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "TEST_") {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, roleVariable+"=testenv", "TMPDIR="+temp)
	return cmd
}

func TestNamesAreThoseTheTestsRead(t *testing.T) {
	t.Parallel()
	if postgresVariable != storetest.PostgresVariable || redisVariable != storetest.RedisVariable || connections != storetest.Connections {
		t.Error("storetest has other names")
	}
}

func exitCode(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandFindsItsServers(t *testing.T) {
	t.Parallel()
	withRedis, withoutRedis := "postgres: 300 off <nil>\nredis: 1024\n", "postgres: 300 off <nil>\n"
	if _, err := exec.LookPath("redis-server"); err != nil {
		if _, err := exec.LookPath("valkey-server"); err != nil {
			withRedis = withoutRedis
		}
	}
	for flags, want := range map[string]string{"-redis=auto": withRedis, "-redis=none": withoutRedis} {
		t.Run(flags, func(t *testing.T) {
			t.Parallel()
			cmd := testenv(t, flags, "--", self(t))
			out, err := cmd.Output()
			if code := exitCode(t, err); code != 7 || string(out) != want {
				t.Fatalf("exit code %d, want the command's 7; it printed %q, want %q", code, out, want)
			}
		})
	}
}

func TestServersOfTheEnvironmentAreUsed(t *testing.T) {
	t.Parallel()
	cmd := testenv(t, "sh", "-c", "echo $TEST_DATABASE_URL $TEST_REDIS_URL")
	cmd.Env = append(cmd.Env, postgresVariable+"=postgres://given", redisVariable+"=redis://given")
	out, err := cmd.Output()
	if string(out) != "postgres://given redis://given\n" || err != nil {
		t.Fatalf("printed %q, %v", out, err)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"success":            {[]string{"true"}, 0, ""},
		"killed":             {[]string{"sh", "-c", "kill -KILL $$"}, 137, ""},
		"not there":          {[]string{"/nonexistent/command"}, exitNoRun, "/nonexistent/command"},
		"no command":         {nil, exitUsage, "usage:"},
		"bad flag value":     {[]string{"-redis=maybe", "true"}, exitUsage, "require, auto or none"},
		"arguments are kept": {[]string{"--", "sh", "-c", `exit "$#"`, "x", "-redis=none", "--"}, 2, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := testenv(t, test.args...)
			// Starting servers is not what this is about.
			cmd.Env = append(cmd.Env, postgresVariable+"=postgres://given", redisVariable+"=redis://given")
			out, err := cmd.CombinedOutput()
			if code := exitCode(t, err); code != test.code || !strings.Contains(string(out), test.says) {
				t.Fatalf("exit code %d, want %d; it printed:\n%s", code, test.code, out)
			}
		})
	}
}

func TestMissingRedis(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]int{"-redis=require": exitSetUp, "-redis=auto": 0} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			cmd := testenv(t, flag, "/bin/sh", "-c", "exit ${#TEST_REDIS_URL}")
			cmd.Env = append(cmd.Env, "PATH=/nonexistent", postgresVariable+"=postgres://given")
			out, err := cmd.CombinedOutput()
			if code := exitCode(t, err); code != want || !strings.Contains(string(out), "redis-server found") {
				t.Fatalf("exit code %d, want %d; it printed:\n%s", code, want, out)
			}
		})
	}
}

func TestSignalsAreTheCommands(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			cmd := testenv(t, "-redis=none", "sh", "-c", `
				trap 'echo stopping; kill $!; exit 9' INT TERM HUP QUIT
				sleep 600 >/dev/null 2>&1 &
				echo "up $TEST_DATABASE_URL"
				wait`)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(out)
			if line, err := lines.ReadString('\n'); !strings.HasPrefix(line, "up postgres://") {
				t.Errorf("it printed %q (%v) and %s", line, err, stderr.String())
			}
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			rest, _ := io.ReadAll(lines)
			if code := exitCode(t, cmd.Wait()); code != 9 || string(rest) != "stopping\n" {
				t.Fatalf("exit code %d, want the command's 9; it printed %q and %s", code, rest, stderr.String())
			}
		})
	}
}

func TestSignalDuringTheStart(t *testing.T) {
	t.Parallel()
	cmd := testenv(t, "-redis=none", "echo", "ran")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var temp string
	for _, variable := range cmd.Env {
		if value, ok := strings.CutPrefix(variable, "TMPDIR="); ok {
			temp = value
		}
	}
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for entries, _ := os.ReadDir(temp); len(entries) == 0; entries, _ = os.ReadDir(temp) {
		select {
		case <-deadline:
			t.Fatal("nothing starts")
		case <-tick.C:
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := exitCode(t, cmd.Wait()); code != exitSetUp || strings.Contains(out.String(), "ran\n") {
		t.Fatalf("exit code %d, want %d; it printed:\n%s", code, exitSetUp, out.String())
	}
}
