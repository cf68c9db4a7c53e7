package api

import (
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestOperatorMakesTenantsAndKeys(t *testing.T) {
	t.Parallel()
	r := setup(t)
	operate := func(method, path string, body any) result {
		t.Helper()
		return r.do(method, tenantsPath+path, operatorToken, body)
	}
	made := operate("POST", "", obj{"name": "Acme", "uid": "acme"}).want(201)
	if again := operate("POST", "", obj{"name": "Other", "uid": "acme"}).want(200); again.str("id") != made.str("id") || again.str("name") != "Acme" {
		t.Fatalf("%s", again.body)
	}
	if got := operate("GET", "/acme", nil).want(200); string(got.body) != string(made.body) {
		t.Fatalf("%s", got.body)
	}
	if ids := listed(operate("GET", "?limit=1", nil).want(200), "id"); len(ids) != 1 || ids[0] != made.str("id") {
		t.Fatal(ids)
	}
	key := operate("POST", "/acme/api-key", obj{"name": "ci", "uid": "ci", "scopes": []string{"send", "read"}}).want(201)
	text := key.str("key")
	if again := operate("POST", "/acme/api-key", obj{"name": "ci", "uid": "ci", "scopes": []string{"admin"}}).want(200); again.str("id") != key.str("id") || again.fields()["key"] != nil {
		t.Fatalf("%s", again.body)
	}
	acme := tenant{r, webhook.TenantID{}, text}
	acme.get("/app").want(200)
	acme.post("/app", obj{"name": "n"}).want(403)
	operate("DELETE", "/acme", nil).want(204)
	operate("GET", "/"+made.str("id"), nil).want(404)
	operate("DELETE", "/acme", nil).want(404)
	for start := time.Now(); acme.get("/app").status == 200; {
		if time.Since(start) > time.Second {
			t.Fatal("a deleted tenant's key is let in after a second")
		}
	}
}

func TestOperatorInput(t *testing.T) {
	t.Parallel()
	r := setup(t)
	id := r.tenant().id.String()
	for _, c := range []struct {
		path   string
		body   obj
		status int
		loc    string
	}{
		{"", obj{"name": strings.Repeat("n", webhook.MaxName)}, 201, ""},
		{"", obj{"name": strings.Repeat("n", webhook.MaxName+1)}, 422, "body.name"},
		{"", obj{"name": "n", "uid": "org_x"}, 422, "body.uid"},
		{"/" + id + "/api-key", obj{"name": "n", "scopes": []string{"read", "send", "write", "admin"}}, 201, ""},
		{"/" + id + "/api-key", obj{"name": "n", "scopes": []string{}}, 422, "body.scopes"},
		{"/" + id + "/api-key", obj{"name": "n", "scopes": []string{"root"}}, 422, "body.scopes.[0]"},
		{"/" + id + "/api-key", obj{"name": "n"}, 422, "body.scopes"},
		{"/" + id + "/api-key", obj{"name": "n", "scopes": []string{"read"}, "uid": "key_x"}, 422, "body.uid"},
		{"/" + id + "/api-key", obj{"name": "n", "scopes": []string{"read"}, "expiresAt": "2001-01-01T00:00:00Z"}, 422, "body.expiresAt"},
		{"/" + id + "/api-key", obj{"name": "n", "scopes": []string{"read"}, "expiresAt": "soon"}, 422, "body.expiresAt"},
		{"/" + id + "/api-key/nobody/expire", obj{}, 404, ""},
		{"/nobody/api-key", obj{"name": "n", "scopes": []string{"read"}}, 404, ""},
	} {
		got := r.do("POST", tenantsPath+c.path, operatorToken, c.body)
		if got.status != c.status {
			t.Errorf("%s %.100v: %d, want %d: %.200s", c.path, c.body, got.status, c.status, got.body)
		} else if c.loc != "" && locOf(got) != c.loc {
			t.Errorf("%s %.100v: at %s, want %s", c.path, c.body, locOf(got), c.loc)
		}
	}
}
