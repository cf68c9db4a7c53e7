package customer_test

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

// finished waits until a background task has ended well.
func (c customer) finished(task posthaste.Task) posthaste.Task {
	c.Helper()
	got := until(c, func() (posthaste.Task, error) { return c.client.BackgroundTasks.Get(c.Context(), task.ID) },
		func(t posthaste.Task) bool { return t.Status != posthaste.BackgroundTaskStatusRunning })
	c.want("finished", got.Status == posthaste.BackgroundTaskStatusFinished && got.Error == "" && got.ID == task.ID, got)
	return got
}

func (c customer) tasks() {
	const late = "late"
	endpoints, tasks := c.client.Endpoints, c.client.BackgroundTasks
	hour := posthaste.RangeIn{Since: time.Now().Add(-time.Hour)}

	would := must(endpoints.RecoverDryRun(c.Context(), acme, hook, hour))(c)
	c.want("nothing to recover", would.Count == 0 && would.First.IsZero(), would)
	recovered := c.finished(must(endpoints.Recover(c.Context(), acme, hook, hour))(c))
	c.want("nothing recovered", recovered.Counted == 0 && recovered.Data.EndpointID != "", recovered)

	sent := c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}, Tags: []string{"t/3"}})
	c.receiver.wait(c.T, sent.ID, 1, `{}`)
	some := posthaste.BulkReplayIn{Since: hour.Since, Tag: "t/3"}
	until(c, func() (posthaste.DryRun, error) { return endpoints.BulkReplayDryRun(c.Context(), acme, hook, some) },
		func(d posthaste.DryRun) bool { return d.Count == 1 && !d.First.IsZero() && d.First.Equal(d.Last) })
	release := c.receiver.hold()
	running := must(endpoints.BulkReplay(c.Context(), acme, hook, some))(c)
	c.want("a task", strings.HasPrefix(running.ID, "qtask_") && running.Status == posthaste.BackgroundTaskStatusRunning, running)
	paused := must(tasks.Pause(c.Context(), running.ID))(c)
	c.want("paused", paused.Paused, paused)
	resumed := must(tasks.Resume(c.Context(), running.ID))(c)
	c.want("resumed", !resumed.Paused, resumed)
	cancelled := must(tasks.Cancel(c.Context(), running.ID))(c)
	c.want("cancelled", cancelled.Cancelled && cancelled.Status == posthaste.BackgroundTaskStatusFinished, cancelled)
	release()
	_, err := tasks.Pause(c.Context(), running.ID)
	c.want("over", errors.Is(err, posthaste.ErrConflict), err)

	// An endpoint that came later gets what it missed.
	missed := c.publish(posthaste.MessageIn{EventType: "order.shipped", Payload: struct{}{}})
	must(endpoints.Create(c.Context(), acme, posthaste.EndpointIn{URL: c.receiver.url, UID: late, EventTypes: []string{"user.created"}, Secret: pair}))(c)
	must(endpoints.Patch(c.Context(), acme, late, posthaste.EndpointPatch{EventTypes: posthaste.Null[[]string]()}))(c)
	c.receiver.wait(c.T, missed.ID, 1, `{}`)
	would = must(endpoints.ReplayMissingDryRun(c.Context(), acme, late, hour))(c)
	replayed := c.finished(must(endpoints.ReplayMissing(c.Context(), acme, late, hour))(c))
	c.want("as foreseen", would.Count > 1 && replayed.Done == would.Count, replayed)
	c.receiver.wait(c.T, missed.ID, 2, `{}`)
	c.ok(endpoints.Delete(c.Context(), acme, late))

	active := must(c.client.Messages.Precheck(c.Context(), acme, posthaste.PrecheckIn{EventType: "user.created"}))(c)
	c.want("wanted by somebody", active.Active, active)
	erased := must(c.client.Messages.BulkExpungeContent(c.Context(), acme, posthaste.BulkExpungeIn{IDs: []string{sent.ID, "nobody"}}))(c)
	c.want("a result for each", len(erased.Results) == 2, erased)
	c.finished(must(c.client.Messages.ExpungeAllContents(c.Context(), acme))(c))
	got := must(c.client.Messages.Get(c.Context(), acme, missed.ID))(c)
	c.want("erased", string(got.Payload) == `{"expired":true}`, got)

	page, err := tasks.ListPage(c.Context(), posthaste.BackgroundTaskListOptions{Limit: 1})
	list := all(c, tasks.List(c.Context(), posthaste.BackgroundTaskListOptions{Limit: 1}), page, err)
	c.want("all tasks", len(list) == 4 && slices.ContainsFunc(list, func(t posthaste.Task) bool { return t.ID == running.ID && t.Cancelled }), list)
}

func (c customer) holds() {
	endpoints := c.client.Endpoints
	active := must(endpoints.GetStatus(c.Context(), acme, hook))(c)
	c.want("active", active.State != posthaste.EndpointStatePaused && active.Reason == "" && active.Since.IsZero(), active)
	paused := must(endpoints.Pause(c.Context(), acme, hook))(c)
	c.want("paused", paused.State == posthaste.EndpointStatePaused && paused.Reason != "" && !paused.Since.IsZero(), paused)
	c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}})
	backlog := must(c.client.Backlogs.Get(c.Context()))(c)
	c.want("waiting", backlog.Waiting == 1 && backlog.PausedEndpoints == 1, backlog)
	canceled := must(endpoints.CancelPending(c.Context(), acme, hook))(c)
	c.want("canceled", canceled.Canceled == 1 && !canceled.More, canceled)
	sent := c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}})
	resumed := must(endpoints.Resume(c.Context(), acme, hook))(c)
	c.want("resumed", resumed.State != posthaste.EndpointStatePaused, resumed)
	c.receiver.wait(c.T, sent.ID, 1, `{}`)
}
