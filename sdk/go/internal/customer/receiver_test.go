package customer_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

// patience is how long a delivery may take on a busy machine.
const patience = 30 * time.Second

// receiver is a customer's server: it keeps what it could verify.
type receiver struct {
	url string

	mu       sync.Mutex
	webhook  *posthaste.Webhook // nil = nothing is to be trusted yet
	arrived  []posthaste.Delivery
	rejected int
	failures int           // how many of the next deliveries are refused
	held     chan struct{} // until it is closed, deliveries get no answer; nil = they do
	more     chan struct{} // closed and replaced when something arrives
}

func listen(t *testing.T) *receiver {
	r := &receiver{more: make(chan struct{})}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	held := r.held
	r.mu.Unlock()
	if held != nil {
		<-held
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		close(r.more)
		r.more = make(chan struct{})
	}()
	d, err := r.webhook.Read(req)
	if err != nil {
		r.rejected++
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.arrived = append(r.arrived, d)
	if r.failures > 0 {
		r.failures--
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("taken"))
}

// trust makes the receiver believe what is signed with a secret.
func (r *receiver) trust(t *testing.T, secret string) {
	t.Helper()
	w, err := posthaste.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.webhook = w
}

// fail makes the next n deliveries be refused.
func (r *receiver) fail(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = n
}

// hold lets deliveries wait for their answer until the function it returns is called.
func (r *receiver) hold() (release func()) {
	held := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held = nil
		close(held)
	}
}

// wait is for the count-th delivery of a message, with this body.
func (r *receiver) wait(t *testing.T, message string, count int, body string) {
	t.Helper()
	give := time.NewTimer(patience)
	defer give.Stop()
	for {
		r.mu.Lock()
		more, found := r.more, 0
		for _, d := range r.arrived {
			if d.ID != message {
				continue
			}
			if found++; body != "" && !bytes.Equal(d.Body, []byte(body)) {
				t.Errorf("message %s came as %s, want %s", message, d.Body, body)
			}
		}
		rejected := r.rejected
		r.mu.Unlock()
		if found >= count {
			return
		}
		select {
		case <-more:
		case <-give.C:
			t.Fatalf("message %s came %d times, want %d; %d requests did not verify", message, found, count, rejected)
		}
	}
}
