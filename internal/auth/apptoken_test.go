package auth_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

func masterKey() string {
	key := make([]byte, seal.KeySize)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

func keyset(t testing.TB, text string) *seal.Keyset {
	t.Helper()
	keys, err := seal.ParseKeyset(text)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func appTokens(t testing.TB, keys *seal.Keyset, now func() time.Time) *auth.AppTokens {
	t.Helper()
	tokens, err := auth.NewAppTokens(keys, now)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

func mint(t testing.TB, tokens *auth.AppTokens, c auth.AppClaims) string {
	t.Helper()
	text, err := tokens.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%v %+v %s", text, text, text) != "*** *** ***" {
		t.Fatal("the token prints itself")
	}
	return text.Reveal()
}

var tokenTime = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func someClaims() auth.AppClaims {
	return auth.AppClaims{
		Tenant: webhook.NewTenantID(), Application: webhook.NewApplicationID(), Session: webhook.NewSessionID(),
		Capabilities: auth.CapabilitiesOf(auth.ViewBase, auth.ManageEndpoint), FeatureFlags: []string{"beta"},
		IssuedAt: tokenTime, ExpiresAt: tokenTime.Add(time.Hour),
	}
}

func TestAppTokenSaysWhatWasMinted(t *testing.T) {
	t.Parallel()
	tokens := appTokens(t, keyset(t, masterKey()), func() time.Time { return tokenTime })
	want := someClaims()
	got, err := tokens.Verify(mint(t, tokens, want))
	if err != nil {
		t.Fatal(err)
	}
	if !got.IssuedAt.Equal(want.IssuedAt) || !got.ExpiresAt.Equal(want.ExpiresAt) {
		t.Error(got.IssuedAt, got.ExpiresAt)
	}
	if got.Tenant != want.Tenant || got.Application != want.Application || got.Session != want.Session ||
		got.Capabilities != want.Capabilities || !slices.Equal(got.FeatureFlags, want.FeatureFlags) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// forger can write any header and claims, under any key.
type forger struct {
	header map[string]any
	claims map[string]any
}

func (f forger) sign(t testing.TB, method jwt.SigningMethod, key any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims(f.claims))
	maps.Copy(token.Header, f.header)
	for name, value := range f.header {
		if value == nil {
			delete(token.Header, name)
		}
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Every rule by itself: each token breaks one, and is otherwise signed with the right key.
func TestAppTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	master := masterKey()
	keys := keyset(t, master)
	var real ed25519.PrivateKey
	if err := keys.Derive("application-token", func(_ string, seed []byte) { real = ed25519.NewKeyFromSeed(seed) }); err != nil {
		t.Fatal(err)
	}
	tokens := appTokens(t, keys, func() time.Time { return tokenTime })
	good := someClaims()
	text := mint(t, tokens, good)
	parts := strings.Split(text, ".")
	_, foreign, _ := ed25519.GenerateKey(rand.Reader)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(edit func(forger)) forger {
		f := forger{
			header: map[string]any{"kid": keys.PrimaryID()},
			claims: map[string]any{
				"iss": "posthaste", "aud": []string{"application"}, "sub": good.Application.String(), "org": good.Tenant.String(),
				"sid": good.Session.String(), "iat": tokenTime.Unix(), "exp": tokenTime.Add(time.Hour).Unix(), "capabilities": []string{"ViewBase"},
			},
		}
		edit(f)
		return f
	}
	eddsa := func(edit func(forger)) string { return forge(edit).sign(t, jwt.SigningMethodEdDSA, real) }
	nothing := func(forger) {}
	if _, err := tokens.Verify(eddsa(nothing)); err != nil {
		t.Fatal("the forger's own token must be good, or nothing below proves anything", err)
	}
	claim := func(name string, value any) string {
		return eddsa(func(f forger) {
			if f.claims[name] = value; value == nil {
				delete(f.claims, name)
			}
		})
	}
	head := func(name string, value any) string { return eddsa(func(f forger) { f.header[name] = value }) }
	second := tokenTime.Unix()
	const leeway = 30
	flipped := []byte(parts[2])
	flipped[10] ^= 1
	other, _ := json.Marshal(map[string]any{"iss": "posthaste"})
	for what, token := range map[string]string{
		"empty": "", "one part": "x", "two parts": parts[0] + "." + parts[1], "four parts": text + ".x", "only dots": "..",
		"empty parts": parts[0] + ".." + parts[2], "no signature": parts[0] + "." + parts[1] + ".", "dots": strings.Repeat(".", 4000),
		"spaces": " " + text, "a line break": text[:20] + "\n" + text[20:], "padding": text + "==", "not base64": parts[0] + ".!." + parts[2],
		"another signature":        parts[0] + "." + parts[1] + "." + string(flipped),
		"other claims":             parts[0] + "." + base64.RawURLEncoding.EncodeToString(other) + "." + parts[2],
		"not JSON":                 parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("{")) + "." + parts[2],
		"a foreign key":            forge(nothing).sign(t, jwt.SigningMethodEdDSA, foreign),
		"no algorithm":             forge(nothing).sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"HMAC with the public key": forge(nothing).sign(t, jwt.SigningMethodHS256, []byte(real.Public().(ed25519.PublicKey))),
		"RSA":                      forge(nothing).sign(t, jwt.SigningMethodRS256, rsaKey),
		"alg in another case":      head("alg", "eddsa"), "alg none": head("alg", "none"), "alg a number": head("alg", 1),
		"no key id": head("kid", nil), "another key id": head("kid", "other"), "key id a number": head("kid", 1),
		"key id a path": head("kid", "../../dev/null"), "key id a list": head("kid", []string{keys.PrimaryID()}),
		"jku": head("jku", "https://evil.example/jwks"), "jwk": head("jwk", map[string]any{"kty": "OKP"}), "x5u": head("x5u", "https://evil.example/"),
		"x5c": head("x5c", []string{"x"}), "crit": head("crit", []string{"exp"}), "b64": head("b64", false),
		"no expiry": claim("exp", nil), "expired": claim("exp", second-leeway), "expiry a text": claim("exp", "tomorrow"), "expiry null": claim("exp", json.RawMessage("null")),
		"expiry beyond numbers": claim("exp", json.RawMessage("1e999")), "expiry 0": claim("exp", 0), "expiry negative": claim("exp", -1),
		"made in the future": claim("iat", second+leeway+1), "no time": claim("iat", nil),
		"not yet": claim("nbf", second+leeway+1), "no audience": claim("aud", nil), "another audience": claim("aud", "operator"), "audience empty": claim("aud", []string{}),
		"no issuer": claim("iss", nil), "another issuer": claim("iss", "posthaste2"), "issuer a list": claim("iss", []string{"posthaste"}),
		"no application": claim("sub", nil), "an endpoint as application": claim("sub", webhook.NewEndpointID().String()),
		"no tenant": claim("org", nil), "no session": claim("sid", nil), "a mistyped session": claim("sid", "ps_"+strings.Repeat("0", 27)),
		"too long": claim("x", strings.Repeat("x", auth.MaxAppToken)),
	} {
		if got, err := tokens.Verify(token); !errors.Is(err, auth.ErrBadAppToken) || got.Session == good.Session {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	for what, token := range map[string]string{
		"expired within the leeway": claim("exp", second-leeway+1), "made within the leeway": claim("iat", second+leeway),
		"a capability of a newer version": claim("capabilities", []string{"ViewBase", "Fly"}), "audience a text": claim("aud", "application"),
		"no type": head("typ", nil),
	} {
		if got, err := tokens.Verify(token); err != nil || got.Capabilities != auth.CapabilitiesOf(auth.ViewBase) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func TestAppTokenLength(t *testing.T) {
	t.Parallel()
	tokens := appTokens(t, keyset(t, masterKey()), func() time.Time { return tokenTime })
	c := someClaims()
	c.Capabilities = auth.CapabilitiesOf(auth.AllCapabilities...)
	// As long as the limits on flags let it be.
	c.FeatureFlags = nil
	for range webhook.MaxFeatureFlags {
		c.FeatureFlags = append(c.FeatureFlags, strings.Repeat("f", webhook.MaxTokenFlags/webhook.MaxFeatureFlags))
	}
	text := mint(t, tokens, c)
	if _, err := tokens.Verify(text); err != nil {
		t.Fatal(len(text), err)
	}
	c.FeatureFlags = []string{strings.Repeat("f", auth.MaxAppToken)}
	if _, err := tokens.Mint(c); !errors.Is(err, auth.ErrLongAppToken) {
		t.Fatal(err)
	}
}

// While a master key is being replaced, every process takes what any other signed; once the old one is
// gone, so are its tokens.
func TestAppTokensOutliveARotation(t *testing.T) {
	t.Parallel()
	now := func() time.Time { return tokenTime }
	first, second := masterKey(), masterKey()
	before := appTokens(t, keyset(t, first), now)
	rolling := appTokens(t, keyset(t, first+","+second), now)
	during := appTokens(t, keyset(t, second+","+first), now)
	after := appTokens(t, keyset(t, second), now)
	old, young := mint(t, before, someClaims()), mint(t, during, someClaims())
	for _, c := range []struct {
		tokens *auth.AppTokens
		text   string
		ok     bool
	}{
		{before, old, true}, {rolling, old, true}, {during, old, true}, {after, old, false},
		{before, young, false}, {rolling, young, true}, {during, young, true}, {after, young, true},
	} {
		if _, err := c.tokens.Verify(c.text); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.ok, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for i, c := range auth.AllCapabilities {
		set := auth.CapabilitiesOf(c)
		for j, other := range auth.AllCapabilities {
			if set.Allow(other) != (i == j) {
				t.Errorf("%s allows %s: %t", c, other, i != j)
			}
		}
		back, err := auth.ParseCapabilities([]string{string(c), string(c)})
		if err != nil || back != set || !slices.Equal(back.Names(), []string{string(c)}) {
			t.Error(c, back.Names(), err)
		}
	}
	all := auth.CapabilitiesOf(auth.AllCapabilities...)
	for _, no := range []auth.Capability{"", "viewbase", "ViewBase ", "Fly"} {
		if all.Allow(no) {
			t.Errorf("%q is allowed", no)
		}
		if _, err := auth.ParseCapabilities([]string{string(no)}); err == nil {
			t.Errorf("%q is parsed", no)
		}
	}
	if none, err := auth.ParseCapabilities(nil); err != nil || none != 0 || none.Names() == nil || none.Allow(auth.ViewBase) {
		t.Error(none, err)
	}
}

func FuzzAppToken(f *testing.F) {
	sum := sha256.Sum256([]byte("a key for fuzzing"))
	keys := keyset(f, base64.StdEncoding.EncodeToString(sum[:]))
	tokens := appTokens(f, keys, func() time.Time { return tokenTime })
	c := someClaims()
	// The same in each of the processes that fuzz: one must not take another's token for a forgery.
	c.Tenant, c.Application, c.Session = webhook.TenantID{1}, webhook.ApplicationID{2}, webhook.PortalSessionID{3}
	text := mint(f, tokens, c)
	f.Add(text)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add(strings.Replace(text, ".", "..", 1))
	f.Fuzz(func(t *testing.T, given string) {
		if _, err := tokens.Verify(given); err == nil && given != text {
			t.Errorf("%q is taken", given)
		}
	})
}
