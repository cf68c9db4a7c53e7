package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/webhook"
)

// schemas is a map of versions to JSON Schemas, kept as it was written.
type schemas json.RawMessage

// MarshalJSON writes what was kept; nothing is null.
func (s schemas) MarshalJSON() ([]byte, error) {
	if s == nil {
		return []byte("null"), nil
	}
	return s, nil
}

// UnmarshalJSON keeps the text; null is nothing.
func (s *schemas) UnmarshalJSON(text []byte) error {
	*s = nil
	if string(text) != "null" {
		*s = append(schemas{}, text...)
	}
	return nil
}

// Schema is an object of objects.
func (schemas) Schema(r huma.Registry) *huma.Schema {
	s := &huma.Schema{
		Type: huma.TypeObject, Nullable: true, Description: "Version → JSON Schema.",
		AdditionalProperties: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true},
	}
	s.PrecomputeMessages()
	return s
}

// EventTypeUpdate is what of an event type a PUT replaces. It is exported for huma, which documents
// the fields of embedded types only then.
type EventTypeUpdate struct {
	Description  string     `json:"description" maxLength:"65536"`
	Archived     bool       `json:"archived,omitempty"`
	Deprecated   bool       `json:"deprecated,omitempty"`
	Schemas      schemas    `json:"schemas,omitempty"`
	GroupName    *flagName  `json:"groupName,omitempty" nullable:"true"`
	FeatureFlags []flagName `json:"featureFlags,omitempty" nullable:"true" maxItems:"25"`
	FeatureFlag  *flagName  `json:"featureFlag,omitempty" nullable:"true" deprecated:"true" doc:"The older form of featureFlags."`
}

type eventTypeIn struct {
	Name eventTypeName `json:"name"`
	EventTypeUpdate
}

type eventTypePatch struct {
	Description  Set[string]     `json:"description,omitempty" maxLength:"65536"`
	Archived     Set[bool]       `json:"archived,omitempty"`
	Deprecated   Set[bool]       `json:"deprecated,omitempty"`
	Schemas      Opt[schemas]    `json:"schemas,omitempty"`
	GroupName    Opt[flagName]   `json:"groupName,omitempty"`
	FeatureFlags Opt[[]flagName] `json:"featureFlags,omitempty" maxItems:"25"`
	FeatureFlag  Opt[flagName]   `json:"featureFlag,omitempty" deprecated:"true"`
}

type eventTypeOut struct {
	Name         string    `json:"name"`
	Description  string    `json:"description"`
	Archived     bool      `json:"archived"`
	Deprecated   bool      `json:"deprecated"`
	Schemas      schemas   `json:"schemas"`
	GroupName    *string   `json:"groupName"`
	FeatureFlags []string  `json:"featureFlags" nullable:"true"`
	FeatureFlag  *string   `json:"featureFlag" deprecated:"true"`
	CreatedAt    time.Time `json:"createdAt"`
	UpdatedAt    time.Time `json:"updatedAt"`
}

func eventTypeJSON(e webhook.EventType) eventTypeOut {
	out := eventTypeOut{
		Name: e.Name, Description: e.Description, Archived: e.Archived, Deprecated: e.Deprecated, Schemas: schemas(e.Schemas),
		GroupName: orNull(e.GroupName), FeatureFlags: e.FeatureFlags, CreatedAt: e.CreatedAt.UTC(), UpdatedAt: e.UpdatedAt.UTC(),
	}
	if len(e.FeatureFlags) > 0 {
		out.FeatureFlag = &e.FeatureFlags[0]
	} else {
		out.FeatureFlags = nil
	}
	return out
}

func eventTypeJSONWithoutSchemas(e webhook.EventType) eventTypeOut {
	e.Schemas = nil
	return eventTypeJSON(e)
}

func eventTypeKey(e webhook.EventType) string { return e.Name }

func (in EventTypeUpdate) eventType(name string) webhook.EventType {
	flags := in.FeatureFlags
	if len(flags) == 0 && in.FeatureFlag != nil {
		flags = []flagName{*in.FeatureFlag}
	}
	return webhook.EventType{
		Name: name, Description: in.Description, Archived: in.Archived, Deprecated: in.Deprecated,
		Schemas: json.RawMessage(in.Schemas), GroupName: string(orZero(in.GroupName)), FeatureFlags: plain(flags),
	}
}

