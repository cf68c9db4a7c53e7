package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// endpointPath is what precedes an endpoint's number in its URL.
const endpointPath = "/e/"

// sink is the receiver: it answers 200 to everything and remembers what came when.
type sink struct {
	mu      sync.Mutex
	records []record
	foreign int // requests that are not ours
}

func (s *sink) handle(request *wire.Request) int {
	seq, sent, ok := readPayload(request.Body)
	number, isPath := bytes.CutPrefix(request.Path, []byte(endpointPath))
	endpoint, err := strconv.ParseUint(string(number), 10, 16)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || !isPath || err != nil {
		s.foreign++
		return http.StatusNotFound
	}
	s.records = append(s.records, record{
		seq: seq, endpoint: uint16(endpoint), id: idHash(request.ID), sent: sent, end: request.Arrived.UnixNano(),
	})
	return http.StatusOK
}

// sinkRoom is how many records fit before memory has to be copied; untouched memory costs nothing.
const sinkRoom = 1 << 20

func (s *sink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = make([]record, 0, sinkRoom)
	}
	s.records, s.foreign = s.records[:0], 0
}

// sinkState is what the control port says.
type sinkState struct {
	Count   int `json:"count"`
	Foreign int `json:"foreign"`
}

func (s *sink) state() sinkState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sinkState{Count: len(s.records), Foreign: s.foreign}
}

// control is the port through which the bench asks: POST /reset, /count, and /dump with the path of a
// file to write the records to.
func (s *sink) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		s.reset()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /count", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(s.state())
	})
	mux.HandleFunc("POST /dump", func(w http.ResponseWriter, r *http.Request) {
		path, err := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil {
			err = writeRecords(string(path), s.records)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// addresses is what a child says on its standard output once it listens.
type addresses struct {
	Address string `json:"address"`
	Control string `json:"control,omitempty"`
}

// RunSink is the receiver as a process: it listens on two free loopback ports, says which on out, and
// serves until the context ends.
func RunSink(ctx context.Context, out io.Writer) error {
	s := &sink{}
	s.reset()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("run the sink: %w", err)
	}
	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		_ = listener.Close()
		return fmt.Errorf("run the sink: %w", err)
	}
	if err := json.NewEncoder(out).Encode(addresses{listener.Addr().String(), control.Addr().String()}); err != nil {
		return fmt.Errorf("run the sink: %w", err)
	}
	return serveBoth(ctx, &wire.Server{Handle: s.handle}, listener, s.control(), control)
}

func serveBoth(ctx context.Context, server *wire.Server, listener net.Listener, handler http.Handler, control net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	served := make(chan error, 1)
	go func() {
		defer cancel()
		served <- serveHTTP(ctx, handler, control)
	}()
	err := server.Run(ctx, listener)
	cancel()
	return errors.Join(err, <-served)
}

// serveHTTP serves a net/http handler until the context ends.
func serveHTTP(ctx context.Context, handler http.Handler, listener net.Listener) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
