package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// TestAnswerBeforeTheRequestIsRead: a receiver that answers without reading is heard, however large the
// request, and whatever it does then.
func TestAnswerBeforeTheRequestIsRead(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })}}
	const refusal = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
	for name, then := range map[string]func(c net.Conn, over chan struct{}){
		"never reads":    func(_ net.Conn, over chan struct{}) { <-over },
		"reads it later": func(c net.Conn, _ chan struct{}) { _, _ = io.Copy(io.Discard, c) },
		"closes":         func(net.Conn, chan struct{}) {},
	} {
		for _, size := range []int{maxAtOnce - 1000, maxAtOnce, 1 << 20, 32 << 20} {
			for _, scheme := range []string{"http", "https"} {
				t.Run(fmt.Sprintf("%s, %d bytes, %s", name, size, scheme), func(t *testing.T) {
					t.Parallel()
					listener, err := net.Listen("tcp", "127.0.0.1:0")
					if err != nil {
						t.Fatal(err)
					}
					over := make(chan struct{})
					if scheme == "https" {
						listener = tls.NewListener(listener, config)
					}
					s := serveSink(t, listener, func(c net.Conn) {
						if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
							return
						}
						_, _ = io.WriteString(c, refusal)
						then(c, over)
					})
					c := newClient(t, Options{Policy: loopback(), RootCAs: ca.pool, Timeout: patience})
					res := c.Send(t.Context(), Request{URL: scheme + "://127.0.0.1:" + s.Port, Body: bytes.Repeat([]byte("a"), size)})
					close(over)
					// A connection that is closed with a request half read is reset, which may overtake the answer.
					if res.Status != 413 && (name != "closes" || res.Class != webhook.ClassReset) {
						t.Errorf("status %d, %s (%s)", res.Status, res.Class, res.Error)
					}
					if res.Status == 413 && (string(res.Body) != "big" || res.Timings.Total > patience/2) {
						t.Errorf("body %q after %s", res.Body, res.Timings.Total)
					}
				})
			}
		}
	}
}

// TestRequestsOfEverySize arrive whole, over kept connections.
func TestRequestsOfEverySize(t *testing.T) {
	t.Parallel()
	var got string
	s := newSink(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			raw, _, ok := readRequest(in)
			if !ok {
				return
			}
			_, got, _ = strings.Cut(raw, "\r\n\r\n")
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	c := newClient(t, Options{Policy: loopback()})
	for i, size := range []int{0, 1, 5000, maxAtOnce - 200, maxAtOnce, maxAtOnce + 1, 2 << 20, 3} {
		body := strings.Repeat("0123456789", size/10+1)[:size]
		res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte(body)})
		if !res.OK() || got != body || res.Reused != (i > 0) {
			t.Errorf("%d bytes: %s (%s), %d arrived, reused %v", size, res.Class, res.Error, len(got), res.Reused)
		}
	}
}

// TestWhichConnectionsAreKept: only those of which both sides know where the answer ended.
func TestWhichConnectionsAreKept(t *testing.T) {
	t.Parallel()
	for raw, kept := range map[string]bool{
		okAnswer: true,
		"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n":                                          false,
		"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n":                                       false,
		"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n":                false,
		"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n":                                                               false,
		"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n":                                     true,
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n":       false,
		"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n":                                                               false,
		"HTTP/1.1 204 No Content\r\n\r\n":                                                                            true,
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n":                                                    true,
		"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok":                                                     false,
		"HTTP/1.1 101 Switch\r\nContent-Length: 0\r\n\r\n":                                                           false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n":                                  true,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\n":                                    false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n":                          false,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n":             false,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok":                                        true,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding : chunked\r\n\r\nok":                              false,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok\r\n":                                                         false,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforged!":          false,
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno":                                true,
		"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n": false,
	} {
		t.Run(raw, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, answering(raw))
			c := newClient(t, Options{Policy: loopback(), Timeout: patience})
			first := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
			second := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
			if first.Status == 0 || second.Status != first.Status || string(second.Body) != string(first.Body) || second.Reused != kept {
				t.Errorf("first %d %q (%s), then %d %q (%s), reused %v", first.Status, first.Body, first.Error, second.Status, second.Body, second.Error, second.Reused)
			}
		})
	}
}

// TestKeptConnectionsAreAskedBeforeUse: one that has ended, or on which something came in unasked, is
// replaced before anything is sent.
func TestKeptConnectionsAreAskedBeforeUse(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })}}
	for name, then := range map[string]func(net.Conn){
		"closed":             func(c net.Conn) { _ = c.Close() },
		"answered once more": func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n") },
		"one byte":           func(c net.Conn) { _, _ = io.WriteString(c, "x") },
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+", "+scheme, func(t *testing.T) {
				t.Parallel()
				listener, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				if scheme == "https" {
					listener = tls.NewListener(listener, config)
				}
				answered, done := make(chan struct{}, 10), make(chan struct{}, 10)
				s := serveSink(t, listener, func(c net.Conn) {
					in := bufio.NewReader(c)
					if _, _, ok := readRequest(in); !ok {
						return
					}
					_, _ = io.WriteString(c, okAnswer)
					<-answered
					then(c)
					done <- struct{}{}
					_, _, _ = readRequest(in)
				})
				c := newClient(t, Options{Policy: loopback(), RootCAs: ca.pool, Timeout: patience})
				for i := range 3 {
					res := c.Send(t.Context(), Request{URL: scheme + "://127.0.0.1:" + s.Port, Body: []byte("{}")})
					if !res.OK() || res.Reused {
						t.Errorf("send %d: %s (%s), reused %v", i, res.Class, res.Error, res.Reused)
					}
					answered <- struct{}{}
					<-done
				}
				if n := s.connections(); n != 3 {
					t.Errorf("%d connections for 3 sends", n)
				}
			})
		}
	}
}

