package dispatch

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

const lease = 30 * time.Second

func (r *rig) exec(query string, args ...any) {
	r.t.Helper()
	if _, err := r.sql.Exec(r.t.Context(), query, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) rows(from string) (n int) {
	r.t.Helper()
	if err := r.sql.QueryRow(r.t.Context(), `SELECT count(*) FROM `+from).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// parked accepts messages whose deliveries are parked.
func (r *rig) parked(n int) (ids []webhook.MessageID) {
	batch := make([]store.Accept, n)
	for i := range batch {
		batch[i] = store.Accept{Application: r.app.ID.String(), Message: webhook.Message{
			TenantID: r.app.TenantID, ID: webhook.NewMessageID(), EventType: "e", Payload: []byte(`{}`), ExpiresAt: time.Now().Add(time.Hour),
		}}
	}
	for _, a := range r.store.Accept(r.t.Context(), batch, store.Release{Lease: lease}) {
		if a.Err != nil {
			r.t.Error(a.Err)
		}
		ids = append(ids, a.Message.ID)
	}
	return ids
}

// look is one look of a feeder.
func (r *rig) look(f *Feeder, room int) []store.Fed {
	r.t.Helper()
	found, err := f.FeedWakes(r.t.Context(), room, lease)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(found.Fed) > room {
		r.t.Fatalf("%d released where there is room for %d", len(found.Fed), room)
	}
	return found.Fed
}

func TestParkedDeliveriesGoInOrderAndTheirWakeRests(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	f := r.d.NewFeeder()
	want := r.parked(5)
	var order []webhook.MessageID
	for range 3 {
		for _, d := range r.look(f, 2) {
			order = append(order, d.Message)
		}
	}
	compare := func(a, b webhook.MessageID) int { return strings.Compare(a.String(), b.String()) }
	slices.SortFunc(order[:2], compare)
	slices.SortFunc(order[2:4], compare)
	if !slices.Equal(order, want) {
		t.Errorf("fed in the order %v, want %v", order, want)
	}
	r.exec(`UPDATE endpoint_wake SET due_at = now()`)
	r.look(f, 2) // from the beginning, since the last look went on from where the one before had ended
	if n := r.rows("endpoint_wake WHERE resting_since IS NOT NULL"); n != 1 {
		t.Fatal("the wake does not rest")
	}
	r.parked(1)
	if fed := r.look(f, 10); len(fed) != 1 {
		t.Errorf("parking again did not wake it: %+v", fed)
	}
	r.exec(`UPDATE endpoint_wake SET due_at = now()`)
	if fed := r.look(f, 10); len(fed) != 0 || r.rows("endpoint_wake") != 1 {
		t.Errorf("a look while it rests fed %+v, or removed it", fed)
	}
	r.exec(`UPDATE endpoint_wake SET due_at = now(), resting_since = now() - interval '1 minute'`)
	if fed := r.look(f, 10); len(fed) != 0 || r.rows("endpoint_wake") != 0 {
		t.Errorf("having rested in vain it is still there, or fed %+v", fed)
	}
}

// TestNoParkedDeliveryIsForgotten parks from several sides while a feeder feeds, and expects every
// delivery to be fed without any sweep: the wakes alone must lead to all of them.
func TestNoParkedDeliveryIsForgotten(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	for range 2 {
		storetest.Endpoint(t, r.store, r.app, "https://example.com/")
	}
	const writers, rounds = 4, 50
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range rounds {
				r.parked(2)
			}
		})
	}
	t.Cleanup(group.Wait)
	f := r.d.NewFeeder()
	const want = writers * rounds * 2 * 3
	for fed := 0; fed < want; {
		if t.Context().Err() != nil {
			t.Fatalf("%d of %d deliveries were fed", fed, want)
		}
		fed += len(r.look(f, 9))
	}
	if n := r.rows("delivery WHERE state <> 1"); n != 0 {
		t.Errorf("%d deliveries are not released", n)
	}
}

// TestManyEndpointsTakeTurns has more endpoints than there is room for, and expects every one of them
// to be served once before any is served again.
func TestManyEndpointsTakeTurns(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	for range 8 {
		storetest.Endpoint(t, r.store, r.app, "https://example.com/")
	}
	r.parked(3)
	f := r.d.NewFeeder()
	for round := range 3 {
		served := map[webhook.EndpointID]int{}
		for range 3 {
			for _, d := range r.look(f, 3) {
				served[d.Endpoint]++
			}
		}
		if len(served) != 9 {
			t.Errorf("round %d served %d endpoints of 9: %v", round, len(served), served)
		}
	}
}

// A tenant with more due wakes than one look takes in hides nobody.
func TestATenantWithVeryManyEndpointsHidesNoOther(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	r.exec(`INSERT INTO endpoint (tenant_id, id, app_id, url, description, created_at, updated_at)
		SELECT tenant_id, gen_random_uuid(), app_id, url, '', now(), now() FROM endpoint, generate_series(1, 600)`)
	r.parked(2)
	small := storetest.Application(t, r.store, storetest.Tenant(t, r.store).ID)
	storetest.Endpoint(t, r.store, small, "https://example.com/")
	big := r.app
	r.app = small
	want := r.parked(1)[0]
	r.app = big
	f := r.d.NewFeeder()
	for range 2 {
		if slices.ContainsFunc(r.look(f, 100), func(d store.Fed) bool { return d.Message == want }) {
			return
		}
	}
	t.Error("two looks did not find it")
}
