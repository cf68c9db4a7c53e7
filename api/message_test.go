package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// envelope is a publish whose payload is written as given.
func envelope(payload string, more string) string {
	return `{"eventType":"user.created","payload":` + payload + more + `}`
}

func TestPayloadIsKeptByteForByte(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	for _, payload := range []string{
		`{}`, `{ "b" : 1,  "a":2 }`, `{"a":1,"a":2}`, `{"n":123456789012345678901234567890.10}`, `{"e":1E400}`,
		`{"nul":"\u0000"}`, `{"lone":"\ud800"}`, `{"s":"\/ \u00e9 é <&>"}`, "{\n\t\"x\":[ ]\r\n}",
		strings.Repeat(`{"d":`, maxDepth-2) + `{}` + strings.Repeat(`}`, maxDepth-2),
	} {
		made := a.post("/app/"+app+"/msg", envelope(payload, "")).want(202)
		if !strings.Contains(string(made.body), `"payload":`+payload+`,`) {
			t.Errorf("answered %s for %s", made.body, payload)
		}
		var out struct{ ID string }
		made.into(&out)
		m, err := a.store.View(webhook.Scope{Tenant: a.id}).Message(t.Context(), app, out.ID)
		if err != nil || string(m.Payload) != payload {
			t.Errorf("stored %q, sent %q, %v", m.Payload, payload, err)
		}
		a.get("/app/" + app + "/msg/" + out.ID).want(200)
	}
	if f := a.post("/app/"+app+"/msg", `{"eventType":"a","data":{"x":1}}`).want(202).fields(); f["payload"].(obj)["x"] != 1.0 {
		t.Fatal("data is not taken as payload", f)
	}
}

