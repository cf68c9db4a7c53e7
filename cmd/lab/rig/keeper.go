package rig

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

const (
	// readyWait is how long a posthaste process may take until it is ready.
	readyWait = 30 * time.Second
	// stopWait is how long an orderly stop may take; sends in flight end within it.
	stopWait = 40 * time.Second
)

// Exit is the end of one life of a kept process.
type Exit struct {
	Name   string
	PID    int
	At     time.Time // when it was noticed, milliseconds after the end itself
	Killed bool      // by SIGKILL, its own or ours
	Asked  bool      // in order, as Restart had asked; if neither, it crashed
	How    string
}

// Keeper keeps one posthaste process running: when it ends it is started again at once.
type Keeper struct {
	Name    string
	Address string

	rig  *Rig
	role string
	// environment gives what to add to the environment of the nth life, counted from 0.
	environment func(life int) []string

	mu      sync.Mutex
	current *Process
	asked   *Process // that Restart has told to end
	life    int
	exits   []Exit
	failed  error
	stop    chan struct{} // closed when the process is not to be started again
	done    chan struct{}
}

// Keep starts "posthaste serve <role>" on a port of its own and keeps it running until Stop or the
// rig's Close. The environment may be nil.
func (r *Rig) Keep(name, role string, environment func(life int) []string) (*Keeper, error) {
	address, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	k := &Keeper{Name: name, Address: address, rig: r, role: role, environment: environment,
		stop: make(chan struct{}), done: make(chan struct{})}
	if err := k.start(); err != nil {
		return nil, err
	}
	r.keepers = append(r.keepers, k)
	go k.run()
	return k, nil
}

// start begins the next life; the caller is alone or holds the lock.
func (k *Keeper) start() error {
	extra := []string{"POSTHASTE_ADDR=" + k.Address}
	if k.environment != nil {
		extra = append(extra, k.environment(k.life)...)
	}
	process, err := k.rig.Start(Spec{
		Name: k.Name, Path: k.rig.options.Binary, Args: []string{"serve", k.role},
		Env: k.rig.environment(extra...), Dir: k.rig.options.Dir,
		Log: filepath.Join(k.rig.options.Dir, k.Name+".log"),
	})
	if err != nil {
		return err
	}
	k.current = process
	k.life++
	return nil
}

// restartPause keeps a process that dies at its start from being started in a tight loop.
const restartPause = 50 * time.Millisecond

func (k *Keeper) run() {
	defer close(k.done)
	for {
		k.mu.Lock()
		process := k.current
		k.mu.Unlock()
		state, at := process.Exit()
		k.mu.Lock()
		asked := k.asked == process && state.Success()
		k.mu.Unlock()
		pause := time.Duration(0)
		if !Killed(state) {
			pause = restartPause
		}
		if !k.again(pause, Exit{Name: k.Name, PID: process.PID(), At: at, Killed: Killed(state), Asked: asked, How: state.String()}) {
			return
		}
	}
}

// again notes the end of a life and begins the next, unless the process is not to be kept any more.
func (k *Keeper) again(pause time.Duration, exit Exit) bool {
	if k.stopping() {
		return false
	}
	k.mu.Lock()
	k.exits = append(k.exits, exit)
	k.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-k.stop:
	case <-timer.C:
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopping() {
		return false
	}
	k.failed = k.start()
	return k.failed == nil
}

func (k *Keeper) stopping() bool {
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

// Kill kills the present life with SIGKILL and waits for its end; the next starts at once.
func (k *Keeper) Kill() {
	k.mu.Lock()
	process := k.current
	k.mu.Unlock()
	process.Kill()
	<-process.Done()
}

// Restart ends the present life in order and waits until the next is ready; it is an error if the process
// had to be killed or did not end with code 0.
func (k *Keeper) Restart(ctx context.Context) error {
	k.mu.Lock()
	process := k.current
	k.asked = process
	k.mu.Unlock()
	if err := process.Stop(syscall.SIGTERM, stopWait); err != nil {
		return err
	}
	if state, _ := process.Exit(); !state.Success() {
		return fmt.Errorf("restart %s: it ended with %s", k.Name, state)
	}
	return k.Ready(ctx)
}

// Signal sends a signal to the present life.
func (k *Keeper) Signal(signal syscall.Signal) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.current.Signal(signal)
}

// PID is the process id of the present life.
func (k *Keeper) PID() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current.PID()
}

// Exits are the ends so far that were not asked for by Stop.
func (k *Keeper) Exits() []Exit {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Exit(nil), k.exits...)
}

// Ready waits until the process says that it is ready to work.
func (k *Keeper) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWait, fmt.Errorf("%s is not ready after %v", k.Name, readyWait))
	defer cancel()
	client := wire.Client{Address: k.Address, Timeout: time.Second}
	defer client.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := client.Do("GET", "/api/v1/health/ready", "", nil); err == nil && answer.Status/100 == 2 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (see %s.log)", k.Name, context.Cause(ctx), k.Name)
		case <-k.done:
			return fmt.Errorf("wait for %s: it cannot be started again: %w", k.Name, k.failed)
		case <-tick.C:
		}
	}
}

// Stop ends the process in order and keeps it no longer; it is an error if the process had to be
// killed or did not end with code 0. It is called once.
func (k *Keeper) Stop() error {
	k.mu.Lock()
	close(k.stop)
	process := k.current
	k.mu.Unlock()
	err := process.Stop(syscall.SIGTERM, stopWait)
	<-k.done
	if err != nil {
		return err
	}
	if state, _ := process.Exit(); !state.Success() {
		return fmt.Errorf("stop %s: it ended with %s", k.Name, state)
	}
	return nil
}

// abandon kills the process and keeps it no longer, also after Stop.
func (k *Keeper) abandon() {
	k.mu.Lock()
	if !k.stopping() {
		close(k.stop)
	}
	k.current.Kill()
	k.mu.Unlock()
	<-k.done
}
