package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
)

func TestOrderedEndpoints(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	path := "/app/" + app
	plain := a.post(path+"/endpoint", obj{"url": hookURL, "eventTypes": []string{}, "channels": []string{"plain"}}).want(201)
	if f := plain.fields(); f["ordering"] != "none" || f["onExhausted"] != "block" {
		t.Errorf("an endpoint is ordered unasked: %v", f)
	}
	if got := a.post(path+"/endpoint/"+plain.str("id")+"/skip", nil); got.status != http.StatusBadRequest {
		t.Errorf("skip at an endpoint without an order: %d %s", got.status, got.body)
	}
	made := a.post(path+"/endpoint", obj{"url": hookURL, "ordering": "fifo", "onExhausted": "skip"}).want(201)
	if f := made.fields(); f["ordering"] != "fifo" || f["onExhausted"] != "skip" {
		t.Errorf("made %v", f)
	}
	one := path + "/endpoint/" + made.str("id")
	if f := a.patch(one, obj{"onExhausted": "block"}).want(200).fields(); f["ordering"] != "fifo" || f["onExhausted"] != "block" {
		t.Errorf("patched %v", f)
	}
	a.patch(one, obj{"ordering": "lifo"}).want(422)
	if got := a.post(one+"/skip", nil); got.status != http.StatusConflict {
		t.Errorf("skip of nothing: %d %s", got.status, got.body)
	}
	first, second := a.message(app), a.message(app)
	if got := a.post(one+"/skip", obj{"msgId": second}); got.status != http.StatusConflict {
		t.Errorf("skip of what is not the first: %d %s", got.status, got.body)
	}
	// No worker runs here: what has been handed out is given up like a dead one's.
	conn := storetest.Connect(t, a.db)
	for {
		if _, err := conn.Exec(t.Context(), `UPDATE delivery SET due_at = now() WHERE seq IS NOT NULL AND state = 1`); err != nil {
			t.Fatal(err)
		}
		got := a.post(one+"/skip", obj{"msgId": first})
		if got.status == http.StatusConflict { // it was handed out just now
			continue
		}
		if skipped := got.want(200).str("msgId"); skipped != first {
			t.Errorf("skipped %s, want %s", skipped, first)
		}
		break
	}
	if f := a.get(path + "/attempt/msg/" + first).want(200); !strings.Contains(string(f.body), `"errorClass":"canceled"`) || !strings.Contains(string(f.body), `"skipped on request"`) {
		t.Errorf("attempts of what was skipped: %s", f.body)
	}
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	if got := a.post(path+"/msg", obj{"eventType": "e", "payload": obj{}, "deliverAt": later}); got.status != 422 {
		t.Errorf("a later message to an ordered endpoint: %d %s", got.status, got.body)
	}
}
