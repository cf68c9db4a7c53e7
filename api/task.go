package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// taskOut is a background task. Clients know the first five fields; what is paused they see running, and
// what was cancelled finished.
type taskOut struct {
	ID        webhook.TaskID `json:"id"`
	Status    string         `json:"status" enum:"running,finished,failed"`
	Task      string         `json:"task" enum:"endpoint.recover,endpoint.replay,endpoint.bulk-replay,application.purge_content"`
	UpdatedAt time.Time      `json:"updatedAt"`
	Data      taskDataOut    `json:"data"`
	CreatedAt time.Time      `json:"createdAt"`
	Paused    bool           `json:"paused" doc:"It is running, but rests until it is resumed."`
	Cancelled bool           `json:"cancelled" doc:"It is finished because it was told to be."`
	Counting  bool           `json:"counting" doc:"It is still finding out how much there is to do."`
	Counted   int64          `json:"counted" doc:"Messages found. Of a task that has done its work it is done, failed and skipped together."`
	Done      int64          `json:"done" doc:"Messages that were taken, or erased."`
	Failed    int64          `json:"failed" doc:"Messages that were sent and not taken."`
	Skipped   int64          `json:"skipped" doc:"Messages that were not sent: their payload is no longer kept, or they were on their way already."`
	Rate      float64        `json:"rate" doc:"Messages a second, as measured lately."`
	ETA       *time.Time     `json:"eta" doc:"When it will have ended if it goes on like that; null: nobody can say."`
	Error     *string        `json:"error" doc:"Why it failed."`
}

type taskDataOut struct {
	AppID           webhook.ApplicationID `json:"appId"`
	EndpointID      *webhook.EndpointID   `json:"endpointId,omitempty"`
	Since           *time.Time            `json:"since,omitempty"`
	Until           time.Time             `json:"until"`
	EventTypes      []string              `json:"eventTypes,omitempty"`
	Channel         string                `json:"channel,omitempty"`
	Tag             string                `json:"tag,omitempty"`
	Status          *int                  `json:"status,omitempty"`
	StatusCodeClass *int                  `json:"statusCodeClass,omitempty"`
	StopAfter       int32                 `json:"stopAfter" doc:"So many failures in a row end the task."`
}

func (s *server) taskJSON(t webhook.Task) taskOut {
	out := taskOut{
		ID: t.ID, Status: string(t.Status), Task: string(t.Kind), UpdatedAt: t.UpdatedAt, CreatedAt: t.CreatedAt,
		Paused: t.Paused, Cancelled: t.Cancelled, Counting: t.Status == webhook.TaskRunning && t.Phase == webhook.TaskCounting,
		Counted: t.Counted, Done: t.Done, Failed: t.Failed, Skipped: t.Skipped, ETA: t.ETA(s.now()), Error: orNull(t.Error),
		Data: taskDataOut{
			AppID: t.ApplicationID, Until: t.Until, EventTypes: t.Filter.EventTypes, Channel: t.Filter.Channel, Tag: t.Filter.Tag,
			StatusCodeClass: t.Filter.StatusCodeClass, StopAfter: t.StopAfter,
		},
	}
	if t.Going() {
		out.Rate = float64(t.Rate)
	}
	if !t.EndpointID.IsZero() {
		out.Data.EndpointID, out.Data.Since = &t.EndpointID, &t.Since
	}
	if t.Filter.Status != nil {
		status := int(*t.Filter.Status)
		out.Data.Status = &status
	}
	return out
}

func taskName(t webhook.Task) string { return t.ID.String() }

type taskPath struct {
	Task string `path:"task_id" doc:"The task's id."`
}

func (p taskPath) id() (webhook.TaskID, error) {
	id, err := webhook.ParseID[webhook.TaskID](p.Task)
	if err != nil {
		return id, webhook.ErrNotFound
	}
	return id, nil
}

func (s *server) taskList(ctx context.Context, who call, in struct {
	orderedQuery
	Status string `query:"status" enum:"running,finished,failed"`
	Task   string `query:"task" enum:"endpoint.replay,endpoint.recover,application.stats,message.broadcast,sdk.generate,event-type.aggregate,application.purge_content,endpoint.bulk-replay" doc:"Only tasks of this kind."`
}) (int, listResponse[taskOut], error) {
	p, err := in.page(in.Order != ascending, isTaskID)
	if err != nil {
		return 0, listResponse[taskOut]{}, err
	}
	found, err := who.view.Tasks(ctx, webhook.TaskStatus(in.Status), webhook.TaskKind(in.Task), p)
	return http.StatusOK, listOf(found, s.taskJSON, taskName), err
}

func (s *server) taskGet(ctx context.Context, who call, in taskPath) (int, taskOut, error) {
	id, err := in.id()
	if err != nil {
		return 0, taskOut{}, err
	}
	t, err := who.view.Task(ctx, id)
	return http.StatusOK, s.taskJSON(t), err
}

func (s *server) taskPause(ctx context.Context, who call, in taskPath) (int, taskOut, error) {
	return s.taskPaused(ctx, who, in, true)
}

func (s *server) taskResume(ctx context.Context, who call, in taskPath) (int, taskOut, error) {
	return s.taskPaused(ctx, who, in, false)
}

func (s *server) taskPaused(ctx context.Context, who call, in taskPath, paused bool) (int, taskOut, error) {
	id, err := in.id()
	if err != nil {
		return 0, taskOut{}, err
	}
	t, err := who.view.PauseTask(ctx, id, paused)
	who.afterCommit(s.tasks.Wake)
	return http.StatusOK, s.taskJSON(t), err
}

func (s *server) taskCancel(ctx context.Context, who call, in taskPath) (int, taskOut, error) {
	id, err := in.id()
	if err != nil {
		return 0, taskOut{}, err
	}
	t, err := who.view.CancelTask(ctx, id)
	return http.StatusOK, s.taskJSON(t), err
}
