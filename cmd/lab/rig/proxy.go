package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Weather is what a Proxy does to what passes it. The zero Weather is fair.
type Weather struct {
	Delay  time.Duration // added to every answer
	Silent bool          // nothing passes, and no connection ends: what is sent waits for better weather
	Resets float64       // the share of requests on which their connection is reset instead
}

// Counts are how often the weather has done something.
type Counts struct{ Delayed, Held, Reset int }

// proxyChunk is how much is passed on at once, and proxyBacklog how many chunks may wait for their time.
const (
	proxyChunk   = 32 << 10
	proxyBacklog = 256
)

// Proxy stands between a TCP server and its clients and makes the way between them as bad as it is told.
type Proxy struct {
	Address string
	to      string

	ctx    context.Context
	cancel context.CancelFunc
	ends   sync.WaitGroup

	mu      sync.Mutex
	weather Weather
	changed chan struct{} // closed when the weather changes
	counts  Counts
	conns   map[net.Conn]struct{}
}

// NewProxy listens on a loopback address and passes everything on to another, in fair weather; Close it.
func NewProxy(to string) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{Address: listener.Addr().String(), to: to, changed: make(chan struct{}), conns: make(map[net.Conn]struct{})}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	context.AfterFunc(p.ctx, func() { _ = listener.Close() })
	p.ends.Go(func() { p.accept(listener) })
	return p, nil
}

// Set changes the weather and returns what it had done until then.
func (p *Proxy) Set(w Weather) Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = w
	close(p.changed)
	p.changed = make(chan struct{})
	return p.counts
}

// Close ends every connection and waits for it.
func (p *Proxy) Close() {
	p.cancel()
	p.mu.Lock()
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	p.ends.Wait()
}

func (p *Proxy) accept(listener net.Listener) {
	for {
		client, err := listener.Accept()
		if err != nil {
			return // closed
		}
		p.ends.Go(func() { p.serve(client) })
	}
}

// serve connects a client with the server. In silence its connection stands all the same, as one does
// whose other end fell off the network.
func (p *Proxy) serve(client net.Conn) {
	defer p.forget(client)
	if !p.remember(client) || !p.wait(time.Time{}, false) {
		return
	}
	dialer := net.Dialer{Timeout: serverWait}
	server, err := dialer.DialContext(p.ctx, "tcp", p.to)
	if err != nil {
		return
	}
	defer p.forget(server)
	if !p.remember(server) {
		return
	}
	var passing sync.WaitGroup
	passing.Go(func() { p.pass(client, server, true) })
	passing.Go(func() { p.pass(server, client, false) })
	passing.Wait()
}

// remember notes a connection so that Close finds it; false means that Close was there already.
func (p *Proxy) remember(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[conn] = struct{}{}
	return p.ctx.Err() == nil
}

func (p *Proxy) forget(conn net.Conn) {
	_ = conn.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
}

type chunk struct {
	at   time.Time
	text []byte
}

// pass copies one direction until it ends, and ends the other with it. Reading goes on while earlier
// chunks wait for their time: a long way is not a narrow one.
func (p *Proxy) pass(to, from net.Conn, back bool) {
	chunks := make(chan chunk, proxyBacklog)
	var writing sync.WaitGroup
	writing.Go(func() {
		whole := true // else the rest is only read away
		for c := range chunks {
			whole = whole && p.wait(c.at, back)
			if whole && !back && p.resets() {
				Reset(from)
				Reset(to)
				whole = false
			}
			if whole {
				_, err := to.Write(c.text)
				whole = err == nil
			}
		}
		_ = to.Close()
	})
	buffer := make([]byte, proxyChunk)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			chunks <- chunk{time.Now(), append([]byte(nil), buffer[:n]...)}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = from.Close()
			}
			break
		}
	}
	close(chunks)
	writing.Wait()
}

// wait holds back what was read at a moment as long as the weather wants it; false means that the proxy
// is closed.
func (p *Proxy) wait(at time.Time, back bool) bool {
	var delayed, held bool
	for {
		p.mu.Lock()
		weather, changed := p.weather, p.changed
		left := time.Duration(0)
		if back {
			left = weather.Delay - time.Since(at)
		}
		if weather.Silent && !held {
			held = true
			p.counts.Held++
		}
		if left > 0 && !delayed {
			delayed = true
			p.counts.Delayed++
		}
		p.mu.Unlock()
		if !weather.Silent && left <= 0 {
			return p.ctx.Err() == nil
		}
		var due <-chan time.Time
		if !weather.Silent {
			due = time.After(left)
		}
		select {
		case <-p.ctx.Done():
			return false
		case <-changed:
		case <-due:
		}
	}
}

func (p *Proxy) resets() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rand.Float64() >= p.weather.Resets {
		return false
	}
	p.counts.Reset++
	return true
}

// Reset ends a connection with RST; what the other side has not read by then is lost.
func Reset(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // an error means that it has ended anyway
	}
	_ = conn.Close()
}
