package publish

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// midday keeps these tests away from midnight, when a quota begins anew.
func midday(r *rig) time.Time {
	begin, _ := webhook.Day(time.Now())
	at := begin.Add(12 * time.Hour)
	r.pub.quotas.now = func() time.Time { return at }
	return at
}

func (r *rig) accept(quota int64, key string) error {
	q := r.request(`{}`)
	q.Quota = quota
	if key != "" {
		q.Key = &store.Idempotency{Key: [32]byte([]byte(key + "01234567890123456789012345678901")[:32]), CheckBody: true}
	}
	_, _, err := r.pub.Accept(r.t.Context(), q)
	return err
}

func TestADaysQuota(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	at := midday(r)
	const quota = 3
	if err := r.accept(quota, "first"); err != nil {
		t.Fatal(err)
	}
	for range quota {
		if err := r.accept(quota, "first"); err != nil { // repeats, which are not counted
			t.Fatal(err)
		}
	}
	missing := r.request(`{}`)
	missing.Application, missing.Quota = webhook.NewApplicationID().String(), quota
	if _, _, err := r.pub.Accept(t.Context(), missing); webhook.KindOf(err) != webhook.KindNotFound {
		t.Fatal(err)
	}
	for range quota - 1 {
		if err := r.accept(quota, ""); err != nil {
			t.Fatal(err)
		}
	}
	err := r.accept(quota, "")
	told, ok := errors.AsType[*webhook.Error](err)
	if !ok || told.Kind != webhook.KindRateLimited || told.Code != "quota_exceeded" || told.After != 12*time.Hour {
		t.Fatalf("one too many at %v: %v", at, err)
	}
	if err := r.accept(quota, "first"); err != nil {
		t.Errorf("a repeat of what was accepted: %v", err)
	}
	if err := r.accept(0, ""); err != nil {
		t.Errorf("without a quota: %v", err)
	}
	if err := r.accept(quota+1, ""); err != nil {
		t.Errorf("with a larger one: %v", err)
	}
	r.pub.quotas.now = func() time.Time { return at.Add(12 * time.Hour) }
	if err := r.accept(quota, ""); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

// However many come at once, exactly as many as the quota are accepted, and what is counted in the end
// is what was.
func TestAQuotaHoldsUnderConcurrency(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	midday(r)
	const quota = 50
	var accepted atomic.Int64
	var group sync.WaitGroup
	for range 2 * quota {
		group.Go(func() {
			if err := r.accept(quota, ""); err == nil {
				accepted.Add(1)
			} else if webhook.KindOf(err) != webhook.KindRateLimited {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := accepted.Load(); n != quota {
		t.Errorf("%d were accepted", n)
	}
	r.pub.Close()
	n, err := r.store.MessagesOn(t.Context(), r.app.TenantID, r.pub.quotas.now())
	if n != quota || err != nil {
		t.Errorf("%d are counted, %v", n, err)
	}
}

// What another process has had accepted counts as soon as this one has added something of its own.
func TestAQuotaIsSharedByProcesses(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	at := midday(r)
	begin, _ := webhook.Day(at)
	if err := r.accept(100, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.AddUsage(t.Context(), []store.Used{{Tenant: r.app.TenantID, Day: begin, Messages: 98}}); err != nil {
		t.Fatal(err)
	}
	if err := r.accept(100, ""); err != nil {
		t.Fatal(err)
	}
	for {
		r.pub.quotas.mu.Lock()
		total := r.pub.quotas.days[r.app.TenantID].total
		r.pub.quotas.mu.Unlock()
		if total == 100 {
			break
		}
		if t.Context().Err() != nil {
			t.Fatalf("the total is %d", total)
		}
		time.Sleep(time.Millisecond)
	}
	if err := r.accept(100, ""); webhook.KindOf(err) != webhook.KindRateLimited {
		t.Errorf("one too many: %v", err)
	}
}

func TestABatchIsCountedWhole(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	midday(r)
	batch := func(n int, key *store.Idempotency) (store.Response, error) {
		b := Batch{Tenant: r.app.TenantID, Application: r.app.ID.String(), Quota: 10, Key: key, Answer: func([]store.Accepted) (store.Response, error) {
			return store.Response{Status: 202, Body: []byte("first")}, nil
		}}
		for range n {
			b.Requests = append(b.Requests, r.request(`{}`))
		}
		return r.pub.AcceptTogether(t.Context(), b)
	}
	key := &store.Idempotency{Key: [32]byte{1}, CheckBody: true}
	if _, err := batch(11, nil); webhook.KindOf(err) != webhook.KindRateLimited {
		t.Errorf("more than there are: %v", err)
	}
	if _, err := batch(8, key); err != nil {
		t.Fatal(err)
	}
	if _, err := batch(3, nil); webhook.KindOf(err) != webhook.KindRateLimited {
		t.Errorf("more than are left: %v", err)
	}
	if _, err := batch(2, nil); err != nil {
		t.Error(err)
	}
	if got, err := batch(8, key); err != nil || string(got.Body) != "first" {
		t.Errorf("a repeat of what was accepted: %+v, %v", got, err)
	}
	if _, err := batch(8, &store.Idempotency{Key: [32]byte{1}, BodyHash: [32]byte{2}, CheckBody: true}); webhook.KindOf(err) != webhook.KindInvalid {
		t.Errorf("the key with another body: %v", err)
	}
}
