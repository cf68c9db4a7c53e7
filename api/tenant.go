package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/webhook"
)

type tenantIn struct {
	Name   string    `json:"name" minLength:"1" maxLength:"1024"`
	UID    *uidText  `json:"uid,omitempty" nullable:"true"`
	Plan   *planName `json:"plan,omitempty" nullable:"true"`
	Limits limitsIn  `json:"limits,omitempty" doc:"Where they differ from the plan's."`
}

type tenantOut struct {
	ID        webhook.TenantID `json:"id"`
	UID       *string          `json:"uid"`
	Name      string           `json:"name"`
	CreatedAt time.Time        `json:"createdAt"`
	UpdatedAt time.Time        `json:"updatedAt"`

	SchemaValidation validationMode `json:"schemaValidation"`
	StrictEventTypes bool           `json:"strictEventTypes" doc:"Refuse messages of event types that do not exist or are archived."`

	Plan            *string           `json:"plan" doc:"The name of its plan; null: none."`
	Limits          operatorLimitsOut `json:"limits" doc:"Where they differ from the plan's; null: they do not."`
	EffectiveLimits operatorLimitsOut `json:"effectiveLimits" doc:"What holds; null: no limit."`
}

type tenantPatch struct {
	Name             Set[string]         `json:"name,omitempty" minLength:"1" maxLength:"1024"`
	SchemaValidation Set[validationMode] `json:"schemaValidation,omitempty"`
	StrictEventTypes Set[bool]           `json:"strictEventTypes,omitempty"`
	Plan             Opt[planName]       `json:"plan,omitempty"`
	Limits           Set[limitsIn]       `json:"limits,omitempty" doc:"Replaces what was there as a whole."`
}

// validationMode is a webhook.SchemaValidation and its rule.
type validationMode string

// Schema lists the modes.
func (validationMode) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{
		Type: huma.TypeString, Description: "What becomes of a message whose payload does not fit its event type's schemas.",
		Enum: []any{string(webhook.ValidationIgnore), string(webhook.ValidationWarn), string(webhook.ValidationReject)},
	}
	s.PrecomputeMessages()
	return s
}

func tenantJSON(t webhook.Tenant) tenantOut {
	return tenantOut{
		ID: t.ID, UID: orNull(t.UID), Name: t.Name, CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
		SchemaValidation: validationMode(t.SchemaValidation), StrictEventTypes: t.StrictEventTypes,
		Plan: orNull(t.Plan), Limits: operatorLimitsJSON(t.Limits), EffectiveLimits: operatorLimitsJSON(t.Effective),
	}
}

func tenantName(t webhook.Tenant) string { return t.ID.String() }

type tenantPath struct {
	Tenant string `path:"tenant_id" doc:"The tenant's id or uid."`
}

func (s *server) tenantCreate(ctx context.Context, _ call, in struct{ Body tenantIn }) (int, tenantOut, error) {
	t := webhook.Tenant{Name: in.Body.Name, UID: string(orZero(in.Body.UID)), Plan: string(orZero(in.Body.Plan))}
	var err error
	if t.Limits, err = in.Body.Limits.limits(); err != nil {
		return 0, tenantOut{}, err
	}
	if err := checkUID(t.UID, t.ID.Prefix()); err != nil {
		return 0, tenantOut{}, err
	}
	if err := checkLine("name", t.Name); err != nil {
		return 0, tenantOut{}, err
	}
	t, created, err := s.store.CreateTenant(ctx, t)
	return createdOr200(created), tenantJSON(t), err
}

func (s *server) tenantList(ctx context.Context, _ call, in struct{ orderedQuery }) (int, listResponse[tenantOut], error) {
	p, err := in.page(in.Order == descending, isTenantID)
	if err != nil {
		return 0, listResponse[tenantOut]{}, err
	}
	found, err := s.store.Tenants(ctx, p)
	return http.StatusOK, listOf(found, tenantJSON, tenantName), err
}

func (s *server) tenantGet(ctx context.Context, _ call, in tenantPath) (int, tenantOut, error) {
	t, err := s.store.Tenant(ctx, in.Tenant)
	return http.StatusOK, tenantJSON(t), err
}

func (s *server) tenantPatch(ctx context.Context, _ call, in struct {
	tenantPath
	Body tenantPatch
}) (int, tenantOut, error) {
	limits, err := in.Body.Limits.Value.limits()
	if err != nil {
		return 0, tenantOut{}, err
	}
	t, err := s.store.PatchTenant(ctx, in.Tenant, func(t *webhook.Tenant) error {
		t.Plan = string(in.Body.Plan.Or(planName(t.Plan)))
		if in.Body.Limits.Sent {
			t.Limits = limits
		}
		t.Name = in.Body.Name.Or(t.Name)
		t.SchemaValidation = webhook.SchemaValidation(in.Body.SchemaValidation.Or(validationMode(t.SchemaValidation)))
		t.StrictEventTypes = in.Body.StrictEventTypes.Or(t.StrictEventTypes)
		return checkLine("name", t.Name)
	})
	return http.StatusOK, tenantJSON(t), err
}

func (s *server) tenantDelete(ctx context.Context, _ call, in tenantPath) (int, none, error) {
	return http.StatusNoContent, none{}, s.store.DeleteTenant(ctx, in.Tenant)
}
