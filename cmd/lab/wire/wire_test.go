package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server until the test ends and returns its address.
func serve(t *testing.T, server *Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

func TestServerReadsWhatNetHTTPSends(t *testing.T) {
	var seen []string
	address := serve(t, &Server{Handle: func(r *Request) int {
		seen = append(seen, fmt.Sprintf("%d %s %s %s %s %s", r.Conn, r.Path, r.ID, r.Timestamp, r.Signature, r.Body))
		return 200 + len(seen) - 1
	}})
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for i := range 2 {
		request, _ := http.NewRequest("POST", "http://"+address+"/e/7", strings.NewReader(`{"n":1}`))
		request.Header.Set("webhook-id", "msg_1")
		request.Header.Set("webhook-timestamp", "12")
		request.Header.Set("webhook-signature", "v1,abc")
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(response.Body); err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != 200+i {
			t.Fatalf("status %d", response.StatusCode)
		}
	}
	for _, line := range seen {
		if line != `1 /e/7 msg_1 12 v1,abc {"n":1}` {
			t.Errorf("saw %q", line)
		}
	}
}

func TestServerReportsTheEndOfAConnection(t *testing.T) {
	closed := make(chan uint64, 1)
	address := serve(t, &Server{
		Handle: func(*Request) int { return 200 },
		Closed: func(conn uint64, _ time.Time) { closed <- conn },
	})
	client := Client{Address: address}
	if _, err := client.Do("POST", "/", "", nil); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if conn := <-closed; conn != 1 {
		t.Fatalf("connection %d", conn)
	}
}

func TestServerDoesWhatItIsToldInstead(t *testing.T) {
	address := serve(t, &Server{Handle: func(r *Request) int {
		r.Instead = func(conn net.Conn) { _, _ = conn.Write([]byte("HTTP/1.1 299 Other\r\nContent-Length: 0\r\n\r\n")) }
		return 200
	}})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "HTTP/1.1 299 Other\r\nContent-Length: 0\r\n\r\n" {
		t.Errorf("%q %v", text, err) // and the connection has ended
	}
}

func TestServerRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, text := range []string{
		"GET / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.0\r\nContent-Length: 0\r\n\r\n",
		"POST / HTTP/1.1\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		fmt.Sprintf("POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n", maxBody+1),
		"POST / HTTP/1.1\r\nX: " + strings.Repeat("x", maxLine) + "\r\n\r\n",
		"POST / HTTP/1.1\r\n" + strings.Repeat("X: x\r\n", maxHeaders+1) + "\r\n",
	} {
		_, _, err := readRequest(bufio.NewReaderSize(strings.NewReader(text), maxLine), &Request{}, nil, nil)
		if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%.40q: %v", text, err)
		}
	}
	atLimit := "POST / HTTP/1.1\r\nContent-Length: 1\r\n" + strings.Repeat("X: x\r\n", maxHeaders-1) + "\r\nx"
	if _, _, err := readRequest(bufio.NewReaderSize(strings.NewReader(atLimit), maxLine), &Request{}, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestClientReadsWhatNetHTTPAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/chunked":
			_ = http.NewResponseController(w).Flush()
		case "/none":
			w.WriteHeader(204)
			return
		case "/close":
			w.Header().Set("Connection", "close")
		}
		_, _ = fmt.Fprintf(w, "%s %s %s", r.Method, r.Header.Get("x-test"), body)
	}))
	defer server.Close()
	client := Client{Address: server.Listener.Addr().String()}
	defer client.Close()
	for _, path := range []string{"/plain", "/chunked", "/close", "/none", "/plain"} {
		response, err := client.Do("PUT", path, "X-Test: yes\r\n", []byte("body"))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		want := Response{Status: 200, Body: []byte("PUT yes body")}
		if path == "/none" {
			want = Response{Status: 204}
		}
		if response.Status != want.Status || string(response.Body) != string(want.Body) {
			t.Errorf("%s: %d %q", path, response.Status, response.Body)
		}
	}
}

func TestClientTellsATimeoutFromABrokenConnection(t *testing.T) {
	release := make(chan struct{})
	address := serve(t, &Server{Handle: func(*Request) int { <-release; return 200 }})
	defer close(release)
	client := Client{Address: address, Timeout: 20 * time.Millisecond}
	if _, err := client.Do("POST", "/", "", nil); !IsTimeout(err) {
		t.Errorf("want a timeout, got %v", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()
	refused := Client{Address: listener.Addr().String()}
	if _, err := refused.Do("POST", "/", "", nil); err == nil || IsTimeout(err) {
		t.Errorf("want a refused connection, got %v", err)
	}
}
