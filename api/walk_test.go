package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/webhook"
)

// bodies are valid ones for every operation that needs a body; the walks below fail for one that is
// missing here.
var bodies = map[string]string{
	"v1.application.create":               `{"name":"new"}`,
	"v1.application.update":               `{"name":"changed"}`,
	"v1.application.patch":                `{"name":"changed"}`,
	"v1.endpoint.create":                  `{"url":"http://127.0.0.1:8072/new"}`,
	"v1.endpoint.update":                  `{"url":"http://127.0.0.1:8072/changed"}`,
	"v1.endpoint.patch":                   `{"description":"changed"}`,
	"v1.endpoint.rotate-secret":           `{}`,
	"v1.endpoint.skip":                    `{}`,
	"v1.endpoint.update-headers":          `{"headers":{"x-changed":"yes"}}`,
	"v1.endpoint.patch-headers":           `{"headers":{"x-changed":"yes"}}`,
	"v1.event-type.create":                `{"name":"new.type","description":"d"}`,
	"v1.event-type.update":                `{"description":"changed"}`,
	"v1.event-type.patch":                 `{"description":"changed"}`,
	"v1.message.create":                   `{"eventType":"user.created","payload":{"changed":true}}`,
	"v1.authentication.app-portal-access": `{"expiry":3600}`,
	"v1.authentication.expire-all":        `{}`,
	"v1.operator.tenant.create":           `{"name":"new"}`,
	"v1.operator.api-key.create":          `{"name":"new","scopes":["read"]}`,
	"v1.operator.plan.update":             `{"limits":{"publishRate":1000}}`,
	"v1.operator.api-key.expire":          `{}`,
	"v1.message.create-batch":             `{"messages":[{"eventType":"user.created","payload":{"changed":true}}]}`,
	"v1.endpoint.send-example":            `{"eventType":"svix.ping"}`,
	"v1.endpoint.recover":                 `{"since":"2099-01-01T00:00:00Z","until":"2099-01-01T00:00:00Z"}`,
	"v1.endpoint.recover-dry-run":         `{"since":"2099-01-01T00:00:00Z","until":"2099-01-01T00:00:00Z"}`,
	"v1.endpoint.replay-missing":          `{"since":"2099-01-01T00:00:00Z","until":"2099-01-01T00:00:00Z"}`,
	"v1.endpoint.replay-missing-dry-run":  `{"since":"2099-01-01T00:00:00Z","until":"2099-01-01T00:00:00Z"}`,
	"v1.endpoint.bulk-replay":             `{"since":"2099-01-01T00:00:00Z","until":"2099-01-01T00:00:00Z"}`,
	"v1.endpoint.bulk-replay-dry-run":     `{"since":"2099-01-01T00:00:00Z","until":"2099-01-01T00:00:00Z"}`,
	"v1.message.precheck":                 `{"eventType":"user.created"}`,
	"v1.message.bulk-expunge-content":     `{"ids":["nothing"]}`,
	"v1.operator.tenant.patch":            `{"strictEventTypes":false}`,
	"v1.event-type.import-openapi":        `{"spec":{"openapi":"3.1.0","webhooks":{"imported":{"post":{}}}}}`,
}

func bodyOf(t testing.TB, op operation) any {
	t.Helper()
	body, ok := bodies[op.doc["operationId"].(string)]
	if _, needed := op.doc["requestBody"]; needed != ok {
		t.Fatalf("%s: a body is needed: %t, known: %t", op.doc["operationId"], needed, ok)
	}
	if !ok {
		return nil
	}
	return body
}

// objects makes one of everything a path can name, and returns their names by path parameter.
func (a tenant) objects() map[string]string {
	a.t.Helper()
	app := a.app()
	endpoint, message := a.endpoint(app), a.message(app)
	a.put("/event-type/of."+strings.ToLower(string(a.id.String()[4:])), obj{"description": "d"}).want(201)
	return map[string]string{
		"app_id": app, "endpoint_id": endpoint, "msg_id": message, "attempt_id": a.attempt(app, endpoint, message),
		"task_id":         a.post("/app/"+app+"/msg/expunge-all-contents", nil).want(202).str("id"),
		"event_type_name": "of." + strings.ToLower(string(a.id.String()[4:])),
	}
}

func (op operation) isOperator() bool { return strings.HasPrefix(op.path, operatorPath) }

// isApplication reports whether an application token alone opens the operation.
func (op operation) isApplication() bool { return op.path == authPath+"/logout" }

