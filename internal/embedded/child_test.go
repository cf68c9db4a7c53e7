package embedded

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell runs a script and waits for it to say "up".
func shell(t *testing.T, script string) *child {
	t.Helper()
	up := make(chan struct{})
	c, err := startChild(childSpec{
		path: "/bin/sh", args: []string{"-c", script},
		line: func(line string) {
			if line == "up" {
				close(up)
			}
		},
		onParentDeath: syscall.SIGKILL,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	select {
	case <-up:
	case <-c.done:
		t.Fatal(c.failure())
	}
	return c
}

func TestStopLadder(t *testing.T) {
	t.Parallel()
	const long, short = time.Minute, 50 * time.Millisecond
	ended, end := context.WithCancel(context.Background())
	end()
	for _, test := range []struct {
		name   string
		ignore string
		ctx    context.Context
		ladder []rung
		by     syscall.Signal
		err    string
	}{
		{"first rung suffices", "", context.Background(), []rung{{syscall.SIGINT, long}, {syscall.SIGQUIT, long}}, syscall.SIGINT, ""},
		{"second rung", "INT", context.Background(), []rung{{syscall.SIGINT, short}, {syscall.SIGQUIT, long}}, syscall.SIGQUIT, "ended by quit"},
		{"ended context cuts the first wait only", "INT", ended, []rung{{syscall.SIGINT, long}, {syscall.SIGQUIT, long}}, syscall.SIGQUIT, "ended by quit"},
		{"nothing helps", "INT QUIT", context.Background(), []rung{{syscall.SIGINT, short}, {syscall.SIGQUIT, short}}, syscall.SIGKILL, "ended by killed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			script := "echo up; exec sleep 600"
			if test.ignore != "" {
				script = "trap '' " + test.ignore + "; " + script
			}
			c := shell(t, script)
			err := c.stop(test.ctx, test.ladder...)
			if !c.exited() {
				t.Fatal("stop returned before the child had gone")
			}
			if fmt.Sprint(err) != "<nil>" && (test.err == "" || !strings.Contains(err.Error(), test.err)) || err == nil && test.err != "" {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			if status := c.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != test.by {
				t.Fatalf("ended by %v, want %v", status.Signal(), test.by)
			}
			if err := c.stop(context.Background(), test.ladder...); err != nil {
				t.Fatalf("second stop: %v", err)
			}
		})
	}
}

func TestOutputIsCutIntoLines(t *testing.T) {
	t.Parallel()
	var lines []string
	w := &lineWriter{line: func(line string) { lines = append(lines, line) }}
	for _, part := range []string{"one\ntw", "o\r\n", "\n", strings.Repeat("x", lineLimit), "y\n", strings.Repeat("z", lineLimit) + "\nlast"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(part), err)
		}
	}
	w.flush()
	w.flush()
	want := []string{"one", "two", "", strings.Repeat("x", lineLimit), strings.Repeat("z", lineLimit), "last"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d", len(lines), len(want))
	}
	for i := range want {
		if lines[i] != want[i] {
			t.Errorf("line %d is %.20q of %d bytes, want %.20q of %d", i, lines[i], len(lines[i]), want[i], len(want[i]))
		}
	}
}

func TestTailKeepsTheLastLines(t *testing.T) {
	t.Parallel()
	w := &lineWriter{}
	for i := range tailLines + 1 {
		fmt.Fprintln(w, i)
	}
	lines := strings.Split(w.tail(), "\n")
	if len(lines) != tailLines || lines[0] != "1" {
		t.Fatalf("%d lines from %q, want %d from 1", len(lines), lines[0], tailLines)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	t.Parallel()
	if _, err := startChild(childSpec{path: "/nonexistent/program"}); err == nil || !strings.Contains(err.Error(), "start program") {
		t.Fatalf("error %v", err)
	}
}
