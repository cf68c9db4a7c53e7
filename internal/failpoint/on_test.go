//go:build failpoint

package failpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func configure(t *testing.T, points, seed string) (log string) {
	t.Helper()
	log = filepath.Join(t.TempDir(), "bites")
	t.Setenv(EnvPoints, points)
	t.Setenv(EnvSeed, seed)
	t.Setenv(EnvLog, log)
	if err := Configure(); err != nil {
		t.Fatal(err)
	}
	c := current.Load()
	t.Cleanup(func() { current.Store(nil); _ = c.log.Close() })
	return log
}

func bites(t *testing.T, log string) (list []Bite) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for lines := json.NewDecoder(bytes.NewReader(text)); lines.More(); {
		var b Bite
		if err := lines.Decode(&b); err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

func TestNothingConfiguredNothingHappens(t *testing.T) {
	log := configure(t, "", "")
	Hit(APIBeforeCommit)
	if err := Error(APIBeforeCommit); err != nil {
		t.Fatal(err)
	}
	current.Store(nil) // as before Configure
	Hit(APIBeforeCommit)
	if list := bites(t, log); len(list) != 0 {
		t.Fatalf("%v", list)
	}
}

func TestError(t *testing.T) {
	log := configure(t, "store.accept=error:hit=3", "7")
	for i := range 5 {
		err := Error(StoreAccept)
		if (i == 2) != errors.Is(err, ErrInjected) {
			t.Errorf("passage %d: %v", i+1, err)
		}
		if err := Error(StoreRecord); err != nil {
			t.Errorf("another point failed: %v", err)
		}
	}
	list := bites(t, log)
	if len(list) != 1 || list[0].Name != StoreAccept || list[0].Action != "error" || list[0].PID != os.Getpid() || list[0].Seed != 7 || time.Since(list[0].Time) > time.Minute {
		t.Errorf("the log says %v", list)
	}
}

func TestHitLetsErrorPassUnlogged(t *testing.T) {
	log := configure(t, "store.accept=error", "")
	Hit(StoreAccept)
	if list := bites(t, log); len(list) != 0 {
		t.Errorf("logged a bite that did not bite: %v", list)
	}
}

func TestPanic(t *testing.T) {
	log := configure(t, "worker.before_send=panic", "")
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		if list := bites(t, log); len(list) != 1 {
			t.Errorf("the log says %v", list)
		}
	}()
	Hit(WorkerBeforeSend)
}

func TestSubject(t *testing.T) {
	log := configure(t, "worker.before_send=delay:1ms:of=/e/9;store.accept=error:of=x", "")
	for _, subject := range []string{"", "http://h/e/1", "http://h/e/99", "/e/9 "} {
		HitOf(WorkerBeforeSend, subject)
	}
	Hit(WorkerBeforeSend)
	if err := Error(StoreAccept); err != nil {
		t.Error(err) // it has no subject
	}
	if list := bites(t, log); len(list) != 0 {
		t.Errorf("the log says %v", list)
	}
	HitOf(WorkerBeforeSend, "http://h/e/9")
	if list := bites(t, log); len(list) != 1 {
		t.Errorf("the log says %v", list)
	}
}

func TestDelay(t *testing.T) {
	log := configure(t, "api.body_read=delay:20ms", "")
	start := time.Now()
	Hit(APIBodyRead)
	if took := time.Since(start); took < 20*time.Millisecond {
		t.Errorf("waited %s", took)
	}
	if list := bites(t, log); len(list) != 1 {
		t.Errorf("the log says %v", list)
	}
}

func TestProbabilityIsRepeatable(t *testing.T) {
	run := func(seed string) (at []int) {
		configure(t, "store.accept=error:p=0.1;store.record=error:p=0.1", seed)
		for i := range 2000 {
			if Error(StoreAccept) != nil {
				at = append(at, i)
			}
		}
		return at
	}
	first := run("42")
	if n := len(first); n < 120 || n > 280 { // 200 ± 6 standard deviations
		t.Errorf("p=0.1 bit %d times of 2000", n)
	}
	if !slices.Equal(run("42"), first) {
		t.Error("the same seed bites elsewhere")
	}
	if slices.Equal(run("43"), first) {
		t.Error("another seed bites at the same places")
	}
}

func TestConfigureRefuses(t *testing.T) {
	for points, want := range map[string]string{
		"api.befor_commit=kill":                       "no such point",
		"=kill":                                       "no such point",
		"api.before_commit":                           "no such action",
		"api.before_commit=explode":                   "no such action",
		"api.before_commit=delay":                     "needs a duration",
		"api.before_commit=delay:soon":                "needs a duration",
		"api.before_commit=delay:-1s":                 "needs a duration",
		"api.before_commit=kill:p=0":                  "probability",
		"api.before_commit=kill:p=1.1":                "probability",
		"api.before_commit=kill:p=NaN":                "probability",
		"api.before_commit=kill:hit=0":                "whole number",
		"api.before_commit=kill:hit=x":                "whole number",
		"api.before_commit=kill:of=":                  "end of a subject",
		"api.before_commit=kill:often":                "no such trigger",
		"api.before_commit=kill:p=1:hit=1":            "at most one trigger",
		"api.before_commit=kill;api.before_commit=ok": "given twice",
	} {
		t.Setenv(EnvPoints, points)
		if err := Configure(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), EnvPoints) {
			t.Errorf("%s: %v", points, err)
		}
	}
	t.Setenv(EnvPoints, " api.before_commit=kill:p=1 ; ;store.accept=delay:1ms:hit=5;")
	if err := Configure(); err != nil {
		t.Errorf("good text refused: %v", err)
	}
	current.Store(nil)
	t.Setenv(EnvSeed, "-1")
	if err := Configure(); err == nil || !strings.Contains(err.Error(), EnvSeed) {
		t.Errorf("bad seed: %v", err)
	}
	t.Setenv(EnvSeed, "")
	t.Setenv(EnvLog, filepath.Join(t.TempDir(), "no", "such", "folder"))
	if err := Configure(); err == nil || !strings.Contains(err.Error(), EnvLog) {
		t.Errorf("bad log: %v", err)
	}
	if current.Load() != nil {
		t.Error("a refused configuration is in force")
	}
}

// TestKill runs a program that is told to die at the third passage, and another that shares its log.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	program, log := filepath.Join(dir, "program"), filepath.Join(dir, "bites")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "failpoint", "-o", program, "./testdata/program").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	run := func(points string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), EnvPoints+"="+points, EnvLog+"="+log, EnvSeed+"=1")
		out, err := cmd.Output()
		return string(out), err
	}
	out, err := run("worker.after_send=kill:hit=3;store.accept=error:hit=2")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("ended with %v", err)
	}
	if out != "passed 1\nerror 2\npassed 2\n" {
		t.Errorf("got as far as %q", out)
	}
	out, err = run("store.accept=error:hit=10")
	if err != nil || !strings.HasSuffix(out, "passed 9\nerror 10\npassed 10\n") {
		t.Errorf("the next process: %q, %v", out, err)
	}
	var names []Point
	for _, b := range bites(t, log) {
		names = append(names, b.Name)
	}
	if !slices.Equal(names, []Point{StoreAccept, WorkerAfterSend, StoreAccept}) {
		t.Errorf("the log says %v", names)
	}
	out, err = run("no.such.point=kill")
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "no such point") {
		t.Errorf("an unknown point: %q, %v", out, err)
	}
}

func TestNamesAreListed(t *testing.T) {
	source, err := os.ReadFile("names.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), "Point = \""); n != len(Points) {
		t.Errorf("%d constants, %d in the list", n, len(Points))
	}
}
