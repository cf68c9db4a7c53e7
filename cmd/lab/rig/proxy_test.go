package rig

import (
	"bufio"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo answers every line with itself until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() { _ = listener.Close(); serving.Wait() })
	return listener.Addr().String()
}

// ask sends a line and returns how long the answer took.
func ask(conn net.Conn, patience time.Duration) (time.Duration, error) {
	began := time.Now()
	if err := conn.SetDeadline(began.Add(patience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write([]byte("x\n")); err != nil {
		return 0, err
	}
	_, err := bufio.NewReader(conn).ReadString('\n')
	return time.Since(began), err
}

func TestProxyWeather(t *testing.T) {
	to := echo(t)
	proxy, err := NewProxy(to)
	if err != nil {
		t.Fatal(err)
	}
	// Before the server behind it is waited for.
	t.Cleanup(proxy.Close)
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", proxy.Address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	conn := dial()
	if _, err := ask(conn, time.Minute); err != nil {
		t.Fatal(err)
	}
	const delay = 50 * time.Millisecond
	proxy.Set(Weather{Delay: delay})
	if took, err := ask(conn, time.Minute); err != nil || took < delay {
		t.Errorf("in bad weather: %v, %v", took, err)
	}
	proxy.Set(Weather{Silent: true})
	conns := []net.Conn{conn, dial()} // an old one and a new one
	for _, c := range conns {
		if _, err := ask(c, delay); !isTimeout(err) {
			t.Errorf("in silence: %v", err)
		}
	}
	proxy.Set(Weather{})
	for _, c := range conns {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "x\n" {
			t.Errorf("what was held: %q, %v", line, err)
		}
	}
	proxy.Set(Weather{Resets: 1})
	if _, err := ask(conn, time.Minute); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("reset: %v", err)
	}
	counts := proxy.Set(Weather{})
	if counts.Delayed != 1 || counts.Held < 2 || counts.Reset != 1 {
		t.Errorf("%+v", counts)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
