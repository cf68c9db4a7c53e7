package dispatch

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestTheRoomIsSharedByWeightAndUsedUp(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var wakes []store.Wake
		weights, demand := make(map[webhook.TenantID]int), make(map[webhook.TenantID]int)
		total := 0
		for range rapid.IntRange(1, 8).Draw(rt, "tenants") {
			id, weight := webhook.NewTenantID(), rapid.IntRange(1, 5).Draw(rt, "weight")
			weights[id] = weight
			for range rapid.IntRange(1, 4).Draw(rt, "endpoints") {
				w := store.Wake{Tenant: id, Endpoint: webhook.NewEndpointID(), Weight: weight}
				switch rapid.IntRange(0, 5).Draw(rt, "kind") {
				case 0:
					w.Gate = webhook.GatePaused
				case 1:
					w.Gate, w.Probe = webhook.GateOpen, rapid.Bool().Draw(rt, "probe")
				case 2:
					w.Take = rapid.IntRange(1, 40).Draw(rt, "take")
				}
				wakes = append(wakes, w)
				demand[id] += min(upTo(w), 1<<20)
				total += min(upTo(w), 1<<20)
			}
		}
		room := rapid.IntRange(1, 300).Draw(rt, "room")
		given := make(map[webhook.TenantID]int)
		sum := 0
		var p planner
		for i, n := range p.share(wakes, room) {
			if n < 0 || n > upTo(wakes[i]) {
				rt.Fatalf("%+v may release %d, of at most %d", wakes[i], n, upTo(wakes[i]))
			}
			given[wakes[i].Tenant] += n
			sum += n
		}
		if want := min(room, total); sum != want {
			rt.Fatalf("%d of %d are given away, of %d that may go", sum, room, total)
		}
		// Nobody who could have used more has less than what is fair, but for a fraction of one.
		weight := 0
		for id, n := range demand {
			if n > 0 {
				weight += weights[id]
			}
		}
		for id := range demand {
			fair := float64(room) * float64(weights[id]) / float64(max(1, weight))
			if got := given[id]; got < demand[id] && float64(got) < math.Floor(fair)-1 {
				rt.Fatalf("weight %d of %d got %d of %d", weights[id], weight, got, room)
			}
		}
	})
}

// A room smaller than the number of tenants reaches all of them in turn.
func TestWhoCouldNotBeGivenAWholeOneKeepsTheClaim(t *testing.T) {
	const tenants, room, looks = 10, 3, 100
	wakes := make([]store.Wake, tenants)
	for i := range wakes {
		wakes[i] = store.Wake{Tenant: webhook.NewTenantID(), Endpoint: webhook.NewEndpointID(), Weight: 1}
	}
	var p planner
	got := make([]int, tenants)
	for range looks {
		for i, n := range p.share(wakes, room) {
			got[i] += n
		}
	}
	for i, n := range got {
		if n < room*looks/tenants-1 || n > room*looks/tenants+1 {
			t.Errorf("tenant %d got %d of %d: %v", i, n, room*looks, got)
			break
		}
	}
}

func TestTheRampGrowsOnlyByWhatWasTaken(t *testing.T) {
	w := store.Wake{Take: 8}
	for _, c := range []struct {
		name string
		wake store.Wake
		look look
		want store.WakePut
	}{
		{"all of it taken", w, look{asked: 8, granted: 8, released: 8}, store.WakePut{Fate: store.WakeLater, After: paceEvery, Take: 9}},
		{"hardly any", store.Wake{Take: 3}, look{asked: 3, granted: 3, released: 3}, store.WakePut{Fate: store.WakeLater, After: paceEvery, Take: 6}},
		{"many", store.Wake{Take: 160}, look{asked: 160, granted: 160, released: 160}, store.WakePut{Fate: store.WakeLater, After: paceEvery, Take: 170}},
		{"no room for all", w, look{asked: 3, granted: 3, released: 3}, store.WakePut{Fate: store.WakeLater, After: paceEvery, Take: 8}},
		{"nothing left", w, look{asked: 8, granted: 8, released: 2}, store.WakePut{Fate: store.WakeRest}},
		{"the end of the ramp", store.Wake{Take: 965}, look{asked: 965, granted: 965, released: 965}, store.WakePut{Fate: store.WakeTurn}},
		{"just before it", store.Wake{Take: 964}, look{asked: 964, granted: 964, released: 964}, store.WakePut{Fate: store.WakeLater, After: paceEvery, Take: 1024}},
		{"limited meanwhile", w, look{asked: 8, granted: 2, released: 2, wait: limitedEvery}, store.WakePut{Fate: store.WakeLater, After: limitedEvery, Take: 8}},
	} {
		if got, settled := fate(c.wake, c.look); got != c.want || !settled {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}
