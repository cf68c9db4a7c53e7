package queue

import (
	"context"
	"errors"
	"net"
	"sync"
	"syscall"
)

var errCut = errors.New("the worker's connections to redis were cut")

// line dials a client's connections and can cut all of them for good. Closing the client would do the
// same, but makes asynq panic: it takes the end of its subscription for a message.
type line struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu    sync.Mutex
	isCut bool
	conns map[*lineConn]struct{}
}

func newLine(dial func(ctx context.Context, network, addr string) (net.Conn, error)) *line {
	return &line{dial: dial, conns: make(map[*lineConn]struct{})}
}

// Dial opens a connection, unless the line is cut.
func (l *line) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	l.mu.Lock()
	isCut := l.isCut
	l.mu.Unlock()
	if isCut {
		return nil, errCut
	}
	conn, err := l.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := &lineConn{Conn: conn, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isCut {
		_ = conn.Close()
		return nil, errCut
	}
	l.conns[c] = struct{}{}
	if raw, ok := conn.(syscall.Conn); ok {
		return rawConn{c, raw}, nil
	}
	return c, nil
}

// cut closes every connection and refuses new ones: whatever waits on one fails at once.
func (l *line) cut() {
	l.mu.Lock()
	l.isCut = true
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close()
	}
}

// lineConn takes itself off its line when it is closed.
type lineConn struct {
	net.Conn
	line *line
}

func (c *lineConn) Close() error {
	c.line.mu.Lock()
	delete(c.line.conns, c)
	c.line.mu.Unlock()
	return c.Conn.Close()
}

// rawConn also shows the socket, by which go-redis sees that an idle connection has ended.
type rawConn struct {
	*lineConn
	syscall.Conn
}
