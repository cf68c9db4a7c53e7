package chaos

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/wire"
)

const (
	// endpointPath is what precedes an endpoint's number in its URL.
	endpointPath = "/e/"
	// flakyShare is how often a flaky endpoint answers 500.
	flakyShare = 0.05
	// holdShare is how often, and holdFor how long, an endpoint that holds keeps a request waiting.
	holdShare = 0.1
	holdFor   = 2 * time.Second
)

// receiver is one endpoint of the sink.
type receiver struct {
	tenant  int    // number
	secret  []byte // signing key
	ordered bool
	flaky   bool
	holds   bool
	// refuses, if set, is the percentage of requests it answers 500 at present, besides being flaky.
	refuses *atomic.Int32
	manner  *manner // how a guest behaves; nil = like others
}

// newSecret makes a signing key.
func newSecret() []byte {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	return secret
}

// secretText is a signing key as the API takes it.
func secretText(secret []byte) string { return "whsec_" + base64.StdEncoding.EncodeToString(secret) }

// sink receives every delivery of a run and remembers it.
type sink struct {
	receivers []receiver
	mended    atomic.Bool     // guests behave like others
	slammed   atomic.Int64    // connections that were reset before anything was read
	released  <-chan struct{} // closed when nothing may be held any more

	mu      sync.Mutex
	random  *mathrand.Rand
	records []ledger.Record
	closed  map[uint64]time.Time
	held    int         // requests that were kept waiting
	arrived map[int]int // requests by endpoint
	// busy is how many requests a guest has at present, by endpoint, and busiest how many at most.
	busy, busiest map[int]int
}

func newSink(receivers []receiver, seed uint64) *sink {
	return &sink{
		receivers: receivers, closed: make(map[uint64]time.Time), arrived: make(map[int]int),
		busy: make(map[int]int), busiest: make(map[int]int), random: mathrand.New(mathrand.NewPCG(seed, 1)),
	}
}

// run serves until the context ends.
func (s *sink) run(ctx context.Context, listeners ...net.Listener) error {
	s.released = ctx.Done()
	server := &wire.Server{Handle: s.handle, Closed: s.noteClosed}
	var serving errgroup.Group
	for _, listener := range listeners {
		serving.Go(func() error { return server.Run(ctx, listener) })
	}
	if err := serving.Wait(); err != nil {
		return fmt.Errorf("run the sink: %w", err)
	}
	if n := server.Malformed(); n > 0 {
		return fmt.Errorf("run the sink: %d connections spoke something else than HTTP/1.1", n)
	}
	return nil
}

func (s *sink) noteClosed(conn uint64, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed[conn] = at
}

func (s *sink) handle(request *wire.Request) int {
	whose, _ := readTag(request.Body)
	record := ledger.Record{
		Endpoint: -1, ID: string(request.ID), Tenant: whose.Tenant, Seq: whose.Seq,
		Hash: sha256.Sum256(request.Body), Status: http.StatusNotFound,
		Arrived: request.Arrived, Conn: request.Conn,
	}
	if number, ok := bytes.CutPrefix(request.Path, []byte(endpointPath)); ok {
		if n, err := strconv.Atoi(string(number)); err == nil && n >= 0 && n < len(s.receivers) {
			record.Endpoint = n
		}
	}
	if record.Endpoint >= 0 {
		r := s.receivers[record.Endpoint]
		record.Signed = signed(r.secret, request)
		if r.manner != nil && r.manner.answer != nil && !s.mended.Load() {
			record.Status = r.manner.status
			request.Instead = func(conn net.Conn) { s.misbehave(record.Endpoint, conn, r.manner) }
		} else {
			record.Status = s.decide(r)
		}
	}
	record.Answered = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = append(s.records, record)
	if record.Endpoint >= 0 {
		s.arrived[record.Endpoint]++
	}
	return record.Status
}

// decide chooses the answer, and keeps the request waiting if its endpoint does that.
func (s *sink) decide(r receiver) int {
	s.mu.Lock()
	fails := r.flaky && s.random.Float64() < flakyShare
	if r.refuses != nil && s.random.Float64() < float64(r.refuses.Load())/100 {
		fails = true
	}
	holds := r.holds && s.random.Float64() < holdShare
	if holds {
		s.held++
	}
	s.mu.Unlock()
	if holds {
		timer := time.NewTimer(holdFor)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.released:
		}
	}
	if fails {
		return http.StatusInternalServerError
	}
	return http.StatusOK
}

// signed checks a request as a receiver who knows only the Standard Webhooks page would: one of the
// signatures listed is the HMAC-SHA256 of id, timestamp and body.
func signed(secret []byte, request *wire.Request) bool {
	mac := hmac.New(sha256.New, secret)
	for _, part := range [][]byte{request.ID, {'.'}, request.Timestamp, {'.'}, request.Body} {
		mac.Write(part)
	}
	want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	for _, signature := range bytes.Fields(request.Signature) {
		if hmac.Equal(signature, want) {
			return true
		}
	}
	return false
}

// snapshot is the ledger so far.
func (s *sink) snapshot() ([]ledger.Record, map[uint64]time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	closed := make(map[uint64]time.Time, len(s.closed))
	for conn, at := range s.closed {
		closed[conn] = at
	}
	return append([]ledger.Record(nil), s.records...), closed
}

// arrivedSoFar is how many requests reached an endpoint.
func (s *sink) arrivedSoFar(endpoint int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrived[endpoint]
}

// heldSoFar is how many requests were kept waiting.
func (s *sink) heldSoFar() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}