func TestMessageLimits(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	payload := func(size int) string { return `{"k":"` + strings.Repeat("v", size-len(`{"k":""}`)) + `"}` }
	names := func(n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(`"n%d"`, i))
		}
		return "[" + strings.Join(out, ",") + "]"
	}
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	padded := func(size int) string { // a body of that size whose payload is small
		body := envelope(`{}`, `,"x":""`)
		return envelope(`{}`, `,"x":"`+strings.Repeat("x", size-len(body))+`"`)
	}
	for _, c := range []struct {
		what, body string
		status     int
		loc        string
	}{
		{"payload at the limit", envelope(payload(webhook.MaxPayload), ""), 202, ""},
		{"payload over it", envelope(payload(webhook.MaxPayload+1), ""), 413, ""},
		{"body at the limit", padded(webhook.MaxBody), 202, ""},
		{"body over it", padded(webhook.MaxBody + 1), 413, ""},
		{"depth over the limit", envelope(strings.Repeat(`{"d":`, maxDepth-1)+`{}`+strings.Repeat(`}`, maxDepth-1), ""), 422, "body"},
		{"channels at the limit", envelope(`{}`, `,"channels":`+names(webhook.MaxChannels)), 202, ""},
		{"channels over it", envelope(`{}`, `,"channels":`+names(webhook.MaxChannels+1)), 422, "body.channels"},
		{"no channels", envelope(`{}`, `,"channels":[]`), 202, ""},
		{"channel at the limit", envelope(`{}`, `,"channels":[`+long(webhook.MaxChannelLength)+`]`), 202, ""},
		{"channel over it", envelope(`{}`, `,"channels":["a",`+long(webhook.MaxChannelLength+1)+`]`), 422, "body.channels.[1]"},
		{"tags at the limit", envelope(`{}`, `,"tags":`+names(webhook.MaxTags)), 202, ""},
		{"tags over it", envelope(`{}`, `,"tags":`+names(webhook.MaxTags+1)), 422, "body.tags"},
		{"tag of the whole alphabet", envelope(`{}`, `,"tags":["a/b\\c#d"]`), 202, ""},
		{"tag over the limit", envelope(`{}`, `,"tags":[`+long(webhook.MaxTagLength+1)+`]`), 422, "body.tags.[0]"},
		{"eventId at the limit", envelope(`{}`, `,"eventId":`+long(webhook.MaxUIDLength)), 202, ""},
		{"eventId over it", envelope(`{}`, `,"eventId":`+long(webhook.MaxUIDLength+1)), 422, "body.eventId"},
		{"eventId like an id", envelope(`{}`, `,"eventId":"msg_x"`), 422, "body.eventId"},
		{"null everywhere", envelope(`{}`, `,"eventId":null,"channels":null,"tags":null,"application":null,"deliverAt":null,"payloadRetentionPeriod":null,"transformationsParams":null`), 202, ""},
		{"type over the limit", `{"payload":{},"eventType":` + long(webhook.MaxUIDLength+1) + `}`, 422, "body.eventType"},
		{"no type", `{"payload":{}}`, 422, "body.eventType"},
		{"no payload", `{"eventType":"a"}`, 422, "body.payload"},
		{"payload null", envelope(`null`, ""), 422, "body.payload"},
		{"payload an array", envelope(`[1]`, ""), 422, "body.payload"},
		{"shortest retention", envelope(`{}`, `,"payloadRetentionPeriod":1`), 202, ""},
		{"longest retention", envelope(`{}`, `,"payloadRetentionPeriod":90`), 202, ""},
		{"retention 0", envelope(`{}`, `,"payloadRetentionPeriod":0`), 422, "body.payloadRetentionPeriod"},
		{"retention over it", envelope(`{}`, `,"payloadRetentionPeriod":91`), 422, "body.payloadRetentionPeriod"},
		{"hours", envelope(`{}`, `,"payloadRetentionHours":2160`), 202, ""},
		{"hours over it", envelope(`{}`, `,"payloadRetentionHours":2161`), 422, "body.payloadRetentionHours"},
		{"both", envelope(`{}`, `,"payloadRetentionHours":1,"payloadRetentionPeriod":1`), 422, "body.payloadRetentionHours"},
		{"deliverAt too far ahead", envelope(`{}`, `,"deliverAt":"2130-01-01T00:00:00Z"`), 422, "body.deliverAt"},
		{"deliverAt in the past", envelope(`{}`, `,"deliverAt":"2020-01-01T00:00:00Z"`), 422, "body.deliverAt"},
		{"deliverAt no time", envelope(`{}`, `,"deliverAt":"tomorrow"`), 422, "body.deliverAt"},
		{"deliverAt a number", envelope(`{}`, `,"deliverAt":1893456000`), 422, "body.deliverAt"},
		{"deliverAt after the payload is gone", envelope(`{}`, `,"payloadRetentionHours":1,"deliverAt":"`+time.Now().Add(2*time.Hour).Format(time.RFC3339)+`"`), 422, "body.deliverAt"},
		{"raw payload", envelope(`{}`, raw(`"x"`, `"text/plain; charset=utf-8"`)), 202, ""},
		{"raw payload alone", `{"eventType":"a"` + raw(`"x"`, `null`) + `}`, 202, ""},
		{"raw payload at the limit", envelope(`{}`, raw(long(webhook.MaxPayload), `"a/b"`)), 202, ""},
		{"raw payload over it", envelope(`{}`, raw(long(webhook.MaxPayload+1), `"a/b"`)), 413, ""},
		{"raw payload empty", envelope(`{}`, raw(`""`, `"a/b"`)), 422, "body.transformationsParams.rawPayload"},
		{"raw payload null", envelope(`{}`, raw(`null`, `1`)), 202, ""},
		{"raw payload no text", envelope(`{}`, raw(`{}`, `"a/b"`)), 422, "body.transformationsParams.rawPayload"},
		{"raw headers no object", envelope(`{}`, `,"transformationsParams":{"rawPayload":"x","headers":[]}`), 422, "body.transformationsParams"},
		{"content type at the limit", envelope(`{}`, raw(`"x"`, `"a/`+strings.Repeat("b", webhook.MaxContentType-2)+`"`)), 202, ""},
		{"content type over it", envelope(`{}`, raw(`"x"`, `"a/`+strings.Repeat("b", webhook.MaxContentType-1)+`"`)), 422, "body.transformationsParams.headers"},
		{"content type that is none", envelope(`{}`, raw(`"x"`, `"a b"`)), 422, "body.transformationsParams.headers"},
		{"content type with a line break", envelope(`{}`, raw(`"x"`, `"a/b\r\nx: y"`)), 422, "body.transformationsParams.headers"},
		{"members nobody knows", envelope(`{}`, `,"newer":{"x":[1]}`), 202, ""},
	} {
		got := a.post(path, c.body)
		if got.status != c.status {
			t.Errorf("%s: %d, want %d: %.300s", c.what, got.status, c.status, got.body)
		} else if c.loc != "" && locOf(got) != c.loc {
			t.Errorf("%s: at %s, want %s", c.what, locOf(got), c.loc)
		}
	}
	if got := a.post("/app/a%20b/msg", envelope(`{}`, "")); got.status != 422 || locOf(got) != "path.app_id_or_uid" {
		t.Errorf("%d %s", got.status, got.body)
	}
	a.post("/app/nobody/msg", envelope(`{}`, "")).want(404)
}

// raw is the member that brings a raw payload along.
func raw(payload, contentType string) string {
	return `,"transformationsParams":{"rawPayload":` + payload + `,"headers":{"Content-Type":` + contentType + `,"x-other":"y"}}`
}