// Every operation of the document is called with the names of another tenant's objects. It must find
// nothing, and change nothing.
func TestForeignObjectsAreNotFound(t *testing.T) {
	t.Parallel()
	r := setup(t)
	mine, theirs := r.tenant(), r.tenant()
	own, foreign := mine.objects(), theirs.objects()
	before := snapshot(t, r.db, theirs.id)
	walked := 0
	for _, op := range operations(golden(t)) {
		parameters := pathParameter.FindAllStringSubmatch(op.path, -1)
		if op.isOperator() || len(parameters) == 0 {
			continue
		}
		// Each parameter in turn is foreign while the others are one's own; then all are.
		for i := range len(parameters) + 1 {
			if i == 1 && len(parameters) == 1 {
				continue
			}
			values := map[string]string{}
			for j, p := range parameters {
				values[p[1]] = own[p[1]]
				if own[p[1]] == "" {
					t.Fatalf("%s: nothing is made for parameter %s", op.path, p[1])
				}
				if i == j || i == len(parameters) {
					values[p[1]] = foreign[p[1]]
				}
			}
			path := fill(op.path, values)
			got := mine.do(op.method, path, mine.key, bodyOf(t, op))
			walked++
			// A PUT makes an object of that name, as it does for any name that is free.
			last := parameters[len(parameters)-1][1]
			mayCreate := op.method == "PUT" && strings.HasSuffix(op.path, "{"+last+"}") && values[last] == foreign[last] &&
				(len(parameters) == 1 || values["app_id"] == own["app_id"])
			if mayCreate && got.status == 201 {
				continue
			}
			if got.status != 404 || got.str("code") != "not_found" {
				t.Errorf("%s %s: %d %s", op.method, path, got.status, got.body)
			}
		}
	}
	if walked < 30 {
		t.Fatalf("only %d calls were walked", walked)
	}
	if after := snapshot(t, r.db, theirs.id); after != before {
		t.Fatalf("the other tenant's rows changed:\n%s\n%s", before, after)
	}
}

// snapshot is every row of a tenant, as text.
func snapshot(t *testing.T, db string, id webhook.TenantID) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), `SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attname = 'tenant_id' AND c.relname <> 'api_key' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 6 {
		t.Fatal(tables, err)
	}
	var out strings.Builder
	for _, table := range tables {
		var text *string
		err := conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT string_agg(x::text, E'\n' ORDER BY x::text) FROM %s x
			WHERE x.tenant_id = $1`, pgx.Identifier{table}.Sanitize()), id.UUID()).Scan(&text)
		if err != nil {
			t.Fatal(err)
		}
		if text != nil {
			out.WriteString(table + ": " + *text + "\n")
		}
	}
	if !strings.Contains(out.String(), "attempt: ") || !strings.Contains(out.String(), "message: ") {
		t.Fatalf("there is nothing to change in %s", out.String())
	}
	return out.String()
}

// A key may do what its scopes allow and nothing else; what it may not, it learns before anything is
// looked up.
func TestScopes(t *testing.T) {
	t.Parallel()
	r := setup(t)
	owner := r.tenant()
	values := owner.objects()
	for _, scope := range []auth.Scope{auth.Read, auth.Send, auth.Write, auth.Admin} {
		caller := r.keyOf(owner.id, string(scope))
		held, err := auth.ParseScopes([]string{string(scope)})
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range operations(golden(t)) {
			if op.isOperator() || op.isApplication() || op.method == "DELETE" && scope != auth.Read && scope != auth.Send {
				continue
			}
			needed := auth.Scope(op.doc["x-scope"].(string))
			got := r.do(op.method, fill(op.path, values), caller.key, bodyOf(t, op))
			if allowed := got.status != 403; allowed != held.Allow(needed) {
				t.Errorf("%s with scope %s: %d", op.doc["operationId"], scope, got.status)
			}
			if got.status == 403 && got.str("code") != "insufficient access" {
				t.Errorf("%s", got.body)
			}
		}
	}
}

// Nothing answers without a credential of its own class.
func TestEveryOperationNeedsItsCredential(t *testing.T) {
	t.Parallel()
	r := setup(t)
	key := r.tenant().key
	forged, _, _ := auth.NewAPIKey()
	values := map[string]string{}
	for _, op := range operations(golden(t)) {
		for _, p := range pathParameter.FindAllStringSubmatch(op.path, -1) {
			values[p[1]] = "x"
		}
		tokens := []string{"", "x", forged.Reveal(), key + "x", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
		if op.isOperator() {
			tokens = []string{"", key}
		} else {
			tokens = append(tokens, operatorToken)
		}
		for _, token := range tokens {
			// The body is nonsense: who may not call must not learn that.
			got := r.do(op.method, fill(op.path, values), token, "nonsense")
			if got.status != 401 || got.str("code") != "authentication_failed" {
				t.Errorf("%s with token %.8q: %d %s", op.doc["operationId"], token, got.status, got.body)
			}
		}
	}
}
