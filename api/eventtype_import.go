package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

type eventTypeImportIn struct {
	Spec       specObject `json:"spec,omitempty" nullable:"true"`
	SpecRaw    *string    `json:"specRaw,omitempty" nullable:"true" doc:"The specification as text, JSON or YAML, instead of spec."`
	DryRun     bool       `json:"dryRun,omitempty" default:"false" doc:"Change nothing, and say what would change."`
	ReplaceAll bool       `json:"replaceAll,omitempty" default:"false" doc:"Archive every event type that the specification does not have."`
}

// specObject is an OpenAPI document, read only as far as it is about webhooks.
type specObject json.RawMessage

// UnmarshalJSON keeps the text; null is nothing.
func (s *specObject) UnmarshalJSON(text []byte) error {
	if *s = nil; string(text) != "null" {
		*s = append(specObject{}, text...)
	}
	return nil
}

// Schema is any object.
func (specObject) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true, Description: "An OpenAPI document, 3.0 with x-webhooks or 3.1."}
	s.PrecomputeMessages()
	return s
}

type eventTypeImportOut struct {
	Data eventTypeImportData `json:"data"`
}

type eventTypeImportData struct {
	Modified []string              `json:"modified" doc:"Names of what was created, changed or archived; empty in a dry run."`
	ToModify []eventTypeFromImport `json:"to_modify,omitempty" doc:"In a dry run, what would be."`
}

type eventTypeFromImport struct {
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	Deprecated   bool     `json:"deprecated"`
	Archived     bool     `json:"archived"`
	Schemas      schemas  `json:"schemas"`
	GroupName    *string  `json:"groupName"`
	FeatureFlags []string `json:"featureFlags" nullable:"true"`
}

func (s *server) eventTypeImport(ctx context.Context, who call, in struct{ Body eventTypeImportIn }) (int, eventTypeImportOut, error) {
	text, err := in.Body.text()
	if err != nil {
		return 0, eventTypeImportOut{}, err
	}
	types, err := eventTypesOf(text)
	if err != nil {
		return 0, eventTypeImportOut{}, err
	}
	for _, e := range types {
		if err := s.checkSchemas(e.Schemas); err != nil {
			return 0, eventTypeImportOut{}, ofWebhook(err, e.Name)
		}
	}
	changed, err := who.view.ImportEventTypes(ctx, store.Import{EventTypes: types, ReplaceAll: in.Body.ReplaceAll, DryRun: in.Body.DryRun})
	if err != nil {
		return 0, eventTypeImportOut{}, err
	}
	out := eventTypeImportOut{Data: eventTypeImportData{Modified: []string{}}}
	for _, e := range changed {
		if !in.Body.DryRun {
			out.Data.Modified = append(out.Data.Modified, e.Name)
			continue
		}
		shown := eventTypeJSON(e)
		out.Data.ToModify = append(out.Data.ToModify, eventTypeFromImport{
			Name: e.Name, Description: e.Description, Deprecated: e.Deprecated, Archived: e.Archived, Schemas: shown.Schemas,
			GroupName: shown.GroupName, FeatureFlags: shown.FeatureFlags,
		})
	}
	return http.StatusOK, out, nil
}

func (in eventTypeImportIn) text() (json.RawMessage, error) {
	switch {
	case in.Spec != nil && in.SpecRaw != nil:
		return nil, webhook.Invalid("specRaw", "must not be given together with spec")
	case in.Spec != nil:
		return json.RawMessage(in.Spec), nil
	case in.SpecRaw == nil:
		return nil, webhook.Invalid("spec", "is required, or specRaw")
	}
	text, err := specJSON(*in.SpecRaw)
	if err != nil {
		return nil, webhook.Invalid("specRaw", "%s", err)
	}
	return text, nil
}

// ofWebhook says which webhook's schema breaks a rule.
func ofWebhook(err error, name string) error {
	var e *webhook.Error
	if !errors.As(err, &e) {
		return err
	}
	inner := *e
	inner.Fields = slices.Clone(e.Fields)
	for i := range inner.Fields {
		inner.Fields[i].Loc = []string{"body", "spec", "webhooks", name}
		inner.Fields[i].Msg = "its schema " + inner.Fields[i].Msg
	}
	return &inner
}
