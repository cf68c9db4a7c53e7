package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/storetest"
)

// runMain makes the test binary behave as posthaste, so that a test can start, signal and wait for the
// real program.
const runMain = "TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		main()
	}
	storetest.Main(m)
}

// command runs one command line in this process.
func command(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, streams{&out, &err, environ})
	return code, out.String(), err.String()
}

func TestMistakesExitWithTwoAndOneLine(t *testing.T) {
	for _, c := range []struct {
		args    []string
		environ []string
		want    string
	}{
		{[]string{"sreve"}, nil, `posthaste has no command "sreve"`},
		{[]string{"serve", "everything"}, nil, `"everything" is no role: serve all, serve api or serve worker`},
		{[]string{"serve", "api", "worker"}, nil, "takes one role"},
		{[]string{"serve", "--adr", ":1"}, nil, "unknown flag: --adr; see posthaste serve --help"},
		{[]string{"serve", "--addr", "here"}, []string{"DATABASE_URL=postgres:///x", "REDIS_URL=redis://h", "POSTHASTE_MASTER_KEY=" + newMasterKey(t)}, `POSTHASTE_ADDR must be host:port`},
		{[]string{"migrate"}, nil, "posthaste migrate needs a command"},
		{[]string{"migrate", "down"}, nil, `has no command "down"`},
		{[]string{"migrate", "up"}, nil, "DATABASE_URL is not set"},
		{[]string{"admin", "tenant", "create"}, nil, "--name is needed"},
		{[]string{"admin", "tenant", "create", "--name", "x", "--uid", "org_x"}, nil, "--uid must be"},
		{[]string{"admin", "tenant", "create", "--name", strings.Repeat("x", 1025)}, nil, "--name must be at most 1024 bytes"},
		{[]string{"admin", "api-key", "create", "--name", "x"}, nil, "--tenant is needed"},
		{[]string{"admin", "api-key", "create", "--name", "x", "--tenant", "t", "--scopes", "all"}, nil, `--scopes: "all" is not a scope`},
		{[]string{"admin", "api-key", "create", "--name", "x", "--tenant", "t", "--expires", "never"}, nil, "--expires must be"},
		{[]string{"admin", "plan", "set"}, nil, "needs the plan's name"},
		{[]string{"admin", "plan", "set", "a/b"}, nil, "a plan's name must be"},
		{[]string{"admin", "plan", "set", "p", "--weight", "0"}, nil, "--weight must be 1 to 100"},
		{[]string{"admin", "plan", "set", "p", "--max-payload", "1048577"}, nil, "--max-payload must be 1 to 1048576"},
		{[]string{"admin", "tenant", "set-plan", "pro"}, nil, "--tenant is needed"},
		{[]string{"admin", "tenant", "set-plan", "--tenant", "acme", "a", "b"}, nil, "takes one plan's name"},
		{[]string{"admin", "trace"}, nil, "needs a message's id"},
		{[]string{"admin", "trace", "msg_1"}, nil, `"msg_1" is not a message's id`},
		{[]string{"listen", "--secret", "sesame"}, nil, "--secret: "},
		{[]string{"listen"}, []string{"WEBHOOK_SECRET=sesame"}, "WEBHOOK_SECRET: "},
		{[]string{"listen", "--status", "199"}, nil, "--status must be 200 to 599"},
		{[]string{"listen", "--status", "600"}, nil, "--status must be 200 to 599"},
		{[]string{"listen", "--fail-rate", "1.01"}, nil, "--fail-rate must be 0 to 1"},
		{[]string{"listen", "--fail-rate", "NaN"}, nil, "--fail-rate must be 0 to 1"},
		{[]string{"listen", "--delay", "1h1s"}, nil, "--delay must be"},
		{[]string{"version", "now"}, nil, `takes no argument "now"`},
	} {
		code, stdout, stderr := command(t, c.environ, c.args...)
		if code != exitUsage || stdout != "" {
			t.Errorf("%q: exit %d, printed %q", c.args, code, stdout)
		}
		if !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "posthaste: ") {
			t.Errorf("%q said %q, want one line with %q", c.args, stderr, c.want)
		}
		if strings.Contains(stderr, "sesame") {
			t.Errorf("%q shows a secret: %s", c.args, stderr)
		}
	}
}

func TestServeListsWhatItNeedsAtOnce(t *testing.T) {
	code, _, stderr := command(t, nil, "serve")
	if code != exitUsage {
		t.Errorf("exit %d", code)
	}
	for _, part := range []string{"DATABASE_URL is not set", "REDIS_URL is not set", "POSTHASTE_MASTER_KEY is not set", "openssl rand -base64 32"} {
		if !strings.Contains(stderr, part) {
			t.Errorf("%q is not in:\n%s", part, stderr)
		}
	}
	if strings.Count(stderr, "\n") != 3 {
		t.Errorf("want a line each:\n%s", stderr)
	}
}

func TestUnknownSettingsAreWarnedAbout(t *testing.T) {
	_, _, stderr := command(t, []string{"POSTHASTE_ADRR=x"}, "serve")
	if !strings.Contains(stderr, "did you mean POSTHASTE_ADDR?") {
		t.Error(stderr)
	}
}

func TestEveryCommandExplainsItself(t *testing.T) {
	for _, args := range [][]string{
		{}, {"dev"}, {"serve"}, {"migrate"}, {"migrate", "up"}, {"migrate", "status"}, {"version"}, {"health"}, {"listen"},
		{"admin"}, {"admin", "tenant", "create"}, {"admin", "api-key", "create"}, {"admin", "trace"},
		{"admin", "plan", "list"}, {"admin", "plan", "set"}, {"admin", "tenant", "set-plan"},
	} {
		code, stdout, stderr := command(t, nil, append(args, "--help")...)
		if code != 0 || stderr != "" || !strings.Contains(stdout, "Usage:") {
			t.Errorf("%q --help: exit %d, %q, %q", args, code, stdout, stderr)
		}
	}
	if code, stdout, _ := command(t, nil); code != 0 || !strings.Contains(stdout, "posthaste dev") {
		t.Errorf("without arguments: exit %d, %q", code, stdout)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := command(t, nil, "version")
	if code != 0 || !strings.HasPrefix(stdout, "posthaste ") || strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit %d, %q", code, stdout)
	}
}

func TestFailureExitsWithOne(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"health", "--addr", "127.0.0.1:1"}, streams{&out, &errs, nil})
	if code != exitFailed || !strings.Contains(errs.String(), "ask for health") {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}
