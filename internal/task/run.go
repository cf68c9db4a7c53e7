package task

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// idleEvery is how often tasks are looked for while there is none: how late one begins that another
	// process was asked for.
	idleEvery = time.Second
	// tick is the time between two steps that hand something out: many small ones make no bursts.
	tick = 50 * time.Millisecond
	// trickleEvery is how often a step is taken although live work is waiting: an installation that is
	// always busy is to get its replays done, too.
	trickleEvery = time.Second
	// restAfter is how much longer than a step took the next one is put off, so that the tasks take no
	// more than a third of one of the database's cores.
	restAfter = 2
	// maxOpen is how many deliveries all tasks together may have handed out, so that none waits for
	// longer than its lease, and minOpen what each may have however many there are.
	maxOpen = 256
	minOpen = 8
	// maxLook is how many messages a step looks at.
	maxLook = 500
	// eraseStep is how many messages a step erases.
	eraseStep = 100
	// recountAfter is how long a task may see no result before what it has open is counted anew: no
	// miscount is to keep it from its end.
	recountAfter = 5 * time.Second
	// stepTimeout bounds one look.
	stepTimeout = 10 * time.Second
)

// Reasons why a task failed, for a person.
const (
	reasonDeleted  = "the endpoint was deleted"
	reasonDisabled = "the endpoint is disabled"
	reasonUnknown  = "this release does not know this kind of task"
	reasonRefused  = "the database refused a step of it"
)

// Runner takes the tasks of the installation forward. There should be one; a second is only wasteful.
type Runner struct {
	t       *Tasks
	turns   turns
	credit  float64 // deliveries that may be handed out now
	filled  time.Time
	held    time.Time              // since when live work has gone first; zero = it does not
	looking map[webhook.TaskID]int // how far those look that find little
	results map[webhook.TaskID]results
}

// results are what a task was last seen to have come to.
type results struct {
	ended  int64 // its deliveries that have ended
	missed int64 // that have ended and were not counted
	at     time.Time
}

// Runner makes one.
func (t *Tasks) Runner() *Runner {
	return &Runner{t: t, looking: make(map[webhook.TaskID]int), results: make(map[webhook.TaskID]results)}
}

// Wait waits before the next RunOnce, for as long as that said; Wake ends a wait for the first task.
func (r *Runner) Wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	woken := r.t.woken
	if d < idleEvery {
		woken = nil // the pace is not to be quickened by whoever asks for more tasks
	}
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-woken:
	}
}

// RunOnce lets the task whose turn it is take a step, and returns when to look again.
func (r *Runner) RunOnce(ctx context.Context) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	any, err := r.t.o.Store.AnyTask(ctx)
	if err != nil {
		return idleEvery, err
	}
	if !any {
		r.credit = 0
		clear(r.looking)
		clear(r.results)
		return idleEvery, nil
	}
	began := time.Now()
	if !r.mayGo(r.t.o.Dispatcher.Quiet(ctx)) {
		return tick, nil
	}
	r.refill(began)
	going, err := r.t.o.Store.GoingTasks(ctx)
	if err != nil {
		return idleEvery, err
	}
	share := max(minOpen, maxOpen/max(1, len(going)))
	for _, g := range r.turns.order(going) {
		open, err := r.open(ctx, g)
		did := nothing
		if err == nil {
			did, err = r.step(ctx, g, open, min(int(r.credit), share-int(open)))
		}
		if err != nil {
			r.turns.served(g) // its trouble is not to stop the others
			if store.Permanent(err) {
				r.t.o.Logger.Error("a task cannot go on", "task", g.ID.String(), "error", err)
				return idleEvery, r.t.o.Store.EndTask(ctx, g, reasonRefused)
			}
			return idleEvery, err
		}
		if did == nothing {
			continue
		}
		r.turns.served(g)
		wait := restAfter * time.Since(began)
		if did == handedOut {
			wait = max(wait, tick-time.Since(began))
		}
		return wait, nil
	}
	return tick, nil
}

// open is how many of a task's deliveries are on their way.
func (r *Runner) open(ctx context.Context, g webhook.Task) (int64, error) {
	open, now := g.Released-g.Done-g.Failed, time.Now()
	if g.EndpointID.IsZero() || open <= 0 {
		return 0, nil
	}
	last, known := r.results[g.ID]
	switch {
	case !known || last.ended != g.Done+g.Failed:
		last.ended, last.at = g.Done+g.Failed, now
	case now.Sub(last.at) >= recountAfter:
		counted, err := r.t.o.Store.OpenDeliveries(ctx, g)
		if err != nil {
			return 0, err
		}
		last.missed, last.at = open-counted, now
	}
	r.results[g.ID] = last
	return max(0, open-last.missed), nil
}

