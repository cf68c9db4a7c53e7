package app

import (
	"context"
	"net/http"
	"time"
)

// readyTimeout is how long a look at what a worker stands on may take.
const readyTimeout = 2 * time.Second

// workerHandler is what a process without the API serves: health and metrics, in the API's words.
func (a *App) workerHandler() http.Handler {
	answer := func(w http.ResponseWriter, status int, text string) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text))
	}
	live := func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, `{"status":"ok"}`) }
	ready := func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
		defer cancel()
		err := a.ready(ctx)
		if err == nil && !a.queue.Available() {
			err = errQueue
		}
		if err != nil {
			a.log.Debug("not ready", "error", err)
			answer(w, http.StatusServiceUnavailable, `{"code":"unavailable","detail":"Not ready to deliver"}`)
			return
		}
		live(w, r)
	}
	mux := http.NewServeMux()
	for _, base := range []string{"", "/api/v1"} {
		mux.HandleFunc("GET "+base+"/health", ready)
		mux.HandleFunc("GET "+base+"/health/ready", ready)
		mux.HandleFunc("GET "+base+"/health/live", live)
	}
	mux.Handle("GET /metrics", a.metrics.Handler())
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, `{"code":"not_found","detail":"This process is a worker; it serves health and metrics only"}`)
	})
	return mux
}
