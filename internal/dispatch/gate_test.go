package dispatch

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

const hook = "https://example.com/"

func failing(failures int) (s webhook.Streak) {
	for range failures {
		s.Fail(hook, webhook.ClassRefused, time.Now())
	}
	return s
}

// TestNoHeldDeliveryIsForgotten pauses, resumes, opens and closes endpoints while messages are accepted
// for them, released ones are put back and the feeder serves their wakes. Nothing may deadlock, and
// whenever all is quiet whatever is parked has a wake. In the end all of it goes, without any sweep.
func TestNoHeldDeliveryIsForgotten(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	ctx, view, app := t.Context(), r.store.View(webhook.Scope{Tenant: r.app.TenantID}), r.app.ID.String()
	var endpoints []webhook.Endpoint
	for range 3 {
		endpoints = append(endpoints, storetest.Endpoint(t, r.store, r.app, hook))
	}
	each := func(i int) webhook.Endpoint { return endpoints[i%len(endpoints)] }
	f := r.d.NewFeeder()
	for round := range 6 {
		var group sync.WaitGroup
		together := func(name string, n int, do func(i int) error) {
			group.Go(func() {
				for i := range n {
					if err := do(i); err != nil {
						t.Error(fmt.Errorf("round %d: %s: %w", round, name, err))
						return
					}
				}
			})
		}
		for range 2 {
			together("accept", 12, func(int) error { r.parked(2); return nil })
		}
		together("accept and release", 12, func(int) error {
			return r.store.Park(ctx, r.released(2), store.Hold{})
		})
		together("feed", 25, func(int) error {
			found, err := f.FeedWakes(ctx, 7, lease)
			if err != nil {
				return err
			}
			var back []webhook.Delivery
			for _, d := range found.Fed {
				back = append(back, d.Delivery)
			}
			return r.store.Park(ctx, back, store.Hold{})
		})
		together("pause", 8, func(i int) error { return view.PauseEndpoint(ctx, app, each(i).ID.String(), "api") })
		together("resume", 8, func(i int) error { return view.ResumeEndpoint(ctx, app, each(i+1).ID.String()) })
		together("breaker", 16, func(i int) (err error) {
			e := each(i / 2)
			if i%2 == 0 {
				_, err = r.store.OpenBreaker(ctx, e.TenantID, e.ID, failing(10), time.Millisecond)
			} else {
				_, err = r.store.CloseBreaker(ctx, e.TenantID, e.ID)
			}
			return err
		})
		group.Wait()
		if n := r.rows(`delivery d WHERE state = 3 AND NOT EXISTS (
			SELECT FROM endpoint_wake w WHERE w.tenant_id = d.tenant_id AND w.endpoint_id = d.endpoint_id)`); n != 0 {
			t.Fatalf("round %d: %d parked deliveries have no wake", round, n)
		}
	}
	for _, e := range endpoints {
		if err := view.PauseEndpoint(ctx, app, e.ID.String(), "api"); err != nil {
			t.Fatal(err)
		}
		if err := view.ResumeEndpoint(ctx, app, e.ID.String()); err != nil {
			t.Fatal(err)
		}
	}
	f.Forget() // as it does now and then by itself
	r.until("nothing is parked", func() bool {
		r.look(f, 100)
		return r.count(webhook.StateParked) == 0
	})
}

func TestTheFeederKeepsToTheGate(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	ctx, view, app := context.Background(), r.store.View(webhook.Scope{Tenant: r.app.TenantID}), r.app.ID.String()
	r.exec(`UPDATE endpoint SET disabled = true`)
	e := storetest.Endpoint(t, r.store, r.app, hook)
	if err := view.PauseEndpoint(ctx, app, e.ID.String(), "api"); err != nil {
		t.Fatal(err)
	}
	r.parked(20)
	f := r.d.NewFeeder()
	r.exec(`UPDATE endpoint_wake SET due_at = now()`) // as a sweep or an accept that has not seen the pause would
	if fed := r.look(f, 100); len(fed) != 0 || r.rows(`endpoint_wake WHERE due_at = 'infinity' AND resting_since IS NULL`) != 1 {
		t.Errorf("paused, %d went, or the wake is not put off", len(fed))
	}
	if err := view.ResumeEndpoint(ctx, app, e.ID.String()); err != nil {
		t.Fatal(err)
	}
	if fed := r.look(f, 100); len(fed) != webhook.RampStart {
		t.Errorf("resumed, %d went first, want %d", len(fed), webhook.RampStart)
	}
	if turned, err := r.store.OpenBreaker(ctx, e.TenantID, e.ID, failing(10), time.Hour); err != nil || !turned {
		t.Fatal(turned, err)
	}
	if fed := r.look(f, 100); len(fed) != 0 {
		t.Errorf("open, %d went", len(fed))
	}
	r.exec(`UPDATE endpoint_gate SET next_at = now()`)
	r.exec(`UPDATE endpoint_wake SET due_at = now()`)
	if fed := r.look(f, 100); len(fed) != 1 || r.rows(`endpoint_gate WHERE state = 3 AND next_at > now() + interval '20 s'`) != 1 {
		t.Errorf("%d were to be the probe", len(fed))
	}
	if turned, err := r.store.CloseBreaker(ctx, e.TenantID, e.ID); err != nil || !turned {
		t.Fatal(turned, err)
	}
	if fed := r.look(f, 100); len(fed) != webhook.RampStart {
		t.Errorf("recovered, %d went first, want %d", len(fed), webhook.RampStart)
	}
}

