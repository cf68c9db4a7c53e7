package store_test

import (
	"reflect"
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
	a := w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID, Sent: true, HTTPStatus: 503, Duration: time.Second,
		Response: []byte("answer-that-must-go"), Detail: webhook.AttemptDetail{
			Error: "stays", RemoteIP: "192.0.2.1", TLSVersion: "1.3", Timings: &webhook.Timings{Total: 7}, SignedWith: []webhook.SecretID{webhook.NewSecretID()},
			RequestHeaders:  []webhook.Header{{Name: "x-sent", Value: "stays"}},
			ResponseHeaders: []webhook.Header{{Name: "x-name-that-must-go", Value: "header-that-must-go"}},
			RetryAfter:      "retry-that-must-go", ContentType: "type/that-must-go",
		}})
	const gone = "that-must-go"
	if before := dump(t, w.sql); !strings.Contains(before, "payload-"+gone) || !strings.Contains(before, "answer-"+gone) {
		t.Fatal("there is nothing to expunge")
	}
	kept := a.Detail
	kept.ResponseHeaders, kept.RetryAfter, kept.ContentType = nil, "", ""
	ctx, app := t.Context(), w.app.ID.String()
	for range 2 {
		ok(t, w.view.ExpungeMessage(ctx, app, "ev"))
		ok(t, w.view.ExpungeAttempt(ctx, app, m.ID.String(), a.ID))
	}
	if after := dump(t, w.sql); strings.Contains(after, gone) {
		t.Errorf("content is left: %s", after)
	}
	if got := must[webhook.Message](t)(w.view.Message(ctx, app, m.ID.String())); got.Payload != nil || got.EventID != "ev" {
		t.Errorf("the message reads %+v", got)
	}
	if got := must[webhook.Attempt](t)(w.view.Attempt(ctx, app, m.ID.String(), a.ID)); string(got.Response) != "EXPUNGED" || !got.Sent ||
		got.HTTPStatus != 503 || got.Duration != time.Second || !reflect.DeepEqual(got.Detail, kept) {
		t.Errorf("the attempt reads %+v", got)
	}
	wantKind(t, w.view.ExpungeMessage(ctx, app, webhook.NewMessageID().String()), webhook.KindNotFound)
	wantKind(t, w.view.ExpungeAttempt(ctx, app, m.ID.String(), webhook.NewAttemptID()), webhook.KindNotFound)
}
