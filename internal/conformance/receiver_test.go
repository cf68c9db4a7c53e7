package conformance_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// receiver is a customer's server that keeps what arrives.
type receiver struct {
	url string

	mu       sync.Mutex
	arrived  []arrival
	failures int           // how many of the next requests are refused
	more     chan struct{} // closed and replaced when something arrives
}

type arrival struct {
	path   string
	header http.Header
	body   []byte
}

func listen(t *testing.T) *receiver {
	r := &receiver{more: make(chan struct{})}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		r.failures--
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "not now")
	} else {
		_, _ = io.WriteString(w, "taken")
	}
	r.arrived = append(r.arrived, arrival{req.URL.Path, req.Header.Clone(), body})
	close(r.more)
	r.more = make(chan struct{})
}

// fail makes the next n requests be refused.
func (r *receiver) fail(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = n
}

// wait is the count-th request with a message, once it is there.
func (r *receiver) wait(t *testing.T, id string, count int) arrival {
	t.Helper()
	give := time.NewTimer(limit)
	defer give.Stop()
	for {
		r.mu.Lock()
		more, found := r.more, 0
		for _, a := range r.arrived {
			if a.header.Get("webhook-id") == id {
				if found++; found == count {
					r.mu.Unlock()
					return a
				}
			}
		}
		r.mu.Unlock()
		select {
		case <-more:
		case <-give.C:
			t.Fatalf("message %s came %d times, want %d", id, found, count)
		}
	}
}