// A raw payload reads as the object it may be, and as {} if it is none; nothing of it is lost.
func TestRawPayloadsAreRead(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	for text, want := range map[string]string{
		`{"a": 1.50}`: `{"a":1.50}`, " \n{\"a\":2}": `{"a":2}`, `<a/>`: `{}`, `[1]`: `{}`, `{"a":`: `{}`, `"text"`: `{}`, `{} {}`: `{}`,
	} {
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		body, key := envelope(`{"not":"this"}`, raw(string(quoted), `"a/b"`)), url.QueryEscape(text)
		made := a.post(path, body, "idempotency-key", key).want(202)
		again := a.post(path, body, "idempotency-key", key).want(202)
		for what, got := range map[string]result{"made": made, "made again": again, "got": a.get(path + "/" + made.str("id")).want(200)} {
			var m struct{ Payload json.RawMessage }
			got.into(&m)
			var shown bytes.Buffer
			if err := json.Compact(&shown, m.Payload); err != nil || shown.String() != want {
				t.Errorf("%q, %s: %s, want %s (%v)", text, what, m.Payload, want, err)
			}
		}
	}
}

func TestEventIDIsUnique(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	made := a.post(path, envelope(`{}`, `,"eventId":"order.1"`)).want(202)
	if got := a.post(path, envelope(`{}`, `,"eventId":"order.1"`)); got.status != 409 || got.str("code") != "conflict" {
		t.Fatalf("%s", got.body)
	}
	if got := a.get(path + "/order.1").want(200); got.str("id") != made.str("id") {
		t.Fatalf("%s", got.body)
	}
	a.post("/app/"+a.app()+"/msg", envelope(`{}`, `,"eventId":"order.1"`)).want(202)
}

func TestContentIsLeftOutWhenNotWanted(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	made := a.post(path+"?with_content=false", envelope(`{"canary":1}`, "")).want(202)
	for _, got := range []result{
		made, a.get(path + "/" + made.str("id") + "?with_content=false").want(200), a.get(path + "?with_content=false").want(200),
	} {
		if strings.Contains(string(got.body), "canary") || !strings.Contains(string(got.body), `"payload":{}`) {
			t.Errorf("%s", got.body)
		}
	}
	if got := a.get(path + "/" + made.str("id")).want(200); !strings.Contains(string(got.body), "canary") {
		t.Errorf("%s", got.body)
	}
	a.post(path+"?with_content=perhaps", envelope(`{}`, "")).want(400)
}

func TestSameKeyPublishesOnce(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	body := envelope(`{"a":1}`, "")
	first := a.post(path, body, "idempotency-key", "k").want(202)
	second := a.post(path, body, "idempotency-key", "k").want(202)
	if string(first.body) != string(second.body) {
		t.Fatalf("%s\n%s", first.body, second.body)
	}
	if got := a.post(path, envelope(`{"a":2}`, ""), "idempotency-key", "k"); got.status != 422 || got.str("code") != "idempotency_key_reused" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	auto := a.post(path, body, "idempotency-key", "auto_1").want(202)
	if again := a.post(path, envelope(`{"a":2}`, ""), "idempotency-key", "auto_1").want(202); again.str("id") != auto.str("id") {
		t.Fatalf("%s", again.body)
	}
	// Another key of the same tenant is the same principal; another tenant is not.
	if other := a.keyOf(a.id).post(path, body, "idempotency-key", "k").want(202); other.str("id") != first.str("id") {
		t.Fatal("rotating an API key duplicates a retried message")
	}
	b := a.rig.tenant()
	b.post("/app/"+b.app()+"/msg", body, "idempotency-key", "k").want(202)

	ids := make(chan string, 10)
	var all sync.WaitGroup
	for range cap(ids) {
		all.Go(func() { ids <- a.post(path, body, "idempotency-key", "together").want(202).str("id") })
	}
	all.Wait()
	one := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != one {
			t.Fatal("one key, two messages")
		}
	}
	a.post(path, body, "idempotency-key", strings.Repeat("k", webhook.MaxIdempotencyKey)).want(202)
	a.post(path, body, "idempotency-key", strings.Repeat("k", webhook.MaxIdempotencyKey+1)).want(422)
}

