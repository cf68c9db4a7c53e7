package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func (s *server) messageExpunge(ctx context.Context, who call, in messagePath) (int, none, error) {
	return http.StatusNoContent, none{}, who.view.ExpungeMessage(ctx, in.App, in.Message)
}

func (s *server) attemptExpunge(ctx context.Context, who call, in struct {
	messagePath
	Attempt string `path:"attempt_id" doc:"The attempt's id."`
}) (int, none, error) {
	id, err := webhook.ParseID[webhook.AttemptID](in.Attempt)
	if err != nil {
		return 0, none{}, webhook.ErrNotFound
	}
	return http.StatusNoContent, none{}, who.view.ExpungeAttempt(ctx, in.App, in.Message, id)
}

type bulkExpungeIn struct {
	IDs []expungedName `json:"ids,omitempty" default:"[]" maxItems:"1000" doc:"Messages, by id or eventId."`
}

// expungedName is a message's id or event id.
type expungedName string

// Schema is the rule of names.
func (expungedName) Schema(huma.Registry) *huma.Schema {
	return textSchema(nameAlphabet, webhook.MaxUIDLength, "A message's id or eventId.")
}

type bulkExpungeOut struct {
	Results map[string]string `json:"results" doc:"By id or eventId as it was given: expunged or not-found."`
}

func (s *server) messagesExpunge(ctx context.Context, who call, in struct {
	applicationPath
	Body bulkExpungeIn
}) (int, bulkExpungeOut, error) {
	refs := plain(in.Body.IDs)
	found, err := who.view.ExpungeMessages(ctx, in.App, refs)
	if err != nil {
		return 0, bulkExpungeOut{}, err
	}
	out := bulkExpungeOut{Results: make(map[string]string, len(refs))}
	for _, ref := range refs {
		out.Results[ref] = "not-found"
		if found[ref] {
			out.Results[ref] = "expunged"
		}
	}
	return http.StatusOK, out, nil
}

// oldest is before every message, and not the zero id's time.
var oldest = time.UnixMilli(1)

// applicationExpunge removes the payloads of all messages that an application has now.
func (s *server) applicationExpunge(ctx context.Context, who call, in applicationPath) (int, taskOut, error) {
	return s.begin(ctx, who, store.NewTask{Kind: webhook.TaskPurge, Application: in.App, Since: oldest, Until: s.now()}, nil)
}
