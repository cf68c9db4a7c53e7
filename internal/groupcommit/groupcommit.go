// Package groupcommit turns concurrent calls into batches: what arrives while one batch is being
// written becomes the next one. There is no timer. Idle, a batch is one item and waits for nothing;
// under load batches grow, and one statement and one fsync serve them all.
package groupcommit

import (
	"errors"
	"sync"
)

// ErrFull is returned when more waits than Options allow: the writer cannot keep up.
var ErrFull = errors.New("too much is waiting to be written")

// ErrClosed is returned once the Group takes nothing more.
var ErrClosed = errors.New("closed")

// Options bound a Group. Sizes are in whatever unit the callers of Add use, usually bytes.
type Options struct {
	BatchItems   int // of one batch
	BatchSize    int // of one batch; a single larger item still goes, alone
	WaitingItems int // of everything that waits; Add refuses more
	WaitingSize  int
}

// Group gathers items and hands them to one flusher.
type Group[T any] struct {
	o     Options
	flush func([]T)
	wake  chan struct{} // holds one token while something waits
	done  chan struct{}

	mu      sync.Mutex
	waiting []entry[T]
	size    int
	closed  bool
}

type entry[T any] struct {
	item T
	size int
}

// New starts a Group whose flush gets one batch at a time, in order of arrival, and owns the slice
// only until it returns. Close must be called.
func New[T any](o Options, flush func(batch []T)) *Group[T] {
	g := &Group[T]{o: o, flush: flush, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go g.run()
	return g
}

// Add puts an item into a coming batch and returns at once; the flusher tells whoever waits for it.
func (g *Group[T]) Add(item T, size int) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrClosed
	}
	if len(g.waiting) >= g.o.WaitingItems || (len(g.waiting) > 0 && g.size+size > g.o.WaitingSize) {
		return ErrFull
	}
	g.waiting = append(g.waiting, entry[T]{item, size})
	g.size += size
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return nil
}

// Close takes nothing more, flushes what waits and returns when that is done.
func (g *Group[T]) Close() {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		close(g.wake)
	}
	g.mu.Unlock()
	<-g.done
}

func (g *Group[T]) run() {
	defer close(g.done)
	batch := make([]T, 0, g.o.BatchItems)
	for open := true; open; {
		_, open = <-g.wake
		for {
			batch = g.take(batch[:0])
			if len(batch) == 0 {
				break
			}
			g.flush(batch)
			clear(batch)
		}
	}
}

// take moves the oldest items that fit into one batch.
func (g *Group[T]) take(batch []T) []T {
	g.mu.Lock()
	defer g.mu.Unlock()
	size := 0
	n := 0
	for ; n < len(g.waiting) && n < g.o.BatchItems; n++ {
		e := g.waiting[n]
		if n > 0 && size+e.size > g.o.BatchSize {
			break
		}
		size += e.size
		batch = append(batch, e.item)
	}
	rest := copy(g.waiting, g.waiting[n:])
	clear(g.waiting[rest:])
	g.waiting = g.waiting[:rest]
	g.size -= size
	return batch
}
