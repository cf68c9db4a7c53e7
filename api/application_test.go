package api

import (
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestApplicationLife(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	made := a.post("/app", obj{"name": "Shop", "uid": "shop.1", "throttleRate": 7, "metadata": obj{"k": "v"}, "newer": true}).want(201)
	f := made.fields()
	if f["uid"] != "shop.1" || f["throttleRate"] != 7.0 || f["rateLimit"] != 7.0 || f["metadata"].(obj)["k"] != "v" || f["name"] != "Shop" {
		t.Fatalf("%s", made.body)
	}
	for _, ref := range []string{"shop.1", made.str("id")} {
		if got := a.get("/app/" + ref).want(200); string(got.body) != string(made.body) {
			t.Fatalf("get %s: %s, made %s", ref, got.body, made.body)
		}
	}
	if code := a.post("/app", obj{"name": "Other", "uid": "shop.1"}).want(409).str("code"); code != "conflict" {
		t.Fatal(code)
	}
	if again := a.post("/app?get_if_exists=true", obj{"name": "Other", "uid": "shop.1"}).want(200); again.str("name") != "Shop" {
		t.Fatalf("an existing application was changed: %s", again.body)
	}
	a.delete("/app/shop.1").want(204)
	a.get("/app/" + made.str("id")).want(404)
	if next := a.post("/app", obj{"name": "Next", "uid": "shop.1"}).want(201); next.str("id") == made.str("id") {
		t.Fatal("the id came back")
	}
}

func TestPatchTellsAbsentNullAndValueApart(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	id := a.post("/app", obj{"name": "Shop", "uid": "shop", "throttleRate": 7, "metadata": obj{"k": "v"}}).want(201).str("id")
	if f := a.patch("/app/"+id, `{}`).want(200).fields(); f["uid"] != "shop" || f["throttleRate"] != 7.0 || f["metadata"].(obj)["k"] != "v" {
		t.Fatal("an absent field was changed", f)
	}
	if f := a.patch("/app/"+id, `{"uid":null,"metadata":{"x":"y"}}`).want(200).fields(); f["uid"] != nil || f["throttleRate"] != 7.0 || len(f["metadata"].(obj)) != 1 {
		t.Fatal("null did not clear, or metadata was merged", f)
	}
	if f := a.patch("/app/"+id, `{"rateLimit":null,"name":"New"}`).want(200).fields(); f["throttleRate"] != nil || f["name"] != "New" {
		t.Fatal("the older spelling does not clear", f)
	}
	for _, body := range []string{`{"name":null}`, `{"metadata":null}`, `{"name":""}`} {
		a.patch("/app/"+id, body).want(422)
	}
	if f := a.put("/app/"+id, `{"name":"Put"}`).want(200).fields(); len(f["metadata"].(obj)) != 0 || f["uid"] != nil {
		t.Fatal("PUT kept what it was not given", f)
	}
}

func TestPutCreatesUnderTheUIDInThePath(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	first := a.put("/app/shop", obj{"name": "Shop"}).want(201)
	if first.str("uid") != "shop" {
		t.Fatalf("%s", first.body)
	}
	if second := a.put("/app/shop", obj{"name": "Shop 2"}).want(200); second.str("id") != first.str("id") || second.str("uid") != "shop" {
		t.Fatalf("repeating the PUT made another: %s", second.body)
	}
	ep := a.put("/app/shop/endpoint/main", obj{"url": "http://127.0.0.1:8072/"}).want(201)
	if ep.str("uid") != "main" {
		t.Fatalf("%s", ep.body)
	}
	if again := a.put("/app/shop/endpoint/main", obj{"url": "http://127.0.0.1:8072/x"}).want(200); again.str("id") != ep.str("id") {
		t.Fatalf("%s", again.body)
	}
	a.put("/event-type/a.b", obj{"description": "d"}).want(201)
	if et := a.put("/event-type/a.b", obj{"description": "e"}).want(200); et.str("name") != "a.b" || et.str("description") != "e" {
		t.Fatalf("%s", et.body)
	}
}

func TestApplicationLimits(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	metadata := func(size int) obj { // size as JSON: {"k":"…"}
		return obj{"k": strings.Repeat("v", size-len(`{"k":""}`))}
	}
	for _, c := range []struct {
		what   string
		body   any
		status int
		loc    string
	}{
		{"uid at the limit", obj{"name": "n", "uid": strings.Repeat("u", webhook.MaxUIDLength)}, 201, ""},
		{"uid over it", obj{"name": "n", "uid": strings.Repeat("u", webhook.MaxUIDLength+1)}, 422, "body.uid"},
		{"empty uid", obj{"name": "n", "uid": ""}, 422, "body.uid"},
		{"uid of other letters", obj{"name": "n", "uid": "ü"}, 422, "body.uid"},
		{"uid like an id", obj{"name": "n", "uid": "app_x"}, 422, "body.uid"},
		{"metadata at the limit", obj{"name": "n", "metadata": metadata(webhook.MaxMetadata)}, 201, ""},
		{"metadata over it", obj{"name": "n", "metadata": metadata(webhook.MaxMetadata + 1)}, 422, "body.metadata"},
		{"metadata that is no text", obj{"name": "n", "metadata": obj{"k": 1}}, 422, "body.metadata.k"},
		{"metadata null", obj{"name": "n", "metadata": nil}, 201, ""},
		{"rate at the limit", obj{"name": "n", "throttleRate": webhook.MaxThrottleRate}, 201, ""},
		{"rate over it", obj{"name": "n", "throttleRate": webhook.MaxThrottleRate + 1}, 422, "body.throttleRate"},
		{"rate 0", obj{"name": "n", "throttleRate": 0}, 422, "body.throttleRate"},
		{"old rate over it", obj{"name": "n", "rateLimit": webhook.MaxThrottleRate + 1}, 422, "body.rateLimit"},
		{"no name", obj{}, 422, "body.name"},
		{"empty name", obj{"name": ""}, 422, "body.name"},
		{"name with NUL", obj{"name": "a\x00"}, 422, "body.name"},
		{"name with a control character", obj{"name": "a\x07"}, 422, "body.name"},
		{"name of another case hides nothing", `{"name":"n","UID":"a/b","Uid":"c/d"}`, 201, ""},
	} {
		got := a.post("/app", c.body)
		if got.status != c.status {
			t.Errorf("%s: %d, want %d: %s", c.what, got.status, c.status, got.body)
			continue
		}
		if c.loc != "" {
			if loc := locOf(got); loc != c.loc {
				t.Errorf("%s: at %s, want %s", c.what, loc, c.loc)
			}
		}
	}
}

// locOf is where the first error of a 422 is, joined by dots.
func locOf(r result) string {
	r.t.Helper()
	var v validationOut
	r.into(&v)
	if len(v.Detail) == 0 {
		r.t.Fatalf("no detail in %s", r.body)
	}
	return strings.Join(v.Detail[0].Loc, ".")
}