// TestLeftoverInTLS: what came in behind an answer and waits inside of TLS is not the next answer.
func TestLeftoverInTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.issue(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serveSink(t, &corking{listener}, func(raw net.Conn) {
		cork := raw.(*corkedConn)
		c := tls.Server(raw, config)
		in := bufio.NewReader(c)
		if _, _, ok := readRequest(in); !ok {
			return
		}
		cork.corked = true
		_, _ = io.WriteString(c, okAnswer)
		_, _ = io.WriteString(c, "HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n")
		cork.corked = false
		_, _ = cork.Conn.Write(cork.held)
		_, _, _ = readRequest(in)
	})
	c := newClient(t, Options{Policy: loopback(), RootCAs: ca.pool, Timeout: patience})
	for range 3 {
		if res := c.Send(t.Context(), Request{URL: "https://127.0.0.1:" + s.Port, Body: []byte("{}")}); !res.OK() || res.Reused {
			t.Errorf("%d %s (%s), reused %v", res.Status, res.Class, res.Error, res.Reused)
		}
	}
}

// corking makes connections that can hold back what is written, to send it in one segment.
type corking struct{ net.Listener }

func (l *corking) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &corkedConn{Conn: c}, nil
}

type corkedConn struct {
	net.Conn
	corked bool
	held   []byte
}

func (c *corkedConn) Write(p []byte) (int, error) {
	if c.corked {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

// TestDeadlineOfARequest: the nearest deadline counts, whichever way it was given.
func TestDeadlineOfARequest(t *testing.T) {
	t.Parallel()
	s := newSink(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	c := newClient(t, Options{Policy: loopback(), Timeout: patience})
	soon, late := time.Now().Add(100*time.Millisecond), time.Now().Add(time.Hour)
	for _, row := range []struct{ request, context time.Time }{{soon, late}, {late, soon}, {soon, time.Time{}}} {
		ctx := context.Background()
		if !row.context.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, row.context)
			defer cancel()
		}
		for _, size := range []int{10, 1 << 20} {
			res := c.Send(ctx, Request{URL: s.URL, Body: make([]byte, size), Deadline: row.request})
			if res.Class != webhook.ClassTimeoutHeaders && res.Class != webhook.ClassTimeoutConnect || time.Since(soon) > patience/2 {
				t.Errorf("%v: %s (%s)", row, res.Class, res.Error)
			}
		}
	}
}

// TestManySendsAtOnce is for the race detector, and for mix-ups: 256 goroutines over few connections,
// with receivers that end them as they like and callers that give up, and every answer is the one to
// its request.
func TestManySendsAtOnce(t *testing.T) {
	t.Parallel()
	const goroutines, sends = 256, 20
	serve := func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			_, header, ok := readRequest(in)
			if !ok {
				return
			}
			id := header.Get("Webhook-Id")
			switch rand.N(100) {
			case 0:
				return
			case 1:
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
				return
			case 2:
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", len(id), id)
			case 3:
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(id), id)
				return
			case 4: // more than it sends
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(id)+1)
				_, _ = io.WriteString(c, id)
				_, _ = io.Copy(io.Discard, c) // the caller's patience ends it
				return
			default:
				_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(id), id)
			}
		}
	}
	for _, limit := range []int{0, 16} {
		s := newSink(t, serve)
		c := newClient(t, Options{Policy: loopback(), MaxConnsPerHost: limit, Timeout: patience})
		var mu sync.Mutex
		classes := map[webhook.ErrorClass]int{}
		var wg sync.WaitGroup
		for g := range goroutines {
			wg.Go(func() {
				for i := range sends {
					id := fmt.Sprintf("%d-%d", g, i)
					ctx, cancel := context.WithCancel(t.Context())
					req := Request{URL: s.URL, Header: http.Header{"Webhook-Id": {id}}, Body: make([]byte, rand.N(2*maxAtOnce)), Deadline: time.Now().Add(500 * time.Millisecond)}
					if rand.N(10) == 0 {
						time.AfterFunc(rand.N(3*time.Millisecond), cancel)
					}
					res := c.Send(ctx, req)
					cancel()
					if res.OK() && string(res.Body) != id {
						t.Errorf("request %s got the answer to %s", id, res.Body)
					}
					if rand.N(200) == 0 {
						c.CloseIdle()
					}
					mu.Lock()
					classes[res.Class]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		for class := range classes {
			switch class {
			case webhook.ClassNone, webhook.ClassReset, webhook.ClassInternal, webhook.ClassTimeoutBody, webhook.ClassTimeoutConnect, webhook.ClassTimeoutHeaders:
			default:
				t.Errorf("limit %d: %v", limit, classes)
			}
		}
		if classes[webhook.ClassNone] < goroutines*sends/10 {
			t.Errorf("limit %d: %v", limit, classes)
		}
		// Every place in the pool was given back.
		c.CloseIdle()
		c.pool.mu.Lock()
		if len(c.pool.hosts) != 0 || c.pool.idle != 0 || c.pool.oldest != nil || c.pool.newest != nil {
			t.Errorf("limit %d: the pool still counts %d hosts and %d idle", limit, len(c.pool.hosts), c.pool.idle)
		}
		c.pool.mu.Unlock()
	}
}
