package rig

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

const (
	// lookEvery is how often a Front asks its members whether they are ready.
	lookEvery = 100 * time.Millisecond
	// lookWait is how long one may take to answer that.
	lookWait = time.Second
	// frontIdle is how many connections to each member are kept.
	frontIdle = 256
)

// Front is a small load balancer, as one stands before API processes: requests go in turn to those that
// say they are ready. It repeats nothing and hides nothing: what a member does not answer is a 502.
type Front struct {
	Address string

	server    *http.Server
	transport *http.Transport
	members   []*member
	next      atomic.Uint64
	stop      context.CancelFunc
	work      sync.WaitGroup
}

type member struct {
	address string
	proxy   httputil.ReverseProxy
	ready   atomic.Bool
}

// NewFront stands before API processes; Close it.
func NewFront(addresses []string) (*Front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a front: %w", err)
	}
	f := &Front{
		Address:   listener.Addr().String(),
		transport: &http.Transport{MaxIdleConnsPerHost: frontIdle, DisableCompression: true},
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	silent := log.New(io.Discard, "", 0)
	for _, address := range addresses {
		m := &member{address: address, proxy: httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", address },
			Transport: f.transport,
			ErrorLog:  silent,
		}}
		m.ready.Store(m.isReady())
		f.members = append(f.members, m)
		f.work.Go(func() { m.look(ctx) })
	}
	f.server = &http.Server{ErrorLog: silent, Handler: http.HandlerFunc(f.pass)}
	f.work.Go(func() { _ = f.server.Serve(listener) }) // until Close
	return f, nil
}

// pass sends a request to the next member that is ready.
func (f *Front) pass(w http.ResponseWriter, r *http.Request) {
	first := f.next.Add(1)
	for i := range f.members {
		m := f.members[(first+uint64(i))%uint64(len(f.members))]
		if m.ready.Load() {
			m.proxy.ServeHTTP(w, r)
			return
		}
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// Close ends every connection.
func (f *Front) Close() {
	f.stop()
	_ = f.server.Close()
	f.transport.CloseIdleConnections()
	f.work.Wait()
}

// look asks a member again and again whether it is ready.
func (m *member) look(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			m.ready.Store(m.isReady())
		}
	}
}

func (m *member) isReady() bool {
	client := wire.Client{Address: m.address, Timeout: lookWait}
	defer client.Close()
	answer, err := client.Do("GET", "/api/v1/health/ready", "", nil)
	return err == nil && answer.Status/100 == 2
}
