package egress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/posthaste/posthaste/internal/webhook"
)

// TestExactBytesOnTheWire: one request per attempt, these bytes and no others.
func TestExactBytesOnTheWire(t *testing.T) {
	t.Parallel()
	requests := make(chan string, 10)
	s := newSink(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			raw, _, ok := readRequest(in)
			if !ok {
				return
			}
			requests <- raw
			_, _ = io.WriteString(c, okAnswer)
		}
	})
	c := newClient(t, Options{Policy: loopback()})
	given := http.Header{
		"Content-Type": {"application/json"}, "webhook-id": {"msg_1"}, "X-MiXeD": {"Case kept"}, "accept": {"text/plain"},
		"accept-encoding": {"gzip"}, "Idempotency-Key": {"k"}, "Authorization": {"Bearer x"}, "Cookie": {"a=b"},
	}
	before := fmt.Sprint(given)
	res := c.Send(t.Context(), Request{URL: s.URL + "/a%2Fb?x=%20&y=/..", Header: given, Body: []byte(`{"n":1}`)})
	if !res.OK() {
		t.Fatalf("%s (%s)", res.Class, res.Error)
	}
	want := "POST /a%2Fb?x=%20&y=/.. HTTP/1.1\r\nHost: " + s.Addr.String() + "\r\nUser-Agent: Posthaste-Webhooks/1\r\nContent-Length: 7\r\n" +
		"Accept: text/plain\r\nAccept-Encoding: identity\r\nAuthorization: Bearer x\r\nContent-Type: application/json\r\nCookie: a=b\r\n" +
		"Idempotency-Key: k\r\nX-MiXeD: Case kept\r\nwebhook-id: msg_1\r\n\r\n" + `{"n":1}`
	if got := <-requests; got != want {
		t.Errorf("sent\n%q, want\n%q", got, want)
	}
	if after := fmt.Sprint(given); after != before {
		t.Errorf("the caller's header became %s", after)
	}

	res = c.Send(t.Context(), Request{Method: "PUT", URL: s.URL, Header: http.Header{"user-agent": {"mine"}}})
	want = "PUT / HTTP/1.1\r\nHost: " + s.Addr.String() + "\r\nUser-Agent: mine\r\nContent-Length: 0\r\nAccept: */*\r\nAccept-Encoding: identity\r\n\r\n"
	if got := <-requests; !res.OK() || got != want {
		t.Errorf("sent\n%q, want\n%q (%s)", got, want, res.Error)
	}
	if n := len(requests); n != 0 {
		t.Errorf("%d more requests", n)
	}
}

func TestFactsOfAnAttempt(t *testing.T) {
	t.Parallel()
	s := newSink(t, answering("HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=x\r\nRetry-After: 1e300\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nok"))
	c := newClient(t, Options{Policy: loopback(), Resolver: nameServer(t, everyNameIs("127.0.0.1"))})
	url := "http://sink.example.com:" + s.Port
	first := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")})
	if first.Status != 200 || first.Class != webhook.ClassNone || first.Error != "" || string(first.Body) != "ok" || first.BodyTruncated {
		t.Errorf("%+v", first)
	}
	if first.ContentType != "text/plain; charset=x" || first.RetryAfter != "1e300" || len(valuesOf(first.Header, "X-A")) != 2 || first.HeaderTruncated {
		t.Errorf("%+v", first)
	}
	if first.Reused || first.RemoteAddr != s.Addr || first.TLSVersion != 0 || !first.CertExpiry.IsZero() {
		t.Errorf("%+v", first)
	}
	if d := first.Timings; d.DNS <= 0 || d.Connect <= 0 || d.TLS != 0 || d.Total < d.DNS+d.Connect+d.FirstByte+d.Read || d.Total > patience {
		t.Errorf("%+v", d)
	}
	second := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")})
	if d := second.Timings; !second.OK() || !second.Reused || second.RemoteAddr != s.Addr || d.DNS != 0 || d.Connect != 0 {
		t.Errorf("%+v", second)
	}
	if n := s.connections(); n != 1 {
		t.Errorf("%d connections for two sends", n)
	}
}

