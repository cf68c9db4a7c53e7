package egress

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// TestResponseBombs aims every answer that is meant to fill memory or hold a slot at 50 sends at once.
// The sink's memory counts too, being of the same process.
func TestResponseBombs(t *testing.T) {
	const (
		parallel = 50
		budget   = 32 << 20               // bytes the heap may grow by
		deadline = 400 * time.Millisecond // of sends to the slow ones
	)
	megabyte := bytes.Repeat([]byte("a"), 1<<20)
	// until writes head, then part until the other side has had enough.
	until := func(head string, part []byte) func(net.Conn) {
		return func(c net.Conn) {
			for _, err := io.WriteString(c, head); err == nil; {
				_, err = c.Write(part)
			}
		}
	}
	// drip writes head, then one byte every so often.
	drip := func(head, part string) func(net.Conn) {
		return func(c net.Conn) {
			_, err := io.WriteString(c, head)
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := 0; err == nil; i++ {
				<-tick.C
				_, err = io.WriteString(c, part[i%len(part):][:1])
			}
		}
	}
	var zipped bytes.Buffer
	zip := gzip.NewWriter(&zipped)
	for range 100 {
		_, _ = zip.Write(make([]byte, 1<<20))
	}
	_ = zip.Close()

	for _, row := range []struct {
		name     string
		serve    func(net.Conn)
		class    webhook.ErrorClass
		status   int
		body     int // bytes kept; -1 = whatever came in time
		truncate bool
	}{
		{"infinite body", until("HTTP/1.1 200 OK\r\n\r\n", megabyte), webhook.ClassNone, 200, DefaultMaxBody, true},
		{"1 GiB body", until("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", megabyte), webhook.ClassNone, 200, DefaultMaxBody, true},
		{"infinite error body", until("HTTP/1.1 500 Oh\r\n\r\n", megabyte), webhook.ClassServerError, 500, DefaultMaxBody, true},
		{"infinite chunk", until("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", megabyte), webhook.ClassNone, 200, DefaultMaxBody, true},
		{"gzip bomb", func(c net.Conn) {
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", zipped.Len())
			_, _ = c.Write(zipped.Bytes())
			_, _ = io.Copy(io.Discard, c)
		}, webhook.ClassNone, 200, DefaultMaxBody, true},
		{"gzip transfer coding", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
			_, _ = c.Write(zipped.Bytes())
			_, _ = io.Copy(io.Discard, c)
		}, webhook.ClassProtocol, 0, 0, false},
		{"slow status line", drip("", "HTTP/1.1 200 OK"), webhook.ClassTimeoutHeaders, 0, 0, false},
		{"slow headers", drip("HTTP/1.1 200 OK\r\n", "X: a\r\n"), webhook.ClassTimeoutHeaders, 0, 0, false},
		{"slow body", drip("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", "a"), webhook.ClassTimeoutBody, 200, -1, false},
		{"slow chunks", drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"), webhook.ClassTimeoutBody, 200, -1, false},
		{"slow remainder", drip("HTTP/1.1 200 OK\r\nContent-Length: 20100\r\n\r\n"+strings.Repeat("a", 20001), "a"), webhook.ClassNone, 200, DefaultMaxBody, true},
		{"11 MiB of headers", until("HTTP/1.1 200 OK\r\n", bytes.Repeat([]byte("X-Flood: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"), 11<<20/43)), webhook.ClassHeaderTooLarge, 0, 0, false},
		{"one endless header", until("HTTP/1.1 200 OK\r\nX: ", megabyte), webhook.ClassHeaderTooLarge, 0, 0, false},
		{"one endless status line", until("HTTP/1.1 200 ", megabyte), webhook.ClassHeaderTooLarge, 0, 0, false},
		{"endless empty headers", until("HTTP/1.1 200 OK\r\n", bytes.Repeat([]byte("a:\r\n"), 1<<18)), webhook.ClassHeaderTooLarge, 0, 0, false},
		{"endless 103s", until("", bytes.Repeat([]byte("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"), 10_000)), webhook.ClassHeaderTooLarge, 0, 0, false},
		{"endless 100s", until("", bytes.Repeat([]byte("HTTP/1.1 100 Continue\r\n\r\n"), 10_000)), webhook.ClassHeaderTooLarge, 0, 0, false},
		{"1 MiB trailer", until("HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ", megabyte), webhook.ClassNone, 200, 2, false},
		{"endless chunk extension", until("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=", megabyte), webhook.ClassProtocol, 200, 0, false},
		{"extension on every chunk", until("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
			bytes.Repeat([]byte("1;"+strings.Repeat("x", 2000)+"\r\na\r\n"), 500)), webhook.ClassProtocol, 200, -1, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSink(t, func(c net.Conn) {
				if _, _, ok := readRequest(bufio.NewReader(c)); ok {
					row.serve(c)
				}
			})
			timeout := patience
			if strings.HasPrefix(row.name, "slow") {
				timeout = deadline
			}
			c := newClient(t, Options{Policy: loopback(), Timeout: timeout})
			results := make([]Result, parallel)
			grown := watchHeap()
			start := time.Now()
			var wg sync.WaitGroup
			for i := range results {
				wg.Go(func() { results[i] = c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")}) })
			}
			wg.Wait()
			took := time.Since(start)
			if peak := grown(); peak > budget {
				t.Errorf("the heap grew by %d MiB", peak>>20)
			}
			if took > timeout+time.Second {
				t.Errorf("slots were free only after %s", took)
			}
			for _, res := range results {
				if res.Class != row.class || res.Status != row.status || res.BodyTruncated != row.truncate {
					t.Fatalf("%s (%s), status %d, truncated %v; want %s, %d, %v", res.Class, res.Error, res.Status, res.BodyTruncated, row.class, row.status, row.truncate)
				}
				if row.body >= 0 && len(res.Body) != row.body || len(res.Body) > DefaultMaxBody {
					t.Fatalf("%d bytes of body, want %d", len(res.Body), row.body)
				}
			}
		})
	}
}

// watchHeap measures the heap until the returned function is called, which gives by how much it grew
// at most. Meanwhile garbage is collected early, since how much of it may lie about is a setting.
func watchHeap() (grown func() uint64) {
	percent := debug.SetGCPercent(30)
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	before := sample[0].Value.Uint64()
	peak, stop, done := before, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(sample)
			peak = max(peak, sample[0].Value.Uint64())
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		debug.SetGCPercent(percent)
		return peak - before
	}
}

