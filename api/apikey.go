package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/webhook"
)

type apiKeyIn struct {
	Name      string     `json:"name" minLength:"1" maxLength:"1024"`
	UID       *uidText   `json:"uid,omitempty" nullable:"true"`
	Scopes    []string   `json:"scopes" minItems:"1" maxItems:"8" enum:"read,send,write,admin" doc:"write includes read; admin includes all."`
	ExpiresAt *time.Time `json:"expiresAt,omitempty" nullable:"true" doc:"From then on it is refused; null: never."`
}

type apiKeyExpireIn struct {
	At *time.Time `json:"at,omitempty" nullable:"true" doc:"When it ends; null: now. A key's life is never lengthened."`
}

// APIKeyOut is what is shown of an API key. It is exported for huma, which documents the fields of
// embedded types only then.
type APIKeyOut struct {
	ID         webhook.APIKeyID `json:"id"`
	UID        *string          `json:"uid"`
	Name       string           `json:"name"`
	Hint       string           `json:"hint" doc:"The beginning of the key."`
	Scopes     []string         `json:"scopes"`
	CreatedAt  time.Time        `json:"createdAt"`
	ExpiresAt  *time.Time       `json:"expiresAt"`
	LastUsedAt *time.Time       `json:"lastUsedAt" doc:"To the minute."`
}

// apiKeyCreatedOut has the key itself, this once: only its digest is kept.
type apiKeyCreatedOut struct {
	APIKeyOut
	Key string `json:"key,omitempty" doc:"Shown only here and only once; absent if the uid was known."`
}

func apiKeyJSON(k webhook.APIKey) APIKeyOut {
	return APIKeyOut{
		ID: k.ID, UID: orNull(k.UID), Name: k.Name, Hint: k.Hint, Scopes: append([]string{}, k.Scopes...),
		CreatedAt: k.CreatedAt.UTC(), ExpiresAt: k.ExpiresAt, LastUsedAt: k.LastUsedAt,
	}
}

func apiKeyName(k webhook.APIKey) string { return k.ID.String() }

type apiKeyPath struct {
	tenantPath
	Key string `path:"key_id" doc:"The key's id or uid."`
}

func (s *server) apiKeyCreate(ctx context.Context, _ call, in struct {
	tenantPath
	Body apiKeyIn
}) (int, apiKeyCreatedOut, error) {
	scopes, err := auth.ParseScopes(in.Body.Scopes)
	if err != nil {
		return 0, apiKeyCreatedOut{}, webhook.Invalid("scopes", "%s", err)
	}
	text, digest, hint := auth.NewAPIKey()
	k := webhook.APIKey{
		Name: in.Body.Name, UID: string(orZero(in.Body.UID)), Hint: hint, Digest: digest[:],
		Scopes: scopes.Names(), ExpiresAt: in.Body.ExpiresAt,
	}
	if err := checkUID(k.UID, k.ID.Prefix()); err != nil {
		return 0, apiKeyCreatedOut{}, err
	}
	if err := checkLine("name", k.Name); err != nil {
		return 0, apiKeyCreatedOut{}, err
	}
	if k.ExpiresAt != nil && !k.ExpiresAt.After(s.now()) {
		return 0, apiKeyCreatedOut{}, webhook.Invalid("expiresAt", "must be in the future")
	}
	k, created, err := s.store.CreateAPIKey(ctx, in.Tenant, k)
	out := apiKeyCreatedOut{APIKeyOut: apiKeyJSON(k)}
	if created {
		out.Key = text.Reveal()
	}
	return createdOr200(created), out, err
}

func (s *server) apiKeyList(ctx context.Context, _ call, in struct {
	tenantPath
	orderedQuery
}) (int, listResponse[APIKeyOut], error) {
	p, err := in.page(in.Order == descending, isAPIKeyID)
	if err != nil {
		return 0, listResponse[APIKeyOut]{}, err
	}
	found, err := s.store.APIKeys(ctx, in.Tenant, p)
	return http.StatusOK, listOf(found, apiKeyJSON, apiKeyName), err
}

func (s *server) apiKeyExpire(ctx context.Context, _ call, in struct {
	apiKeyPath
	Body apiKeyExpireIn
}) (int, none, error) {
	at := s.now()
	if in.Body.At != nil {
		at = *in.Body.At
	}
	return http.StatusNoContent, none{}, s.store.ExpireAPIKey(ctx, in.Tenant, in.Key, at)
}
