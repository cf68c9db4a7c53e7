package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// rangeIn is which messages are meant, by when they were accepted.
type rangeIn struct {
	Since     time.Time  `json:"since" doc:"Messages accepted from then on."`
	Until     *time.Time `json:"until,omitempty" nullable:"true" doc:"Messages accepted before then; now, if it is not given."`
	StopAfter *int       `json:"stopAfter,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"So many failures in a row end the task; 100 if it is not given."`
}

type bulkReplayIn struct {
	Since           time.Time       `json:"since" doc:"Messages accepted from then on."`
	Until           *time.Time      `json:"until,omitempty" nullable:"true" doc:"Messages accepted before then; now, if it is not given."`
	StopAfter       *int            `json:"stopAfter,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"So many failures in a row end the task; 100 if it is not given."`
	Channel         *channelName    `json:"channel,omitempty" nullable:"true"`
	EventTypes      []eventTypeName `json:"eventTypes,omitempty" nullable:"true"`
	Status          *int            `json:"status,omitempty" nullable:"true" enum:"0,1,2,3,4" doc:"Of the message with the endpoint. Without it, whatever was owed and is not owed now."`
	StatusCodeClass *int            `json:"statusCodeClass,omitempty" nullable:"true" enum:"0,100,200,300,400,500" doc:"Of the last answer; 0: there was none."`
	Tag             *tagName        `json:"tag,omitempty" nullable:"true"`
}

// dryRunOut says what a task would do.
type dryRunOut struct {
	Count     int64      `json:"count" doc:"Messages it would send."`
	Succeeded int64      `json:"succeeded" doc:"Messages in the range that it leaves out because the endpoint took them."`
	UnderWay  int64      `json:"underWay" doc:"Messages that it leaves out because they are on their way anyhow."`
	Expired   int64      `json:"expired" doc:"Messages that it leaves out because their payload is no longer kept."`
	First     *time.Time `json:"first" doc:"When the first of the messages it would send was accepted; null: there is none."`
	Last      *time.Time `json:"last" doc:"When the last was."`
	Seconds   int64      `json:"estimatedSeconds" doc:"About how long it would take, if it were the only one and the endpoint kept up."`
}

// task is the task that a range asks for. longest is how much time it may span; 0 = any.
func (r rangeIn) task(kind webhook.TaskKind, at endpointPath, now time.Time, longest time.Duration) (store.NewTask, error) {
	n := store.NewTask{Kind: kind, Application: at.App, Endpoint: at.Endpoint, Since: r.Since, Until: now, StopAfter: orZero(r.StopAfter)}
	if r.Until != nil {
		n.Until = *r.Until
	}
	switch year := n.Since.UTC().Year(); {
	case year < minYear, year > maxYear:
		return n, webhook.Invalid("since", "must be a time from %d to %d", minYear, maxYear)
	case n.Until.UTC().Year() < minYear, n.Until.UTC().Year() > maxYear:
		return n, webhook.Invalid("until", "must be a time from %d to %d", minYear, maxYear)
	case n.Since.After(n.Until):
		return n, webhook.Invalid("since", "must not be later than until, which is now if it is not given")
	case longest > 0 && n.Until.Sub(n.Since) > longest+webhook.RangeSlack:
		return n, webhook.Invalid("since", "must not be more than %d days before until", int(longest/(24*time.Hour)))
	}
	return n, nil
}

func (b bulkReplayIn) task(at endpointPath, now time.Time) (store.NewTask, error) {
	n, err := rangeIn{b.Since, b.Until, b.StopAfter}.task(webhook.TaskBulkReplay, at, now, 0)
	n.Filter = webhook.TaskFilter{
		EventTypes: plain(b.EventTypes), Channel: string(orZero(b.Channel)), Tag: string(orZero(b.Tag)), StatusCodeClass: b.StatusCodeClass,
	}
	if b.Status != nil {
		status := webhook.Status(*b.Status)
		n.Filter.Status = &status
	}
	return n, err
}

// begin starts a task and answers with it.
func (s *server) begin(ctx context.Context, who call, n store.NewTask, err error) (int, taskOut, error) {
	if err != nil {
		return 0, taskOut{}, err
	}
	t, err := who.view.CreateTask(ctx, n)
	if err != nil {
		return 0, taskOut{}, err
	}
	who.afterCommit(s.tasks.Wake)
	return http.StatusAccepted, s.taskJSON(t), nil
}

// dryRun says what a task would do.
func (s *server) dryRun(ctx context.Context, who call, n store.NewTask, err error) (int, dryRunOut, error) {
	if err != nil {
		return 0, dryRunOut{}, err
	}
	planned, err := who.view.PlanTask(ctx, n)
	if err != nil {
		return 0, dryRunOut{}, err
	}
	p, err := s.tasks.Preview(ctx, planned)
	if err != nil {
		return 0, dryRunOut{}, err
	}
	out := dryRunOut{
		Count: p.Count, Succeeded: p.Delivered, UnderWay: p.UnderWay, Expired: p.Gone, Seconds: int64(p.Takes.Seconds()),
	}
	if p.Count > 0 {
		out.First, out.Last = &p.First, &p.Last
	}
	return http.StatusOK, out, nil
}

type rangeOfEndpoint struct {
	endpointPath
	Body rangeIn
}

type bulkReplayOfEndpoint struct {
	endpointPath
	Body bulkReplayIn
}

func (s *server) endpointRecover(ctx context.Context, who call, in rangeOfEndpoint) (int, taskOut, error) {
	n, err := in.Body.task(webhook.TaskRecover, in.endpointPath, s.now(), webhook.MaxRecoverRange)
	return s.begin(ctx, who, n, err)
}

func (s *server) endpointRecoverDryRun(ctx context.Context, who call, in rangeOfEndpoint) (int, dryRunOut, error) {
	n, err := in.Body.task(webhook.TaskRecover, in.endpointPath, s.now(), webhook.MaxRecoverRange)
	return s.dryRun(ctx, who, n, err)
}

func (s *server) replayMissing(ctx context.Context, who call, in rangeOfEndpoint) (int, taskOut, error) {
	n, err := in.Body.task(webhook.TaskReplayMissing, in.endpointPath, s.now(), 0)
	return s.begin(ctx, who, n, err)
}

func (s *server) replayMissingDryRun(ctx context.Context, who call, in rangeOfEndpoint) (int, dryRunOut, error) {
	n, err := in.Body.task(webhook.TaskReplayMissing, in.endpointPath, s.now(), 0)
	return s.dryRun(ctx, who, n, err)
}

func (s *server) bulkReplay(ctx context.Context, who call, in bulkReplayOfEndpoint) (int, taskOut, error) {
	n, err := in.Body.task(in.endpointPath, s.now())
	return s.begin(ctx, who, n, err)
}

func (s *server) bulkReplayDryRun(ctx context.Context, who call, in bulkReplayOfEndpoint) (int, dryRunOut, error) {
	n, err := in.Body.task(in.endpointPath, s.now())
	return s.dryRun(ctx, who, n, err)
}
