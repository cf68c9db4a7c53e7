package conformance_test

import (
	"net/http"
	"testing"
)

// What is written at the edge of what is allowed is read back in the shape that clients demand; the
// front checks every answer.
func TestEdgesAreAnsweredInShape(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/app", `{"name":"n","uid":"a","metadata":null,"throttleRate":null,"rateLimit":65535}`, 201},
		{"PATCH", "/app/a", `{"metadata":null}`, 422},
		{"GET", "/app/a", ``, 200},
		{"PUT", "/event-type/t.1", `{"description":"","featureFlags":["a","a"],"schemas":{}}`, 201},
		{"PUT", "/event-type/t.2", `{"description":"","featureFlags":[],"groupName":null}`, 201},
		{"GET", "/event-type?with_content=true", ``, 200},
		{"POST", "/app/a/endpoint", `{"url":"http://127.0.0.1:8072/","uid":"e","eventTypes":["t.1","t.1"],"channels":["c","c"],"metadata":null,"version":2147483647}`, 201},
		{"POST", "/app/a/endpoint", `{"url":"http://127.0.0.1:8072/","eventTypes":[],"channels":[],"description":null}`, 201},
		{"POST", "/app/a/endpoint", `{"url":"http://user:pass@127.0.0.1:8072/?q=ü#f"}`, 201},
		{"PATCH", "/app/a/endpoint/e", `{"eventTypes":[],"channels":[],"throttleRate":0}`, 200},
		{"GET", "/app/a/endpoint", ``, 200},
		{"PUT", "/app/a/endpoint/e/headers", `{"headers":{"Authorization":"1","X-Api-Key":"2","X-Plain":""}}`, 204},
		{"GET", "/app/a/endpoint/e/headers", ``, 200},
		{"POST", "/app/a/msg", `{"eventType":"t.1","payload":{},"channels":["c","c"],"tags":["t","t"],"eventId":null}`, 202},
		{"POST", "/app/a/msg", `{"eventType":"t.1","payload":{},"channels":[],"tags":[]}`, 202},
		{"GET", "/app/a/msg", ``, 200},
		{"GET", "/app/a/msg?limit=1", ``, 200},
		{"GET", "/app/a/msg?before=2020-01-01T00:00Z", ``, 200},
		{"GET", "/app/a/attempt/endpoint/e", ``, 200},
		{"POST", "/app/a/endpoint/e/secret/rotate", ``, 204},
		{"POST", "/app/a/endpoint/e/secret/rotate", `{}`, 204},
		{"GET", "/app/a/endpoint/e/secret", ``, 200},
		{"GET", "/app/", ``, 200},
		{"GET", "/no/such/thing", ``, 404},
		{"PATCH", "/app", `{}`, 405},
	} {
		if status, body := p.call(t, c.method, "/api/v1"+c.path, p.key, c.body); status != c.want {
			t.Errorf("%s %s %s: %d %s, want %d", c.method, c.path, c.body, status, body, c.want)
		}
	}
	for _, path := range []string{"/api/v1/app", "//api/v1/app", "/api/v1/app/"} {
		if status, body := p.call(t, http.MethodGet, path, "", ""); status != http.StatusUnauthorized {
			t.Errorf("%s without a key: %d %s", path, status, body)
		}
	}
}
