package task

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestATaskGoesToItsEndWhoeverSteps(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	ids := r.publish(60)
	for _, id := range ids[:50] {
		r.attempt(e, id, webhook.StatusFail, 500)
	}
	r.attempt(e, ids[9], webhook.StatusSuccess, 200)
	r.exec(`UPDATE message SET payload = NULL WHERE id = $1`, ids[10].UUID())
	task := r.ended(r.begin(r.wide(webhook.TaskRecover, e)), true)
	if task.Status != webhook.TaskFinished || task.Counted != 49 || task.Done != 48 || task.Skipped != 1 || task.Failed != 0 || task.Error != "" {
		t.Errorf("%+v", task)
	}
	// All of it was taken, so that there is nothing left to recover.
	again := r.ended(r.begin(r.wide(webhook.TaskRecover, e)), true)
	if again.Status != webhook.TaskFinished || again.Counted != 1 || again.Skipped != 1 || again.Done != 0 {
		t.Errorf("again: %+v", again)
	}
}

func TestATaskWhoseReceiverFailsStops(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	r.publish(200)
	n := r.wide(webhook.TaskReplayMissing, e)
	n.StopAfter = 20
	task := r.ended(r.begin(n), false)
	if task.Status != webhook.TaskFailed || task.Failed < 20 || task.Failed > 20+maxOpen || task.Failed != task.Released || task.Error == "" {
		t.Errorf("%+v", task)
	}
	released := task.Released
	for range 3 {
		if _, err := r.tasks.Runner().RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if task = r.reread(task); task.Released != released {
		t.Errorf("it goes on: %+v", task)
	}
}

func TestATaskFailsWithItsEndpoint(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	for reason, lose := range map[string]func(webhook.Endpoint) error{
		reasonDeleted: func(e webhook.Endpoint) error {
			return r.view.DeleteEndpoint(t.Context(), r.app.ID.String(), e.ID.String())
		},
		reasonDisabled: func(e webhook.Endpoint) error {
			_, err := r.view.PatchEndpoint(t.Context(), r.app.ID.String(), e.ID.String(), func(e *store.NewEndpoint) error { e.Disabled = true; return nil })
			return err
		},
	} {
		e := r.endpoint()
		r.publish(3)
		task := r.begin(r.wide(webhook.TaskReplayMissing, e))
		if err := lose(e); err != nil {
			t.Fatal(err)
		}
		if task = r.ended(task, true); task.Status != webhook.TaskFailed || task.Error != reason || task.Released != 0 {
			t.Errorf("%+v", task)
		}
	}
}

// The steps are small and bounded by what is still on its way.
func TestATaskHandsOutNoMoreThanIsBounded(t *testing.T) {
	t.Parallel()
	r := setup(t, 1_000_000)
	e := r.endpoint()
	ids := r.publish(maxOpen + 50)
	task := r.begin(r.wide(webhook.TaskReplayMissing, e))
	runner := r.tasks.Runner()
	for range 20 {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if owed := r.owed(task); len(owed) != maxOpen || !slices.Equal(owed, ids[:maxOpen]) {
		t.Errorf("%d are handed out", len(owed))
	}
	r.deliver(true)
	if task = r.ended(task, true); task.Done != int64(len(ids)) {
		t.Errorf("%+v", task)
	}
}

// Where one look ends the next begins, and no message is seen twice.
func TestEachMessageIsCountedOnce(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	r.publish(2*maxLook + 10)
	task := r.begin(r.wide(webhook.TaskReplayMissing, e))
	runner := r.tasks.Runner()
	for task.Phase == webhook.TaskCounting {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		task = r.reread(task)
	}
	if task.Counted != 2*maxLook+10 {
		t.Errorf("counted %d of %d", task.Counted, 2*maxLook+10)
	}
}

func TestTheRateIsKept(t *testing.T) {
	r := setup(t, 200)
	now := time.Now()
	runner := r.tasks.Runner()
	runner.refill(now)
	handed := 0
	for range 100 { // 10 s in steps of 100 ms
		now = now.Add(100 * time.Millisecond)
		runner.refill(now)
		take := int(runner.credit)
		handed += take
		runner.credit -= float64(take)
		if take > 20 {
			t.Fatalf("%d at once", take)
		}
	}
	if handed < 1950 || handed > 2030 {
		t.Errorf("%d in 10 s", handed)
	}
	now = now.Add(time.Hour) // what was not used is lost
	if runner.refill(now); runner.credit > 20 {
		t.Errorf("credit for %v", runner.credit)
	}
}

// While there is live work to be taken, tasks wait.
func TestTasksGoBehindWhatIsLive(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	r.publish(5)
	task := r.begin(r.wide(webhook.TaskReplayMissing, e))
	live := make([][]webhook.Delivery, 100)
	for i := range live {
		live[i] = []webhook.Delivery{{DeliveryKey: webhook.DeliveryKey{Tenant: e.TenantID, Message: webhook.NewMessageID(), Endpoint: e.ID}}}
	}
	if err := r.queue.Push(t.Context(), live); err != nil {
		t.Fatal(err)
	}
	runner := r.tasks.Runner()
	for range 5 {
		if wait, err := runner.RunOnce(t.Context()); err != nil || wait != tick {
			t.Fatal(wait, err)
		}
	}
	if got := r.reread(task); got.Cursor != task.Cursor || got.Phase != webhook.TaskCounting {
		t.Errorf("it was stepped: %+v", got)
	}
	// But not forever.
	runner.held = time.Now().Add(-trickleEvery)
	for range 5 {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.reread(task); got.Phase != webhook.TaskActing || got.Released != 0 {
		t.Errorf("it took no single step: %+v", got)
	}
	drain(t, r, 100)
	if task = r.ended(task, true); task.Done != 5 {
		t.Errorf("%+v", task)
	}
}

// drain takes tasks from the queue.
func drain(t *testing.T, r *rig, n int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	taken, done := make(chan struct{}, n), make(chan error, 1)
	go func() {
		done <- r.queue.Run(ctx, func(context.Context, []webhook.Delivery) error { taken <- struct{}{}; return nil })
	}()
	for range n {
		<-taken
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestPausedTasksRestAndGoOn(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	r.publish(10)
	task := r.begin(r.wide(webhook.TaskReplayMissing, e))
	if _, err := r.view.PauseTask(t.Context(), task.ID, true); err != nil {
		t.Fatal(err)
	}
	runner := r.tasks.Runner()
	if wait, err := runner.RunOnce(t.Context()); err != nil || wait != idleEvery {
		t.Fatalf("with a paused task alone it looks every %v (%v)", wait, err)
	}
	if got := r.reread(task); got.Cursor != task.Cursor {
		t.Errorf("%+v", got)
	}
	if _, err := r.view.PauseTask(t.Context(), task.ID, false); err != nil {
		t.Fatal(err)
	}
	if task = r.ended(task, true); task.Status != webhook.TaskFinished || task.Done != 10 {
		t.Errorf("%+v", task)
	}
}

func TestAPurgeLeavesNoPayload(t *testing.T) {
	t.Parallel()
	r := setup(t, 1)
	r.endpoint()
	r.publish(eraseStep*2 + 1)
	n := r.wide(webhook.TaskPurge, webhook.Endpoint{})
	n.Since = time.UnixMilli(1)
	task := r.ended(r.begin(n), true)
	var left int
	if err := r.sql.QueryRow(t.Context(), `SELECT count(*) FROM message WHERE payload IS NOT NULL`).Scan(&left); err != nil || left != 0 {
		t.Errorf("%d payloads are left (%v)", left, err)
	}
	if task.Status != webhook.TaskFinished || task.Done != eraseStep*2+1 || task.Counted != task.Done {
		t.Errorf("%+v", task)
	}
}

// Without Redis a task waits; nothing is handed out that could not go.
func TestWithoutRedisTasksWait(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	r.publish(3)
	task := r.begin(r.wide(webhook.TaskReplayMissing, e))
	d := r.tasks.o.Dispatcher
	r.tasks.o.Dispatcher = r.dispatcher("redis://127.0.0.1:1/0")
	for range 3 {
		if _, err := r.tasks.Runner().RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.reread(task); got.Released != 0 {
		t.Errorf("%+v", got)
	}
	r.tasks.o.Dispatcher = d
	if task = r.ended(task, true); task.Done != 3 {
		t.Errorf("%+v", task)
	}
}

// Should results ever be miscounted, a task still ends.
func TestNoMiscountKeepsATaskFromItsEnd(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	r.publish(5)
	task := r.begin(r.wide(webhook.TaskReplayMissing, e))
	runner := r.tasks.Runner()
	for task.Phase != webhook.TaskWaiting {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		task = r.reread(task)
	}
	r.exec(`DELETE FROM delivery`) // and nobody says so
	for range 2 {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if task = r.reread(task); task.Status != webhook.TaskRunning {
		t.Fatalf("it does not wait for results: %+v", task)
	}
	seen := runner.results[task.ID]
	seen.at = seen.at.Add(-recountAfter)
	runner.results[task.ID] = seen
	for range 2 {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if task = r.reread(task); task.Status != webhook.TaskFinished {
		t.Errorf("%+v", task)
	}
}

func TestTenantsTakeTurns(t *testing.T) {
	var going []webhook.Task
	add := func(tenant byte, tasks ...byte) {
		for _, id := range tasks {
			going = append(going, webhook.Task{TenantID: webhook.TenantID{tenant}, ID: webhook.TaskID{id}})
		}
	}
	add(1, 11, 12, 13)
	add(2, 21)
	add(3, 31, 32)
	var turn turns
	var served []byte
	for range 9 {
		g := turn.order(going)
		if len(g) != len(going) {
			t.Fatalf("%d of %d have a turn", len(g), len(going))
		}
		served = append(served, g[0].ID[0])
		turn.served(g[0])
	}
	if want := []byte{11, 21, 31, 12, 21, 32, 13, 21, 31}; !slices.Equal(served, want) {
		t.Errorf("served %v, want %v", served, want)
	}
}

func TestAWakeEndsAWaitForTheFirstTask(t *testing.T) {
	tasks := New(Options{})
	r := tasks.Runner()
	tasks.Wake()
	tasks.Wake()
	began := time.Now()
	r.Wait(t.Context(), time.Hour)
	if time.Since(began) > time.Minute {
		t.Error("it was not woken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.Wait(ctx, time.Hour)
}
