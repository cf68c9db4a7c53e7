package api

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// keyLife is how long a key is believed without asking the database. A revocation holds everywhere
	// after it, and with the query it has to stay within a second.
	keyLife = 750 * time.Millisecond
	// maxKeys is how many keys are remembered, good and bad ones apart; over it, the memory is emptied and
	// filled anew.
	maxKeys = 10_000
	// badLife is how long a wrong key is known to be wrong: it cannot become right, so this only bounds
	// memory.
	badLife = time.Minute
	// askTimeout bounds the query for a key.
	askTimeout = 5 * time.Second
	// touchEvery is how exactly the last use of a key is kept.
	touchEvery = time.Minute
	// touchTimeout bounds what noting a last use may add to the one request a minute that does it.
	touchTimeout = 250 * time.Millisecond
)

// keyring finds the API key of a digest: from memory for as long as it is believed, else with one
// query however many requests wait for it.
type keyring struct {
	store  *store.Store
	log    *slog.Logger
	now    func() time.Time
	flight singleflight.Group
	guess  *guesses

	mu   sync.RWMutex
	keys map[[sha256.Size]byte]knownKey
	bad  map[[sha256.Size]byte]time.Time // when it was found to be wrong
}

// knownKey is what the database said about a digest. Keys that were good stay known after their time:
// their next question is not a guess.
type knownKey struct {
	key     webhook.APIKey
	rules   webhook.PublishRules // of the tenant, and as old as the key
	limits  webhook.Limits       // likewise
	scopes  auth.Scopes
	asked   time.Time
	touched time.Time
}

func newKeyring(s *store.Store, log *slog.Logger, now func() time.Time) *keyring {
	return &keyring{store: s, log: log, now: now, guess: newGuesses(now), keys: make(map[[sha256.Size]byte]knownKey), bad: make(map[[sha256.Size]byte]time.Time)}
}

// find answers with the key of a digest, KindUnauthorized if there is none that counts, or
// KindRateLimited when its source has asked for too many that do not: then nothing is queried.
func (k *keyring) find(ctx context.Context, digest [sha256.Size]byte, source func() string) (knownKey, error) {
	now := k.now()
	k.mu.RLock()
	known, ok := k.keys[digest]
	wrong, isWrong := k.bad[digest]
	k.mu.RUnlock()
	switch {
	case ok && now.Sub(known.asked) < keyLife:
		return known, k.valid(known)
	case isWrong && now.Sub(wrong) < badLife:
		return knownKey{}, errToken
	case !ok && !k.guess.allowed(source()):
		return knownKey{}, errGuesses
	}
	// Not the caller's context: others wait for the same answer, and its going away must not fail them.
	answer, err, _ := k.flight.Do(string(digest[:]), func() (any, error) {
		return k.ask(context.WithoutCancel(ctx), digest, known)
	})
	if err != nil {
		if !ok && webhook.KindOf(err) == webhook.KindUnauthorized {
			k.guess.missed(source())
		}
		return knownKey{}, err
	}
	known = answer.(knownKey)
	return known, k.valid(known)
}

func (k *keyring) ask(ctx context.Context, digest [sha256.Size]byte, before knownKey) (knownKey, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := k.now() // before the query: a revocation during it must count from here
	p, err := k.store.PrincipalByDigest(ctx, digest)
	if kind := webhook.KindOf(err); err != nil && (kind == webhook.KindUnauthorized || kind == webhook.KindNotFound) {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.keys, digest)
		if len(k.bad) >= maxKeys {
			clear(k.bad)
		}
		k.bad[digest] = asked
		return knownKey{}, errToken
	}
	if err != nil {
		return knownKey{}, err
	}
	scopes, err := auth.ParseScopes(p.Key.Scopes)
	if err != nil { // written by a newer version: what we do not understand allows nothing
		return knownKey{}, errToken
	}
	found := knownKey{key: p.Key, rules: p.Rules, limits: p.Limits, scopes: scopes, asked: asked, touched: before.touched}
	if asked.Sub(found.touched) >= touchEvery {
		found.touched = asked
		k.touch(ctx, p.Key.ID, asked)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.keys) >= maxKeys {
		clear(k.keys)
	}
	k.keys[digest] = found
	return found, nil
}

// touch notes that a key is in use; that it could not be noted stops nobody.
func (k *keyring) touch(ctx context.Context, id webhook.APIKeyID, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	if err := k.store.TouchAPIKeys(ctx, map[webhook.APIKeyID]time.Time{id: at}); err != nil {
		k.log.WarnContext(ctx, "last use of API key not noted", "key", id, "error", err)
	}
}

func (k *keyring) valid(known knownKey) error {
	if known.key.ExpiresAt != nil && !k.now().Before(*known.key.ExpiresAt) {
		return errToken
	}
	return nil
}
