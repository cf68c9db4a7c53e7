package api

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
)

// TestSmuggledRequestsAreNotServed sends what a proxy and a server may read differently through a raw
// socket. Each is refused, and what hides behind it is never answered with success. Two are read as the
// standard says, so that a second request does follow: a folded line belongs to the header before it,
// and a chunked body is chunked whatever length is claimed beside it.
func TestSmuggledRequestsAreNotServed(t *testing.T) {
	handler, err := New(options(t, storetest.Open(t), slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(handler, listener.Addr().String())
	server.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	const hidden = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
	const folded, twoSizes = "folded header", "length and chunked"
	const post = "POST /api/v1/app HTTP/1.1\r\nHost: x\r\n"
	for name, raw := range map[string]string{
		"two lengths":                 post + "Content-Length: 0\r\nContent-Length: 38\r\n\r\n" + hidden,
		"length list":                 post + "Content-Length: 0, 38\r\n\r\n" + hidden,
		"signed length":               post + "Content-Length: +0\r\n\r\n" + hidden,
		"hex length":                  post + "Content-Length: 0x0\r\n\r\n" + hidden,
		twoSizes:                      post + "Content-Length: 38\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
		"chunked twice":               post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden,
		"obscured chunked":            post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden,
		"space before the colon":      post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + hidden,
		folded:                        post + "X: a\r\n Content-Length: 38\r\n\r\n" + hidden,
		"bare line feeds":             "GET /nowhere HTTP/1.1\nHost: x\nContent-Length: 38\n\n" + hidden,
		"NUL in a header":             post + "X: a\x00b\r\nContent-Length: 0\r\n\r\n" + hidden,
		"no host":                     "GET /health/live HTTP/1.1\r\n\r\n",
		"two hosts":                   "GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"bad chunk size":              post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + hidden,
		"headers over the limit":      "GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("a", MaxHeaderBytes+8<<10) + "\r\n\r\n",
		"method that is no token":     "GE(T /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
		"unknown version":             "GET /health/live HTTP/9.9\r\nHost: x\r\n\r\n",
		"preface of the next version": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(conn, raw); err != nil {
				return // refused before it was all sent
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			first := true
			for in := bufio.NewReader(conn); ; first = false {
				answer, err := http.ReadResponse(in, nil)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, answer.Body)
				if first && answer.StatusCode < 400 || answer.StatusCode >= 500 && answer.StatusCode != http.StatusHTTPVersionNotSupported && answer.StatusCode != http.StatusNotImplemented {
					t.Errorf("answered %s", answer.Status)
				}
				if !first && answer.StatusCode < 300 && name != folded && name != twoSizes {
					t.Errorf("what hid behind it was answered %s", answer.Status)
				}
			}
		})
	}
}