type eventTypePath struct {
	Name string `path:"event_type_name" doc:"The event type's name."`
}

func (s *server) eventTypeCreate(ctx context.Context, who call, in struct{ Body eventTypeIn }) (int, eventTypeOut, error) {
	e := in.Body.eventType(string(in.Body.Name))
	if err := s.checkSchemas(e.Schemas); err != nil {
		return 0, eventTypeOut{}, err
	}
	e, err := who.view.CreateEventType(ctx, e)
	return http.StatusCreated, eventTypeJSON(e), err
}

func (s *server) eventTypeList(ctx context.Context, who call, in struct {
	orderedQuery
	IncludeArchived bool `query:"include_archived" default:"false"`
	WithContent     bool `query:"with_content" default:"false" doc:"Include the schemas."`
}) (int, listResponse[eventTypeOut], error) {
	p, err := in.page(false, isName) // always by name; an order is accepted and means nothing
	if err != nil {
		return 0, listResponse[eventTypeOut]{}, err
	}
	shape := eventTypeJSONWithoutSchemas
	if in.WithContent {
		shape = eventTypeJSON
	}
	found, err := who.view.EventTypes(ctx, p, in.IncludeArchived)
	return http.StatusOK, listOf(found, shape, eventTypeKey), err
}

func (s *server) eventTypeGet(ctx context.Context, who call, in eventTypePath) (int, eventTypeOut, error) {
	e, err := who.view.EventType(ctx, in.Name)
	return http.StatusOK, eventTypeJSON(e), err
}

func (s *server) eventTypePut(ctx context.Context, who call, in struct {
	eventTypePath
	Body EventTypeUpdate
}) (int, eventTypeOut, error) {
	e := in.Body.eventType(in.Name)
	if err := s.checkSchemas(e.Schemas); err != nil {
		return 0, eventTypeOut{}, err
	}
	e, created, err := who.view.ReplaceEventType(ctx, in.Name, e)
	return createdOr200(created), eventTypeJSON(e), err
}

func (s *server) eventTypePatch(ctx context.Context, who call, in struct {
	eventTypePath
	Body eventTypePatch
}) (int, eventTypeOut, error) {
	// Before anything is locked: checking takes its time.
	if err := s.checkSchemas(json.RawMessage(orZero(in.Body.Schemas.Value))); err != nil {
		return 0, eventTypeOut{}, err
	}
	e, err := who.view.PatchEventType(ctx, in.Name, func(e *webhook.EventType) error {
		e.Description = in.Body.Description.Or(e.Description)
		e.Archived = in.Body.Archived.Or(e.Archived)
		e.Deprecated = in.Body.Deprecated.Or(e.Deprecated)
		if in.Body.Schemas.Sent {
			e.Schemas = json.RawMessage(orZero(in.Body.Schemas.Value))
		}
		e.GroupName = string(in.Body.GroupName.Or(flagName(e.GroupName)))
		switch {
		case in.Body.FeatureFlags.Sent:
			e.FeatureFlags = plain(orZero(in.Body.FeatureFlags.Value))
		case in.Body.FeatureFlag.Sent && in.Body.FeatureFlag.Value == nil:
			e.FeatureFlags = nil
		case in.Body.FeatureFlag.Sent:
			e.FeatureFlags = []string{string(*in.Body.FeatureFlag.Value)}
		}
		return nil
	})
	return http.StatusOK, eventTypeJSON(e), err
}

func (s *server) eventTypeDelete(ctx context.Context, who call, in struct {
	eventTypePath
	Expunge bool `query:"expunge" default:"false" doc:"Remove it instead of archiving it."`
}) (int, none, error) {
	return http.StatusNoContent, none{}, who.view.DeleteEventType(ctx, in.Name, in.Expunge)
}

// checkSchemas bounds what is kept of schemas, and refuses what is no schema.
func (s *server) checkSchemas(text json.RawMessage) error {
	if len(text) > webhook.MaxSchemas {
		return webhook.Invalid("schemas", "must be at most %d bytes as JSON", webhook.MaxSchemas)
	}
	return s.schemas.CheckVersions(text)
}
