package worker

import (
	"context"
	"time"
)

// taskLock is the advisory lock whose holder takes background tasks forward.
const taskLock = 0x706f737468617376

// taskTrouble is the pause after a step that failed.
const taskTrouble = time.Second

// runTasks takes the background tasks forward, in one process of the installation at a time.
func (w *Worker) runTasks(ctx context.Context) error {
	return w.o.Store.Lead(ctx, taskLock, func(ctx context.Context) error {
		r := w.o.Tasks.Runner()
		for ctx.Err() == nil {
			wait, err := r.RunOnce(ctx)
			if err != nil && ctx.Err() == nil {
				w.o.Logger.Warn("a background task could not go on; trying again", "error", err)
				wait = around(taskTrouble)
			}
			r.Wait(ctx, wait)
		}
		return nil
	})
}
