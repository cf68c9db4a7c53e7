package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

type planIn struct {
	Limits limitsIn `json:"limits"`
}

type planOut struct {
	Name      string            `json:"name"`
	Limits    operatorLimitsOut `json:"limits"`
	CreatedAt time.Time         `json:"createdAt"`
	UpdatedAt time.Time         `json:"updatedAt"`
}

func planJSON(p webhook.Plan) planOut {
	return planOut{Name: p.Name, Limits: operatorLimitsJSON(p.Limits), CreatedAt: p.CreatedAt.UTC(), UpdatedAt: p.UpdatedAt.UTC()}
}

func planKey(p webhook.Plan) string { return p.Name }

type planPath struct {
	Name string `path:"plan_name" doc:"The plan's name."`
}

func (s *server) planList(ctx context.Context, _ call, in struct{ orderedQuery }) (int, listResponse[planOut], error) {
	p, err := in.page(false, isName) // always by name; an order is accepted and means nothing
	if err != nil {
		return 0, listResponse[planOut]{}, err
	}
	found, err := s.store.Plans(ctx, p)
	return http.StatusOK, listOf(found, planJSON, planKey), err
}

func (s *server) planGet(ctx context.Context, _ call, in planPath) (int, planOut, error) {
	p, err := s.store.Plan(ctx, in.Name)
	return http.StatusOK, planJSON(p), err
}

func (s *server) planPut(ctx context.Context, _ call, in struct {
	planPath
	Body planIn
}) (int, planOut, error) {
	l, err := in.Body.Limits.limits()
	if err != nil {
		return 0, planOut{}, err
	}
	p, created, err := s.store.PutPlan(ctx, in.Name, l)
	return createdOr200(created), planJSON(p), err
}

func (s *server) planDelete(ctx context.Context, _ call, in planPath) (int, none, error) {
	return http.StatusNoContent, none{}, s.store.DeletePlan(ctx, in.Name)
}
