package store_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMessageAndAttemptReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	payload := []byte("{\"a\" : 1.0, \"a\":\"\\u0000\"}")
	m := w.putMessage(t, webhook.Message{EventID: "ev", Channels: []string{"c"}, Tags: []string{"t"}, Payload: payload})
	for _, ref := range []string{m.ID.String(), "ev"} {
		if got := must[webhook.Message](t)(w.view.Message(ctx, app, ref)); fmt.Sprint(got) != fmt.Sprint(m) {
			t.Errorf("read  %+v\nwrote %+v", got, m)
		}
	}
	// Expired is gone, whether or not retention has been there.
	gone := w.putMessage(t, webhook.Message{Payload: payload, ExpiresAt: time.Now().Add(-time.Second)})
	if got := must[webhook.Message](t)(w.view.Message(ctx, app, gone.ID.String())); got.Payload != nil {
		t.Errorf("an expired payload was shown")
	}
	a := w.putAttempt(t, webhook.Attempt{
		MessageID: m.ID, EndpointID: e.ID, Trigger: webhook.TriggerManual, Number: 2, Sent: true, Final: true, Status: webhook.StatusFail,
		HTTPStatus: 503, Class: webhook.ClassServerError, Duration: 1500 * time.Millisecond, URL: "https://example.com", Response: []byte("no"),
	})
	a.Detail.RemoteIP = "192.0.2.1"
	if got := must[webhook.Attempt](t)(w.view.Attempt(ctx, app, "ev", a.ID)); fmt.Sprint(got) != fmt.Sprint(a) {
		t.Errorf("read  %+v\nwrote %+v", got, a)
	}
	for _, content := range []bool{false, true} {
		l, err := w.view.AttemptsByEndpoint(ctx, app, e.ID.String(), filterAttempts(content), listAll)
		ok(t, err)
		if len(l.Data) != 1 || (l.Data[0].Response != nil) != content {
			t.Errorf("with content %v: %+v", content, l.Data)
		}
		messages, err := w.view.Messages(ctx, app, filterMessages(content), listAll)
		ok(t, err)
		if len(messages.Data) != 2 || (messages.Data[1].Payload != nil) != content {
			t.Errorf("with content %v: %+v", content, messages.Data)
		}
	}
	for _, ref := range []string{"", "no-such", webhook.NewMessageID().String(), "msg_x", "\x00"} {
		if _, err := w.view.Message(ctx, app, ref); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%q: %v", ref, err)
		}
		if _, err := w.view.AttemptsByMessage(ctx, app, ref, filterAttempts(false), listAll); !errors.Is(err, webhook.ErrNotFound) {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

func TestAPageOfPayloadsIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := make([]byte, webhook.MaxPayload)
	for range 20 {
		w.putMessage(t, webhook.Message{Payload: big})
	}
	p := listAll
	seen := 0
	for {
		l, err := w.view.Messages(t.Context(), w.app.ID.String(), filterMessages(true), p)
		ok(t, err)
		if len(l.Data) > 17 || len(l.Data) == 0 {
			t.Fatalf("%d payloads of 1 MiB in one page", len(l.Data))
		}
		seen += len(l.Data)
		if l.Done {
			break
		}
		p.Iterator = l.Data[len(l.Data)-1].ID.String()
	}
	if seen != 20 {
		t.Errorf("saw %d messages, want 20", seen)
	}
}
