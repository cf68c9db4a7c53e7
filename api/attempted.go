package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// endpointMessageOut is a message and how it stands with the endpoint asked about.
type endpointMessageOut struct {
	ID          webhook.MessageID `json:"id"`
	EventType   string            `json:"eventType"`
	EventID     *string           `json:"eventId"`
	Payload     payload           `json:"payload" doc:"{} when it was not asked for or is raw and no object, {\"expired\":true} when it is no longer kept."`
	Channels    []string          `json:"channels" nullable:"true"`
	Tags        []string          `json:"tags" nullable:"true"`
	DeliverAt   *time.Time        `json:"deliverAt,omitempty" doc:"Not delivered before this time."`
	Timestamp   time.Time         `json:"timestamp"`
	Status      int               `json:"status" enum:"0,1,2,3,4" doc:"0 success, 1 pending: not tried yet, 2 fail, 3 sending: owed, and tried before, 4 canceled (as 0 unless expanded_statuses)."`
	StatusText  string            `json:"statusText" enum:"success,pending,fail,sending,canceled"`
	NextAttempt *time.Time        `json:"nextAttempt" doc:"When the next attempt is planned; null: none is, or it goes as soon as it may."`
}

// messageEndpointOut is an endpoint and how the message asked about stands with it.
type messageEndpointOut struct {
	ID           webhook.EndpointID `json:"id"`
	UID          *string            `json:"uid"`
	URL          string             `json:"url"`
	Description  string             `json:"description"`
	Disabled     bool               `json:"disabled"`
	EventTypes   []string           `json:"eventTypes" nullable:"true"`
	FilterTypes  []string           `json:"filterTypes" nullable:"true" deprecated:"true"`
	Channels     []string           `json:"channels" nullable:"true"`
	ThrottleRate *int               `json:"throttleRate"`
	RateLimit    *int               `json:"rateLimit" deprecated:"true"`
	Version      int                `json:"version" deprecated:"true"`
	CreatedAt    time.Time          `json:"createdAt"`
	UpdatedAt    time.Time          `json:"updatedAt"`
	DeletedAt    *time.Time         `json:"deletedAt" doc:"Set for an endpoint that is no more."`
	Status       int                `json:"status" enum:"0,1,2,3,4" doc:"0 success, 1 pending: not tried yet, 2 fail, 3 sending: owed, and tried before, 4 canceled (as 0 unless expanded_statuses)."`
	StatusText   string             `json:"statusText" enum:"success,pending,fail,sending,canceled"`
	NextAttempt  *time.Time         `json:"nextAttempt" doc:"When the next attempt is planned; null: none is, or it goes as soon as it may."`
}

func attemptedMessageJSON(a store.AttemptedMessage, withContent, expanded bool) endpointMessageOut {
	m, status := messageJSON(a.Message, withContent), shownStatus(a.Status, expanded)
	return endpointMessageOut{
		ID: m.ID, EventType: m.EventType, EventID: m.EventID, Payload: m.Payload, Channels: m.Channels, Tags: m.Tags,
		DeliverAt: m.DeliverAt, Timestamp: m.Timestamp, Status: int(status), StatusText: statusTexts[status], NextAttempt: a.NextAttempt,
	}
}

func destinationJSON(d store.Destination, expanded bool) messageEndpointOut {
	e, status := endpointJSON(d.Endpoint), shownStatus(d.Status, expanded)
	out := messageEndpointOut{
		ID: e.ID, UID: e.UID, URL: e.URL, Description: e.Description, Disabled: e.Disabled, EventTypes: e.EventTypes,
		FilterTypes: e.FilterTypes, Channels: e.Channels, ThrottleRate: e.ThrottleRate, RateLimit: e.RateLimit, Version: e.Version,
		CreatedAt: e.CreatedAt, UpdatedAt: e.UpdatedAt, Status: int(status), StatusText: statusTexts[status], NextAttempt: d.NextAttempt,
	}
	if d.DeletedAt != nil {
		at := d.DeletedAt.UTC()
		out.DeletedAt = &at
	}
	return out
}

func attemptedMessageName(a store.AttemptedMessage) string { return a.Message.ID.String() }

func destinationName(d store.Destination) string { return d.ID.String() }

func (s *server) attemptedMessages(ctx context.Context, who call, in struct {
	endpointPath
	pageQuery
	publishedQuery
	contentQuery
	expandedQuery
	Status *int `query:"status" enum:"0,1,2,3,4"`
}) (int, listResponse[endpointMessageOut], error) {
	p, err := in.page(true, isMessageID)
	if err != nil {
		return 0, listResponse[endpointMessageOut]{}, err
	}
	f := store.AttemptedFilter{MessageFilter: store.MessageFilter{
		Channel: string(in.Channel), Tag: string(in.Tag), EventTypes: plain(in.EventTypes),
		Before: in.Before, After: in.After, WithContent: in.WithContent,
	}}
	if in.Status != nil {
		status := webhook.Status(*in.Status)
		f.Status = &status
	}
	found, err := who.view.AttemptedMessages(ctx, in.App, in.Endpoint, f, p)
	shape := func(a store.AttemptedMessage) endpointMessageOut {
		return attemptedMessageJSON(a, in.WithContent, in.Expanded)
	}
	return http.StatusOK, listOf(found, shape, attemptedMessageName), err
}

func (s *server) destinations(ctx context.Context, who call, in struct {
	messagePath
	pageQuery
	expandedQuery
}) (int, listResponse[messageEndpointOut], error) {
	p, err := in.page(false, isEndpointID)
	if err != nil {
		return 0, listResponse[messageEndpointOut]{}, err
	}
	found, err := who.view.Destinations(ctx, in.App, in.Message, p)
	shape := func(d store.Destination) messageEndpointOut { return destinationJSON(d, in.Expanded) }
	return http.StatusOK, listOf(found, shape, destinationName), err
}