// TestOddAnswers: whatever is not a whole HTTP/1.1 answer with a status from 200 to 299 is a failure
// of a known class.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		raw    string
		status int
		class  webhook.ErrorClass
		body   string
	}{
		{"HTTP/1.1 200 OK\r\n\r\nto the end", 200, webhook.ClassNone, "to the end"},
		{"HTTP/1.0 200 OK\r\n\r\nold", 200, webhook.ClassNone, "old"},
		{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, webhook.ClassNone, ""},
		{"HTTP/1.1 299 Odd\r\nContent-Length: 0\r\n\r\n", 299, webhook.ClassNone, ""},
		{"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204, webhook.ClassNone, ""},
		{"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 204, webhook.ClassNone, ""},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", 201, webhook.ClassNone, "ok"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, webhook.ClassNone, "ok"},
		{"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, webhook.ClassNone, "ok"},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 500 Second\r\n\r\n", 200, webhook.ClassNone, "ok"},
		{"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes", 101, webhook.ClassUnexpectedStatus, ""},
		{"HTTP/1.1 101 Switching Protocols\r\n\r\n", 101, webhook.ClassUnexpectedStatus, ""},
		{"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n", 600, webhook.ClassUnexpectedStatus, ""},
		{"HTTP/1.1 000 Zero\r\nContent-Length: 0\r\n\r\n", 0, webhook.ClassUnexpectedStatus, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", 200, webhook.ClassReset, "short"},
		{"HTTP/1.1 500 Oh\r\nContent-Length: 10\r\n\r\nshort", 500, webhook.ClassServerError, "short"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", 200, webhook.ClassReset, "hel"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 200, webhook.ClassReset, "hello"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", 200, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", 200, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello\r\n", 200, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", 200, webhook.ClassProtocol, "hello"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nbad trailer\r\n\r\n", 200, webhook.ClassNone, "ok"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", 200, webhook.ClassNone, "ok"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n", 200, webhook.ClassNone, "ok"},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity, chunked\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 2x0 OK\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 20 OK\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 2000 OK\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 -20 OK\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/3.14 200 OK\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, webhook.ClassNone, ""},
		{"ICY 200 OK\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n", 200, webhook.ClassNone, ""},
		{"HTTP/1.1 200 OK\r\n: empty\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\n folded\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"\r\n\r\n", 0, webhook.ClassProtocol, ""},
		{"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00", 0, webhook.ClassReset, ""},
		{"SSH-2.0-OpenSSH_9.6\r\n", 0, webhook.ClassProtocol, ""},
		{"220 mail.example.com ESMTP\r\n", 0, webhook.ClassProtocol, ""},
		{"-ERR unknown command 'POST'\r\n", 0, webhook.ClassProtocol, ""},
		{"<html>hello</html>\r\n", 0, webhook.ClassProtocol, ""},
		{"", 0, webhook.ClassReset, ""},
		{"H", 0, webhook.ClassReset, ""},
		{"HTTP/1.1 200 OK\r\n", 0, webhook.ClassReset, ""},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", 0, webhook.ClassReset, ""},
		{"HTTP/1.1 200 OK\r\nContent-Le", 0, webhook.ClassReset, ""},
		{"HTTP/1.1 100 Continue\r\n\r\n", 0, webhook.ClassReset, ""},
	} {
		t.Run(fmt.Sprintf("%.60q", row.raw), func(t *testing.T) {
			t.Parallel()
			s := newSink(t, func(c net.Conn) {
				if _, _, ok := readRequest(bufio.NewReader(c)); ok {
					_, _ = io.WriteString(c, row.raw)
				}
			})
			c := newClient(t, Options{Policy: loopback(), Timeout: patience})
			res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
			if res.Status != row.status || res.Class != row.class || string(res.Body) != row.body {
				t.Errorf("status %d, %s (%s), body %q; want %d, %s, %q", res.Status, res.Class, res.Error, res.Body, row.status, row.class, row.body)
			}
			if n := s.connections(); n != 1 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// resetting is a connection that ends by a reset, after all that was sent has been read.
type resetting struct{ net.Conn }

func (c resetting) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return n, err
}

func TestResetInTheAnswer(t *testing.T) {
	for _, raw := range []string{"", "H", "HTTP/1.1 200 OK\r\nContent-Le", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"} {
		s := newSink(t, func(c net.Conn) {
			if _, _, ok := readRequest(bufio.NewReader(c)); ok {
				_, _ = io.WriteString(c, raw)
			}
		})
		c := newClient(t, Options{Policy: loopback(), Timeout: patience})
		real := c.dialer.connect
		c.dialer.connect = func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			conn, err := real(ctx, addr)
			return resetting{conn}, err
		}
		if res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")}); res.Class != webhook.ClassReset {
			t.Errorf("%q: %s (%s)", raw, res.Class, res.Error)
		}
	}
}

// FuzzAnswer: no answer panics, hangs, or gets past the caps, and success is what it says.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		okAnswer, "", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\nz",
		"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 302 x\r\nLocation: \xff\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", "HTTP/1.0 204 x\r\n\r\nbody",
	} {
		f.Add([]byte(seed))
	}
	var mu sync.Mutex
	var answer []byte
	s := newSink(f, func(c net.Conn) {
		if _, _, ok := readRequest(bufio.NewReader(c)); ok {
			mu.Lock()
			raw := answer
			mu.Unlock()
			_, _ = c.Write(raw)
		}
	})
	c := newClient(f, Options{Policy: loopback(), Timeout: patience})
	f.Fuzz(func(t *testing.T, raw []byte) {
		mu.Lock()
		answer = raw
		mu.Unlock()
		res := c.Send(t.Context(), Request{URL: s.URL, Body: []byte("{}")})
		if res.OK() != (res.Error == "") || res.OK() && (res.Status < 200 || res.Status > 299) {
			t.Errorf("%+v", res)
		}
		if res.Timings.Total > patience/2 || len(res.Body) > DefaultMaxBody || len(res.Error) > 1000 {
			t.Errorf("%+v", res)
		}
		for _, h := range res.Header {
			if h.Value != shown(h.Value, MaxReceivedBytes) {
				t.Errorf("header value %q", h.Value)
			}
		}
	})
}
