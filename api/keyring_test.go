package api

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func jsonLog(to *logBuffer) *slog.Logger { return slog.New(slog.NewJSONHandler(to, nil)) }

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func from(source string) func() string { return func() string { return source } }

func testKeyring(t *testing.T, s *store.Store) (*keyring, *clock) {
	c := &clock{at: time.Now()}
	return newKeyring(s, jsonLog(&logBuffer{}), c.now), c
}

func TestRevokedKeyIsRefusedWithinASecond(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	k, clock := testKeyring(t, s)
	text, digest, _ := auth.NewAPIKey()
	tenant := storetest.Tenant(t, s)
	key := storetest.APIKey(t, s, tenant.ID, text.Reveal(), "read")
	if _, err := k.find(t.Context(), digest, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	if err := s.ExpireAPIKey(t.Context(), tenant.ID.String(), key.ID.String(), time.Now()); err != nil {
		t.Fatal(err)
	}
	clock.add(keyLife - time.Millisecond)
	if _, err := k.find(t.Context(), digest, from("192.0.2.1")); err != nil {
		t.Fatal("believed for as long as said", err)
	}
	clock.add(time.Millisecond)
	if _, err := k.find(t.Context(), digest, from("192.0.2.1")); webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Fatal("a revoked key is let in", err)
	}
	if keyLife >= time.Second {
		t.Fatal("revocation takes longer than a second")
	}
}

func TestRevocationHoldsOverHTTP(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant("read")
	a.get("/app").want(200)
	keys := r.do("GET", tenantsPath+"/"+a.id.String()+"/api-key", operatorToken, nil).want(200)
	r.do("POST", tenantsPath+"/"+a.id.String()+"/api-key/"+listed(keys, "id")[0]+"/expire", operatorToken, nil).want(204)
	start := time.Now()
	for a.get("/app").status == 200 {
		if time.Since(start) > time.Second {
			t.Fatal("still let in after a second")
		}
	}
}

func TestKeyExpiresWhileItIsRemembered(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	k, clock := testKeyring(t, s)
	text, digest, _ := auth.NewAPIKey()
	end := clock.now().Add(time.Hour)
	_, _, err := s.CreateAPIKey(t.Context(), storetest.Tenant(t, s).ID.String(), webhook.APIKey{
		Name: "k", Hint: text.Reveal()[:8], Digest: digest[:], Scopes: []string{"read"}, ExpiresAt: &end,
	})
	if err != nil {
		t.Fatal(err)
	}
	clock.add(time.Hour - keyLife/2)
	if _, err := k.find(t.Context(), digest, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	clock.add(keyLife / 2)
	if _, err := k.find(t.Context(), digest, from("192.0.2.1")); webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Fatal(err)
	}
}

// Guessing costs its address, not the database, and not those who share the address.
func TestGuessesAreBounded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	k, clock := testKeyring(t, s)
	text, good, _ := auth.NewAPIKey()
	storetest.APIKey(t, s, storetest.Tenant(t, s).ID, text.Reveal(), "read")
	if _, err := k.find(t.Context(), good, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	guess := func(source string) webhook.Kind {
		_, digest, _ := auth.NewAPIKey()
		_, err := k.find(t.Context(), digest, from(source))
		return webhook.KindOf(err)
	}
	for i := range guessBurst {
		if kind := guess("192.0.2.1"); kind != webhook.KindUnauthorized {
			t.Fatal(i, kind)
		}
	}
	k.store = nil // whoever asks the database now, panics
	for range 10_000 {
		if kind := guess("192.0.2.1"); kind != webhook.KindRateLimited {
			t.Fatal(kind)
		}
	}
	k.store = s
	clock.add(keyLife)
	if _, err := k.find(t.Context(), good, from("192.0.2.1")); err != nil {
		t.Fatal("the neighbour of a guesser is locked out", err)
	}
	if kind := guess("192.0.2.2"); kind != webhook.KindUnauthorized {
		t.Fatal("another address is locked out", kind)
	}
	clock.add(guessEvery)
	if kind := guess("192.0.2.1"); kind != webhook.KindUnauthorized {
		t.Fatal("a guess is never given back", kind)
	}
}

// One wrong key, however often it comes, is looked up once and is no guess at others.
func TestWrongKeyIsLookedUpOnce(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	k, clock := testKeyring(t, s)
	_, digest, _ := auth.NewAPIKey()
	for i := range 10 * guessBurst {
		if _, err := k.find(t.Context(), digest, from("192.0.2.1")); webhook.KindOf(err) != webhook.KindUnauthorized {
			t.Fatal(i, err)
		}
		k.store = nil // whoever asks the database now, panics
	}
	k.store = s
	clock.add(badLife)
	if _, err := k.find(t.Context(), digest, from("192.0.2.1")); webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Fatal(err)
	}
}

func TestAddressesOfOneNetworkCountTogether(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ a, b string }{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff::9"}, {"fe80::1%eth0", "fe80::2%eth1"},
	} {
		if network(c.a) != network(c.b) {
			t.Error(c)
		}
	}
	for _, c := range []struct{ a, b string }{{"192.0.2.1", "192.0.2.2"}, {"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"x", "y"}} {
		if network(c.a) == network(c.b) {
			t.Error(c)
		}
	}
}

func TestMemoryOfKeysAndGuessersIsBounded(t *testing.T) {
	t.Parallel()
	g := newGuesses(time.Now)
	for i := range maxSources + 10 {
		g.missed(fmt.Sprintf("source-%d", i))
	}
	if len(g.by) > maxSources {
		t.Fatal(len(g.by))
	}
}

func TestOneQueryHoweverManyAsk(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	k, _ := testKeyring(t, s)
	text, digest, _ := auth.NewAPIKey()
	storetest.APIKey(t, s, storetest.Tenant(t, s).ID, text.Reveal(), "read", "send")
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			known, err := k.find(t.Context(), digest, from("192.0.2.1"))
			if err != nil || !known.scopes.Allow(auth.Send) || known.scopes.Allow(auth.Write) {
				t.Error(known.scopes, err)
			}
		})
	}
	all.Wait()
}

func TestLastUseIsKept(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant()
	a.get("/app").want(200)
	keys := r.do("GET", tenantsPath+"/"+a.id.String()+"/api-key", operatorToken, nil).want(200)
	if used := keys.fields()["data"].([]any)[0].(obj)["lastUsedAt"]; used == nil {
		t.Fatalf("%s", keys.body)
	}
	if strings.Contains(string(keys.body), a.key) {
		t.Fatal("a list shows a key")
	}
}
