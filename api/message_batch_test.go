package api

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// batchOf is a body with these messages.
func batchOf(messages ...string) string { return `{"messages":[` + strings.Join(messages, ",") + `]}` }

// results are a batch's, in order.
func (r result) results() (out []messageBatchResult) {
	r.t.Helper()
	var body messageBatchOut
	r.into(&body)
	return body.Data
}

// sql is a connection to the database.
func (r *rig) sql() *pgx.Conn {
	r.t.Helper()
	return storetest.Connect(r.t, r.db)
}

// count asks the database.
func (r *rig) count(query string, args ...any) (n int) {
	r.t.Helper()
	conn := r.sql()
	defer func() { _ = conn.Close(r.t.Context()) }()
	if err := conn.QueryRow(r.t.Context(), "SELECT count(*) FROM "+query, args...).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// exec changes the database.
func (r *rig) exec(sql string, args ...any) {
	r.t.Helper()
	conn := r.sql()
	defer func() { _ = conn.Close(r.t.Context()) }()
	if _, err := conn.Exec(r.t.Context(), sql, args...); err != nil {
		r.t.Fatal(err)
	}
}

func TestBatchAnswersEveryMessageAndStoresTheValidOnesTogether(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	a.endpoint(app)
	path := "/app/" + app + "/msg"
	a.post(path, envelope(`{}`, `,"eventId":"taken"`)).want(202)
	got := a.post(path+"/batch", batchOf(
		envelope(`{"n": 1}`, `,"eventId":"one","channels":["x"],"tags":["t"]`),
		`{"payload":{}}`,
		envelope(`[]`, ""),
		`7`,
		`{"eventType":{},"payload":{}}`,
		envelope(`{}`, `,"eventId":"taken"`),
		envelope(`{}`, `,"eventId":"one"`),
		envelope(`{}`, `,"channels":["a","b c"]`),
		envelope(`{}`, `,"application":{"name":"n","uid":"u"}`),
		envelope(`{"k":"`+strings.Repeat("v", webhook.MaxPayload)+`"}`, ""),
		envelope(`{"last":true}`, ""),
	)).want(202)
	results := got.results()
	wants := []struct{ code, loc string }{
		{}, {"validation_error", "eventType"}, {"validation_error", "payload"}, {"validation_error", ""}, {"validation_error", "eventType"},
		{"conflict", ""}, {"conflict", ""}, {"validation_error", "channels.[1]"}, {"validation_error", "application"}, {"payload_too_large", ""}, {},
	}
	if len(results) != len(wants) {
		t.Fatalf("%s", got.body)
	}
	for i, want := range wants {
		r := results[i]
		if want.code == "" {
			if r.ID == nil || r.Error != nil || r.Timestamp == nil {
				t.Errorf("message %d: %+v", i, r)
			}
			continue
		}
		if r.ID != nil || r.Error == nil || r.Error.Code != want.code || r.Error.Detail == "" {
			t.Errorf("message %d: %+v, want %s", i, r, want.code)
			continue
		}
		if want.code == "validation_error" {
			loc := strings.TrimSuffix(fmt.Sprintf("body.messages.[%d].%s", i, want.loc), ".")
			if len(r.Error.Fields) != 1 || strings.Join(r.Error.Fields[0].Loc, ".") != loc {
				t.Errorf("message %d: %+v, want at %s", i, r.Error, loc)
			}
		}
	}
	stored := a.get(path + "/" + *results[0].ID).want(200)
	if !strings.Contains(string(stored.body), `"tags":["t"]`) || stored.str("eventId") != "one" || *results[0].EventID != "one" {
		t.Errorf("%s", stored.body)
	}
	m, err := a.store.View(webhook.Scope{Tenant: a.id}).Message(t.Context(), app, "one")
	if err != nil || string(m.Payload) != `{"n": 1}` {
		t.Errorf("the payload is %q, %v", m.Payload, err)
	}
	if n := a.count("message WHERE tenant_id = $1", a.id.UUID()); n != 3 {
		t.Errorf("%d messages are stored, want 3", n)
	}
	if n := a.count("(SELECT DISTINCT xmin FROM message WHERE tenant_id = $1) x", a.id.UUID()); n != 2 {
		t.Errorf("one message and one batch took %d transactions", n)
	}
	if n := a.count("delivery WHERE tenant_id = $1", a.id.UUID()); n != 3 {
		t.Errorf("%d deliveries are owed, want 3", n)
	}
}

func TestBatchIsRepeatedByItsKey(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg/batch"
	body := batchOf(envelope(`{"a":1}`, `,"eventId":"e"`), envelope(`{"a":2}`, ""), envelope(`[]`, ""))
	first := a.post(path, body, "idempotency-key", "k").want(202)
	if again := a.post(path, body, "idempotency-key", "k").want(202); string(again.body) != string(first.body) {
		t.Fatalf("%s\n%s", first.body, again.body)
	}
	if got := a.post(path, batchOf(envelope(`{}`, "")), "idempotency-key", "k").want(422); got.str("code") != "idempotency_key_reused" {
		t.Fatalf("%s", got.body)
	}
	if got := a.post(path, batchOf(envelope(`{}`, "")), "idempotency-key", "auto_k").want(202); len(got.results()) != 1 {
		t.Fatalf("%s", got.body)
	}
	a.post(path, body, "idempotency-key", strings.Repeat("k", webhook.MaxIdempotencyKey+1)).want(422)
	// Without the key, what has an event id is still stored once.
	again := a.post(path, body).want(202).results()
	if again[0].Error == nil || again[0].Error.Code != "conflict" || again[1].ID == nil {
		t.Fatalf("%+v", again)
	}

	answers := make(chan string, 6)
	var all sync.WaitGroup
	together := batchOf(envelope(`{"b":1}`, ""), envelope(`{"b":2}`, ""))
	for range cap(answers) {
		all.Go(func() { answers <- string(a.post(path, together, "idempotency-key", "together").want(202).body) })
	}
	all.Wait()
	one := <-answers
	for range cap(answers) - 1 {
		if answer := <-answers; answer != one {
			t.Fatal("one key, two answers")
		}
	}

	// A failure leaves the key free.
	a.post("/app/later/msg/batch", body, "idempotency-key", "k2").want(404)
	a.post("/app", obj{"name": "n", "uid": "later"}).want(201)
	a.post("/app/later/msg/batch", body, "idempotency-key", "k2").want(202)
}

// Batches that share event ids run into each other; each id is stored once, and somebody got it.
func TestBatchesRaceForEventIDs(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg/batch"
	const callers, ids = 6, 40
	var messages []string
	for i := range ids {
		messages = append(messages, envelope(`{}`, fmt.Sprintf(`,"eventId":"e%d"`, i)))
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	stored := map[int]int{}
	for range callers {
		all.Go(func() {
			results := a.post(path, batchOf(messages...)).want(202).results()
			mu.Lock()
			defer mu.Unlock()
			for i, r := range results {
				if r.ID != nil {
					stored[i]++
				} else if r.Error.Code != "conflict" {
					t.Errorf("message %d: %+v", i, r.Error)
				}
			}
		})
	}
	all.Wait()
	for i := range ids {
		if stored[i] != 1 {
			t.Errorf("message %d was stored %d times", i, stored[i])
		}
	}
}

func TestBatchLimits(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	path := "/app/" + app + "/msg/batch"
	many := func(n int) string {
		return batchOf(strings.TrimSuffix(strings.Repeat(envelope(`{}`, "")+",", n), ","))
	}
	padded := func(size int) string {
		body := batchOf(envelope(`{}`, `,"x":""`))
		return batchOf(envelope(`{}`, `,"x":"`+strings.Repeat("x", size-len(body))+`"`))
	}
	for _, c := range []struct {
		what, body string
		status     int
		loc        string
	}{
		{"messages at the limit", many(webhook.MaxBatch), 202, ""},
		{"messages over it", many(webhook.MaxBatch + 1), 422, "body.messages"},
		{"a million of nothing", `{"messages":[` + strings.Repeat("1,", 1_000_000) + `1]}`, 422, "body.messages"},
		{"no messages", `{"messages":[]}`, 422, "body.messages"},
		{"no list", `{}`, 422, "body.messages"},
		{"null", `{"messages":null}`, 422, "body.messages"},
		{"an object", `{"messages":{}}`, 422, "body.messages"},
		{"body at the limit", padded(webhook.MaxBody), 202, ""},
		{"body over it", padded(webhook.MaxBody + 1), 413, ""},
		{"brackets in texts", batchOf(envelope(`{"a":"],[\"{"}`, ""), envelope(`{ }`, "")), 202, ""},
	} {
		got := a.post(path, c.body)
		if got.status != c.status {
			t.Errorf("%s: %d, want %d: %.300s", c.what, got.status, c.status, got.body)
		} else if c.loc != "" && locOf(got) != c.loc {
			t.Errorf("%s: at %s, want %s", c.what, locOf(got), c.loc)
		}
	}
	for range 10 {
		a.endpoint(app)
	}
	before := a.count("message WHERE tenant_id = $1", a.id.UUID())
	a.post(path, many(webhook.MaxBatchDeliveries/10)).want(202)
	a.endpoint(app)
	over := webhook.MaxBatchDeliveries/11 + 1
	if got := a.post(path, many(over)).want(422); locOf(got) != "body.messages" {
		t.Errorf("%s", got.body)
	}
	if n := a.count("message WHERE tenant_id = $1", a.id.UUID()) - before; n != webhook.MaxBatchDeliveries/10 {
		t.Errorf("%d messages are stored: of a refused batch, nothing may be", n)
	}
	a.post(path, many(over-1)).want(202)
}

func TestBatchCreatesTheApplicationItBrings(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	body := `{"messages":[` + envelope(`{}`, "") + `],"application":{"name":"Shop","uid":"shop"}}`
	a.post("/app/shop/msg/batch", body).want(202)
	if f := a.get("/app/shop").want(200).fields(); f["name"] != "Shop" {
		t.Fatal(f)
	}
	if got := a.post("/app/other/msg/batch", body).want(422); locOf(got) != "body.application.uid" {
		t.Fatalf("%s", got.body)
	}
	a.keyOf(a.id, "send").post("/app/shop/msg/batch", body).want(202)
	a.keyOf(a.id, "send").post("/app/new/msg/batch", strings.ReplaceAll(body, "shop", "new")).want(403)
	a.post("/app/nobody/msg/batch", batchOf(`{}`)).want(404)
	a.post("/app/a%20b/msg/batch", batchOf(`{}`)).want(422)
}
