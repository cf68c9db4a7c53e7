package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Request is one request as it arrived. Its byte slices are valid until the handler returns.
type Request struct {
	Conn      uint64 // names the connection; never reused
	Path      []byte
	ID        []byte // the webhook-id header
	Timestamp []byte // the webhook-timestamp header
	Signature []byte // the webhook-signature header
	Body      []byte
	Arrived   time.Time // when the whole request had been read
	// Instead, if the handler sets it, is done in place of an answer; then the connection ends. It must
	// return once the connection is closed.
	Instead func(conn net.Conn)
}

// Server answers every request with the status its handler returns and a short fixed body.
type Server struct {
	// Handle is called for every request, concurrently, in order within a connection. It may block
	// to hold an answer back.
	Handle func(*Request) (status int)
	// Closed, if set, hears when a connection's other side went away.
	Closed func(conn uint64, at time.Time)

	conns     sync.Map // net.Conn → struct{}
	lastConn  atomic.Uint64
	malformed atomic.Int64
}

// Malformed is how many connections ended because of something that was not understood.
func (s *Server) Malformed() int64 { return s.malformed.Load() }

// Run serves the listener until the context ends, then closes everything and waits for it. A server may
// run on several listeners, for the same context.
func (s *Server) Run(ctx context.Context, listener net.Listener) error {
	var serving sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		_ = listener.Close()
		s.conns.Range(func(conn, _ any) bool {
			_ = conn.(net.Conn).Close()
			return true
		})
	})
	defer stop()
	defer serving.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a connection: %w", err)
		}
		s.conns.Store(conn, struct{}{})
		if ctx.Err() != nil { // the closing above may have looked before the Store
			_ = conn.Close()
		}
		serving.Add(1)
		go func() {
			defer serving.Done()
			defer s.conns.Delete(conn)
			defer func() { _ = conn.Close() }()
			s.serve(conn)
		}()
	}
}

func (s *Server) serve(conn net.Conn) {
	number := s.lastConn.Add(1)
	reader := bufio.NewReaderSize(conn, maxLine)
	var head, out []byte
	var body []byte
	for {
		request := Request{Conn: number}
		var err error
		head, body, err = readRequest(reader, &request, head[:0], body)
		if err != nil {
			if errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge) {
				s.malformed.Add(1)
			}
			break
		}
		request.Arrived = time.Now()
		status := s.Handle(&request)
		if request.Instead != nil {
			request.Instead(conn)
			break
		}
		out = appendAnswer(out[:0], status)
		if _, err := conn.Write(out); err != nil {
			break
		}
	}
	if s.Closed != nil {
		s.Closed(number, time.Now())
	}
}

var okAnswer = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")

func appendAnswer(out []byte, status int) []byte {
	if status == 200 {
		return append(out, okAnswer...)
	}
	out = append(out, "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	return append(out, " Planned\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\nplanned"...)
}

// span is a part of the head buffer; offsets survive the buffer's growth, slices would not.
type span struct{ from, to int }

func (p span) of(head []byte) []byte { return head[p.from:p.to] }

// readRequest fills the request; what it keeps of the head lies in the returned buffers.
func readRequest(reader *bufio.Reader, request *Request, head, body []byte) ([]byte, []byte, error) {
	keep := func(value []byte) span {
		from := len(head)
		head = append(head, value...)
		return span{from, len(head)}
	}
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return head, body, lineError(err)
	}
	path, ok := requestPath(trimEOL(line))
	if !ok {
		return head, body, ErrMalformed
	}
	pathSpan := keep(path)
	var id, timestamp, signature span
	length := -1
	for n := 0; ; n++ {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return head, body, lineError(err)
		}
		line = trimEOL(line)
		if len(line) == 0 {
			break
		}
		if n == maxHeaders {
			return head, body, ErrTooLarge
		}
		if value, ok := headerValue(line, "content-length"); ok {
			if length, ok = decimal(value); !ok {
				return head, body, ErrMalformed
			}
		} else if value, ok := headerValue(line, "webhook-id"); ok {
			id = keep(value)
		} else if value, ok := headerValue(line, "webhook-timestamp"); ok {
			timestamp = keep(value)
		} else if value, ok := headerValue(line, "webhook-signature"); ok {
			signature = keep(value)
		} else if _, ok := headerValue(line, "transfer-encoding"); ok {
			return head, body, ErrMalformed
		}
	}
	if length < 0 {
		return head, body, ErrMalformed
	}
	if length > maxBody {
		return head, body, ErrTooLarge
	}
	if cap(body) < length {
		body = make([]byte, length)
	}
	body = body[:length]
	if _, err := io.ReadFull(reader, body); err != nil {
		return head, body, err
	}
	request.Path, request.ID = pathSpan.of(head), id.of(head)
	request.Timestamp, request.Signature = timestamp.of(head), signature.of(head)
	request.Body = body
	return head, body, nil
}

// requestPath is the path of "POST /path HTTP/1.1".
func requestPath(line []byte) ([]byte, bool) {
	const method, version = "POST ", " HTTP/1.1"
	if len(line) <= len(method)+len(version) || string(line[:len(method)]) != method ||
		string(line[len(line)-len(version):]) != version {
		return nil, false
	}
	return line[len(method) : len(line)-len(version)], true
}

func lineError(err error) error {
	if errors.Is(err, bufio.ErrBufferFull) {
		return ErrTooLarge
	}
	return err
}
