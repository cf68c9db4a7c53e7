package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"strconv"
	"time"
)

// Client makes requests on one keep-alive connection, one at a time, and never repeats one: when a
// request fails, the connection is dropped and the next request opens another. It is not safe for
// concurrent use. The zero value with Address set is ready.
type Client struct {
	Address string        // host:port
	Timeout time.Duration // of one request, connecting included; 0 means ten seconds

	conn    net.Conn
	reader  *bufio.Reader
	out     []byte
	body    []byte
	chunked bytes.Buffer
}

// Response is an answer; Body is valid until the next request.
type Response struct {
	Status int
	Body   []byte
}

// IsTimeout reports whether a request failed because no answer came in time, rather than because the
// connection broke.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

const defaultTimeout = 10 * time.Second

// Do sends one request. Headers are whole lines, each ended by CRLF; Host and Content-Length are
// added. An error means that it is unknown whether the other side acted on the request.
func (c *Client) Do(method, path, headers string, body []byte) (Response, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	response, keep, err := c.exchange(method, path, headers, body, time.Now().Add(timeout))
	if err != nil || !keep {
		c.Close()
	}
	if err != nil {
		return Response{}, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return response, nil
}

// Close drops the connection, if there is one.
func (c *Client) Close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *Client) exchange(method, path, headers string, body []byte, deadline time.Time) (Response, bool, error) {
	if c.conn == nil {
		dialer := net.Dialer{Deadline: deadline}
		conn, err := dialer.Dial("tcp", c.Address)
		if err != nil {
			return Response{}, false, err
		}
		c.conn = conn
		if c.reader == nil {
			c.reader = bufio.NewReaderSize(conn, maxLine)
		} else {
			c.reader.Reset(conn)
		}
	}
	if err := c.conn.SetDeadline(deadline); err != nil {
		return Response{}, false, err
	}
	out := append(c.out[:0], method...)
	out = append(append(out, ' '), path...)
	out = append(append(out, " HTTP/1.1\r\nHost: "...), c.Address...)
	out = append(append(out, "\r\n"...), headers...)
	out = strconv.AppendInt(append(out, "Content-Length: "...), int64(len(body)), 10)
	out = append(append(out, "\r\n\r\n"...), body...)
	c.out = out
	if _, err := c.conn.Write(out); err != nil {
		return Response{}, false, err
	}
	return c.read()
}

func (c *Client) read() (Response, bool, error) {
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return Response{}, false, lineError(err)
	}
	line = trimEOL(line)
	if len(line) < len("HTTP/1.1 200") || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return Response{}, false, ErrMalformed
	}
	status, ok := decimal(line[9:12])
	if !ok || status < 200 {
		return Response{}, false, ErrMalformed
	}
	keep, chunked, length := true, false, 0
	for n := 0; ; n++ {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return Response{}, false, lineError(err)
		}
		line = trimEOL(line)
		if len(line) == 0 {
			break
		}
		if n == maxHeaders {
			return Response{}, false, ErrTooLarge
		}
		if value, ok := headerValue(line, "content-length"); ok {
			if length, ok = decimal(value); !ok || length > maxBody {
				return Response{}, false, ErrMalformed
			}
		} else if value, ok := headerValue(line, "connection"); ok {
			keep = !bytes.EqualFold(value, []byte("close"))
		} else if value, ok := headerValue(line, "transfer-encoding"); ok {
			if chunked = bytes.EqualFold(value, []byte("chunked")); !chunked {
				return Response{}, false, ErrMalformed
			}
		}
	}
	if status == 204 || status == 304 {
		return Response{Status: status}, keep, nil
	}
	if chunked {
		body, err := c.readChunked()
		return Response{Status: status, Body: body}, keep, err
	}
	if cap(c.body) < length {
		c.body = make([]byte, length)
	}
	c.body = c.body[:length]
	if _, err := io.ReadFull(c.reader, c.body); err != nil {
		return Response{}, false, err
	}
	return Response{Status: status, Body: c.body}, keep, nil
}

func (c *Client) readChunked() ([]byte, error) {
	c.chunked.Reset()
	// One byte more than the limit, so that exceeding it shows.
	n, err := io.Copy(&c.chunked, io.LimitReader(httputil.NewChunkedReader(c.reader), maxBody+1))
	if err != nil {
		return nil, err
	}
	if n > maxBody {
		return nil, ErrTooLarge
	}
	// The chunked reader stops before the trailer section; anything but an empty one is not expected.
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		return nil, lineError(err)
	}
	if len(trimEOL(line)) != 0 {
		return nil, ErrMalformed
	}
	return c.chunked.Bytes(), nil
}