// mayGo decides whether a step may be taken now: while there is live work waiting, only now and then.
func (r *Runner) mayGo(quiet, available bool) bool {
	now := time.Now()
	switch {
	case !available:
		return false
	case quiet:
		r.held = time.Time{}
		return true
	case r.held.IsZero():
		r.held = now
		return false
	case now.Sub(r.held) < trickleEvery:
		return false
	}
	r.held = now
	return true
}

// refill adds what may be handed out for the time that has passed; what was not used soon is lost.
func (r *Runner) refill(now time.Time) {
	most := max(minOpen, r.t.rate*2*tick.Seconds())
	r.credit = min(most, r.credit+r.t.rate*min(now.Sub(r.filled), time.Second).Seconds())
	r.filled = now
}

// deed is what a step came to.
type deed uint8

const (
	nothing   deed = iota // there was nothing it could do now
	looked                // it went on without handing anything out
	handedOut             // it handed something out
)

// step takes one task forward, which has so many deliveries open; it may hand out as many as room.
func (r *Runner) step(ctx context.Context, g webhook.Task, open int64, room int) (deed, error) {
	s := r.t.o.Store
	rule, known := r.t.kinds[g.Kind]
	switch {
	case !known:
		return looked, s.EndTask(ctx, g, reasonUnknown)
	case g.Phase == webhook.TaskWaiting && open > 0:
		return nothing, nil
	case g.Phase == webhook.TaskWaiting:
		return looked, s.EndTask(ctx, g, "")
	case g.Phase == webhook.TaskActing && !g.EndpointID.IsZero() && room <= 0:
		return nothing, nil
	}
	limit := r.lookAt(g, room)
	facts, err := s.TaskFacts(ctx, g, g.Cursor, limit)
	switch {
	case err != nil:
		return nothing, err
	case facts.Deleted:
		return looked, s.EndTask(ctx, g, reasonDeleted)
	case !facts.Deliverable:
		return looked, s.EndTask(ctx, g, reasonDisabled)
	}
	next := decide(g, facts, rule, room)
	next.Lease = r.t.o.Lease
	made, held, err := s.StepTask(ctx, next)
	if err != nil || !held {
		return looked, err
	}
	if g.Phase == webhook.TaskActing && len(next.Owe)+len(next.Erase) == 0 {
		r.looking[g.ID] = maxLook
	} else {
		delete(r.looking, g.ID)
	}
	if len(made) == 0 {
		return looked, nil
	}
	r.credit -= float64(len(made))
	r.t.o.Metrics.Released(telemetry.ReleasedTask, len(made))
	r.t.o.Dispatcher.PushTask(ctx, made)
	return handedOut, nil
}

// lookAt is how many messages a step looks at: few where it will soon have found what it may hand out.
func (r *Runner) lookAt(g webhook.Task, room int) int {
	switch {
	case g.Phase == webhook.TaskCounting:
		return maxLook
	case g.EndpointID.IsZero():
		return eraseStep
	}
	const spare = 4
	return max(min(spare*room, maxLook), r.looking[g.ID])
}

// decide is the step that follows from what was seen: it counts, or takes what it may hand out and
// stops right behind it.
func decide(t webhook.Task, facts store.TaskFacts, rule judge, room int) store.TaskStep {
	step := store.TaskStep{Task: t, Phase: t.Phase, Cursor: t.Cursor}
	for _, f := range facts.List {
		v := rule(t.Filter, f)
		if t.Phase == webhook.TaskActing && v == send && !t.EndpointID.IsZero() && len(step.Owe) == room {
			return step
		}
		step.Cursor = f.Message
		switch {
		case v != send && v != gone:
		case t.Phase == webhook.TaskCounting:
			step.Counted++
		case v == gone:
			step.Skipped++
		case t.EndpointID.IsZero():
			step.Erase = append(step.Erase, f.Message)
		default:
			step.Owe = append(step.Owe, f.Message)
		}
	}
	switch {
	case !facts.End:
	case t.Phase == webhook.TaskCounting:
		step.Phase, step.Cursor = webhook.TaskActing, store.TaskStart(t)
	default:
		step.Phase = webhook.TaskWaiting
	}
	return step
}
