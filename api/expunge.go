package api

import (
	"context"
	"net/http"

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
