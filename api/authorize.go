package api

import (
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/webhook"
)

// secretPrefixes start an endpoint's signing secrets, which people sometimes paste as a token.
var secretPrefixes = []string{"whsec_", "whsk_", "whpk_"}

// authorize decides whether a request may call a route, and as whom. It comes before anything of the
// request is read, so that a stranger learns and costs nothing.
func (s *server) authorize(c *gin.Context, r route) (call, error) {
	token, ok := bearer(c.GetHeader("Authorization"))
	if !ok {
		return call{}, errToken
	}
	if r.class == classOperator {
		if !s.operator.Matches(token) {
			return call{}, errToken
		}
		return call{}, nil
	}
	digest, err := auth.ParseAPIKey(token)
	if err != nil {
		for _, prefix := range secretPrefixes {
			if strings.HasPrefix(token, prefix) {
				return call{}, errSecret
			}
		}
		return s.authorizeApplication(c, r, token)
	}
	known, err := s.keys.find(c.Request.Context(), digest, c.ClientIP)
	if err != nil {
		return call{}, err
	}
	if r.class != classTenant {
		return call{}, errNoSession
	}
	if !known.scopes.Allow(r.scope) {
		return call{}, errScope
	}
	return call{
		scopes: known.scopes,
		rules:  known.rules,
		limits: known.limits,
		key:    known.key.ID,
		view:   s.store.View(webhook.Scope{Tenant: known.key.TenantID}),
	}, nil
}

// authorizeApplication does the same for an application token: the signature says what it is, its
// session whether it still is. What no route says that application tokens may, they may not.
func (s *server) authorizeApplication(c *gin.Context, r route, token string) (call, error) {
	claims, err := s.tokens.Verify(token)
	if err != nil {
		return call{}, errToken
	}
	scope := webhook.Scope{Tenant: claims.Tenant, Application: claims.Application, FeatureFlags: claims.FeatureFlags}
	if err := s.sessions.check(c.Request.Context(), scope, claims.Session); err != nil {
		return call{}, err
	}
	if r.class != classApplication && !claims.Capabilities.Allow(r.capability) {
		return call{}, errCapability
	}
	return call{app: &claims, view: s.store.View(scope)}, nil
}

// bearer takes the token out of an Authorization header; the scheme's case does not matter.
func bearer(header string) (token string, ok bool) {
	const scheme = "bearer "
	if len(header) <= len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	return strings.TrimSpace(header[len(scheme):]), true
}
