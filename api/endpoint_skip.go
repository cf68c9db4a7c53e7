package api

import (
	"context"
	"net/http"

	"github.com/posthaste/posthaste/internal/webhook"
)

type endpointSkipIn struct {
	MessageID *string `json:"msgId,omitempty" nullable:"true" maxLength:"256" doc:"Skip only if this message, named by its id or eventId, is the first in line."`
}

type endpointSkipOut struct {
	MessageID webhook.MessageID `json:"msgId" doc:"What was skipped."`
}

func (s *server) endpointSkip(ctx context.Context, who call, in struct {
	endpointPath
	Body endpointSkipIn
}) (int, endpointSkipOut, error) {
	skipped, goOn, err := s.publisher.Skip(ctx, who.view, in.App, in.Endpoint, orZero(in.Body.MessageID))
	if err != nil {
		return 0, endpointSkipOut{}, err
	}
	who.afterCommit(goOn)
	return http.StatusOK, endpointSkipOut{MessageID: skipped}, nil
}
