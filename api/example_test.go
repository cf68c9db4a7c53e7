package api

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestSendExample(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	a.post("/event-type", obj{"name": "of.it", "description": "d", "schemas": obj{
		"1": obj{"type": "object", "examples": []any{obj{"n": 1}, obj{"n": 2}, "no object"}}, "2": obj{"examples": []any{obj{"n": 3}}},
	}}).want(201)
	a.post("/event-type", obj{"name": "of.none", "description": "d"}).want(201)
	endpoint := a.post("/app/"+app+"/endpoint", obj{"url": "http://127.0.0.1:8072/", "eventTypes": []string{"of.none"}}).want(201).str("id")
	a.endpoint(app) // which gets none of it
	path := "/app/" + app + "/endpoint/" + endpoint + "/send-example"
	payload := func(body any) (sent obj) {
		t.Helper()
		got := a.post(path, body).want(200)
		var m struct {
			ID      string
			Payload obj
		}
		if got.into(&m); len(m.Payload) != 0 {
			t.Errorf("answered %s", got.body)
		}
		var p struct {
			Data []struct{ ID, StatusText string }
		}
		if a.get("/app/" + app + "/msg/" + m.ID + "/endpoint").want(200).into(&p); len(p.Data) != 1 || p.Data[0].ID != endpoint || p.Data[0].StatusText != "pending" {
			t.Errorf("owed to %+v", p.Data)
		}
		if err := json.Unmarshal([]byte(mustField(t, a.get("/app/"+app+"/msg/"+m.ID).want(200), "payload")), &sent); err != nil {
			t.Fatal(err)
		}
		return sent
	}
	if p := payload(obj{"eventType": "svix.ping"}); p["success"] != true {
		t.Errorf("a ping of %v", p)
	}
	if p := payload(obj{"eventType": "of.it"}); p["n"] != 1.0 {
		t.Errorf("an example of %v", p)
	}
	if p := payload(obj{"eventType": "of.it", "exampleIndex": 1}); p["n"] != 2.0 {
		t.Errorf("another example of %v", p)
	}
	for _, body := range []obj{{"eventType": "of.none"}, {"eventType": "of.it", "exampleIndex": 2}, {"eventType": "of.it", "exampleIndex": 3}} {
		if got := a.post(path, body).want(400); got.str("code") != "invalid_scheme" {
			t.Errorf("%v: %s", body, got.body)
		}
	}
	a.post(path, obj{"eventType": "no.such"}).want(404)
	a.post(path, obj{"eventType": "of.it", "exampleIndex": -1}).want(422)
	// A repeated call is the same call.
	first := a.post(path, obj{"eventType": "svix.ping"}, "idempotency-key", "k").want(200).str("id")
	if again := a.post(path, obj{"eventType": "svix.ping"}, "idempotency-key", "k").want(200).str("id"); again != first {
		t.Errorf("messages %s and %s", first, again)
	}
	conn, err := pgx.Connect(t.Context(), a.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	var messages, manual, all int
	if err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM message), count(*) FILTER (WHERE trigger = 1), count(*) FROM delivery`).Scan(&messages, &manual, &all); err != nil || messages != 4 || manual != 4 || all != 4 {
		t.Errorf("%d messages, %d of %d deliveries manual (%v)", messages, manual, all, err)
	}
}

func mustField(t *testing.T, r result, name string) string {
	t.Helper()
	text, err := json.Marshal(r.fields()[name])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestStatsRange(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	var none time.Time
	for _, c := range []struct {
		since, until, from, to time.Time
		ok                     bool
	}{
		{none, none, ago(maxStatsRange), now, true},
		{none, ago(time.Hour), ago(maxStatsRange + time.Hour), ago(time.Hour), true},
		{ago(time.Hour), none, ago(time.Hour), now, true},
		{ago(maxStatsRange + statsSlack), now, ago(maxStatsRange + statsSlack), now, true},
		{ago(maxStatsRange + statsSlack + 1), now, none, none, false},
		{now, now.Add(statsSlack), now, now.Add(statsSlack), true},
		{now, now.Add(statsSlack + 1), none, none, false},
		{now, ago(1), none, none, false},
	} {
		from, to, err := statsRange(c.since, c.until, now)
		if (err == nil) != c.ok || c.ok && (!from.Equal(c.from) || !to.Equal(c.to)) {
			t.Errorf("since %v until %v: %v %v %v", c.since, c.until, from, to, err)
		}
	}
}

func TestStatsAndExpunge(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint := a.endpoint(app)
	message := a.message(app)
	attempt := a.attempt(app, endpoint, message)
	a.attempt(app, endpoint, message, func(at *webhook.Attempt) {
		at.Status, at.HTTPStatus, at.Class = webhook.StatusSuccess, 200, webhook.ClassNone
	})
	stats := "/app/" + app + "/endpoint/" + endpoint + "/stats"
	got := a.get(stats + "?until=" + time.Now().Add(time.Minute).UTC().Format(time.RFC3339)).want(200).fields()
	for name, want := range map[string]float64{"success": 1, "fail": 1, "canceled": 0, "pending": 1, "sending": 0} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
	for _, query := range []string{"?since=2020-01-01T00:00:00Z", "?until=2999-01-01T00:00:00Z", "?since=2020-02-01T00:00:00Z&until=2020-01-01T00:00:00Z"} {
		if got := a.get(stats + query).want(400); got.str("code") != "invalid_range" {
			t.Errorf("%s: %s", query, got.body)
		}
	}
	one := "/app/" + app + "/msg/" + message
	for range 2 {
		a.delete(one + "/content").want(204)
		a.delete(one + "/attempt/" + attempt + "/content").want(204)
	}
	if p := mustField(t, a.get(one).want(200), "payload"); p != `{"expired":true}` {
		t.Errorf("the payload reads %s", p)
	}
	if r := a.get(one + "/attempt/" + attempt).want(200).str("response"); r != "EXPUNGED" {
		t.Errorf("the answer reads %q", r)
	}
	if got := a.post(one+"/endpoint/"+endpoint+"/resend", nil).want(400); got.str("code") != "missing_payload" {
		t.Errorf("sent again: %s", got.body)
	}
}
