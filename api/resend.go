package api

import (
	"context"
	"net/http"
)

type destinationPath struct {
	messagePath
	Endpoint string `path:"endpoint_id" doc:"The endpoint's id or uid."`
}

// emptyOut is {}: some clients cannot read an answer without a body here.
type emptyOut struct{}

// messageResend owes a message once more. Some clients send an empty object along and others nothing;
// neither is looked at.
func (s *server) messageResend(ctx context.Context, who call, in destinationPath) (int, emptyOut, error) {
	handOut, err := s.publisher.Resend(ctx, who.view, in.App, in.Message, in.Endpoint)
	if err != nil {
		return 0, emptyOut{}, err
	}
	who.afterCommit(handOut)
	return http.StatusAccepted, emptyOut{}, nil
}
