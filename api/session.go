package api

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// maxSessions is how many portal sessions are remembered; over it, the memory is emptied and filled anew.
const maxSessions = 10_000

// sessions says whether portal sessions count: from memory for as long as an API key would be believed,
// else with one query however many requests wait for it. Only who holds a token that we signed can ask,
// so guesses need no counting.
type sessions struct {
	store  *store.Store
	now    func() time.Time
	flight singleflight.Group

	mu    sync.RWMutex
	known map[sessionKey]knownSession
}

// sessionKey has the tenant and application too: a session counts for no other than its own.
type sessionKey struct {
	tenant  webhook.TenantID
	app     webhook.ApplicationID
	session webhook.PortalSessionID
}

// knownSession is what the database said.
type knownSession struct {
	asked time.Time
	ended bool
}

func newSessions(s *store.Store, now func() time.Time) *sessions {
	return &sessions{store: s, now: now, known: make(map[sessionKey]knownSession)}
}

// check is nil while the session counts, and KindUnauthorized from a second after it ended.
func (k *sessions) check(ctx context.Context, scope webhook.Scope, id webhook.PortalSessionID) error {
	key := sessionKey{scope.Tenant, scope.Application, id}
	k.mu.RLock()
	known, ok := k.known[key]
	k.mu.RUnlock()
	if ok && known.ended { // which it stays
		return errToken
	}
	if ok && k.now().Sub(known.asked) < keyLife {
		return nil
	}
	flight := string(key.tenant[:]) + string(key.app[:]) + string(key.session[:])
	// Not the caller's context: others wait for the same answer, and its going away must not fail them.
	_, err, _ := k.flight.Do(flight, func() (any, error) {
		return nil, k.ask(context.WithoutCancel(ctx), scope, key)
	})
	return err
}

func (k *sessions) ask(ctx context.Context, scope webhook.Scope, key sessionKey) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := k.now() // before the query: a revocation during it must count from here
	_, err := k.store.PortalSession(ctx, scope, key.session)
	ended := webhook.KindOf(err) == webhook.KindUnauthorized
	if err != nil && !ended {
		return err
	}
	k.remember(key, knownSession{asked, ended})
	if ended {
		return errToken
	}
	return nil
}

// end remembers that a session has ended, so that this process refuses it at once.
func (k *sessions) end(scope webhook.Scope, id webhook.PortalSessionID) {
	k.remember(sessionKey{scope.Tenant, scope.Application, id}, knownSession{k.now(), true})
}

func (k *sessions) remember(key sessionKey, s knownSession) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, is := k.known[key]
	if !is && len(k.known) >= maxSessions {
		clear(k.known)
	}
	s.ended = s.ended || before.ended // by an answer that is younger than one that took its time
	k.known[key] = s
}