func TestStatusDecides(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	s := newSink(t, func(c net.Conn) {
		in := bufio.NewReader(c)
		for {
			if _, _, ok := readRequest(in); !ok {
				return
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 %d \x1b[31mEvil\r\nContent-Length: 0\r\n\r\n", status.Load())
		}
	})
	c := newClient(t, Options{Policy: loopback()})
	for code := int64(200); code <= 999; code += 7 {
		status.Store(code)
		res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
		if res.Status != int(code) || res.Class != webhook.ClassOfStatus(int(code)) || res.OK() != (code < 300) {
			t.Errorf("status %d: %d %s", code, res.Status, res.Class)
		}
		if (res.Error == "") != res.OK() || strings.Contains(res.Error, "Evil") {
			t.Errorf("status %d: %q", code, res.Error)
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	canary := newSink(t, answering(okAnswer))
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308} {
		s := newSink(t, answering(fmt.Sprintf("HTTP/1.1 %d X\r\nLocation: %s/\xff%s\r\nContent-Length: 0\r\n\r\n", code, canary.URL, strings.Repeat("a", 500))))
		c := newClient(t, Options{Policy: loopback()})
		res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
		if res.Status != code || res.Class != webhook.ClassRedirect || !strings.Contains(res.Error, canary.URL) {
			t.Errorf("%d: %s (%s)", code, res.Class, res.Error)
		}
		if len(res.Error) > maxShownText+80 || !utf8.ValidString(res.Error) {
			t.Errorf("%d: error %q", code, res.Error)
		}
	}
	if n := canary.connections(); n != 0 {
		t.Errorf("%d redirects followed", n)
	}
}

func TestBodyCap(t *testing.T) {
	t.Parallel()
	const limit = 1000
	for _, row := range []struct {
		size             int
		chunked          bool
		truncated, reuse bool
	}{
		{0, false, false, true}, {limit - 1, false, false, true}, {limit, false, false, true}, {limit + 1, false, true, true},
		{limit + 1 + maxDrain, false, true, true}, {limit + 2 + maxDrain, false, true, false},
		{0, true, false, true}, {limit, true, false, true}, {limit + 2, true, true, false}, {limit + maxDrain, true, true, false},
	} {
		t.Run(fmt.Sprintf("%d,chunked=%v", row.size, row.chunked), func(t *testing.T) {
			t.Parallel()
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", row.size, strings.Repeat("a", row.size))
			if row.chunked {
				answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				if row.size > 0 {
					answer += fmt.Sprintf("%x\r\n%s\r\n", row.size, strings.Repeat("a", row.size))
				}
				answer += "0\r\n\r\n"
			}
			s := newSink(t, answering(answer))
			c := newClient(t, Options{Policy: loopback(), MaxBody: limit})
			res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
			if !res.OK() || len(res.Body) != min(row.size, limit) || res.BodyTruncated != row.truncated {
				t.Errorf("%s (%s): %d bytes, truncated %v", res.Class, res.Error, len(res.Body), res.BodyTruncated)
			}
			if again := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")}); again.Reused != row.reuse {
				t.Errorf("the connection was reused: %v, want %v", again.Reused, row.reuse)
			}
		})
	}
}

func valuesOf(header []webhook.Header, name string) (values []string) {
	for _, h := range header {
		if h.Name == name {
			values = append(values, h.Value)
		}
	}
	return values
}

func TestReceivedHeaderCaps(t *testing.T) {
	t.Parallel()
	send := func(t *testing.T, lines string) Result {
		s := newSink(t, answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"+lines+"\r\n"))
		return newClient(t, Options{Policy: loopback()}).Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
	}
	numbered := func(n int) (lines string) {
		for i := range n - 1 { // and Content-Length
			lines += fmt.Sprintf("X-%03d: v\r\n", i)
		}
		return lines
	}
	if res := send(t, numbered(MaxReceivedHeaders)); len(res.Header) != MaxReceivedHeaders || res.HeaderTruncated {
		t.Errorf("%d headers: %d kept", MaxReceivedHeaders, len(res.Header))
	}
	if res := send(t, numbered(MaxReceivedHeaders+1)); len(res.Header) != MaxReceivedHeaders || !res.HeaderTruncated || !res.OK() {
		t.Errorf("%d headers: %d kept", MaxReceivedHeaders+1, len(res.Header))
	}
	room := MaxReceivedBytes - len("Content-Length") - len("0") - len("X")
	if res := send(t, "X: "+strings.Repeat("a", room)+"\r\n"); len(valuesOf(res.Header, "X")) != 1 || res.HeaderTruncated {
		t.Errorf("%d bytes: %v", MaxReceivedBytes, res.HeaderTruncated)
	}
	if res := send(t, "X: "+strings.Repeat("a", room+1)+"\r\n"); len(valuesOf(res.Header, "X")) != 0 || !res.HeaderTruncated || len(res.Header) != 1 {
		t.Errorf("%d bytes: %v", MaxReceivedBytes+1, res.HeaderTruncated)
	}
	res := send(t, "X: a\xff\u009b31m\tü\r\nContent-Type: a\xffb\r\n")
	if got := strings.Join(valuesOf(res.Header, "X"), "|"); !res.OK() || got != "a\ufffd\ufffd31m\tü" || res.ContentType != "a\ufffdb" {
		t.Errorf("%s: header %q, content type %q", res.Class, got, res.ContentType)
	}
}

// TestNothingIsSentTwice: however a receiver ends a kept connection, each send reaches it once or not
// at all, and what was reported as taken was taken.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); _ = c.Close() }
	for name, second := range map[string]func(c net.Conn, in *bufio.Reader, seen func(http.Header)){
		"close after the answer": func(c net.Conn, _ *bufio.Reader, _ func(http.Header)) { _ = c.Close() },
		"reset after the answer": func(c net.Conn, _ *bufio.Reader, _ func(http.Header)) { reset(c) },
		"half close after the answer": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) {
			_ = c.(*net.TCPConn).CloseWrite()
			if _, h, ok := readRequest(in); ok {
				seen(h)
			}
		},
		"408 after the answer": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) {
			_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if _, h, ok := readRequest(in); ok {
				seen(h)
			}
		},
		"close at the first byte": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) { _, _ = in.ReadByte(); _ = c.Close() },
		"reset at the first byte": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) { _, _ = in.ReadByte(); reset(c) },
		"close without an answer": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) {
			if _, h, ok := readRequest(in); ok {
				seen(h)
			}
		},
		"reset without an answer": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) {
			if _, h, ok := readRequest(in); ok {
				seen(h)
			}
			reset(c)
		},
		"half an answer": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) {
			if _, h, ok := readRequest(in); ok {
				seen(h)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le")
		},
		"half a body": func(c net.Conn, in *bufio.Reader, seen func(http.Header)) {
			if _, h, ok := readRequest(in); ok {
				seen(h)
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		},
	} {
		for _, body := range []string{`{"n":1}`, "", strings.Repeat("x", 1<<18)} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, len(body)), func(t *testing.T) {
				t.Parallel()
				var mu sync.Mutex
				count := map[string]int{}
				seen := func(h http.Header) {
					mu.Lock()
					defer mu.Unlock()
					count[h.Get("Webhook-Id")]++
				}
				s := newSink(t, func(c net.Conn) {
					in := bufio.NewReader(c)
					_, h, ok := readRequest(in)
					if !ok {
						return
					}
					seen(h)
					_, _ = io.WriteString(c, okAnswer)
					second(c, in, seen)
				})
				c := newClient(t, Options{Policy: loopback()})
				const sends = 30
				results := make([]Result, sends)
				for i := range results {
					results[i] = c.Send(t.Context(), Request{URL: s.URL, Body: []byte(body), Header: http.Header{
						"webhook-id": {fmt.Sprint(i)}, "Idempotency-Key": {fmt.Sprint(i)}, "X-Idempotency-Key": {fmt.Sprint(i)},
					}})
				}
				c.Close() // every request is at the sink or nowhere
				mu.Lock()
				defer mu.Unlock()
				for i, res := range results {
					got := count[fmt.Sprint(i)]
					if got > 1 || res.OK() && got != 1 {
						t.Errorf("send %d: %s (%s), %d requests", i, res.Class, res.Error, got)
					}
					if !res.OK() && res.Class != webhook.ClassReset && res.Status != 408 {
						t.Errorf("send %d: %s (%s)", i, res.Class, res.Error)
					}
				}
			})
		}
	}
}

