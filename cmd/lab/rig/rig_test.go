package rig

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helperVariable turns the test binary into a stand-in for the lab.
const helperVariable = "LAB_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) != "" {
		helper()
		return
	}
	goleak.VerifyTestMain(m)
}

// helper starts a child that would live long, says so and waits to be killed.
func helper() {
	var nursery Nursery
	if _, err := nursery.Start(Spec{Name: "child", Path: "/bin/sleep", Args: []string{"600"}, Out: os.Stdout}); err != nil {
		os.Stdout.WriteString("failed: " + err.Error() + "\n")
		return
	}
	os.Stdout.WriteString("started\n")
	_, _ = io.Copy(io.Discard, os.Stdin) // until killed
}

func TestChildrenDieWithTheLab(t *testing.T) {
	lab := exec.CommandContext(t.Context(), os.Args[0])
	lab.Env = append(os.Environ(), helperVariable+"=1")
	input, err := lab.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = input.Close() }()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	lab.Stdout = writer
	if err := lab.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	out := bufio.NewReader(reader)
	if line, err := out.ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("%q %v", line, err)
	}
	if err := lab.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = lab.Wait()
	// The child holds the other end of the pipe: its end is the pipe's end.
	if err := reader.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatalf("the child outlived the lab: %v", err)
	}
}

func TestNurseryCloseKillsWhatRuns(t *testing.T) {
	var nursery Nursery
	stubborn, err := nursery.Start(Spec{Name: "stubborn", Path: "/bin/sh", Args: []string{"-c", "trap '' TERM INT; sleep 600 & wait; wait"}})
	if err != nil {
		t.Fatal(err)
	}
	nursery.Close()
	state, _ := stubborn.Exit()
	if !Killed(state) {
		t.Fatalf("ended with %s", state)
	}
}

func TestProcessStop(t *testing.T) {
	var nursery Nursery
	defer nursery.Close()
	log := filepath.Join(t.TempDir(), "log")
	p, err := nursery.Start(Spec{Name: "talker", Path: "/bin/sh", Args: []string{"-c", "echo hello; exec sleep 600"}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(syscall.SIGTERM, 10*time.Second); err != nil {
		t.Error(err)
	}
	if state, _ := p.Exit(); Killed(state) {
		t.Errorf("ended with %s", state)
	}
	deaf, err := nursery.Start(Spec{Name: "deaf", Path: "/bin/sleep", Args: []string{"600"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := deaf.Stop(syscall.Signal(0), time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("a process that does not stop: %v", err)
	}
	if _, err := nursery.Start(Spec{Name: "nobody", Path: "/does/not/exist"}); err == nil {
		t.Error("started what does not exist")
	}
}

func TestACommitIsBuiltBesideTheTree(t *testing.T) {
	worktrees := func() string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "git", "worktree", "list").CombinedOutput()
		if err != nil {
			t.Skipf("there is no git repository here: %v", err)
		}
		return string(out)
	}
	before := worktrees()
	path := filepath.Join(t.TempDir(), "posthaste")
	name, err := BuildCommit(t.Context(), "HEAD", path)
	if err != nil || len(name) < 12 {
		t.Fatalf("%q %v", name, err)
	}
	if out, err := exec.CommandContext(t.Context(), path, "--help").CombinedOutput(); err != nil {
		t.Errorf("what was built does not run: %v\n%s", err, out)
	}
	for _, none := range []string{"no-such-commit", "--help", ""} {
		if _, err := BuildCommit(t.Context(), none, path); err == nil {
			t.Errorf("%q was built", none)
		}
	}
	if after := worktrees(); strings.Count(after, "posthaste-commit-") != strings.Count(before, "posthaste-commit-") {
		t.Errorf("a worktree is left behind:\n%s", after)
	}
}

func TestParseStat(t *testing.T) {
	line := "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 5 6 7"
	got, err := parseStat([]byte(line))
	if err != nil || got != (stat{pid: 42, parent: 7, cpu: 1270 * time.Millisecond}) {
		t.Errorf("%+v %v", got, err)
	}
	for _, bad := range []string{"", "42", "42 (a) S 7", "x (a) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20", "42 (a) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 x 4 20"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was understood", bad)
		}
	}
}

func TestCPUCountsTheWholeTree(t *testing.T) {
	var nursery Nursery
	defer nursery.Close()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	// A child that burns, inside a shell that was waited for by nobody yet.
	script := "(i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done); (echo done; exec sleep 600) & wait"
	p, err := nursery.Start(Spec{Name: "burner", Path: "/bin/sh", Args: []string{"-c", script}, Out: writer})
	_ = writer.Close()
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(reader).ReadString('\n'); err != nil || line != "done\n" {
		t.Fatalf("%q %v", line, err)
	}
	used, err := CPU(p.PID())
	if err != nil || used < 2*clockTick {
		t.Errorf("%v %v", used, err)
	}
	processes, err := tree(p.PID())
	if err != nil || len(processes) < 2 {
		t.Errorf("%v %v", processes, err)
	}
	resident, err := Memory(p.PID())
	if err != nil || resident <= 0 {
		t.Errorf("%d bytes, %v", resident, err)
	}
	peak, err := PeakResident(p.PID())
	if err != nil || peak <= 0 {
		t.Errorf("%d bytes, %v", peak, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // one look is enough
	var most PeakMemory
	most.Run(ctx, map[string]int{"burner": p.PID(), "gone": 1 << 30})
	if most.Bytes("burner") <= 0 || most.Bytes("gone") != 0 {
		t.Errorf("%d %d", most.Bytes("burner"), most.Bytes("gone"))
	}
	if _, err := CPU(1 << 30); err == nil {
		t.Error("a process that does not exist has used time")
	}
}

func TestStatusField(t *testing.T) {
	text := []byte("Name:\tx\nVmHWM:\t    2048 kB\nRssAnon:\t 1 kB\n")
	if got := statusField(text, "VmHWM:"); got != 2<<20 {
		t.Error(got)
	}
	if got := statusField(text, "RssShmem:"); got != 0 {
		t.Error(got)
	}
}

func TestCountGoroutines(t *testing.T) {
	profile := "goroutine profile: total 9\n4 @ 0x1 0x2\n#\t0x1\tnet/http.(*persistConn).readLoop+0x1\n\n3 @ 0x3\n#\t0x3\tmain.work+0x1\n\n2 @ 0x4\n#\t0x4\tmain.rest+0x1\n\n"
	if n, err := countGoroutines([]byte(profile)); n != 5 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	for _, wrong := range []string{"", "404 page not found\n", "goroutine profile: total 1\nsomething else\n"} {
		if n, err := countGoroutines([]byte(wrong)); err == nil {
			t.Errorf("%q: %d", wrong, n)
		}
	}
}
