package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

type tenantIn struct {
	Name string   `json:"name" minLength:"1" maxLength:"1024"`
	UID  *uidText `json:"uid,omitempty" nullable:"true"`
}

type tenantOut struct {
	ID        webhook.TenantID `json:"id"`
	UID       *string          `json:"uid"`
	Name      string           `json:"name"`
	CreatedAt time.Time        `json:"createdAt"`
	UpdatedAt time.Time        `json:"updatedAt"`
}

func tenantJSON(t webhook.Tenant) tenantOut {
	return tenantOut{ID: t.ID, UID: orNull(t.UID), Name: t.Name, CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC()}
}

func tenantName(t webhook.Tenant) string { return t.ID.String() }

type tenantPath struct {
	Tenant string `path:"tenant_id" doc:"The tenant's id or uid."`
}

func (s *server) tenantCreate(ctx context.Context, _ call, in struct{ Body tenantIn }) (int, tenantOut, error) {
	t := webhook.Tenant{Name: in.Body.Name, UID: string(orZero(in.Body.UID))}
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

func (s *server) tenantDelete(ctx context.Context, _ call, in tenantPath) (int, none, error) {
	return http.StatusNoContent, none{}, s.store.DeleteTenant(ctx, in.Tenant)
}
