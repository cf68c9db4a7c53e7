package store_test

import (
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// What was expunged is nowhere in the database any more.
func TestExpungedContentIsNowhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	m := w.putMessage(t, webhook.Message{EventID: "ev", Payload: []byte(`{"a":"payload-that-must-go"}`)})
	a := w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID, Sent: true, Response: []byte("answer-that-must-go")})
	if before := dump(t, w.sql); !strings.Contains(before, "payload-that-must-go") || !strings.Contains(before, "answer-that-must-go") {
		t.Fatal("there is nothing to expunge")
	}
	ctx, app := t.Context(), w.app.ID.String()
	for range 2 {
		ok(t, w.view.ExpungeMessage(ctx, app, "ev"))
		ok(t, w.view.ExpungeAttempt(ctx, app, m.ID.String(), a.ID))
	}
	if after := dump(t, w.sql); strings.Contains(after, "payload-that-must-go") || strings.Contains(after, "answer-that-must-go") {
		t.Errorf("content is left: %s", after)
	}
	if got := must[webhook.Message](t)(w.view.Message(ctx, app, m.ID.String())); got.Payload != nil || got.EventID != "ev" {
		t.Errorf("the message reads %+v", got)
	}
	if got := must[webhook.Attempt](t)(w.view.Attempt(ctx, app, m.ID.String(), a.ID)); string(got.Response) != "EXPUNGED" || !got.Sent {
		t.Errorf("the attempt reads %+v", got)
	}
	wantKind(t, w.view.ExpungeMessage(ctx, app, webhook.NewMessageID().String()), webhook.KindNotFound)
	wantKind(t, w.view.ExpungeAttempt(ctx, app, m.ID.String(), webhook.NewAttemptID()), webhook.KindNotFound)
}

func TestAttemptsAreCountedByHowTheyEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, other := storetest.Endpoint(t, w.Store, w.app, "https://example.com"), storetest.Endpoint(t, w.Store, w.app, "https://example.com/other")
	m := w.putMessage(t, webhook.Message{})
	at := time.Now().UTC().Truncate(time.Millisecond)
	put := func(at time.Time, e webhook.Endpoint, status webhook.Status, sent bool, class webhook.ErrorClass, times int) {
		for range times {
			w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID, ID: webhook.NewAttemptIDAt(at), Status: status, Sent: sent, Class: class})
		}
	}
	put(at, e, webhook.StatusSuccess, true, webhook.ClassNone, 3)
	put(at, e, webhook.StatusFail, true, webhook.ClassServerError, 2)
	put(at, e, webhook.StatusFail, false, webhook.ClassSecret, 2) // tried, though no request came of it
	put(at, e, webhook.StatusCanceled, false, webhook.ClassCanceled, 1)
	put(at, e, webhook.StatusFail, false, webhook.ClassExpired, 5) // ends, not attempts
	put(at, e, webhook.StatusFail, false, webhook.ClassPoison, 5)
	put(at, other, webhook.StatusSuccess, true, webhook.ClassNone, 7)
	for _, c := range []struct {
		since, until time.Time
		any          bool
	}{{at, at.Add(time.Millisecond), true}, {at.Add(-time.Hour), at, false}, {at.Add(time.Millisecond), at.Add(time.Hour), false}} {
		got, err := w.view.CountAttempts(t.Context(), w.app.ID.String(), e.ID.String(), c.since, c.until)
		ok(t, err)
		if all := got.Success == 3 && got.Fail == 4 && got.Canceled == 1; all != c.any || !c.any && got.Success+got.Fail+got.Canceled != 0 {
			t.Errorf("from %v until %v: %+v", c.since, c.until, got)
		}
	}
}
