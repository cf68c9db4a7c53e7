package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestSharesOfSlots(t *testing.T) {
	for total, want := range map[int][4]int{ // reserve, bulk, slow, slowBulk
		1: {0, 1, 3, 1}, 2: {1, 1, 6, 1}, 8: {1, 1, 24, 3}, 512: {64, 64, 1536, 192},
	} {
		s := newSlots(total)
		if got := [4]int{s.reserve, s.bulk, s.slow, s.slowBulk}; got != want {
			t.Errorf("of %d: %v, want %v", total, got, want)
		}
	}
}

// TestSlotsAgainstAModel asks for places, gives up, gives back and moves at random, and keeps books of its
// own about who has and who waits.
func TestSlotsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSlots(rapid.IntRange(1, 40).Draw(t, "total"))
		var (
			queues     [3][]*waiter // who waits, in the order they came
			seen       = map[*waiter]bool{}
			fast, slow [3]int
			given      int // places that live and fed were given while both waited and fed could have had one
			fedGiven   int // of them, to fed
		)
		// catchUp books what was handed out by the last step.
		catchUp := func(bothWaited bool) {
			var step [3]int
			for lane, queue := range queues {
				open := false
				for _, w := range queue {
					switch {
					case w.got > w.want || w.got < 0:
						t.Fatalf("got %d of %d", w.got, w.want)
					case w.got == 0:
						open = true
					case open:
						t.Fatalf("somebody in lane %d was served before who came earlier", lane)
					case !seen[w]:
						seen[w] = true
						step[lane] += w.got
						select {
						case <-ready(w):
						default:
							t.Fatal("somebody got places and was not told")
						}
					}
				}
				queues[lane] = slices.DeleteFunc(queue, func(w *waiter) bool { return w.got > 0 })
				fast[lane] += step[lane]
			}
			if bothWaited && len(queues[webhook.LaneLive]) > 0 {
				given += step[webhook.LaneLive] + step[webhook.LaneFed]
				fedGiven += step[webhook.LaneFed]
			}
		}
		bothWait := func() bool { return len(queues[webhook.LaneLive]) > 0 && len(queues[webhook.LaneFed]) > 0 }
		lane := rapid.SampledFrom(webhook.Lanes)
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				l := lane.Draw(t, "lane")
				w := s.enter(l, rapid.IntRange(1, 70).Draw(t, "want"))
				queues[l] = append(queues[l], w)
				catchUp(false)
			},
			"give up": func(t *rapid.T) {
				l := lane.Draw(t, "lane")
				if len(queues[l]) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(queues[l])-1).Draw(t, "who")
				s.giveUp(l, queues[l][i])
				queues[l] = slices.Delete(queues[l], i, i+1)
				catchUp(false)
			},
			"free": func(t *rapid.T) {
				var p places
				for l := range fast {
					p.fast[l] = rapid.IntRange(0, fast[l]).Draw(t, "fast")
					p.slow[l] = rapid.IntRange(0, slow[l]).Draw(t, "slow")
					fast[l] -= p.fast[l]
					slow[l] -= p.slow[l]
				}
				both := bothWait()
				s.free(p)
				catchUp(both)
			},
			"move": func(t *rapid.T) {
				var want [3]int
				for l := range fast {
					want[l] = rapid.IntRange(0, fast[l]).Draw(t, "want")
				}
				keep := rapid.SampledFrom([]int{0, s.total}).Draw(t, "keep")
				before, both := slow[0]+slow[1]+slow[2], bothWait()
				moved := s.move(want, keep)
				for l, n := range moved {
					if n < 0 || n > want[l] {
						t.Fatalf("moved %d of %d", n, want[l])
					}
					fast[l] -= n
					slow[l] += n
				}
				after := slow[0] + slow[1] + slow[2]
				if after > before && after > s.slow-keep {
					t.Fatalf("%d slow places taken of %d, of which %d are kept", after, s.slow, keep)
				}
				if live := int(webhook.LaneLive); moved[live] < want[live] && after < s.slow-keep {
					t.Fatalf("%d of %d moved with %d of %d slow places taken", moved[live], want[live], after, s.slow)
				}
				catchUp(both)
			},
			"slowly": func(t *rapid.T) {
				l, keep := lane.Draw(t, "lane"), rapid.SampledFrom([]int{0, s.total}).Draw(t, "keep")
				room := slow[0]+slow[1]+slow[2] < s.slow-keep && (l != webhook.LaneBulk || slow[l] < s.slowBulk)
				if s.slowly(l, keep) != room {
					t.Fatalf("with %v of %d taken and %d kept, want %v", slow, s.slow, keep, room)
				}
				if room {
					slow[l]++
				}
			},
			"": func(t *rapid.T) {
				live, fed, bulk := fast[webhook.LaneLive], fast[webhook.LaneFed], fast[webhook.LaneBulk]
				if s.taken != fast || s.slowed != slow {
					t.Fatalf("books say %v and %v, slots %v and %v", fast, slow, s.taken, s.slowed)
				}
				if live+fed > s.total || fed > s.total-s.reserve || bulk > s.bulk || slow[webhook.LaneBulk] > s.slowBulk {
					t.Fatalf("too many: %v of %d, slow %v", fast, s.total, slow)
				}
				if room := live+fed < s.total; room && len(queues[webhook.LaneLive]) > 0 ||
					room && fed < s.total-s.reserve && len(queues[webhook.LaneFed]) > 0 ||
					bulk < s.bulk && len(queues[webhook.LaneBulk]) > 0 {
					t.Fatalf("somebody waits beside a free place: %v of %d", fast, s.total)
				}
				// At its bound fed has most of the places already.
				if fed < s.total-s.reserve && fedGiven < given/fedTurn-1 && len(queues[webhook.LaneFed]) > 0 {
					t.Fatalf("fed was given %d of %d places", fedGiven, given)
				}
				if !bothWait() || fed >= s.total-s.reserve {
					given, fedGiven = 0, 0
				}
			},
		})
	})
}

