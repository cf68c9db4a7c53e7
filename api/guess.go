package api

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// guessBurst different wrong keys in a row are looked up from one address, then one per guessEvery.
	// Behind a proxy that is not said to be trusted, everybody is one address: the rate is one that
	// Postgres does not feel and that still lets a newcomer in.
	guessBurst = 100
	guessEvery = 100 * time.Millisecond
	// maxSources bounds the memory of who guessed; over it, everybody starts anew.
	maxSources = 10_000
)

// guesses bounds how many wrong API keys one address can have looked up. Keys that were valid before
// are not counted, so a guesser behind a shared address does not lock out its neighbours.
type guesses struct {
	now func() time.Time
	mu  sync.Mutex
	by  map[string]time.Time // when the address will have no guess on its account
}

func newGuesses(now func() time.Time) *guesses {
	return &guesses{now: now, by: make(map[string]time.Time)}
}

// allowed reports whether another unknown key of this source may be looked up.
func (g *guesses) allowed(source string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.by[network(source)].Sub(g.now()) < guessBurst*guessEvery
}

// missed counts a key that turned out wrong.
func (g *guesses) missed(source string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.by) >= maxSources {
		clear(g.by)
	}
	from, now := network(source), g.now()
	until := g.by[from]
	if until.Before(now) {
		until = now
	}
	g.by[from] = until.Add(guessEvery)
}

// ownPrefix is how much of an IPv6 address its owner cannot choose.
const ownPrefix = 64

// network is what of an address one party cannot change at will.
func network(source string) string {
	addr, err := netip.ParseAddr(source)
	if err != nil || addr.Unmap().Is4() {
		return source
	}
	prefix, err := addr.WithZone("").Prefix(ownPrefix)
	if err != nil {
		return source
	}
	return prefix.String()
}
