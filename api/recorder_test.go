package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/posthaste/posthaste/internal/contracttest"
)

// recorder checks every answer against the document that the server itself serves (status, body, and
// that nothing is answered which is not written there) and against what clients demand.
type recorder struct {
	t    testing.TB
	next http.RoundTripper
	doc  map[string]any
	ops  []operation

	mu   sync.Mutex
	seen map[string]bool // "METHOD path status"
}

type operation struct {
	method, path string
	pattern      *regexp.Regexp
	doc          map[string]any
}

func newRecorder(t testing.TB, next http.RoundTripper, handler http.Handler) *recorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/openapi.json", nil))
	r := &recorder{t: t, next: next, seen: map[string]bool{}}
	if err := json.Unmarshal(w.Body.Bytes(), &r.doc); err != nil {
		t.Fatal(err)
	}
	r.ops = operations(r.doc)
	return r
}

// operations lists what a document describes, in a fixed order.
func operations(doc map[string]any) (ops []operation) {
	for path, item := range doc["paths"].(map[string]any) {
		pattern := regexp.MustCompile("^" + regexp.MustCompile(`\\\{[a-z_]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + "$")
		for method, op := range item.(map[string]any) {
			ops = append(ops, operation{strings.ToUpper(method), path, pattern, op.(map[string]any)})
		}
	}
	slices.SortFunc(ops, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return ops
}

func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	problems := append(r.problems(req, resp, body), contracttest.Problems(req, resp.StatusCode, resp.Header, body)...)
	for _, problem := range problems {
		r.t.Errorf("%s %s → %d: %s\n%.500s", req.Method, req.URL.Path, resp.StatusCode, problem, body)
	}
	return resp, nil
}

func (r *recorder) problems(req *http.Request, resp *http.Response, body []byte) (problems []string) {
	if !regexp.MustCompile(`^req_[0-9a-f]{32}$`).MatchString(resp.Header.Get("x-request-id")) {
		problems = append(problems, "no request id")
	}
	if resp.StatusCode >= 500 && resp.StatusCode != 503 {
		problems = append(problems, "a server error")
	}
	if len(body) > 0 {
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "application/json" && req.URL.Path != "/metrics" {
			problems = append(problems, "content type "+kind)
		}
	}
	if resp.StatusCode >= 400 && req.Method != http.MethodHead {
		var e struct{ RequestID string }
		if json.Unmarshal(body, &e) != nil || e.RequestID != resp.Header.Get("x-request-id") {
			problems = append(problems, "an error without its request id")
		}
	}
	i := slices.IndexFunc(r.ops, func(op operation) bool {
		return op.method == req.Method && op.pattern.MatchString(evenPath(req.URL.EscapedPath()))
	})
	if i < 0 {
		return problems
	}
	op := r.ops[i]
	r.mu.Lock()
	r.seen[fmt.Sprint(op.method, " ", op.path, " ", resp.StatusCode)] = true
	r.mu.Unlock()
	response, ok := op.doc["responses"].(map[string]any)[strconv.Itoa(resp.StatusCode)].(map[string]any)
	if !ok {
		return append(problems, "the document knows no such status")
	}
	if ref, ok := response["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/responses/")
		response = r.doc["components"].(map[string]any)["responses"].(map[string]any)[name].(map[string]any)
	}
	content, ok := response["content"].(map[string]any)
	if !ok {
		if len(body) > 0 {
			problems = append(problems, "a body where the document has none")
		}
		return problems
	}
	var v any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // a payload may hold numbers beyond float64
	if err := dec.Decode(&v); err != nil {
		return append(problems, "not JSON: "+err.Error())
	}
	schema := content["application/json"].(map[string]any)["schema"].(map[string]any)
	return append(problems, r.mismatches(schema, v, "body")...)
}

// mismatches checks a value against a schema, more strictly than JSON Schema does: what an object has
// must be in the document.
func (r *recorder) mismatches(schema map[string]any, v any, at string) (out []string) {
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		schema = r.doc["components"].(map[string]any)["schemas"].(map[string]any)[name].(map[string]any)
	}
	if choices, ok := schema["anyOf"].([]any); ok {
		for _, one := range choices {
			if out = r.mismatches(one.(map[string]any), v, at); len(out) == 0 {
				return nil
			}
		}
		return out
	}
	types := []string{}
	switch t := schema["type"].(type) {
	case string:
		types = append(types, t)
	case []any:
		for _, one := range t {
			types = append(types, one.(string))
		}
	}
	is := map[string]bool{}
	switch v := v.(type) {
	case nil:
		is["null"] = true
	case bool:
		is["boolean"] = true
	case string:
		is["string"] = true
	case json.Number:
		_, err := v.Int64()
		is["number"], is["integer"] = true, err == nil
	case []any:
		is["array"] = true
	case map[string]any:
		is["object"] = true
	}
	if len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return is[t] }) {
		return []string{fmt.Sprintf("%s is %T, want %v", at, v, types)}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.ContainsFunc(enum, func(one any) bool { return fmt.Sprint(one) == fmt.Sprint(v) }) {
		out = append(out, fmt.Sprintf("%s = %v is not in %v", at, v, enum))
	}
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			out = append(out, r.mismatches(schema["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				out = append(out, at+" lacks "+name.(string))
			}
		}
		for name, member := range v {
			inner, known := properties[name].(map[string]any)
			if additional, ok := schema["additionalProperties"].(map[string]any); !known && ok {
				inner, known = additional, true
			}
			if known {
				out = append(out, r.mismatches(inner, member, at+"."+name)...)
			} else if properties != nil {
				out = append(out, at+" has "+name+", which is not in the document")
			}
		}
	}
	return out
}
