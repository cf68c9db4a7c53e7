package api

import (
	"strconv"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestEventTypeLife(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	schemas := obj{"1": obj{"type": "object", "properties": obj{"id": obj{"type": "string"}}}}
	made := a.post("/event-type", obj{"name": "a.b", "description": "d", "schemas": schemas, "groupName": "g", "featureFlag": "beta"}).want(201).fields()
	if made["featureFlag"] != "beta" || made["featureFlags"].([]any)[0] != "beta" || made["schemas"].(obj)["1"] == nil || made["groupName"] != "g" {
		t.Fatal(made)
	}
	if got := a.post("/event-type", obj{"name": "a.b", "description": "d"}); got.status != 409 || got.str("code") != "event_type_exists" {
		t.Fatalf("%s", got.body)
	}
	if f := a.patch("/event-type/a.b", `{"featureFlags":["x","y"],"schemas":null}`).want(200).fields(); f["featureFlag"] != "x" || f["schemas"] != nil || f["groupName"] != "g" {
		t.Fatal(f)
	}
	if f := a.patch("/event-type/a.b", `{"featureFlag":null,"groupName":null}`).want(200).fields(); f["featureFlags"] != nil || f["groupName"] != nil {
		t.Fatal(f)
	}
	a.delete("/event-type/a.b").want(204)
	if f := a.get("/event-type/a.b").want(200).fields(); f["archived"] != true {
		t.Fatal("an archived type must still be shown", f)
	}
	if names := listed(a.get("/event-type").want(200), "name"); len(names) != 0 {
		t.Fatal("an archived type is listed", names)
	}
	if names := listed(a.get("/event-type?include_archived=true").want(200), "name"); len(names) != 1 {
		t.Fatal(names)
	}
	if f := a.post("/event-type", obj{"name": "a.b", "description": "again"}).want(201).fields(); f["archived"] != false || f["description"] != "again" {
		t.Fatal(f)
	}
	a.delete("/event-type/a.b?expunge=true").want(204)
	a.get("/event-type/a.b").want(404)
}

func TestEventTypeSchemasAreListedOnlyIfAsked(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	a.post("/event-type", obj{"name": "a", "description": "d", "schemas": obj{"1": obj{"title": "canary"}}}).want(201)
	if got := a.get("/event-type").want(200); strings.Contains(string(got.body), "canary") {
		t.Fatalf("%s", got.body)
	}
	if got := a.get("/event-type?with_content=true").want(200); !strings.Contains(string(got.body), "canary") {
		t.Fatalf("%s", got.body)
	}
}

func TestEventTypeLimits(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	flags := func(n int) (out []string) {
		for i := range n {
			out = append(out, "f"+strings.Repeat("x", i))
		}
		return out
	}
	one := func(size int) obj { // {"title":"…"} of that size
		return obj{"title": strings.Repeat("t", size-len(`{"title":""}`))}
	}
	sized := func(size int) obj { // five versions of that size together
		rest := size - len(`{"1":,"2":,"3":,"4":,"5":}`)
		return obj{"1": one(rest / 5), "2": one(rest / 5), "3": one(rest / 5), "4": one(rest / 5), "5": one(rest - rest/5*4)}
	}
	versions := func(n int) obj {
		out := obj{}
		for i := range n {
			out[strconv.Itoa(i)] = obj{}
		}
		return out
	}
	for i, c := range []struct {
		what   string
		body   obj
		status int
	}{
		{"name at the limit", obj{"name": strings.Repeat("n", webhook.MaxUIDLength)}, 201},
		{"name over it", obj{"name": strings.Repeat("n", webhook.MaxUIDLength+1)}, 422},
		{"name with a slash", obj{"name": "a/b"}, 422},
		{"flags at the limit", obj{"name": "f1", "featureFlags": flags(webhook.MaxFeatureFlags)}, 201},
		{"flags over it", obj{"name": "f2", "featureFlags": flags(webhook.MaxFeatureFlags + 1)}, 422},
		{"schemas at the limit", obj{"name": "s1", "schemas": sized(webhook.MaxSchemas)}, 201},
		{"schemas over it", obj{"name": "s2", "schemas": sized(webhook.MaxSchemas + 1)}, 422},
		{"a schema at the limit", obj{"name": "s7", "schemas": obj{"1": one(webhook.MaxSchema)}}, 201},
		{"a schema over it", obj{"name": "s8", "schemas": obj{"1": one(webhook.MaxSchema + 1)}}, 422},
		{"members at the limit", obj{"name": "s5", "schemas": versions(maxMembers)}, 201},
		{"members over it", obj{"name": "s6", "schemas": versions(maxMembers + 1)}, 422},
		{"a schema that is no object", obj{"name": "s3", "schemas": obj{"1": "x"}}, 422},
		{"schemas that are no object", obj{"name": "s4", "schemas": []int{1}}, 422},
	} {
		c.body["description"] = "d"
		if got := a.post("/event-type", c.body); got.status != c.status {
			t.Errorf("%d %s: %d, want %d: %.200s", i, c.what, got.status, c.status, got.body)
		}
	}
}

// What is no schema, or would have the server fetch something, is refused wherever one is written, and
// the answer says which version.
func TestSchemasAreCheckedOnWrite(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	a.put("/event-type/kept", obj{"description": "d", "schemas": obj{"1": obj{"type": "object"}}}).want(201)
	for what, bad := range map[string]obj{
		"type": {"type": "strnig"}, "remote": {"$ref": "http://127.0.0.1:1/x"}, "file": {"$ref": "file:///etc/passwd"}, "pattern": {"pattern": "(?=a)"},
	} {
		schemas := obj{"1": obj{}, "v2": bad}
		for i, got := range []result{
			a.post("/event-type", obj{"name": "bad", "description": "d", "schemas": schemas}),
			a.put("/event-type/bad", obj{"description": "d", "schemas": schemas}),
			a.patch("/event-type/kept", obj{"schemas": schemas}),
		} {
			if got.status != 422 || locOf(got) != "body.schemas.v2" {
				t.Errorf("%s, %d: %d %s", what, i, got.status, got.body)
			}
		}
	}
	a.get("/event-type/bad").want(404)
	if f := a.get("/event-type/kept").want(200).fields(); len(f["schemas"].(obj)) != 1 {
		t.Error(f)
	}
}

// listed is one field of every item of a page.
func listed(r result, field string) (out []string) {
	r.t.Helper()
	for _, item := range r.fields()["data"].([]any) {
		out = append(out, item.(obj)[field].(string))
	}
	return out
}
