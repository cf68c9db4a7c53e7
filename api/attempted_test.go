package api

import (
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestAttemptedMessagesAndDestinations(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint := a.endpoint(app)
	message := a.message(app)
	type item struct {
		ID, StatusText string
		Status         int
		Payload        obj
		URL            string
		DeletedAt      *string
	}
	type page struct {
		Data     []item
		Iterator *string
		Done     bool
	}
	byEndpoint, byMessage := "/app/"+app+"/endpoint/"+endpoint+"/msg", "/app/"+app+"/msg/"+message+"/endpoint"
	read := func(path string) (p page) {
		t.Helper()
		a.get(path).want(200).into(&p)
		return p
	}
	check := func(when, query string, status int, text string) {
		t.Helper()
		for _, path := range []string{byEndpoint, byMessage} {
			p := read(path + query)
			if len(p.Data) != 1 || p.Data[0].Status != status || p.Data[0].StatusText != text || !p.Done || p.Iterator == nil || *p.Iterator != p.Data[0].ID {
				t.Errorf("%s, %s: %+v", when, path, p)
			}
		}
	}
	check("before the first attempt", "", 1, "pending")
	a.attempt(app, endpoint, message)
	check("after a failure", "", 3, "sending")
	canceled := a.message(app)
	a.attempt(app, endpoint, canceled, func(at *webhook.Attempt) { at.Status, at.Sent, at.Final = webhook.StatusCanceled, false, true })
	p := read(byEndpoint)
	if len(p.Data) != 2 || p.Data[0].ID != canceled || p.Data[1].ID != message || p.Data[1].Payload["a"] != 1.0 {
		t.Errorf("%+v", p)
	}
	if p := read(byEndpoint + "?with_content=false&limit=1"); len(p.Data) != 1 || p.Done || len(p.Data[0].Payload) != 0 {
		t.Errorf("%+v", p)
	}
	if p := read(byEndpoint + "?status=2"); len(p.Data) != 0 || !p.Done || p.Iterator != nil {
		t.Errorf("%+v", p)
	}
	a.get(byEndpoint + "?status=5").want(400)
	a.get(byEndpoint + "?iterator=" + endpoint).want(422)
	a.get(byMessage + "?iterator=" + message).want(422)
	a.delete("/app/" + app + "/endpoint/" + endpoint).want(204)
	if p := read(byMessage); len(p.Data) != 1 || p.Data[0].DeletedAt == nil {
		t.Errorf("of a deleted endpoint: %+v", p)
	}
	a.get(byEndpoint).want(404)
}
