package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/webhook"
)

// sessionLabel is the tenant's own name for a session.
type sessionLabel string

const labelAlphabet = "@_-"

// Schema is a name's, with the @ of mail addresses.
func (sessionLabel) Schema(huma.Registry) *huma.Schema {
	return textSchema(labelAlphabet, webhook.MaxSessionLabel, "A name of your own for the session, for instance of whoever uses it.")
}

// capabilityName is one capability.
type capabilityName string

// Schema lists the capabilities.
func (capabilityName) Schema(huma.Registry) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString}
	for _, c := range auth.AllCapabilities {
		s.Enum = append(s.Enum, string(c))
	}
	s.PrecomputeMessages()
	return s
}

type portalAccessIn struct {
	Application  applicationInline `json:"application,omitempty" nullable:"true" doc:"Creates the application if there is none; its uid must be the one in the path."`
	Capabilities []capabilityName  `json:"capabilities,omitempty" nullable:"true" doc:"What the token may do; all if absent or null."`
	Expiry       *int              `json:"expiry,omitempty" nullable:"true" minimum:"3600" maximum:"604800" doc:"How long the token is good for, in seconds; 7 days if absent."`
	FeatureFlags []flagName        `json:"featureFlags,omitempty" nullable:"true" maxItems:"25" doc:"Event types with feature flags, but none of these, are hidden."`
	ReadOnly     *bool             `json:"readOnly,omitempty" nullable:"true" deprecated:"true" doc:"True: of the capabilities, ViewBase alone is left."`
	SessionID    *sessionLabel     `json:"sessionId,omitempty" nullable:"true"`
}

type portalAccessOut struct {
	URL   string `json:"url" doc:"Where your customer's browser is to go; the token is in its fragment."`
	Token string `json:"token" doc:"A bearer token for this API, shown only here."`
}

type sessionsExpireIn struct {
	Expiry     *int           `json:"expiry,omitempty" nullable:"true" minimum:"0" maximum:"259200" doc:"In how many seconds; at once if absent. A token's life is never lengthened."`
	SessionIDs []sessionLabel `json:"sessionIds,omitempty" nullable:"true" maxItems:"1000" doc:"Only tokens that were made with one of these; every token if absent or empty."`
}

// claims is what the token is to say, but for whose it is.
func (in portalAccessIn) claims(now time.Time) (auth.AppClaims, error) {
	c := auth.AppClaims{
		Session: webhook.NewSessionID(), Capabilities: auth.CapabilitiesOf(auth.AllCapabilities...), FeatureFlags: plain(in.FeatureFlags),
		IssuedAt: now, ExpiresAt: now.Add(webhook.MaxSessionLife),
	}
	if in.Capabilities != nil {
		var err error
		if c.Capabilities, err = auth.ParseCapabilities(plain(in.Capabilities)); err != nil {
			return c, webhook.Invalid("capabilities", "%s", err)
		}
	}
	if orZero(in.ReadOnly) {
		c.Capabilities &= auth.CapabilitiesOf(auth.ViewBase)
	}
	if in.Expiry != nil {
		c.ExpiresAt = now.Add(time.Duration(*in.Expiry) * time.Second)
	}
	length := 0
	for _, flag := range c.FeatureFlags {
		length += len(flag)
	}
	if length > webhook.MaxTokenFlags {
		return c, webhook.Invalid("featureFlags", "must be at most %d bytes together", webhook.MaxTokenFlags)
	}
	return c, nil
}

func (s *server) portalAccess(ctx context.Context, who call, in struct {
	applicationPath
	Body portalAccessIn
}) (int, portalAccessOut, error) {
	claims, err := in.Body.claims(s.now())
	if err != nil {
		return 0, portalAccessOut{}, err
	}
	app, err := who.view.Application(ctx, in.App)
	if errors.Is(err, webhook.ErrNotFound) && in.Body.Application != nil {
		if err = s.applicationInline(ctx, who, in.App, in.Body.Application); err == nil {
			app, err = who.view.Application(ctx, in.App)
		}
	}
	if err != nil {
		return 0, portalAccessOut{}, err
	}
	claims.Tenant, claims.Application = app.TenantID, app.ID
	token, err := s.tokens.Mint(claims)
	if err != nil {
		return 0, portalAccessOut{}, err
	}
	_, err = who.view.CreatePortalSession(ctx, webhook.PortalSession{
		ApplicationID: app.ID, ID: claims.Session, Label: string(orZero(in.Body.SessionID)), ExpiresAt: claims.ExpiresAt,
	})
	if err != nil {
		return 0, portalAccessOut{}, err
	}
	url, err := s.loginURL(app.ID, token)
	return http.StatusOK, portalAccessOut{URL: url, Token: token.Reveal()}, err
}

// dashboardAccess is what portalAccess was called before it had a body.
func (s *server) dashboardAccess(ctx context.Context, who call, in applicationPath) (int, portalAccessOut, error) {
	return s.portalAccess(ctx, who, struct {
		applicationPath
		Body portalAccessIn
	}{applicationPath: in})
}

// loginURL is where the token is to be taken. It travels in the fragment, which browsers send to no
// server, so that it gets into nobody's log.
func (s *server) loginURL(app webhook.ApplicationID, token webhook.Secret) (string, error) {
	key, err := json.Marshal(map[string]string{"appId": app.String(), "token": token.Reveal()})
	if err != nil {
		return "", fmt.Errorf("encode login key: %w", err)
	}
	return s.publicURL + "/login#key=" + base64.StdEncoding.EncodeToString(key), nil
}

func (s *server) sessionsExpire(ctx context.Context, who call, in struct {
	applicationPath
	Body sessionsExpireIn
}) (int, none, error) {
	after := time.Duration(orZero(in.Body.Expiry)) * time.Second
	return http.StatusNoContent, none{}, who.view.ExpirePortalSessions(ctx, in.App, plain(in.Body.SessionIDs), after)
}

func (s *server) logout(ctx context.Context, who call, _ struct{}) (int, none, error) {
	if err := who.view.EndPortalSession(ctx, who.app.Session); err != nil {
		return 0, none{}, err
	}
	s.sessions.end(who.view.Scope(), who.app.Session)
	return http.StatusNoContent, none{}, nil
}
