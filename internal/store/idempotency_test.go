package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func create(name string) func(context.Context, store.View) (store.Response, error) {
	return func(ctx context.Context, v store.View) (store.Response, error) {
		a, _, err := v.CreateApplication(ctx, webhook.Application{Name: name}, false)
		return store.Response{Status: 201, Body: []byte(a.ID.String())}, err
	}
}

func TestOnceRunsOnceForTwentyAtATime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, body := randomKey(), randomKey()
	var runs, replays atomic.Int32
	answers := make([]store.Response, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			r, replayed, err := w.view.Once(t.Context(), key, body, true, func(ctx context.Context, v store.View) (store.Response, error) {
				runs.Add(1)
				return create("once")(ctx, v)
			})
			if err != nil {
				t.Error(err)
			}
			if replayed {
				replays.Add(1)
			}
			answers[i] = r
		})
	}
	wg.Wait()
	if runs.Load() != 1 || replays.Load() != 19 {
		t.Errorf("ran %d times and replayed %d, want 1 and 19", runs.Load(), replays.Load())
	}
	for _, r := range answers {
		if r.Status != 201 || string(r.Body) != string(answers[0].Body) || len(r.Body) == 0 {
			t.Errorf("answer %d %q differs from %q", r.Status, r.Body, answers[0].Body)
		}
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM application WHERE name = 'once'`); n != 1 {
		t.Errorf("%d applications were made", n)
	}
}

func TestOnceWithAnotherBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, body := randomKey(), randomKey()
	first, _, err := w.view.Once(t.Context(), key, body, true, create("one"))
	ok(t, err)
	_, _, err = w.view.Once(t.Context(), key, randomKey(), true, create("two"))
	wantCode(t, err, webhook.KindInvalid, "idempotency_key_reused")
	again, replayed, err := w.view.Once(t.Context(), key, randomKey(), false, create("three"))
	ok(t, err)
	if !replayed || string(again.Body) != string(first.Body) {
		t.Error("a key whose body is not checked was not replayed")
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM application WHERE name IN ('two', 'three')`); n != 0 {
		t.Errorf("%d applications were made", n)
	}
}

func TestOnceLeavesNothingAfterAnError(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := randomKey()
	refused := errors.New("refused")
	for name, do := range map[string]func(context.Context, store.View) (store.Response, error){
		"an error of its own": func(ctx context.Context, v store.View) (store.Response, error) {
			r, err := create("undone")(ctx, v)
			return r, errors.Join(err, refused)
		},
		"a statement that fails": func(ctx context.Context, v store.View) (store.Response, error) {
			if _, err := create("undone")(ctx, v); err != nil {
				return store.Response{}, err
			}
			_, _, err := v.CreateApplication(ctx, webhook.Application{Name: "nul \x00"}, false)
			return store.Response{}, err
		},
	} {
		if _, _, err := w.view.Once(t.Context(), key, key, true, do); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM application WHERE name = 'undone'`); n != 0 {
		t.Errorf("%d applications stayed", n)
	}
	if _, replayed, err := w.view.Once(t.Context(), key, key, true, create("done")); err != nil || replayed {
		t.Errorf("the key was not free again: %v, %v", replayed, err)
	}
}

func TestOnceGoesOnAfterAnErrorThatDoSurvives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := randomKey()
	ok(t, w.view.DeleteEventType(t.Context(), storetest.EventType(t, w.Store, w.tenant.ID, "archived").Name, false))
	storetest.EventType(t, w.Store, w.tenant.ID, "live")
	r, _, err := w.view.Once(t.Context(), key, key, true, func(ctx context.Context, v store.View) (store.Response, error) {
		if _, err := v.CreateEventType(ctx, webhook.EventType{Name: "live"}); webhook.KindOf(err) != webhook.KindConflict {
			return store.Response{}, fmt.Errorf("no conflict: %w", err)
		}
		if _, _, err := v.CreateApplication(ctx, webhook.Application{Name: "nul \x00"}, false); webhook.KindOf(err) != webhook.KindInvalid {
			return store.Response{}, fmt.Errorf("not refused: %w", err)
		}
		return create("after")(ctx, v)
	})
	ok(t, err)
	if _, err := w.view.Application(t.Context(), string(r.Body)); err != nil {
		t.Error(err)
	}
}

func TestOnceExpires(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, other := randomKey(), randomKey()
	_, _, err := w.view.Once(t.Context(), key, key, true, create("first"))
	ok(t, err)
	age := func(interval string) {
		w.exec(t, `UPDATE idempotency SET created_at = now() - $1::text::interval`, interval)
	}
	age("11 hours 59 minutes")
	if _, replayed, err := w.view.Once(t.Context(), key, key, true, create("second")); err != nil || !replayed {
		t.Fatalf("not replayed within its time: %v", err)
	}
	age("12 hours 1 minute")
	// Another body, too: an expired key is a new key.
	var ran atomic.Int32
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			_, replayed, err := w.view.Once(t.Context(), key, other, true, create("second"))
			if err != nil {
				t.Error(err)
			} else if !replayed {
				ran.Add(1)
			}
		})
	}
	wg.Wait()
	if ran.Load() != 1 {
		t.Errorf("an expired key ran %d times, want 1", ran.Load())
	}
	age("12 hours 1 minute")
	if n := must[int](t)(w.ExpireIdempotency(t.Context(), 10)); n != 1 {
		t.Errorf("%d keys were forgotten, want 1", n)
	}
	if n := must[int](t)(w.ExpireIdempotency(t.Context(), 10)); n != 0 {
		t.Errorf("%d keys were forgotten twice", n)
	}
}

func TestOnceKeepsItsResponseSealed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key, second := randomKey(), randomKey()
	for _, k := range [][32]byte{key, second} {
		_, _, err := w.view.Once(t.Context(), k, k, true, func(context.Context, store.View) (store.Response, error) {
			return store.Response{Status: 200, Body: []byte("whsec_canary")}, nil
		})
		ok(t, err)
	}
	if text := one[string](t, w.sql, `SELECT string_agg(encode(response, 'escape'), ' ') FROM idempotency`); strings.Contains(text, "canary") {
		t.Errorf("the response can be read: %s", text)
	}
	// One key's response is no answer to another.
	w.exec(t, `UPDATE idempotency SET response = (SELECT response FROM idempotency WHERE key = $1) WHERE key = $2`, key[:], second[:])
	if r, _, err := w.view.Once(t.Context(), second, second, true, create("x")); err == nil {
		t.Errorf("another key's response was replayed: %q", r.Body)
	}
}
