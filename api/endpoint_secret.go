package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/webhook"
)

type endpointSecretOut struct {
	Key string `json:"key" doc:"What deliveries are verified with: the secret (whsec_…), or of an Ed25519 key the public half (whpk_…)."`
}

type endpointSecretRotateIn struct {
	Key                *string `json:"key,omitempty" nullable:"true" doc:"The new signing key; one is made if there is none."`
	GracePeriodSeconds *int    `json:"gracePeriodSeconds,omitempty" nullable:"true" minimum:"0" maximum:"604800" default:"86400" doc:"How long the old key goes on signing beside the new one."`
}

func (s *server) endpointSecretGet(ctx context.Context, who call, in endpointPath) (int, endpointSecretOut, error) {
	text, err := who.view.EndpointSecret(ctx, in.App, in.Endpoint)
	if err != nil {
		return 0, endpointSecretOut{}, err
	}
	key, err := signature.Parse(text.Reveal())
	if err != nil {
		return 0, endpointSecretOut{}, fmt.Errorf("stored signing key: %w", err)
	}
	return http.StatusOK, endpointSecretOut{Key: key.Shown()}, nil
}

func (s *server) endpointSecretRotate(ctx context.Context, who call, in struct {
	endpointPath
	Body endpointSecretRotateIn
}) (int, none, error) {
	next, err := signingKey(in.Body.Key)
	if err != nil {
		return 0, none{}, webhook.Invalid("key", "%s", err)
	}
	grace := webhook.DefaultSecretGrace
	if in.Body.GracePeriodSeconds != nil {
		grace = time.Duration(*in.Body.GracePeriodSeconds) * time.Second
	}
	return http.StatusNoContent, none{}, who.view.RotateEndpointSecret(ctx, in.App, in.Endpoint, next, grace)
}
