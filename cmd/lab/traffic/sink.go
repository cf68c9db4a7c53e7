package traffic

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

// EndpointPath is what precedes an endpoint's number in its URL at the sink.
const EndpointPath = "/e/"

// sink is the receiver: it answers 200 to everything and remembers what came when.
type sink struct {
	delay time.Duration   // how long it keeps each answer
	ended <-chan struct{} // closed when nothing may be kept any more

	mu      sync.Mutex
	records []Record
	foreign int // requests that are not ours
}

func (s *sink) handle(request *wire.Request) int {
	status := s.note(request)
	if s.delay > 0 {
		timer := time.NewTimer(s.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ended:
		}
	}
	return status
}

func (s *sink) note(request *wire.Request) int {
	seq, sent, ok := ReadPayload(request.Body)
	number, isPath := bytes.CutPrefix(request.Path, []byte(EndpointPath))
	endpoint, err := strconv.ParseUint(string(number), 10, 16)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok || !isPath || err != nil {
		s.foreign++
		return http.StatusNotFound
	}
	s.records = append(s.records, Record{
		Seq: seq, Endpoint: uint16(endpoint), ID: HashID(request.ID), Sent: sent, End: request.Arrived.UnixNano(),
	})
	return http.StatusOK
}

// sinkRoom is how many records fit before memory has to be copied; untouched memory costs nothing.
const sinkRoom = 1 << 20

func (s *sink) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = make([]Record, 0, sinkRoom)
	}
	s.records, s.foreign = s.records[:0], 0
}

// SinkState is what a sink has seen since it was last reset.
type SinkState struct {
	Count   int `json:"count"`   // requests
	Foreign int `json:"foreign"` // requests besides, that were none of ours
}

func (s *sink) state() SinkState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return SinkState{Count: len(s.records), Foreign: s.foreign}
}

// control is the port through which a sink is asked: POST /reset, /count, and /dump with the path of a
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
		if err == nil {
			s.mu.Lock()
			// What is there stays as it is, so that requests need not wait for the file.
			records := s.records[:len(s.records):len(s.records)]
			s.mu.Unlock()
			err = WriteRecords(string(path), records)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// Addresses is what a child says on its standard output once it listens.
type Addresses struct {
	Address string `json:"address"`
	Control string `json:"control,omitempty"`
}

// RunSink is the receiver as a process: it listens on two free loopback ports, says which on out, and
// serves until the context ends. It keeps each answer for the delay.
func RunSink(ctx context.Context, delay time.Duration, out io.Writer) error {
	s := &sink{delay: delay, ended: ctx.Done()}
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
	if err := json.NewEncoder(out).Encode(Addresses{listener.Addr().String(), control.Addr().String()}); err != nil {
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
		served <- ServeHTTP(ctx, handler, control)
	}()
	err := server.Run(ctx, listener)
	cancel()
	return errors.Join(err, <-served)
}

// ServeHTTP serves a net/http handler until the context ends.
func ServeHTTP(ctx context.Context, handler http.Handler, listener net.Listener) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