// An open breaker with nothing to send stays open. Its wake sleeps, so that nobody looks for nothing again
// and again, and what comes is parked and is the probe, whenever it comes: also while it is not certain yet
// that nothing was missed.
func TestAnOpenBreakerWithNothingToSendWaitsForItsProbe(t *testing.T) {
	for say, sleeps := range map[string]bool{"at once": false, "later": true} {
		t.Run(say, func(t *testing.T) {
			r := newRig(t, 0, storetest.Redis(t))
			r.exec(`UPDATE endpoint SET disabled = true`)
			e := storetest.Endpoint(t, r.store, r.app, hook)
			if turned, err := r.store.OpenBreaker(t.Context(), e.TenantID, e.ID, failing(10), time.Hour); err != nil || !turned {
				t.Fatal(turned, err)
			}
			r.exec(`UPDATE endpoint_gate SET next_at = now()`)
			r.exec(`UPDATE endpoint_wake SET due_at = now()`)
			f := r.d.NewFeeder()
			if fed := r.look(f, 100); len(fed) != 0 || r.rows(`endpoint_gate WHERE state = 2 AND next_at <= now()`) != 1 {
				t.Fatalf("%d went, or the breaker is marked", len(fed))
			}
			if r.rows(`endpoint_wake WHERE resting_since IS NOT NULL AND due_at > now() AND due_at < now() + interval '1 s'`) != 1 {
				t.Fatal("the wake does not rest")
			}
			r.exec(`UPDATE endpoint_wake SET due_at = now()`)
			if r.look(f, 100); r.rows(`endpoint_wake WHERE due_at < now() + interval '1 min'`) != 1 {
				t.Fatal("the wake sleeps before it is certain that nothing was missed")
			}
			if sleeps {
				r.exec(`UPDATE endpoint_wake SET due_at = now(), resting_since = now() - interval '1 min'`)
				r.look(f, 100)
				if r.rows(`endpoint_wake WHERE due_at = 'infinity'`) != 1 {
					t.Fatal("the wake does not sleep")
				}
				if _, due, _, _, err := r.store.Due(t.Context(), store.Scan{}); due || err != nil {
					t.Fatalf("the feeder is kept busy (%v)", err)
				}
			}
			r.released(3)
			if n := r.count(webhook.StateReleased); n != 0 {
				t.Fatalf("%d were released past the breaker", n)
			}
			fed := r.look(f, 100)
			if len(fed) != 1 || r.rows(`endpoint_gate WHERE state = 3 AND next_at > now() + interval '20 s'`) != 1 {
				t.Fatalf("%d went as the probe", len(fed))
			}
			if fed := r.look(f, 100); len(fed) != 0 {
				t.Fatalf("%d went beside the probe", len(fed))
			}
			if turned, err := r.store.CloseBreaker(t.Context(), e.TenantID, e.ID); err != nil || !turned {
				t.Fatal(turned, err)
			}
			if fed := r.look(f, 100); len(fed) != 2 {
				t.Errorf("recovered, %d went, want 2", len(fed))
			}
		})
	}
}

// A probe of which nothing was heard, with nothing else to send, is not under way for ever.
func TestAProbeThatIsLostLeavesTheBreakerOpen(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	e := storetest.Endpoint(t, r.store, r.app, hook)
	if turned, err := r.store.OpenBreaker(t.Context(), e.TenantID, e.ID, failing(10), time.Hour); err != nil || !turned {
		t.Fatal(turned, err)
	}
	r.exec(`UPDATE endpoint_gate SET state = 3, next_at = now()`)
	r.exec(`UPDATE endpoint_wake SET due_at = now()`)
	if fed := r.look(r.d.NewFeeder(), 100); len(fed) != 0 || r.rows(`endpoint_gate WHERE state = 2 AND next_at <= now()`) != 1 {
		t.Errorf("%d went, or it is still being probed", len(fed))
	}
}
