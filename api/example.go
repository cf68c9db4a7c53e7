package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/posthaste/posthaste/internal/webhook"
)

// The event type that can be sent to any endpoint without being registered.
const (
	pingType    = "svix.ping"
	pingPayload = `{"success": true}`
)

// exampleVersion is the version of an event type's schemas whose examples are sent.
const exampleVersion = "1"

type exampleIn struct {
	EventType    eventTypeName `json:"eventType" doc:"svix.ping needs no event type."`
	ExampleIndex *int          `json:"exampleIndex,omitempty" nullable:"true" minimum:"0" default:"0" doc:"Which of the schema's examples."`
}

// errNoExample says that an event type has nothing to send.
var errNoExample error = &webhook.Error{
	Kind: webhook.KindBadRequest, Code: "invalid_scheme",
	Detail: "The event type has no such example: its schema of version 1 needs examples, and the one sent must be an object",
}

// example is one of an event type's examples, as it was written.
func example(e webhook.EventType, index int) ([]byte, error) {
	var versions map[string]json.RawMessage
	if json.Unmarshal(e.Schemas, &versions) != nil {
		return nil, errNoExample
	}
	var schema struct {
		Examples []json.RawMessage `json:"examples"`
	}
	if json.Unmarshal(versions[exampleVersion], &schema) != nil || index >= len(schema.Examples) {
		return nil, errNoExample
	}
	text := bytes.TrimSpace(schema.Examples[index])
	if len(text) == 0 || text[0] != '{' {
		return nil, errNoExample
	}
	return text, nil
}

func (s *server) sendExample(ctx context.Context, who call, in struct {
	endpointPath
	Body exampleIn
}) (int, messageOut, error) {
	name, text := string(in.Body.EventType), []byte(pingPayload)
	if name != pingType {
		e, err := who.view.EventType(ctx, name)
		if err == nil {
			text, err = example(e, orZero(in.Body.ExampleIndex))
		}
		if err != nil {
			return 0, messageOut{}, err
		}
	}
	m, handOut, err := s.publisher.SendExample(ctx, who.view, in.App, in.Endpoint, name, text)
	if err != nil {
		return 0, messageOut{}, err
	}
	who.afterCommit(handOut)
	return http.StatusOK, messageJSON(m, false), nil
}
