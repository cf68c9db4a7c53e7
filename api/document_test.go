package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/auth"
)

var update = flag.Bool("update", false, "rewrite openapi.json from the code")

// goldenPath holds the document as it is committed: clients are generated from it, and a change of it
// shows in review.
const goldenPath = "openapi.json"

func TestDocumentIsTheCommittedOne(t *testing.T) {
	t.Parallel()
	r := setup(t)
	got := r.do("GET", "/api/v1/openapi.json", "", nil).want(200).body
	if *update {
		if err := os.WriteFile(goldenPath, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("openapi.json is not what the code says; if the change is meant: go test ./api -run TestDocument -update")
	}
}

func TestDocumentSaysWhoMayCall(t *testing.T) {
	t.Parallel()
	for _, op := range operations(golden(t)) {
		security := op.doc["security"].([]any)
		scheme := tenantScheme
		if strings.HasPrefix(op.path, operatorPath) {
			scheme = operatorScheme
		}
		if op.isApplication() {
			scheme = applicationScheme
		}
		choices := 1
		if op.doc["x-capability"] != nil {
			choices = 2
			if security[1].(map[string]any)[applicationScheme] == nil {
				t.Errorf("%s %s: security %v", op.method, op.path, security)
			}
		}
		if len(security) != choices || security[0].(map[string]any)[scheme] == nil {
			t.Errorf("%s %s: security %v", op.method, op.path, security)
		}
		if scope, _ := op.doc["x-scope"].(string); scheme == tenantScheme && scope == "" {
			t.Errorf("%s %s needs no scope", op.method, op.path)
		}
	}
}

// golden is the committed document.
func golden(t testing.TB) map[string]any {
	t.Helper()
	text, err := os.ReadFile(goldenPath)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestOperatorRoutesNeedAToken(t *testing.T) {
	t.Parallel()
	r := setup(t, func(o *Options) { o.OperatorToken = auth.OperatorToken{} })
	r.do("GET", tenantsPath, operatorToken, nil).want(404)
	r.do("GET", tenantsPath, "", nil).want(404)
	if text := string(r.do("GET", "/api/v1/openapi.json", "", nil).want(200).body); strings.Contains(text, operatorPath) {
		t.Fatal("the document shows routes that are not there")
	}
}

var pathParameter = regexp.MustCompile(`\{([a-z_]+)\}`)

// fill puts values into the parameters of a path.
func fill(path string, values map[string]string) string {
	return pathParameter.ReplaceAllStringFunc(path, func(p string) string { return values[p[1:len(p)-1]] })
}
