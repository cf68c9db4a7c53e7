package store_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// wide is a range that holds every message of a test.
func (p *pipeline) wide(kind webhook.TaskKind, e webhook.Endpoint) store.NewTask {
	n := store.NewTask{Kind: kind, Application: p.app.ID.String(), Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}
	if !e.ID.IsZero() {
		n.Endpoint = e.ID.String()
	}
	return n
}

func (p *pipeline) task(n store.NewTask) webhook.Task {
	p.t.Helper()
	t, err := p.view.CreateTask(p.t.Context(), n)
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

func (p *pipeline) reread(t webhook.Task) webhook.Task {
	p.t.Helper()
	t, err := p.view.Task(p.t.Context(), t.ID)
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

// owing takes a step that owes messages.
func (p *pipeline) owing(t webhook.Task, messages ...webhook.MessageID) []webhook.Delivery {
	p.t.Helper()
	made, held, err := p.StepTask(p.t.Context(), store.TaskStep{
		Task: t, Phase: webhook.TaskActing, Cursor: messages[len(messages)-1], Owe: messages, Lease: lease,
	})
	if err != nil || !held {
		p.t.Fatal(held, err)
	}
	return made
}

func (p *pipeline) messages(n int) []webhook.MessageID {
	p.t.Helper()
	ids := make([]webhook.MessageID, n)
	for i := range ids {
		ids[i] = p.accept(released, p.message())[0].Message.ID
	}
	return ids
}

// A step that is tried again, by whoever and however often, is taken once.
func TestAStepOfATaskIsTakenOnce(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	ids := p.messages(4)
	task := p.task(p.wide(webhook.TaskReplayMissing, e))
	step := store.TaskStep{Task: task, Phase: webhook.TaskActing, Cursor: ids[1], Owe: ids[:2], Skipped: 1, Lease: lease}
	made, held, err := p.StepTask(t.Context(), step)
	if err != nil || !held || len(made) != 2 {
		t.Fatalf("%+v %v %v", made, held, err)
	}
	for range 3 { // as a leader would that was killed before it heard
		if made, held, err := p.StepTask(t.Context(), step); err != nil || held || len(made) != 0 {
			t.Errorf("taken again: %+v %v %v", made, held, err)
		}
	}
	got := p.reread(task)
	if got.Released != 2 || got.Skipped != 1 || got.Cursor != ids[1] || got.Phase != webhook.TaskActing {
		t.Errorf("%+v", got)
	}
	if n := p.count("delivery WHERE task_id = $1 AND trigger = 1 AND state = 1 AND feed = 1 AND due_at > now()", task.ID.UUID()); n != 2 {
		t.Errorf("%d are owed", n)
	}
	// What somebody owes already is not owed twice, and is counted as skipped.
	if _, made, err := p.resend(ids[3], e.ID, released); err != nil || !made {
		t.Fatal(made, err)
	}
	if made := p.owing(got, ids[2], ids[3]); len(made) != 1 || made[0].Message != ids[2] || made[0].Lane != webhook.LaneBulk {
		t.Errorf("made %+v", made)
	}
	last := p.reread(task)
	if last.Released != 3 || last.Skipped != 2 {
		t.Errorf("%+v", last)
	}
	// Nor is it taken again within a phase, when what it owed has ended meanwhile.
	step = store.TaskStep{Task: last, Phase: webhook.TaskActing, Cursor: p.messages(1)[0], Lease: lease}
	step.Owe = []webhook.MessageID{step.Cursor}
	if made, held, err = p.StepTask(t.Context(), step); err != nil || !held || len(made) != 1 {
		t.Fatalf("%+v %v %v", made, held, err)
	}
	p.record(p.result(made[0], true, over))
	if made, held, err := p.StepTask(t.Context(), step); err != nil || held || len(made) != 0 {
		t.Errorf("taken again: %+v %v %v", made, held, err)
	}
}

// Pausing, cancelling and failing stop a step that was decided before.
func TestATaskThatStoppedTakesNoStep(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint()
	ids := p.messages(1)
	for name, stop := range map[string]func(webhook.Task) error{
		"paused":    func(t webhook.Task) error { _, err := p.view.PauseTask(p.t.Context(), t.ID, true); return err },
		"cancelled": func(t webhook.Task) error { _, err := p.view.CancelTask(p.t.Context(), t.ID); return err },
		"failed":    func(t webhook.Task) error { return p.EndTask(p.t.Context(), t, "reason") },
	} {
		task := p.task(p.wide(webhook.TaskBulkReplay, e))
		ok(t, stop(task))
		made, held, err := p.StepTask(t.Context(), store.TaskStep{Task: task, Phase: webhook.TaskActing, Cursor: ids[0], Owe: ids, Lease: lease})
		if err != nil || held || len(made) != 0 {
			t.Errorf("%s: %+v %v %v", name, made, held, err)
		}
		going, err := p.GoingTasks(t.Context())
		if any, err2 := p.AnyTask(t.Context()); err != nil || err2 != nil || any || len(going) != 0 {
			t.Errorf("%s: it is still stepped: %v %v %v", name, going, any, err)
		}
		got := p.reread(task)
		switch name {
		case "paused":
			if got.Status != webhook.TaskRunning || !got.Paused {
				t.Errorf("%s: %+v", name, got)
			}
			if got, err = p.view.PauseTask(t.Context(), task.ID, false); err != nil || got.Paused {
				t.Errorf("resumed as %+v, %v", got, err)
			}
			if any, err := p.AnyTask(t.Context()); err != nil || !any {
				t.Error("a resumed task does not go on", err)
			}
			p.owing(got, ids[0])
			_, err = p.view.CancelTask(t.Context(), task.ID)
			ok(t, err)
			p.exec(`DELETE FROM delivery WHERE task_id IS NOT NULL`)
		case "cancelled":
			if got.Status != webhook.TaskFinished || !got.Cancelled || got.Paused {
				t.Errorf("%s: %+v", name, got)
			}
			if again, err := p.view.CancelTask(t.Context(), task.ID); err != nil || !again.Cancelled {
				t.Errorf("cancelled again: %+v %v", again, err)
			}
		case "failed":
			if got.Status != webhook.TaskFailed || got.Error != "reason" {
				t.Errorf("%s: %+v", name, got)
			}
			_, err := p.view.CancelTask(t.Context(), task.ID)
			wantCode(t, err, webhook.KindConflict, "task_ended")
			_, err = p.view.PauseTask(t.Context(), task.ID, false)
			wantCode(t, err, webhook.KindConflict, "task_ended")
		}
	}
}

// However a delivery of a task ends, the task counts it, once.
func TestATaskCountsHoweverItsDeliveriesEnd(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	ids := p.messages(7)
	n := p.wide(webhook.TaskReplayMissing, e)
	n.StopAfter = 50
	task := p.task(n)
	other := p.task(p.wide(webhook.TaskReplayMissing, e))
	made := p.owing(task, ids[:6]...)
	elsewhere := p.owing(other, ids[6])
	ended := func(i int, change func(*webhook.Attempt)) store.Recorded {
		r := p.result(made[i], false, over)
		change(&r.Attempt)
		return r
	}
	batch := []store.Recorded{
		p.result(made[0], true, over), p.result(made[1], false, over),
		ended(2, func(a *webhook.Attempt) {
			a.Sent, a.Status, a.Class = false, webhook.StatusCanceled, webhook.ClassCanceled
		}),
		ended(3, func(a *webhook.Attempt) { a.Sent, a.Class = false, webhook.ClassExpired }),
		ended(4, func(a *webhook.Attempt) { a.Sent, a.Class = false, webhook.ClassPoison }),
		p.result(elsewhere[0], true, over),
	}
	p.record(batch...)
	p.record(batch...) // as after an error that was none
	if got := p.reread(task); got.Done != 1 || got.Failed != 4 || got.Streak != 4 || got.Status != webhook.TaskRunning {
		t.Errorf("%+v", got)
	}
	if got := p.reread(other); got.Done != 1 || got.Failed != 0 {
		t.Errorf("the other task: %+v", got)
	}
	// A failure that comes late, under a fence that no longer holds, counts for nothing; a late success does.
	late := made[5]
	p.exec(`UPDATE delivery SET feed = feed + 1 WHERE message_id = $1`, late.Message.UUID())
	p.record(p.result(late, false, over))
	if got := p.reread(task); got.Failed != 4 {
		t.Errorf("a stale failure was counted: %+v", got)
	}
	p.record(p.result(late, true, over))
	if got := p.reread(task); got.Done != 2 || got.Streak != 0 {
		t.Errorf("a late success: %+v", got)
	}
}

func TestRetentionEndsATasksDeliveriesAndItsCount(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	old := time.Now().Add(-100 * 24 * time.Hour)
	if _, err := p.EnsurePartitions(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	a := p.message()
	a.Message.ID = webhook.MessageID(webhook.NewAttemptIDAt(old))
	id := p.accept(released, a)[0].Message.ID
	n := p.wide(webhook.TaskReplayMissing, e)
	n.Since = old.Add(-time.Hour)
	task := p.task(n)
	p.owing(task, id)
	if _, err := p.DropPartitions(t.Context(), 90*24*time.Hour); err != nil {
		t.Fatal(err)
	}
	if got := p.reread(task); got.Failed != 1 || p.count("delivery") != 0 {
		t.Errorf("%+v", got)
	}
}

// So many failures in a row end a task, and a success begins the row anew.
func TestATaskStopsAfterFailuresInARow(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	ids := p.messages(9)
	n := p.wide(webhook.TaskReplayMissing, e)
	n.StopAfter = 3
	task := p.task(n)
	made := p.owing(task, ids...)
	fail := func(i int) store.Recorded { return p.result(made[i], false, over) }
	p.record(fail(0), fail(1))
	p.record(p.result(made[2], true, over), fail(3)) // the failure came last, by its time
	if got := p.reread(task); got.Streak != 1 || got.Status != webhook.TaskRunning {
		t.Fatalf("%+v", got)
	}
	p.record(fail(4))
	if got := p.reread(task); got.Streak != 2 || got.Status != webhook.TaskRunning {
		t.Fatalf("%+v", got)
	}
	p.record(fail(5), fail(6))
	got := p.reread(task)
	if got.Status != webhook.TaskFailed || got.Error != "stopped after 3 failures in a row" || got.Failed != 6 || got.Done != 1 {
		t.Errorf("%+v", got)
	}
	p.record(p.result(made[7], true, over)) // was on its way
	if got := p.reread(task); got.Status != webhook.TaskFailed || got.Done != 2 {
		t.Errorf("%+v", got)
	}
}

// The lane travels with the row: whatever feeds it again, it stays bulk, and it is never parked among
// what is live.
func TestATasksDeliveryStaysBulk(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	ids := p.messages(2)
	task := p.task(p.wide(webhook.TaskReplayMissing, e))
	made := p.owing(task, ids[0])
	renewed, err := p.Renew(t.Context(), made, lease, false)
	if err != nil || len(renewed) != 1 || renewed[0].Lane != webhook.LaneBulk {
		t.Fatalf("renewed as %+v, %v", renewed, err)
	}
	live, _, err := p.resend(ids[1], e.ID, released)
	ok(t, err)
	ok(t, p.Park(t.Context(), []webhook.Delivery{renewed[0], live}, store.Hold{}))
	if n := p.count("delivery WHERE task_id IS NOT NULL AND state = 2 AND due_at > now()"); n != 1 {
		t.Errorf("%d of the task wait for another chance", n)
	}
	if n := p.count("delivery WHERE task_id IS NULL AND state = 3") + p.count("endpoint_wake"); n != 2 {
		t.Errorf("the live one is not parked")
	}
	p.exec(`UPDATE delivery SET due_at = now() WHERE due_at IS NOT NULL`)
	fed, _, _, err := p.FeedDue(t.Context(), store.Scan{}, 10, lease)
	if err != nil || len(fed) != 1 || fed[0].Lane != webhook.LaneBulk {
		t.Errorf("fed again as %+v, %v", fed, err)
	}
	if n, err := p.RecallReleased(t.Context()); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if fed, _, _, err = p.FeedDue(t.Context(), store.Scan{}, 10, lease); err != nil || len(fed) != 1 || fed[0].Lane != webhook.LaneBulk {
		t.Errorf("after a loss of the queue fed as %+v, %v", fed, err)
	}
}

// What a task owes to an endpoint that is paused or has an open breaker does not go round and round: it
// rests under the endpoint's wake, is what the breaker is probed with if there is nothing else, and goes by
// the bulk queue again when the endpoint is back.
func TestATasksDeliveryRestsWhileItsEndpointIsHeld(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	free := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	p.exec(`UPDATE endpoint SET throttle_rate = 1`) // which is no reason to park what a task owes
	ids := p.messages(3)
	made := p.owing(p.task(p.wide(webhook.TaskReplayMissing, e)), ids...)
	others := p.owing(p.task(p.wide(webhook.TaskReplayMissing, free)), ids...)
	p.pause(e)
	resting := func(say string, want int) {
		t.Helper()
		if n := p.count(`delivery WHERE state = 3 AND due_at IS NULL AND endpoint_id = $1`, e.ID.UUID()); n != want {
			t.Errorf("%s: %d rest, want %d", say, n, want)
		}
	}
	ok(t, p.Park(t.Context(), append(slices.Clone(made[:1]), others[:1]...), store.Hold{}))
	resting("put back without a hold", 1)
	ok(t, p.Park(t.Context(), append(slices.Clone(made[1:2]), others[1:2]...), store.Hold{For: time.Minute, Take: 3}))
	resting("put back with one", 2)
	p.wantGate("put back", e, "1 api 0 wake never take 3")
	if n := p.count(`delivery WHERE state = 2 AND due_at > now() AND endpoint_id = $1`, free.ID.UUID()); n != 2 {
		t.Errorf("%d of another endpoint wait, want 2", n)
	}
	p.exec(`UPDATE delivery SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL`)
	fed, n, _, err := p.FeedDue(t.Context(), store.Scan{}, 10, lease)
	if err != nil || n != 1 || len(fed) != 3 {
		t.Errorf("%d fed, %d parked, %v", len(fed), n, err)
	}
	for _, f := range fed {
		if f.Endpoint != free.ID {
			t.Errorf("%v was released to a paused endpoint", f)
		}
	}
	resting("due", 3)

	p.exec(`DELETE FROM endpoint_gate`)
	did(t, true)(p.OpenBreaker(t.Context(), p.tenant, e.ID, streakOf(someURL, 10), time.Second))
	probe := []store.Order{{Tenant: p.tenant, Endpoint: e.ID, N: 1}}
	if fed, err = p.ReleaseProbes(t.Context(), probe, lease); err != nil || len(fed) != 0 {
		t.Errorf("probed before its time with %v, %v", fed, err)
	}
	p.exec(`UPDATE endpoint_gate SET next_at = now()`)
	if fed, err = p.ReleaseProbes(t.Context(), probe, lease); err != nil || len(fed) != 1 || fed[0].Lane != webhook.LaneFed {
		t.Errorf("probed with %v, %v", fed, err)
	}
	did(t, true)(p.CloseBreaker(t.Context(), p.tenant, e.ID))
	fed, err = p.ReleaseParked(t.Context(), []store.Order{{Tenant: p.tenant, Endpoint: e.ID, N: 10}}, lease)
	if err != nil || len(fed) != 2 || fed[0].Lane != webhook.LaneBulk {
		t.Errorf("released %v, %v", fed, err)
	}
}

// What is canceled while it rests counts for its task, too.
func TestATaskCountsWhatIsCanceledWhileItRests(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	task := p.task(p.wide(webhook.TaskReplayMissing, e))
	made := p.owing(task, p.messages(2)...)
	p.pause(e)
	ok(t, p.Park(t.Context(), made, store.Hold{}))
	if n, _, err := p.view.CancelPending(t.Context(), p.app.ID.String(), e.ID.String()); err != nil || n != 2 {
		t.Fatal(n, err)
	}
	if got := p.reread(task); got.Failed != 2 {
		t.Errorf("%+v", got)
	}
}

func TestAnApplicationHasSoManyTasksAtOnce(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint()
	var last webhook.Task
	for range webhook.MaxRunningTasks {
		last = p.task(p.wide(webhook.TaskRecover, e))
	}
	_, err := p.view.CreateTask(t.Context(), p.wide(webhook.TaskRecover, e))
	wantCode(t, err, webhook.KindConflict, "limit_reached")
	_, err = p.view.CancelTask(t.Context(), last.ID)
	ok(t, err)
	p.task(p.wide(webhook.TaskRecover, e))
	disabled := p.endpoint(func(e *webhook.Endpoint) { e.Disabled = true })
	_, err = p.view.PlanTask(t.Context(), p.wide(webhook.TaskRecover, disabled))
	wantCode(t, err, webhook.KindBadRequest, "endpoint_disabled")
}

func TestTasksAreForgottenLongAfterTheirEnd(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint()
	running, ended, recent := p.task(p.wide(webhook.TaskRecover, e)), p.task(p.wide(webhook.TaskRecover, e)), p.task(p.wide(webhook.TaskRecover, e))
	ok(t, p.EndTask(t.Context(), ended, ""))
	ok(t, p.EndTask(t.Context(), recent, ""))
	for _, old := range []*webhook.Task{&running, &ended} {
		id := webhook.TaskID(webhook.NewAttemptIDAt(time.Now().Add(-48 * time.Hour)))
		p.exec(`UPDATE task SET id = $2 WHERE id = $1`, old.ID.UUID(), id.UUID())
		old.ID = id
	}
	n, err := p.ForgetTasks(t.Context(), 24*time.Hour, 10)
	if err != nil || n != 1 {
		t.Fatal(n, err)
	}
	p.reread(running)
	p.reread(recent)
	_, err = p.view.Task(t.Context(), ended.ID)
	wantKind(t, err, webhook.KindNotFound)
}

// A batch of live results must not look at tasks at all.
func TestLiveResultsDoNotLookAtTasks(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	p.endpoint()
	d := p.accept(released, p.message())[0].Deliveries
	p.exec(`ALTER TABLE task RENAME TO task_away`)
	p.record(p.result(d[0], true, over))
	if n := p.count("attempt"); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestAPurgeErasesPayloadsAndAnswersOfItsApplication(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	p.endpoint()
	other := storetest.Application(t, p.Store, p.tenant)
	a := p.message()
	a.Application = other.ID.String()
	p.accept(parked, a)
	accepted := p.accept(released, p.message(), p.message())
	var results []store.Recorded
	var ids []webhook.MessageID
	for _, a := range accepted {
		ids = append(ids, a.Message.ID)
		r := p.result(a.Deliveries[0], true, over)
		r.Attempt.Response = []byte("secret")
		r.Attempt.Detail = webhook.AttemptDetail{RemoteIP: "192.0.2.1", ResponseHeaders: []webhook.Header{{Name: "x-is", Value: "secret"}}, ContentType: "secret"}
		results = append(results, r)
	}
	p.record(results...)
	task := p.task(store.NewTask{Kind: webhook.TaskPurge, Application: p.app.UID, Since: time.UnixMilli(1), Until: time.Now().Add(time.Hour)})
	facts, err := p.TaskFacts(t.Context(), task, task.Cursor, 10)
	if err != nil || len(facts.List) != 2 || !facts.End || !facts.Deliverable {
		t.Fatalf("%+v %v", facts, err)
	}
	_, held, err := p.StepTask(t.Context(), store.TaskStep{Task: task, Phase: webhook.TaskWaiting, Cursor: ids[1], Erase: ids})
	if err != nil || !held {
		t.Fatal(held, err)
	}
	if n := p.count("message WHERE payload IS NULL AND app_id = $1", p.app.ID.UUID()); n != 2 || p.count("message WHERE payload IS NOT NULL") != 1 {
		t.Errorf("%d payloads are erased", n)
	}
	if n := p.count("attempt WHERE response = 'EXPUNGED'"); n != 2 {
		t.Errorf("%d answers are erased", n)
	}
	if n := p.count("attempt WHERE convert_from(detail, 'UTF8') = $1", `{"remoteIp":"192.0.2.1"}`); n != 2 {
		t.Errorf("of %d attempts what is no content is left, and nothing else", n)
	}
	if got := p.reread(task); got.Done != 2 {
		t.Errorf("%+v", got)
	}
}

func TestManyPayloadsAreErasedAtOnce(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	a, b := p.message(), p.message()
	a.Message.EventID = "first"
	p.accept(parked, a, b, p.message())
	unknown := webhook.NewMessageID().String()
	for range 2 {
		found, err := p.view.ExpungeMessages(t.Context(), p.app.UID, []string{"first", a.Message.ID.String(), b.Message.ID.String(), unknown, "no"})
		if err != nil || !found["first"] || !found[a.Message.ID.String()] || !found[b.Message.ID.String()] || found[unknown] || found["no"] {
			t.Errorf("%v %v", found, err)
		}
	}
	if n := p.count("message WHERE payload IS NOT NULL"); n != 1 {
		t.Errorf("%d payloads are left", n)
	}
	found, err := p.view.ExpungeMessages(context.Background(), p.app.UID, nil)
	if err != nil || len(found) != 0 {
		t.Error(found, err)
	}
}

func TestWantedIsWhatAcceptingWouldDo(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	wanted := func(eventType string, channels ...string) bool {
		t.Helper()
		is, err := p.view.Wanted(t.Context(), p.app.UID, eventType, channels)
		ok(t, err)
		return is
	}
	p.endpoint(func(e *webhook.Endpoint) { e.Disabled = true })
	if wanted("user.created") {
		t.Error("a disabled endpoint wants something")
	}
	p.endpoint(func(e *webhook.Endpoint) { e.EventTypes, e.Channels = []string{"user.created"}, []string{"eu"} })
	for _, c := range []struct {
		want      bool
		eventType string
		channels  []string
	}{
		{true, "user.created", []string{"us", "eu"}}, {false, "user.created", []string{"us"}}, {false, "user.created", nil}, {false, "user.deleted", []string{"eu"}},
	} {
		a := p.message()
		a.Message.EventType, a.Message.Channels = c.eventType, c.channels
		if is, owed := wanted(c.eventType, c.channels...), len(p.accept(released, a)[0].Deliveries) > 0; is != c.want || owed != c.want {
			t.Errorf("%s: wanted %v, owed %v", fmt.Sprint(c), is, owed)
		}
	}
}
