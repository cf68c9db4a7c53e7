package api

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// payload is a JSON object that nobody looks into.
type payload json.RawMessage

// UnmarshalJSON keeps the bytes; null is nothing.
func (p *payload) UnmarshalJSON(text []byte) error {
	if string(text) == "null" {
		*p = nil
		return nil
	}
	*p = append((*p)[:0], text...)
	return nil
}

// MarshalJSON writes the bytes.
func (p payload) MarshalJSON() ([]byte, error) { return p, nil }

// Schema is any object.
func (payload) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}
}

type messageOut struct {
	ID        webhook.MessageID `json:"id"`
	EventType string            `json:"eventType"`
	EventID   *string           `json:"eventId"`
	Payload   payload           `json:"payload" doc:"{} when it was not asked for or is raw and no object, {\"expired\":true} when it is no longer kept."`
	Channels  []string          `json:"channels" nullable:"true"`
	Tags      []string          `json:"tags" nullable:"true"`
	DeliverAt *time.Time        `json:"deliverAt,omitempty" doc:"Not delivered before this time."`
	Timestamp time.Time         `json:"timestamp"`
	Warnings  []string          `json:"warnings,omitempty" doc:"Where the payload does not fit its event type's schema; only in the answer to a publish, if the tenant wants to be warned."`
}

// What stands for a payload that is not shown, and for one that is no longer there.
var (
	payloadUnasked = payload(`{}`)
	payloadGone    = payload(`{"expired":true}`)
)

func shownPayload(m webhook.Message, withContent bool) payload {
	switch {
	case !withContent:
		return payloadUnasked
	case len(m.Payload) == 0:
		return payloadGone
	case m.ContentType != "" && !isObject(m.Payload):
		return payloadUnasked // whoever reads expects an object, and there is none to show
	}
	return payload(m.Payload)
}

// isObject reports whether a raw payload happens to be a JSON object.
func isObject(text []byte) bool {
	start := bytes.TrimLeft(text, " \t\r\n")
	return len(start) > 0 && start[0] == '{' && json.Valid(text)
}

func messageJSON(m webhook.Message, withContent bool) messageOut {
	out := messageOut{
		ID: m.ID, EventType: m.EventType, EventID: orNull(m.EventID), Payload: shownPayload(m, withContent),
		Channels: m.Channels, Tags: m.Tags, Timestamp: m.CreatedAt(),
	}
	if !m.DeliverAt.IsZero() {
		at := m.DeliverAt.UTC()
		out.DeliverAt = &at
	}
	return out
}

func messageName(m webhook.Message) string { return m.ID.String() }

type messagePath struct {
	applicationPath
	Message string `path:"msg_id" doc:"The message's id or eventId."`
}

// publishedQuery narrows a list by what messages were published with.
type publishedQuery struct {
	Channel    channelName     `query:"channel"`
	Tag        tagName         `query:"tag"`
	EventTypes []eventTypeName `query:"event_types"`
	Before     time.Time       `query:"before" doc:"Only what is older. Without after, the list goes back 90 days from it."`
	After      time.Time       `query:"after" doc:"Only what is younger. Without before, the list spans the 90 days from it."`
}

type contentQuery struct {
	WithContent bool `query:"with_content" default:"true" doc:"Include payloads and responses."`
}

func (s *server) messageList(ctx context.Context, who call, in struct {
	applicationPath
	pageQuery
	publishedQuery
	contentQuery
}) (int, listResponse[messageOut], error) {
	p, err := in.page(true, isMessageID)
	if err != nil {
		return 0, listResponse[messageOut]{}, err
	}
	found, err := who.view.Messages(ctx, in.App, store.MessageFilter{
		Channel: string(in.Channel), Tag: string(in.Tag), EventTypes: plain(in.EventTypes),
		Before: in.Before, After: in.After, WithContent: in.WithContent,
	}, p)
	shape := func(m webhook.Message) messageOut { return messageJSON(m, in.WithContent) }
	return http.StatusOK, listOf(found, shape, messageName), err
}

func (s *server) messageGet(ctx context.Context, who call, in struct {
	messagePath
	contentQuery
}) (int, messageOut, error) {
	m, err := who.view.Message(ctx, in.App, in.Message)
	return http.StatusOK, messageJSON(m, in.WithContent), err
}

// appendMessage writes a message as messageOut would be, without decoding its payload.
func appendMessage(b []byte, m webhook.Message, withContent bool, warnings json.RawMessage) []byte {
	b = append(b, `{"id":"`...)
	b = append(b, m.ID.String()...)
	b = append(b, `","eventType":"`...)
	b = append(b, m.EventType...) // of an alphabet that needs no escaping, like all texts here
	b = append(b, `","eventId":`...)
	if m.EventID == "" {
		b = append(b, "null"...)
	} else {
		b = append(b, '"')
		b = append(b, m.EventID...)
		b = append(b, '"')
	}
	b = append(b, `,"payload":`...)
	b = append(b, shownPayload(m, withContent)...)
	b = append(b, `,"channels":`...)
	b = appendNames(b, m.Channels)
	b = append(b, `,"tags":`...)
	b = appendNames(b, m.Tags)
	if !m.DeliverAt.IsZero() {
		b = append(b, `,"deliverAt":"`...)
		b = append(m.DeliverAt.UTC().AppendFormat(b, time.RFC3339Nano), '"')
	}
	b = append(b, `,"timestamp":"`...)
	b = m.CreatedAt().AppendFormat(b, time.RFC3339Nano)
	b = append(b, '"')
	if warnings != nil {
		b = append(b, `,"warnings":`...)
		b = append(b, warnings...)
	}
	return append(b, '}')
}

func payloadSize(m webhook.Message, withContent bool) int {
	if withContent {
		return len(m.Payload)
	}
	return 0
}

func appendNames(b []byte, names []string) []byte {
	if names == nil {
		return append(b, "null"...)
	}
	b = append(b, '[')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		for j := range len(name) {
			if name[j] == '\\' { // tags may have it
				b = append(b, '\\')
			}
			b = append(b, name[j])
		}
		b = append(b, '"')
	}
	return append(b, ']')
}
