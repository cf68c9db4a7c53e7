package contracttest

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// Every name in the table leads somewhere, and every schema is one that can be checked.
func TestFactsAreWhole(t *testing.T) {
	f := load()
	if len(f.Operations) < 43 || len(f.Schemas) < 20 {
		t.Fatalf("%d operations, %d schemas", len(f.Operations), len(f.Schemas))
	}
	var walk func(s schema, at string)
	walk = func(s schema, at string) {
		if s.Ref != "" {
			if _, ok := f.Schemas[s.Ref]; !ok {
				t.Errorf("%s refers to %s", at, s.Ref)
			}
			return
		}
		if s.Type == "" && s.Properties == nil {
			t.Errorf("%s has no type", at)
		}
		for _, name := range s.Required {
			if _, ok := s.Properties[name]; !ok {
				t.Errorf("%s requires %s, of which nothing is known", at, name)
			}
		}
		for name, p := range s.Properties {
			walk(p, at+"."+name)
		}
		for _, inner := range []*schema{s.Items, s.Values} {
			if inner != nil {
				walk(*inner, at+"[]")
			}
		}
	}
	for name, s := range f.Schemas {
		walk(s, name)
	}
	for operation, answers := range f.Operations {
		for status, name := range answers {
			if _, ok := f.Schemas[name]; !ok && name != "" {
				t.Errorf("%s answers %s with %s", operation, status, name)
			}
		}
	}
}

func TestOperation(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/app":                               "GET /api/v1/app",
		"/api/v1/app/":                              "GET /api/v1/app",
		"/api/v1/app/x":                             "GET /api/v1/app/{app_id}",
		"/api/v1/app/x/msg/y/attempt/z":             "GET /api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}",
		"/api/v1/app/x/endpoint/y/headers":          "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/headers",
		"/api/v1/operator/tenant":                   "",
		"/api/v1/app/x/endpoint/y/headers/too/many": "",
	} {
		if got, known := Operation("GET", path); got != want || known != (want != "") {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if got, _ := Operation("POST", "/api/v1/app/x/msg/bulk-expunge"); got != "POST /api/v1/app/{app_id}/msg/bulk-expunge" {
		t.Error(got)
	}
}

const (
	application = `{"id":"app_0123456789abcdefghijklmnopq","name":"n","uid":null,"metadata":{},"throttleRate":null,
		"createdAt":"2026-01-01T00:00:00Z","updatedAt":"2026-01-01T00:00:00.123456+01:00","somethingNew":1}`
	attempt = `{"id":"atmpt_0123456789abcdefghijklmnopq","msgId":"msg_0123456789abcdefghijklmnopq","endpointId":"ep_0123456789abcdefghijklmnopq",
		"url":"https://example.com/x","response":"","responseStatusCode":200,"responseDurationMs":1,"status":0,"statusText":"success",
		"triggerType":0,"timestamp":"2026-01-01T00:00:00Z"}`
)

func TestProblems(t *testing.T) {
	const attemptPath = "/api/v1/app/a/msg/m/attempt/x"
	for name, c := range map[string]struct {
		method, path string
		status       int
		body         string
		want         string // part of the one problem; "" = none
	}{
		"as it should be":        {"GET", "/api/v1/app/a", 200, application, ""},
		"a slash behind":         {"GET", "//api/v1/app/a/", 200, application, ""},
		"another status":         {"GET", "/api/v1/app/a", 202, application, "does not answer with 202"},
		"a redirect":             {"POST", "/api/v1/app/", 308, "", "redirect"},
		"nothing":                {"GET", "/api/v1/app/a", 200, "", "not JSON"},
		"a required field":       {"GET", "/api/v1/app/a", 200, strings.Replace(application, `"metadata"`, `"m"`, 1), "body lacks metadata"},
		"null":                   {"GET", "/api/v1/app/a", 200, strings.Replace(application, `{},`, `null,`, 1), "body.metadata is null"},
		"a type":                 {"GET", "/api/v1/app/a", 200, strings.Replace(application, `"n"`, `1`, 1), "body.name is a number"},
		"an id":                  {"GET", "/api/v1/app/a", 200, strings.Replace(application, `app_`, `app-`, 1), "body.id"},
		"a time":                 {"GET", "/api/v1/app/a", 200, strings.Replace(application, `T00:00:00Z`, ` 00:00`, 1), "is no time"},
		"a number too wide":      {"GET", "/api/v1/app/a", 200, strings.Replace(application, `"throttleRate":null`, `"throttleRate":65536`, 1), "does not fit"},
		"a value of a map":       {"GET", "/api/v1/app/a", 200, strings.Replace(application, `{},`, `{"a":1},`, 1), "body.metadata.a is a number"},
		"inside a list":          {"GET", "/api/v1/app", 200, `{"data":[{}],"iterator":null,"done":true}`, "body.data[0] lacks createdAt"},
		"a list's iterator":      {"GET", "/api/v1/app", 200, `{"data":[],"done":true}`, "body lacks iterator"},
		"an old client's field":  {"GET", "/api/v1/app/a/endpoint/e", 200, `{}`, "body lacks version"},
		"no content":             {"DELETE", "/api/v1/app/a", 204, "", ""},
		"content":                {"DELETE", "/api/v1/app/a", 204, "{}", "a body"},
		"an attempt":             {"GET", attemptPath, 200, attempt, ""},
		"an unknown status":      {"GET", attemptPath, 200, strings.Replace(attempt, `"success"`, `"succeeded"`, 1), "not one of"},
		"a status not asked for": {"GET", attemptPath, 200, strings.Replace(attempt, `"status":0`, `"status":4`, 1), "not one of"},
		"a status asked for":     {"GET", attemptPath + "?expanded_statuses=true", 200, strings.Replace(attempt, `"status":0`, `"status":4`, 1), ""},
		"a reference":            {"GET", attemptPath, 200, strings.Replace(attempt, `{`, `{"msg":{},`, 1), "body.msg lacks"},
		"a null reference":       {"GET", attemptPath, 200, strings.Replace(attempt, `{`, `{"msg":null,`, 1), ""},
		"an error":               {"GET", "/api/v1/nothing", 404, `{"code":"not_found","detail":"d"}`, ""},
		"an error that is text":  {"GET", "/api/v1/nothing", 404, `not found`, "not JSON"},
		"an error without code":  {"GET", "/api/v1/app/a", 409, `{"detail":"d"}`, "lacks code"},
		"a field's error":        {"POST", "/api/v1/app", 422, `{"detail":[{"loc":["body"],"msg":"m","type":"t"}]}`, ""},
		"a field's error, plain": {"POST", "/api/v1/app", 422, `{"code":"c","detail":"d"}`, ""},
		"a field's error, wrong": {"POST", "/api/v1/app", 422, `{"detail":[{"loc":"body","msg":"m","type":"t"}]}`, "loc is a string"},
		"a field's error as 400": {"POST", "/api/v1/app", 400, `{"detail":[{"loc":["body"],"msg":"m","type":"t"}]}`, "lacks code"},
		"not of the dialect":     {"GET", "/metrics", 200, `#`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			header := http.Header{"Content-Type": {"application/json"}}
			req := httptest.NewRequest(c.method, "http://x"+c.path, nil)
			got := Problems(req, c.status, header, []byte(c.body))
			if c.want == "" && len(got) > 0 || c.want != "" && !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, c.want) }) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if got := Problems(httptest.NewRequest("GET", "/api/v1/app", nil), 401, http.Header{}, []byte(`{"code":"c","detail":"d"}`)); len(got) == 0 {
		t.Error("an error without a content type passes")
	}
}

