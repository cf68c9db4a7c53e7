package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestApplicationUIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	a, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "one", UID: "u", ThrottleRate: 5, Metadata: map[string]string{"a": "b"}}, false)
	ok(t, err)
	if !created {
		t.Error("not created")
	}
	_, _, err = w.view.CreateApplication(ctx, webhook.Application{Name: "two", UID: "u"}, false)
	wantCode(t, err, webhook.KindConflict, "conflict")
	same, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "two", UID: "u"}, true)
	ok(t, err)
	if created || fmt.Sprint(same) != fmt.Sprint(a) {
		t.Errorf("got %v %+v, want what was there: %+v", created, same, a)
	}
	b, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "no uid"}, true)
	ok(t, err)
	c, _, err := w.view.CreateApplication(ctx, webhook.Application{Name: "no uid"}, true)
	ok(t, err)
	if !created || b.ID == c.ID {
		t.Error("applications without a uid are taken for the same")
	}
	_, err = w.view.PatchApplication(ctx, b.ID.String(), func(a *webhook.Application) error { a.UID = "u"; return nil })
	wantKind(t, err, webhook.KindConflict)

	ok(t, w.view.DeleteApplication(ctx, "u"))
	for _, ref := range []string{"u", a.ID.String()} {
		if _, err := w.view.Application(ctx, ref); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if err := w.view.DeleteApplication(ctx, "u"); !errors.Is(err, webhook.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	d, created, err := w.view.CreateApplication(ctx, webhook.Application{Name: "three", UID: "u"}, true)
	ok(t, err)
	if !created || d.ID == a.ID {
		t.Error("the uid of a deleted application is not free")
	}
}

func TestReplaceApplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	for _, c := range []struct{ ref, uid, want string }{
		{"path", "", "path"},
		{"other", "body", "body"},
		{webhook.NewApplicationID().String(), "", ""}, // an unknown id is no uid
		{"app_x", "", ""},
		{"not a uid", "", ""},
		{strings.Repeat("a", webhook.MaxUIDLength), "", strings.Repeat("a", webhook.MaxUIDLength)},
		{strings.Repeat("b", webhook.MaxUIDLength+1), "", ""},
	} {
		a, created, err := w.view.ReplaceApplication(ctx, c.ref, webhook.Application{Name: "n", UID: c.uid})
		ok(t, err)
		if !created || a.UID != c.want {
			t.Errorf("PUT %.20s with uid %q: created %v with uid %.20q, want %.20q", c.ref, c.uid, created, a.UID, c.want)
		}
	}
	a, created, err := w.view.ReplaceApplication(ctx, "path", webhook.Application{Name: "again"})
	ok(t, err)
	if created || a.UID != "path" || a.Name != "again" {
		t.Errorf("PUT twice: %v %+v", created, a)
	}
	a, _, err = w.view.ReplaceApplication(ctx, a.ID.String(), webhook.Application{Name: "by id"})
	ok(t, err)
	if a.UID != "" {
		t.Errorf("uid %q stayed", a.UID)
	}
	_, _, err = w.view.ReplaceApplication(ctx, a.ID.String(), webhook.Application{Name: "by id", UID: "body"})
	wantKind(t, err, webhook.KindConflict)
	_, _, err = w.view.ReplaceApplication(ctx, "unknown", webhook.Application{Name: "new", UID: "body"})
	wantKind(t, err, webhook.KindConflict)

	var made atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			_, created, err := w.view.ReplaceApplication(ctx, "race", webhook.Application{Name: "race"})
			if err != nil {
				t.Error(err)
			} else if created {
				made.Add(1)
			}
		})
	}
	wg.Wait()
	if made.Load() != 1 {
		t.Errorf("%d of 8 equal PUTs created, want 1", made.Load())
	}
}

func TestPatchesDoNotLoseEachOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			_, err := w.view.PatchApplication(t.Context(), w.app.ID.String(), func(a *webhook.Application) error {
				a.ThrottleRate++
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if a := must[webhook.Application](t)(w.view.Application(t.Context(), w.app.ID.String())); a.ThrottleRate != 10 {
		t.Errorf("%d of 10 patches are there", a.ThrottleRate)
	}
}
