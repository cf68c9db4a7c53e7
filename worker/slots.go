package worker

import (
	"context"
	"slices"
	"sync"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// bulkShare is how many times as many requests may be under way for what is live as for background
	// tasks: receivers that keep the latter waiting keep nothing else waiting.
	bulkShare = 8
	// reserveShare of the places is kept from what the feeder releases, so that what is accepted now
	// finds a place also while a backlog drains.
	reserveShare = 8
	// fedTurn is every which place goes to the feeder's lane while both lanes wait: an overload of what
	// is new delays retries and what was parked, and does not stop them.
	fedTurn = 4
	// slowFactor is how many slow places there are for every other. A request that waits for its receiver
	// costs a socket and some 30 kB, and no CPU. With very many, a moment in which nothing moves would become a
	// storm of new connections, which receivers refuse.
	slowFactor = 3
)

// slots are the places of a worker: one per delivery from when it is begun until its result is recorded.
// Live and fed share them; bulk has an eighth as many beside. A request that lasts moves to a slow place
// and leaves its own to another.
type slots struct {
	total, reserve, bulk int // places; of them, those that fed may not take; places for bulk beside
	slow, slowBulk       int // slow places; how many of them bulk may take

	mu       sync.Mutex
	taken    [3]int // by lane
	slowed   [3]int // likewise, of the slow places
	waiting  [3][]*waiter
	sinceFed int // places that live was given while fed waited, since fed was last
}

// waiter asks for places.
type waiter struct {
	want, got int
	ready     chan struct{} // closed when it has got some; nil if it got them at once
}

func newSlots(total int) *slots {
	s := &slots{total: total, bulk: max(1, total/bulkShare), reserve: min(max(1, total/reserveShare), total-1)}
	s.slow = slowFactor * total
	s.slowBulk = max(1, s.slow/bulkShare)
	return s
}

// all is how many deliveries may hold a place of any kind.
func (s *slots) all() int { return s.total + s.bulk + s.slow }

// take waits for places of a lane and returns how many of those asked for it got, at least one; who wants
// the rest asks again. So a big task leaves no place unused while it waits for many.
func (s *slots) take(ctx context.Context, lane webhook.Lane, want int) (int, error) {
	w := s.enter(lane, want)
	if w.ready == nil {
		return w.got, nil
	}
	select {
	case <-w.ready:
		return w.got, nil
	case <-ctx.Done():
		s.giveUp(lane, w)
		return 0, ctx.Err()
	}
}

func (s *slots) enter(lane webhook.Lane, want int) *waiter {
	w := &waiter{want: want}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[lane] = append(s.waiting[lane], w)
	s.deal()
	if w.got == 0 {
		w.ready = make(chan struct{})
	}
	return w
}

// giveUp ends a wait; what it was given in the last moment goes to somebody else.
func (s *slots) giveUp(lane webhook.Lane, w *waiter) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiting[lane], w); i >= 0 {
		s.waiting[lane] = slices.Delete(s.waiting[lane], i, i+1)
		return
	}
	s.taken[lane] -= w.got
	s.deal()
}

// leave gives n places of a lane back.
func (s *slots) leave(lane webhook.Lane, n int) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[lane] -= n
	s.deal()
}

// places are numbers of them by lane.
type places struct{ fast, slow [3]int }

// free gives places back.
func (s *slots) free(p places) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane := range s.taken {
		s.taken[lane] -= p.fast[lane]
		s.slowed[lane] -= p.slow[lane]
	}
	s.deal()
}

// move exchanges places for slow ones, as far as there are any, and returns how many it did. All at once,
// so that who waits gets them together. It leaves keep of the slow places to others.
func (s *slots) move(want [3]int, keep int) (moved [3]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane, n := range want {
		moved[lane] = max(0, min(n, s.slow-keep-s.slowTaken()))
		if webhook.Lane(lane) == webhook.LaneBulk {
			moved[lane] = max(0, min(moved[lane], s.slowBulk-s.slowed[lane]))
		}
		s.taken[lane] -= moved[lane]
		s.slowed[lane] += moved[lane]
	}
	s.deal()
	return moved
}

// slowly takes a slow place for what is known to last, if more than keep are free. Who has a place besides
// gives that back.
func (s *slots) slowly(lane webhook.Lane, keep int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.roomForSlow(lane, keep) {
		return false
	}
	s.slowed[lane]++
	return true
}

// hasSlow reports whether slowly would take a place.
func (s *slots) hasSlow(lane webhook.Lane, keep int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomForSlow(lane, keep)
}

func (s *slots) roomForSlow(lane webhook.Lane, keep int) bool {
	return s.slowTaken() < s.slow-keep && (lane != webhook.LaneBulk || s.slowed[lane] < s.slowBulk)
}

func (s *slots) slowTaken() int { return s.slowed[0] + s.slowed[1] + s.slowed[2] }

// slowInUse is how many slow places are taken.
func (s *slots) slowInUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slowTaken()
}

// deal hands out whatever is free to whoever may have it and waits. Afterwards nobody waits who could have
// a place, which is why nobody has to look again until one comes back.
func (s *slots) deal() {
	for free := s.total - s.taken[webhook.LaneLive] - s.taken[webhook.LaneFed]; free > 0; free-- {
		live := s.wants(webhook.LaneLive)
		fed := s.wants(webhook.LaneFed) && s.taken[webhook.LaneFed] < s.total-s.reserve
		switch {
		case fed && (!live || s.sinceFed >= fedTurn-1):
			s.give(webhook.LaneFed)
			s.sinceFed = 0
		case live:
			s.give(webhook.LaneLive)
			if fed {
				s.sinceFed++
			}
		default:
			free = 0
		}
	}
	for s.taken[webhook.LaneBulk] < s.bulk && s.wants(webhook.LaneBulk) {
		s.give(webhook.LaneBulk)
	}
	for lane := range s.waiting {
		if len(s.waiting[lane]) > 0 && s.waiting[lane][0].got > 0 {
			s.serve(webhook.Lane(lane))
		}
	}
}

func (s *slots) wants(lane webhook.Lane) bool { return len(s.waiting[lane]) > 0 }

// give gives one place to the first of a lane.
func (s *slots) give(lane webhook.Lane) {
	w := s.waiting[lane][0]
	w.got++
	s.taken[lane]++
	if w.got == w.want {
		s.serve(lane)
	}
}

// serve lets the first of a lane go with what it has got.
func (s *slots) serve(lane webhook.Lane) {
	w := s.waiting[lane][0]
	s.waiting[lane] = slices.Delete(s.waiting[lane], 0, 1)
	if w.ready != nil {
		close(w.ready)
	}
}
