package rig

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Nursery starts processes and sees to it that none outlives it.
type Nursery struct {
	mu       sync.Mutex
	children map[*Process]struct{}
}

// Close kills what still runs and waits for it. No Start may follow.
func (n *Nursery) Close() {
	n.mu.Lock()
	left := slices.Collect(maps.Keys(n.children))
	n.mu.Unlock()
	for _, child := range left {
		child.Kill()
	}
	for _, child := range left {
		<-child.done
	}
}

// Spec says what to run.
type Spec struct {
	Name string
	Path string
	Args []string
	Env  []string // whole environment
	Dir  string
	Log  string // file that standard output and error are appended to; empty discards them
	// Out, if set, receives standard output in place of Log.
	Out *os.File
}

// Process is a child in its own process group.
type Process struct {
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	end  time.Time // set before done is closed
}

// Start runs a process.
func (n *Nursery) Start(spec Spec) (*Process, error) {
	cmd := exec.Command(spec.Path, spec.Args...)
	cmd.Env, cmd.Dir = spec.Env, spec.Dir
	// Its own group: a Ctrl-C in the terminal reaches the lab alone, which then ends things in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if spec.Log != "" {
		log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Name, err)
		}
		defer func() { _ = log.Close() }()
		cmd.Stdout, cmd.Stderr = log, log
	}
	if spec.Out != nil {
		cmd.Stdout = spec.Out
	}
	p := &Process{Name: spec.Name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel's death signal fires when the thread that forked ends, so the thread is kept for
		// this goroutine, which lives as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = cmd.Wait() // how it ended is read from ProcessState
		p.end = time.Now()
		n.mu.Lock()
		delete(n.children, p)
		n.mu.Unlock()
		close(p.done)
	}()
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	if n.children == nil {
		n.children = make(map[*Process]struct{})
	}
	n.children[p] = struct{}{}
	return p, nil
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit is how and when the process ended; it waits for the end.
func (p *Process) Exit() (*os.ProcessState, time.Time) {
	<-p.done
	return p.cmd.ProcessState, p.end
}

// Signal sends a signal to the process alone; to one that has ended it does nothing.
func (p *Process) Signal(signal syscall.Signal) { _ = p.cmd.Process.Signal(signal) }

// Kill kills the process and its group at once, without waiting.
func (p *Process) Kill() {
	select {
	case <-p.done: // the group's number may belong to somebody else by now
	default:
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	}
}

// Stop asks the process to end with a signal and waits; after the grace period it is killed, which is
// an error.
func (p *Process) Stop(signal syscall.Signal, grace time.Duration) error {
	p.Signal(signal)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
		p.Kill()
		<-p.done
		return fmt.Errorf("stop %s: still running %v after %v; killed", p.Name, grace, signal)
	}
}

// Killed reports whether the process ended by SIGKILL.
func Killed(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