func TestDocument(t *testing.T) {
	d, err := ParseDocument([]byte(`{"paths":{"/a/{id}":{"get":{"responses":{
		"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/A"}}}},
		"204":{"description":"nothing"},"404":{"$ref":"#/components/responses/404"}}}}},
		"components":{"schemas":{"A":{"type":"object","required":["n"],"properties":{"n":{"type":["integer","null"]},"of":{"type":"array","items":{"enum":[1]}}}}},
		"responses":{"404":{"content":{"application/json":{"schema":{"type":"object"}}}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	id := "req_0123456789abcdef0123456789abcdef"
	for name, c := range map[string]struct {
		status     int
		body, want string
	}{
		"as it should be":   {200, `{"n":null,"of":[1]}`, ""},
		"nothing":           {204, ``, ""},
		"an error":          {404, `{"requestId":"` + id + `"}`, ""},
		"an unnamed error":  {404, `{}`, "request id"},
		"another status":    {202, `{}`, "no such status"},
		"a server error":    {500, `{}`, "server error"},
		"too much":          {204, `{}`, "has none"},
		"too little":        {200, `{}`, "lacks n"},
		"a type":            {200, `{"n":"1"}`, "body.n is string"},
		"an unknown member": {200, `{"n":1,"m":1}`, "has m"},
		"a value":           {200, `{"n":1,"of":[2]}`, "body.of[0] = 2"},
	} {
		header := http.Header{"X-Request-Id": {id}, "Content-Type": {"application/json"}}
		got := d.Problems(httptest.NewRequest("GET", "/a/1", nil), c.status, header, []byte(c.body))
		if c.want == "" && len(got) > 0 || c.want != "" && !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, c.want) }) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for _, header := range []http.Header{{"Content-Type": {"application/json"}}, {"X-Request-Id": {id}, "Content-Type": {"text/plain"}}} {
		if got := d.Problems(httptest.NewRequest("GET", "/b", nil), 200, header, []byte("{}")); len(got) != 1 {
			t.Errorf("%v: %q", header, got)
		}
	}
}
