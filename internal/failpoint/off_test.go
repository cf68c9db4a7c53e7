//go:build !failpoint

package failpoint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/failpoint"
)

func TestOffDoesNothing(t *testing.T) {
	if failpoint.Enabled {
		t.Fatal("enabled without the tag")
	}
	t.Setenv(failpoint.EnvPoints, "")
	if err := failpoint.Configure(); err != nil {
		t.Fatal(err)
	}
	for _, p := range failpoint.Points {
		failpoint.Hit(p)
		if err := failpoint.Error(p); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOffRefusesToBeAskedForFaults(t *testing.T) {
	t.Setenv(failpoint.EnvPoints, "api.before_commit=kill")
	if err := failpoint.Configure(); err == nil || !strings.Contains(err.Error(), failpoint.EnvPoints) {
		t.Fatalf("got %v", err)
	}
}

// TestOn runs the tests of the other build, so that a plain "go test" covers both.
func TestOn(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command on this machine")
	}
	out, err := exec.CommandContext(t.Context(), tool, "test", "-tags", "failpoint", "-count=1", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go test -tags failpoint: %v\n%s", err, out)
	}
}

// TestOffLeavesNothingBehind looks into a built program: without the tag there is no code that could
// kill it and no action that could be switched on.
func TestOffLeavesNothingBehind(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command on this machine")
	}
	for tags, want := range map[string]bool{"": false, "failpoint": true} {
		program := filepath.Join(t.TempDir(), "program")
		out, err := exec.CommandContext(t.Context(), tool, "build", "-tags", tags, "-o", program, "./testdata/program").CombinedOutput()
		if err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		binary, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(binary), "injected panic"); got != want {
			t.Errorf("tags %q: the actions are in the program: %v", tags, got)
		}
		if got := strings.Contains(string(binary), "failpoint.Hit"); got != want {
			t.Errorf("tags %q: the calls are in the program: %v", tags, got)
		}
	}
}