func TestSameKeyCreatesOnce(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	first := a.post("/app", obj{"name": "n"}, "idempotency-key", "k").want(201)
	if second := a.post("/app", obj{"name": "n"}, "idempotency-key", "k").want(201); string(second.body) != string(first.body) {
		t.Fatalf("%s\n%s", first.body, second.body)
	}
	if got := a.post("/app", obj{"name": "other"}, "idempotency-key", "k"); got.status != 422 || got.str("code") != "idempotency_key_reused" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	// What failed is not kept: the same key may succeed later.
	a.post("/event-type", obj{"name": "a b", "description": "d"}, "idempotency-key", "k2").want(422)
	a.post("/event-type", obj{"name": "a.b", "description": "d"}, "idempotency-key", "k2").want(201)
	app := first.str("id")
	rotate := "/app/" + app + "/endpoint/" + a.endpoint(app) + "/secret"
	a.post(rotate+"/rotate", nil, "idempotency-key", "k3").want(204)
	key := a.get(rotate).str("key")
	if again := a.post(rotate+"/rotate", nil, "idempotency-key", "k3").want(204); len(again.body) > 0 || a.get(rotate).str("key") != key {
		t.Fatal("a repeated rotation rotated again")
	}
}

func TestPublishCreatesTheApplicationItBrings(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	made := a.post("/app/shop/msg", envelope(`{}`, `,"application":{"name":"Shop","uid":"shop"}`)).want(202)
	if f := a.get("/app/shop").want(200).fields(); f["name"] != "Shop" {
		t.Fatal(f)
	}
	a.get("/app/shop/msg/" + made.str("id")).want(200)
	a.post("/app/shop/msg", envelope(`{}`, `,"application":{"name":"Other"}`)).want(202) // exists: what it brings is ignored
	for _, c := range []struct{ application, typ, loc string }{
		{`{"name":"n"}`, "application_uid_missing", "body.application.uid"},
		{`{"name":"n","uid":"x"}`, "application_uid_mismatch", "body.application.uid"},
		{`{"uid":"next"}`, typeValue, "body.application.name"},
		{`"next"`, typeJSON, "body.application"},
	} {
		got := a.post("/app/next/msg", envelope(`{}`, `,"application":`+c.application)).want(422)
		var v validationOut
		got.into(&v)
		if v.Detail[0].Type != c.typ || locOf(got) != c.loc {
			t.Errorf("%s: %s", c.application, got.body)
		}
	}
	a.keyOf(a.id, "send").post("/app/new/msg", envelope(`{}`, `,"application":{"name":"New","uid":"new"}`)).want(403)
}

func TestMessageFilters(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	post := func(typ, more string) string {
		return a.post(path, `{"eventType":"`+typ+`","payload":{}`+more+`}`).want(202).str("id")
	}
	m1 := post("a", `,"channels":["x"],"tags":["t"]`)
	m2 := post("b", `,"channels":["y"]`)
	m3 := post("c", ``)
	at := func(id string) time.Time {
		parsed, err := webhook.ParseID[webhook.MessageID](id)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Time()
	}
	future := time.Now().Add(time.Minute).UTC()
	for _, c := range []struct {
		query string
		want  []string
	}{
		{"", []string{m3, m2, m1}},
		{"?channel=x", []string{m1}},
		{"?tag=t", []string{m1}},
		{"?event_types=a,b", []string{m2, m1}},
		{"?event_types=a&event_types=c", []string{m3, m1}},
		{"?event_types[]=a&event_types[]=c", []string{m3, m1}},
		{"?event_types%5B0%5D=b&event_types%5B1%5D=c", []string{m3, m2}},
		{"?before=" + future.Format(time.RFC3339), []string{m3, m2, m1}},
		{"?before=" + future.Format("2006-01-02T15:04:05.000Z"), []string{m3, m2, m1}},
		{"?before=" + future.Format("2006-01-02T15:04:05.000000") + "%2B00:00", []string{m3, m2, m1}},
		{"?before=" + future.Format("2006-01-02T15:04:05") + "+00:00", []string{m3, m2, m1}},
		{"?before=" + url.QueryEscape(future.Format("2006-01-02 15:04:05.0")+" UTC"), []string{m3, m2, m1}},
		{"?after=" + future.Format("2006-01-02T15:04") + "Z", nil},
		{"?after=" + at(m1).Add(-time.Hour).Format(time.RFC3339), []string{m3, m2, m1}},
		{"?before=" + at(m1).Add(-time.Hour).Format(time.RFC3339), nil},
	} {
		got := listed(a.get(path+c.query).want(200), "id")
		if strings.Join(got, ",") != strings.Join(c.want, ",") {
			t.Errorf("%s: %v, want %v", c.query, got, c.want)
		}
	}
	for query, status := range map[string]int{
		"?before=yesterday": 400, "?after=0000-01-01T00:00:00Z": 400, "?with_content=2": 400, "?limit=x": 400, "?%zz=1": 400,
		"?channel=a%20b": 422, "?event_types=a%2Fb": 422, "?tag=%00": 422, "?limit=251": 422, "?limit=-1": 422,
	} {
		a.get(path + query).want(status)
	}
}
