package api

import (
	"context"
	"net/http"
)

type precheckIn struct {
	EventType eventTypeName `json:"eventType"`
	Channels  []channelName `json:"channels,omitempty" nullable:"true" maxItems:"10"`
}

type precheckOut struct {
	Active bool `json:"active" doc:"Some endpoint would get such a message if it were published now."`
}

func (s *server) messagePrecheck(ctx context.Context, who call, in struct {
	applicationPath
	Body precheckIn
}) (int, precheckOut, error) {
	active, err := who.view.Wanted(ctx, in.App, string(in.Body.EventType), plain(in.Body.Channels))
	return http.StatusOK, precheckOut{active}, err
}
