package conformance_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/posthaste/posthaste/internal/contracttest"
)

// faultPath is where a fault is ordered: POST /fault/before or /fault/after makes the front answer the
// next POST with 500, before the server has seen it or after it has done what was asked.
const faultPath = "/fault/"

// front stands between a client and the product: it checks every answer against the server's own
// document and for what clients demand, and notes which operations succeeded.
type front struct {
	t        *testing.T
	url      string
	to       *url.URL
	client   *http.Client
	document contracttest.Document

	mu    sync.Mutex
	done  map[string]bool // operations that succeeded, by their requests and by their ids in the document
	fault string          // "before", "after" or ""
	retry *http.Request   // the request that met the fault and has to come again
}

func newFront(t *testing.T, to *url.URL) *front {
	t.Helper()
	transport := &http.Transport{}
	f := &front{t: t, to: to, client: &http.Client{Transport: transport}, done: map[string]bool{}}
	status, _, text, err := f.forward(httptest.NewRequest(http.MethodGet, "/api/v1/openapi.json", nil))
	if err != nil || status != http.StatusOK {
		t.Fatalf("openapi.json: %d, %v", status, err)
	}
	if f.document, err = contracttest.ParseDocument(text); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(f)
	f.url = server.URL
	t.Cleanup(func() {
		server.Close()
		transport.CloseIdleConnections()
	})
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if when, ok := strings.CutPrefix(r.URL.Path, faultPath); ok {
		f.order(when)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	fault := f.strike(r)
	if fault == "before" {
		_, _ = io.Copy(io.Discard, r.Body)
		http.Error(w, "{}", http.StatusInternalServerError)
		return
	}
	status, header, body, err := f.forward(r)
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // a page that is left drops what it asked for
	}
	if err != nil {
		f.t.Errorf("%s %s: %v", r.Method, r.URL, err)
		http.Error(w, "{}", http.StatusBadGateway)
		return
	}
	problems := append(f.document.Problems(r, status, header, body), contracttest.Problems(r, status, header, body)...)
	for _, problem := range problems {
		f.t.Errorf("%s %s → %d: %s\n%.500s", r.Method, r.URL, status, problem, body)
	}
	if status < 300 {
		operation, _ := contracttest.Operation(r.Method, r.URL.Path)
		f.mu.Lock()
		f.done[operation], f.done[f.document.OperationID(r)] = true, true
		f.mu.Unlock()
	}
	if fault == "after" {
		http.Error(w, "{}", http.StatusInternalServerError)
		return
	}
	for name, values := range header {
		w.Header()[name] = values
	}
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (f *front) order(when string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.retry = when, nil
}

// strike says which fault a request meets, and wants the request after it to be the same again.
func (f *front) strike(r *http.Request) (fault string) {
	if r.Method != http.MethodPost {
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if was := f.retry; was != nil {
		f.retry = nil
		key := r.Header.Get("Idempotency-Key")
		if r.URL.Path != was.URL.Path || key == "" || key != was.Header.Get("Idempotency-Key") {
			f.t.Errorf("%s with key %q was repeated as %s with key %q", was.URL, was.Header.Get("Idempotency-Key"), r.URL, key)
		}
	}
	if fault, f.fault = f.fault, ""; fault != "" {
		f.retry = r
	}
	return fault
}

func (f *front) forward(r *http.Request) (int, http.Header, []byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return 0, nil, nil, err
	}
	to := *r.URL
	to.Scheme, to.Host = f.to.Scheme, f.to.Host
	req, err := http.NewRequestWithContext(r.Context(), r.Method, to.String(), bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header = r.Header.Clone()
	resp, err := f.client.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}

// succeeded reports whether an operation did, at least once.
func (f *front) succeeded(operation string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[operation]
}
