package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestEventTypes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	schemas := json.RawMessage(`{"2": {"b": 1,  "a": 1}, "1": {}}`) // spelt as it came
	e := webhook.EventType{Name: "a.b", Description: "d", Schemas: schemas, GroupName: "g", FeatureFlags: []string{"f"}, Deprecated: true}
	made := must[webhook.EventType](t)(w.view.CreateEventType(ctx, e))
	read := must[webhook.EventType](t)(w.view.EventType(ctx, "a.b"))
	if fmt.Sprint(made) != fmt.Sprint(read) || string(read.Schemas) != string(schemas) || read.GroupName != "g" || read.FeatureFlags[0] != "f" {
		t.Errorf("made %+v\nread %+v", made, read)
	}
	_, err := w.view.CreateEventType(ctx, e)
	wantCode(t, err, webhook.KindConflict, "event_type_exists")
	ok(t, w.view.DeleteEventType(ctx, "a.b", false))
	if read = must[webhook.EventType](t)(w.view.EventType(ctx, "a.b")); !read.Archived {
		t.Error("not archived")
	}
	again := must[webhook.EventType](t)(w.view.CreateEventType(ctx, webhook.EventType{Name: "a.b", Description: "new"}))
	read = must[webhook.EventType](t)(w.view.EventType(ctx, "a.b"))
	if read.Archived || read.Description != "new" || read.Schemas != nil || read.GroupName != "" || read.FeatureFlags != nil || read.Deprecated || fmt.Sprint(read) != fmt.Sprint(again) {
		t.Errorf("an archived type came back as %+v", read)
	}
	replaced, created, err := w.view.ReplaceEventType(ctx, "a.b", webhook.EventType{Name: "ignored", Description: "put", Archived: true})
	ok(t, err)
	if created || replaced.Name != "a.b" || !replaced.Archived || replaced.Description != "put" {
		t.Errorf("replaced %v %+v", created, replaced)
	}
	replaced, created, err = w.view.ReplaceEventType(ctx, "new", webhook.EventType{Description: "put"})
	ok(t, err)
	if !created || replaced.Name != "new" {
		t.Errorf("created %v %+v", created, replaced)
	}
	patched, err := w.view.PatchEventType(ctx, "new", func(e *webhook.EventType) error { e.Name, e.Deprecated = "other", true; return nil })
	ok(t, err)
	if patched.Name != "new" || !patched.Deprecated || patched.Description != "put" {
		t.Errorf("patched %+v", patched)
	}
	ok(t, w.view.DeleteEventType(ctx, "new", true))
	for _, name := range []string{"new", "", "nul\x00", strings.Repeat("a", 300)} {
		if _, err = w.view.EventType(ctx, name); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%.10q: %v", name, err)
		}
	}
	if err := w.view.DeleteEventType(ctx, "new", false); !errors.Is(err, webhook.ErrNotFound) {
		t.Error(err)
	}
	var made8 atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, created, err := w.view.ReplaceEventType(ctx, "race", webhook.EventType{})
			if err != nil {
				t.Error(err)
			} else if created {
				made8.Add(1)
			}
		})
	}
	wg.Wait()
	if made8.Load() != 1 {
		t.Errorf("%d of 8 equal PUTs created, want 1", made8.Load())
	}
}
