package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// errOverdue means that the stop took longer than it may.
var errOverdue = errors.New("stopped without waiting further: POSTHASTE_SHUTDOWN_TIMEOUT is over")

// Run serves and delivers until ctx ends or a part fails, and then stops in the order that loses
// nothing and repeats nothing: it says it is not ready, finishes the requests it is answering, commits
// what they accepted, takes no more tasks, lets the attempts under way end and records them, and
// closes the queue and the database. It may be called once.
func (a *App) Run(ctx context.Context) error {
	a.log.Info("started", "role", string(a.o.Role), "address", a.Addr(), "version", a.o.Version)
	served := start(func() error {
		if err := a.server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", a.Addr(), err)
		}
		return nil
	})
	// What stops later has a context of its own, ended when its turn comes.
	dispatching, stopDispatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopDispatching()
	dispatched := start(func() error { return a.dispatcher.Run(dispatching) })
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWorking()
	worked := start(func() error {
		if a.worker == nil {
			<-working.Done()
			return nil
		}
		return a.worker.Run(working)
	})

	var failed error
	select {
	case <-ctx.Done():
		a.log.Info("stopping", "drain", a.o.Config.DrainDelay)
		a.draining.Store(true)
		failed = a.drain(served, dispatched, worked)
	case <-served.done:
		failed = served.err
	case <-dispatched.done:
		failed = dispatched.err
	case <-worked.done:
		failed = worked.err
	}
	a.draining.Store(true)

	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.o.Config.ShutdownTimeout)
	defer cancel()
	if err := a.server.Shutdown(within); err != nil {
		a.server.Close() // clients see their connection end, and ask again with the same key
		failed = errors.Join(failed, errOverdue)
	}
	served.wait(within)
	if a.publisher != nil {
		a.publisher.Close()
	}
	stopWorking()
	if !worked.wait(within) {
		// Closing anything under attempts that still run would only add to the trouble.
		return errors.Join(failed, errOverdue)
	}
	stopDispatching()
	if !dispatched.wait(within) {
		return errors.Join(failed, errOverdue)
	}
	a.publisher, a.dispatcher, a.listener = nil, nil, nil
	a.close()
	a.log.Info("stopped")
	return errors.Join(failed, worked.err, dispatched.err)
}

// drain goes on serving for the time that a load balancer needs to look elsewhere.
func (a *App) drain(parts ...*part) error {
	if a.o.Config.DrainDelay == 0 {
		return nil
	}
	timer := time.NewTimer(a.o.Config.DrainDelay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-parts[0].done:
		return parts[0].err
	case <-parts[1].done:
		return parts[1].err
	case <-parts[2].done:
		return parts[2].err
	}
	return nil
}

// part is something that runs beside others.
type part struct {
	done chan struct{}
	err  error // once done
}

func start(run func() error) *part {
	p := &part{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = run()
	}()
	return p
}

// wait reports whether the part ended before ctx did.
func (p *part) wait(ctx context.Context) bool {
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// close ends what New opened, last first.
func (a *App) close() {
	if a.listener != nil {
		_ = a.listener.Close()
	}
	if a.publisher != nil {
		a.publisher.Close()
	}
	if a.dispatcher != nil {
		over, end := context.WithCancel(context.Background())
		end()
		_ = a.dispatcher.Run(over) // it ends only by a run
	}
	if a.egress != nil {
		a.egress.Close()
	}
	if a.queue != nil {
		if err := a.queue.Close(); err != nil {
			a.log.Debug("close queue", "error", err)
		}
	}
	if a.store != nil {
		a.store.Close()
	}
}
