package egress

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Limits of kept connections.
const (
	idleTimeout = 30 * time.Second
	// A busy connection is never idle, so without a limit it would go on to an address that the name left
	// long ago.
	maxConnAge = 5 * time.Minute
	// By up to so much a connection retires earlier, so that those that were made together do not all have
	// to be made anew at once.
	ageSpread    = maxConnAge / 10
	maxIdleConns = 4096 // to all hosts
)

// pool keeps connections. The last one that became idle is used first, so that as few as are needed
// stay.
type pool struct {
	perHost     int // connections to one host, also those being made; 0 = no limit
	idlePerHost int
	idleTotal   int

	mu             sync.Mutex
	hosts          map[origin]*host
	oldest, newest *conn // idle ones, by when they became so
	idle           int
	generation     uint64 // connections of an earlier one are not kept
	closed         bool
	sweeper        *time.Timer // nil while nothing is idle
	sweeps         sync.WaitGroup
}

// host is what a pool knows of an origin that it has connections to.
type host struct {
	at      origin
	conns   int     // open or being made
	idle    []*conn // the last is used first
	waiting []chan *conn
}

func newPool(perHost, idlePerHost int) *pool {
	return &pool{perHost: perHost, idlePerHost: idlePerHost, idleTotal: max(maxIdleConns, idlePerHost), hosts: make(map[origin]*host)}
}

// take gives a kept connection, or nil if the caller is to make one; then, or if it is of no use, the
// caller must say so by add, put or drop. Over the limit per host it waits for either.
func (p *pool) take(ctx context.Context, to origin, deadline, now time.Time) (*conn, error) {
	p.mu.Lock()
	h := p.hosts[to]
	if h == nil {
		h = &host{at: to}
		p.hosts[to] = h
	}
	for len(h.idle) > 0 {
		c := h.idle[len(h.idle)-1]
		p.unlist(c)
		if now.Before(c.retires) {
			p.mu.Unlock()
			return c, nil
		}
		h.conns--
		defer func() { _ = c.Close() }() // without the lock
	}
	if p.perHost == 0 || h.conns < p.perHost {
		h.conns++
		p.mu.Unlock()
		return nil, nil
	}
	turn := make(chan *conn, 1)
	h.waiting = append(h.waiting, turn)
	p.mu.Unlock()
	return p.await(ctx, h, turn, deadline)
}

// await waits for a turn that put or drop gives.
func (p *pool) await(ctx context.Context, h *host, turn chan *conn, deadline time.Time) (*conn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case c := <-turn:
		return c, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	if at := slices.Index(h.waiting, turn); at >= 0 {
		h.waiting = slices.Delete(h.waiting, at, at+1)
	}
	p.mu.Unlock()
	select {
	case c := <-turn: // given meanwhile, so it is passed on
		if c != nil {
			p.put(c, time.Now())
		} else {
			p.drop(h.at)
		}
	default:
	}
	return nil, ctx.Err()
}

// add takes in a connection that was made because take gave none. Its maker has it.
func (p *pool) add(c *conn, to origin, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.host, c.generation = p.hosts[to], p.generation
	c.retires = now.Add(maxConnAge - rand.N(ageSpread))
}

// put gives back a connection on which another request may follow.
func (p *pool) put(c *conn, now time.Time) {
	p.mu.Lock()
	h := c.host
	var surplus *conn
	switch {
	case p.closed, c.generation != p.generation, !now.Before(c.retires), len(h.waiting) == 0 && len(h.idle) >= p.idlePerHost:
		p.mu.Unlock()
		_ = c.Close()
		p.drop(h.at)
		return
	case len(h.waiting) > 0:
		h.waiting[0] <- c
		h.waiting = slices.Delete(h.waiting, 0, 1)
	default:
		if p.idle >= p.idleTotal {
			surplus = p.oldest
			p.evict(surplus)
		}
		p.list(c, now)
	}
	p.mu.Unlock()
	if surplus != nil {
		_ = surplus.Close()
	}
}

// drop says that a connection is closed, or could not be made.
func (p *pool) drop(to origin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[to]
	if len(h.waiting) > 0 {
		h.waiting[0] <- nil // who waits makes one in its place
		h.waiting = slices.Delete(h.waiting, 0, 1)
		return
	}
	p.leaveHost(h)
}

// leaveHost counts one connection less, and forgets a host without any.
func (p *pool) leaveHost(h *host) {
	if h.conns--; h.conns == 0 {
		delete(p.hosts, h.at)
	}
}

// list makes a connection idle.
func (p *pool) list(c *conn, now time.Time) {
	c.since = now
	c.host.idle = append(c.host.idle, c)
	if c.older = p.newest; c.older != nil {
		c.older.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
	p.idle++
	if p.sweeper == nil {
		p.sweeps.Add(1)
		p.sweeper = time.AfterFunc(idleTimeout, p.sweep)
	}
}

// unlist takes a connection out of the idle ones.
func (p *pool) unlist(c *conn) {
	idle := c.host.idle
	if last := len(idle) - 1; idle[last] == c {
		idle[last] = nil
		c.host.idle = idle[:last]
	} else {
		at := slices.Index(idle, c)
		c.host.idle = slices.Delete(idle, at, at+1)
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
	p.idle--
}

// evict takes out a connection that the caller then closes. Nobody waits where something is idle.
func (p *pool) evict(c *conn) {
	p.unlist(c)
	p.leaveHost(c.host)
}

// sweep closes what was idle for too long, and comes again while anything is idle.
func (p *pool) sweep() {
	defer p.sweeps.Done()
	p.sweepAt(time.Now())
}

func (p *pool) sweepAt(now time.Time) {
	var out []*conn
	p.mu.Lock()
	for c := p.oldest; c != nil && now.Sub(c.since) >= idleTimeout; c = p.oldest {
		p.evict(c)
		out = append(out, c)
	}
	if p.rest(); p.oldest != nil && !p.closed {
		p.sweeps.Add(1)
		p.sweeper = time.AfterFunc(idleTimeout-now.Sub(p.oldest.since), p.sweep)
	}
	p.mu.Unlock()
	for _, c := range out {
		c.leave()
	}
}

// closeIdle closes what is idle; what is in use is closed when its request ends.
func (p *pool) closeIdle() {
	var out []*conn
	p.mu.Lock()
	p.generation++
	for p.oldest != nil {
		out = append(out, p.oldest)
		p.evict(p.oldest)
	}
	p.mu.Unlock()
	for _, c := range out {
		c.leave()
	}
}

// close is closeIdle for the last time.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.rest()
	p.mu.Unlock()
	p.closeIdle()
	p.sweeps.Wait()
}

// rest makes the sweeper not come, unless it is here already.
func (p *pool) rest() {
	if p.sweeper != nil && p.sweeper.Stop() {
		p.sweeps.Done()
	}
	p.sweeper = nil
}
