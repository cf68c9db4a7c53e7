package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

// MaxAppToken is the longest application token in bytes. What is longer is refused before anything of
// it is decoded.
const MaxAppToken = 4096

const (
	// appTokenIssuer and appTokenAudience keep tokens apart that other uses of the same key may sign one
	// day. The issuer is not the public URL: that may change, and nobody is to be logged out by it.
	appTokenIssuer   = "posthaste"
	appTokenAudience = "application"
	// appTokenLeeway is how far the clocks of two processes may differ.
	appTokenLeeway = 30 * time.Second
	// appTokenPurpose names the signing key among those made from a master key.
	appTokenPurpose = "application-token"
)

// Errors of AppTokens.
var (
	// ErrBadAppToken does not say what is wrong: who made the token up should learn nothing.
	ErrBadAppToken  = errors.New("not an application token")
	ErrLongAppToken = fmt.Errorf("an application token would be longer than %d bytes", MaxAppToken)
)

// AppClaims is what an application token says. It says it truthfully, but may have been revoked: that
// is for its session to tell.
type AppClaims struct {
	Tenant       webhook.TenantID
	Application  webhook.ApplicationID
	Session      webhook.PortalSessionID
	Capabilities Capabilities
	FeatureFlags []string // event types with none of them, but with others, are hidden
	IssuedAt     time.Time
	ExpiresAt    time.Time
}

// AppTokens makes application tokens and tells real ones from others: JWTs signed with Ed25519, and no
// other algorithm, under keys derived from the operator's master keys. The primary signs, all verify,
// so that tokens outlive a rotation for as long as the old master key is listed. It is safe for
// concurrent use.
type AppTokens struct {
	primary string // id of the key that signs
	signing ed25519.PrivateKey
	keys    map[string]ed25519.PublicKey // by id
	parser  *jwt.Parser
}

// NewAppTokens derives the keys. now is the clock that expiry goes by.
func NewAppTokens(keyset *seal.Keyset, now func() time.Time) (*AppTokens, error) {
	t := &AppTokens{keys: map[string]ed25519.PublicKey{}}
	err := keyset.Derive(appTokenPurpose, func(id string, seed []byte) {
		key := ed25519.NewKeyFromSeed(seed)
		if t.signing == nil {
			t.primary, t.signing = id, key
		}
		t.keys[id] = key.Public().(ed25519.PublicKey)
	})
	if err != nil {
		return nil, fmt.Errorf("application tokens: %w", err)
	}
	t.parser = jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithAudience(appTokenAudience), jwt.WithIssuer(appTokenIssuer),
		jwt.WithLeeway(appTokenLeeway), jwt.WithTimeFunc(now),
	)
	return t, nil
}

// appTokenJSON is the payload of a token.
type appTokenJSON struct {
	jwt.RegisteredClaims          // sub is the application
	Tenant               string   `json:"org"`
	Session              string   `json:"sid"`
	Capabilities         []string `json:"capabilities"`
	FeatureFlags         []string `json:"featureFlags,omitempty"`
}

// Mint signs a token. Times are kept in whole seconds. ErrLongAppToken says that what it is to say
// does not fit.
func (t *AppTokens) Mint(c AppClaims) (webhook.Secret, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, appTokenJSON{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: appTokenIssuer, Audience: jwt.ClaimStrings{appTokenAudience}, Subject: c.Application.String(),
			IssuedAt: jwt.NewNumericDate(c.IssuedAt), ExpiresAt: jwt.NewNumericDate(c.ExpiresAt),
		},
		Tenant: c.Tenant.String(), Session: c.Session.String(), Capabilities: c.Capabilities.Names(), FeatureFlags: c.FeatureFlags,
	})
	token.Header["kid"] = t.primary
	text, err := token.SignedString(t.signing)
	if err != nil {
		return webhook.Secret{}, fmt.Errorf("sign application token: %w", err)
	}
	if len(text) > MaxAppToken {
		return webhook.Secret{}, ErrLongAppToken
	}
	return webhook.NewSecret(text), nil
}

// Verify reads a token that Mint made and whose time has not passed; anything else is ErrBadAppToken.
func (t *AppTokens) Verify(text string) (AppClaims, error) {
	if len(text) > MaxAppToken {
		return AppClaims{}, ErrBadAppToken
	}
	var in appTokenJSON
	if _, err := t.parser.ParseWithClaims(text, &in, t.key); err != nil {
		return AppClaims{}, ErrBadAppToken
	}
	tenant, err1 := webhook.ParseID[webhook.TenantID](in.Tenant)
	app, err2 := webhook.ParseID[webhook.ApplicationID](in.Subject)
	session, err3 := webhook.ParseID[webhook.PortalSessionID](in.Session)
	if errors.Join(err1, err2, err3) != nil || in.IssuedAt == nil {
		return AppClaims{}, ErrBadAppToken
	}
	c := AppClaims{
		Tenant: tenant, Application: app, Session: session, FeatureFlags: in.FeatureFlags,
		IssuedAt: in.IssuedAt.Time, ExpiresAt: in.ExpiresAt.Time,
	}
	for _, name := range in.Capabilities {
		c.Capabilities |= Capability(name).bit() // one of a newer version, which is unknown here, allows nothing
	}
	return c, nil
}

// key finds the key that a token names. A header may say nothing but what Mint writes: parameters that
// bring a key along or point to one (jwk, jku, x5u) or must be understood (crit) have no place in it.
func (t *AppTokens) key(token *jwt.Token) (any, error) {
	for name := range token.Header {
		if name != "alg" && name != "typ" && name != "kid" {
			return nil, ErrBadAppToken
		}
	}
	id, _ := token.Header["kid"].(string)
	key, known := t.keys[id]
	if !known {
		return nil, ErrBadAppToken
	}
	return key, nil
}
