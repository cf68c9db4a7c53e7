package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/contracttest"
)

// recorder checks every answer against the document that the server itself serves, and against what
// clients demand.
type recorder struct {
	t        testing.TB
	next     http.RoundTripper
	document contracttest.Document
}

type operation struct {
	method, path string
	doc          map[string]any
}

func newRecorder(t testing.TB, next http.RoundTripper, handler http.Handler) *recorder {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/openapi.json", nil))
	document, err := contracttest.ParseDocument(w.Body.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return &recorder{t, next, document}
}

// operations lists what a document describes, in a fixed order.
func operations(doc map[string]any) (ops []operation) {
	for path, item := range doc["paths"].(map[string]any) {
		for method, op := range item.(map[string]any) {
			ops = append(ops, operation{strings.ToUpper(method), path, op.(map[string]any)})
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
	problems := append(r.document.Problems(req, resp.StatusCode, resp.Header, body),
		contracttest.Problems(req, resp.StatusCode, resp.Header, body)...)
	for _, problem := range problems {
		r.t.Errorf("%s %s → %d: %s\n%.500s", req.Method, req.URL.Path, resp.StatusCode, problem, body)
	}
	return resp, nil
}
