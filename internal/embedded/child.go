package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// outputDelay bounds how long a child's own children may hold its output open after it has gone.
	outputDelay = 2 * time.Second
	// tailLines is how much of a child's output is kept for error messages.
	tailLines = 30
	// lineLimit is the longest line of output kept whole, in bytes; the rest of it is dropped.
	lineLimit = 8 << 10
	// pollInterval is how often files and processes that cannot be waited for are looked at.
	pollInterval = 10 * time.Millisecond
)

// inheritedVariables are all a child gets of our environment. Ours holds keys and tokens, and a PG…
// variable of the user's would change what the server does.
var inheritedVariables = []string{"PATH", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"}

// childSpec is a program to run under supervision.
type childSpec struct {
	path    string
	args    []string
	account *account          // who it runs as; nil = as we do
	line    func(line string) // told every line of output, in order, from one goroutine; may be nil

	// onParentDeath is what the kernel sends when we die, on systems that can.
	onParentDeath syscall.Signal
}

// child is a running program. done is closed once it has ended and been reaped; err is set by then.
type child struct {
	name string
	cmd  *exec.Cmd
	out  *lineWriter
	done chan struct{}
	err  error
}

func startChild(spec childSpec) (*child, error) {
	cmd := exec.Command(spec.path, spec.args...)
	cmd.Env = childEnvironment()
	cmd.Dir = "/" // ours may be one the account cannot enter, which initdb complains about
	cmd.SysProcAttr = childAttributes(spec)
	cmd.WaitDelay = outputDelay
	out := &lineWriter{line: spec.line}
	cmd.Stdout, cmd.Stderr = out, out
	c := &child{name: filepath.Base(spec.path), cmd: cmd, out: out, done: make(chan struct{})}

	started := make(chan error, 1)
	go func() {
		// The death signal fires when the thread that forked ends, not the process. So the thread is
		// kept for this goroutine, which lives exactly as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.done)
		err := cmd.Start()
		started <- err
		if err != nil {
			c.err = err
			return
		}
		c.err = cmd.Wait()
		out.flush()
	}()
	if err := <-started; err != nil {
		<-c.done
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	return c, nil
}

// keepMemory lets a Postgres backend keep the memory it has used. By default glibc gives all but 128 KiB
// back after every statement, and a busy backend spends its time on asking the kernel for zeroed pages.
const keepMemory = "MALLOC_TRIM_THRESHOLD_=8388608"

func childEnvironment() []string {
	env := []string{"LC_ALL=C", "TZ=UTC", keepMemory}
	for _, name := range inheritedVariables {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) exited() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// rung is one step of asking a child to stop.
type rung struct {
	signal syscall.Signal
	wait   time.Duration
}

// stop sends the signal of each rung in turn, and SIGKILL at last, until the child has gone; it never
// returns before that. The end of ctx cuts only the first, polite wait short: the later ones are what
// keeps data whole. It is an error when the first rung was not enough.
func (c *child) stop(ctx context.Context, ladder ...rung) error {
	if c.exited() {
		return nil
	}
	for i, step := range ladder {
		if err := c.cmd.Process.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", c.name, err)
		}
		if c.waitFor(ctx, step.wait) {
			if i == 0 {
				return nil
			}
			return fmt.Errorf("stop %s: still running after %v, ended by %v", c.name, ladder[0].signal, step.signal)
		}
		ctx = context.WithoutCancel(ctx)
	}
	c.kill()
	if len(ladder) == 0 {
		return nil
	}
	return fmt.Errorf("stop %s: still running after %v, ended by %v", c.name, ladder[0].signal, syscall.SIGKILL)
}

// kill ends the child and what it started in its own process group, and waits.
func (c *child) kill() {
	if !c.exited() {
		_ = syscall.Kill(-c.pid(), syscall.SIGKILL)
		_ = c.cmd.Process.Kill()
	}
	<-c.done
}

func (c *child) waitFor(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	return c.exited()
}

// failure describes how the child ended, with the last it said.
func (c *child) failure() error {
	how := "exited without an error"
	if c.err != nil {
		how = c.err.Error()
	}
	if said := c.out.tail(); said != "" {
		how += "; it said:\n" + said
	}
	return fmt.Errorf("%s: %s", c.name, how)
}

// runChild runs a program to its end; the end of ctx kills it and its children.
func runChild(ctx context.Context, spec childSpec) error {
	c, err := startChild(spec)
	if err != nil {
		return err
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
		return fmt.Errorf("%s: %w", c.name, context.Cause(ctx))
	}
	if c.err != nil {
		return c.failure()
	}
	return nil
}

// lineWriter cuts output into lines and remembers the last of them.
type lineWriter struct {
	line func(string)

	mu      sync.Mutex
	partial []byte
	last    []string
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range p {
		switch {
		case b == '\n':
			w.emit()
		case len(w.partial) < lineLimit:
			w.partial = append(w.partial, b)
		}
	}
	return len(p), nil
}

func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.partial) > 0 {
		w.emit()
	}
}

func (w *lineWriter) emit() {
	line := strings.TrimRight(string(w.partial), "\r")
	w.partial = w.partial[:0]
	w.last = append(w.last, line)
	if len(w.last) > tailLines {
		w.last = w.last[len(w.last)-tailLines:]
	}
	if w.line != nil {
		w.line(line)
	}
}

func (w *lineWriter) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.last, "\n")
}

// pause waits one poll interval; false means ctx ended first.
func pause(ctx context.Context) bool {
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
