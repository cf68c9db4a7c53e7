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
	sized := func(size int) obj { // {"1":{"title":"…"}} of that size
		return obj{"1": obj{"title": strings.Repeat("t", size-len(`{"1":{"title":""}}`))}}
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

// listed is one field of every item of a page.
func listed(r result, field string) (out []string) {
	r.t.Helper()
	for _, item := range r.fields()["data"].([]any) {
		out = append(out, item.(obj)[field].(string))
	}
	return out
}