var told = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func ready(w *waiter) <-chan struct{} {
	if w.ready == nil {
		return told
	}
	return w.ready
}

// While both lanes always wait, fed gets a quarter, and alone each gets what there is.
func TestNeitherLaneStarves(t *testing.T) {
	const total, rounds = 64, 1000
	s := newSlots(total)
	hungry := func(lanes ...webhook.Lane) (given [3]int) {
		waiting := map[webhook.Lane]*waiter{}
		for range rounds {
			for _, l := range lanes {
				if w := waiting[l]; w == nil || w.got > 0 {
					waiting[l] = s.enter(l, 5)
				}
			}
			for _, l := range lanes {
				if n := waiting[l].got; n > 0 {
					given[l] += n
					s.leave(l, n)
				}
			}
		}
		for l, w := range waiting {
			if w.got == 0 {
				s.giveUp(l, w)
			}
		}
		return given
	}
	held := s.enter(webhook.LaneLive, total-2)
	both := hungry(webhook.LaneLive, webhook.LaneFed)
	if share := float64(both[1]) / float64(both[0]+both[1]); share < 0.24 {
		t.Errorf("fed had %v of %v", share, both)
	}
	if both[0] < both[1] {
		t.Errorf("live, which goes first, had less: %v", both)
	}
	for _, l := range []webhook.Lane{webhook.LaneLive, webhook.LaneFed} {
		if alone := hungry(l); alone[l] < rounds {
			t.Errorf("alone, %v had %v", l, alone)
		}
	}
	s.leave(webhook.LaneLive, held.got)
	// However many fed has, what is new finds a place at once.
	fed := s.enter(webhook.LaneFed, total)
	if live := s.enter(webhook.LaneLive, 1); fed.got != total-s.reserve || live.got != 1 {
		t.Errorf("fed has %d of %d, live %d", fed.got, total, live.got)
	}
}

func TestSlotsUnderContention(t *testing.T) {
	s := newSlots(16)
	var (
		mu         sync.Mutex
		inUse      [3]int
		everyone   sync.WaitGroup
		cancelled  atomic.Int32
		background = t.Context()
	)
	book := func(lane webhook.Lane, n int) {
		mu.Lock()
		defer mu.Unlock()
		inUse[lane] += n
		if inUse[0]+inUse[1] > 16 || inUse[1] > 14 || inUse[2] > 2 {
			t.Errorf("too many: %v", inUse)
		}
	}
	for i := range 24 {
		lane := webhook.Lanes[i%3]
		everyone.Go(func() {
			for round := range 300 {
				for rest := 1 + round%9; rest > 0; {
					ctx, cancel := context.WithCancel(background)
					if round%5 == 0 {
						go cancel() // which of the two comes first is the point
					}
					n, err := s.take(ctx, lane, rest)
					cancel()
					if errors.Is(err, context.Canceled) {
						cancelled.Add(1)
						continue
					}
					book(lane, n)
					book(lane, -n)
					if round%3 == 0 {
						var p places
						var want [3]int
						want[lane] = n
						moved := s.move(want, 0)[lane]
						p.fast[lane], p.slow[lane] = n-moved, moved
						s.free(p)
					} else {
						s.leave(lane, n)
					}
					rest -= n
				}
			}
		})
	}
	everyone.Wait()
	if s.taken != [3]int{} || s.slowed != [3]int{} || len(s.waiting[0])+len(s.waiting[1])+len(s.waiting[2]) != 0 {
		t.Errorf("at the end: taken %v, slow %v", s.taken, s.slowed)
	}
	t.Logf("%d waits were given up", cancelled.Load())
}