func TestHeadersThatCannotBeSent(t *testing.T) {
	t.Parallel()
	s := newSink(t, answering(okAnswer))
	c := newClient(t, Options{Policy: loopback()})
	for _, row := range [][2]string{
		{"Host", "evil"}, {"host", "evil"}, {"content-length", "0"}, {"Content-Length", "5"}, {"transfer-encoding", "chunked"},
		{"Connection", "close"}, {"TE", "trailers"}, {"trailer", "X"}, {"Upgrade", "h2c"}, {"Expect", "100-continue"},
		{"HTTP2-Settings", "x"}, {"Keep-Alive", "1"}, {"Proxy-Authorization", "x"}, {"proxy-connection", "x"},
		{"", "x"}, {"A B", "x"}, {"A:", "x"}, {"A\r\nB", "x"}, {"X", "a\r\nInjected: 1"}, {"X", "a\nb"}, {"X", "a\x00b"}, {"ü", "x"},
	} {
		res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}"), Header: http.Header{row[0]: {"fine", row[1]}}})
		if res.Class != webhook.ClassInvalidHeader || res.SentHeader != nil {
			t.Errorf("header %q: %q: %s (%s)", row[0], row[1], res.Class, res.Error)
		}
	}
	for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "CONNECT", "DELETE", "post", "POST /x HTTP/1.1\r\n"} {
		if res := c.Send(t.Context(), Request{Method: method, URL: s.URL}); res.Class != webhook.ClassInternal {
			t.Errorf("method %q: %s", method, res.Class)
		}
	}
	if n := s.connections(); n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestURLIsCheckedAtSend(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	for url, want := range map[string]webhook.ErrorClass{
		"":                             webhook.ClassInvalidURL,
		"http://example.com":           webhook.ClassInvalidURL,
		"https://localhost":            webhook.ClassInvalidURL,
		"https://user:pw@example.com/": webhook.ClassInvalidURL,
		"https://example.com:25/":      webhook.ClassInvalidURL,
		"https://127.0.0.1/":           webhook.ClassBlockedAddress,
		"https://[::1]/":               webhook.ClassBlockedAddress,
	} {
		res := c.Send(t.Context(), Request{URL: url})
		if res.Class != want || res.Error == "" || strings.Contains(res.Error, "pw") || strings.Contains(res.Error, "127.0") {
			t.Errorf("%q: %s (%s)", url, res.Class, res.Error)
		}
	}
}

func TestCallerMayEndASend(t *testing.T) {
	t.Parallel()
	arrived := make(chan struct{})
	s := newSink(t, func(c net.Conn) {
		if _, _, ok := readRequest(bufio.NewReader(c)); ok {
			close(arrived)
		}
		_, _ = c.Read(make([]byte, 1))
	})
	c := newClient(t, Options{Policy: loopback(), Timeout: patience})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if res := c.Send(ctx, Request{URL: s.URL, Body: []byte("{}")}); res.Class != webhook.ClassInternal {
		t.Errorf("cancelled: %s (%s)", res.Class, res.Error)
	}
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	if res := c.Send(ctx, Request{URL: s.URL, Body: []byte("{}")}); res.Class != webhook.ClassTimeoutConnect {
		t.Errorf("too late: %s (%s)", res.Class, res.Error)
	}
}
