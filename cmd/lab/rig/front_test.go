package rig

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

func TestFrontAsksWhoIsReady(t *testing.T) {
	var ready [2]atomic.Bool
	var asked [2]atomic.Int32
	var addresses []string
	for i := range ready {
		ready[i].Store(true)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/api/v1/health/ready" && !ready[i].Load():
				w.WriteHeader(http.StatusServiceUnavailable)
			case r.URL.Path == "/broken":
				panic(http.ErrAbortHandler)
			case r.Method == http.MethodPost:
				asked[i].Add(1)
			}
		}))
		t.Cleanup(server.Close)
		addresses = append(addresses, server.Listener.Addr().String())
	}
	front, err := NewFront(addresses)
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	client := wire.Client{Address: front.Address}
	defer client.Close()
	post := func(path string) int {
		t.Helper()
		answer, err := client.Do("POST", path, "", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status
	}
	until := func(member int, want bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); front.members[member].ready.Load() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("member %d is never seen to be ready: %v", member, want)
			}
		}
	}
	for range 4 {
		if status := post("/"); status != 200 {
			t.Fatalf("status %d", status)
		}
	}
	if a, b := asked[0].Load(), asked[1].Load(); a != 2 || b != 2 {
		t.Errorf("asked %d and %d times", a, b)
	}
	if status := post("/broken"); status != http.StatusBadGateway {
		t.Errorf("a broken answer became %d", status)
	}
	ready[0].Store(false)
	until(0, false)
	for range 4 {
		post("/")
	}
	if a, b := asked[0].Load(), asked[1].Load(); a != 2 || b != 6 {
		t.Errorf("one is not ready: asked %d and %d times", a, b)
	}
	ready[1].Store(false)
	until(1, false)
	if status := post("/"); status != http.StatusServiceUnavailable {
		t.Errorf("nobody is ready: %d", status)
	}
	ready[0].Store(true)
	until(0, true)
	if status := post("/"); status != 200 || asked[0].Load() != 3 {
		t.Errorf("ready again: %d", status)
	}
}
