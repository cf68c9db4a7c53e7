package queue

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// After repeated failures go-redis tries to dial in the background; it notices that the client
		// was closed up to a second later.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// patience bounds every wait in these tests; reaching it is failure.
const patience = 30 * time.Second

// server is a redis-server of the test's own, without persistence.
type server struct {
	tb   testing.TB
	addr string
	cmd  *exec.Cmd
}

func startServer(tb testing.TB) *server {
	tb.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		tb.Skip("no redis-server on PATH")
	}
	for range 5 { // the free port may be taken by someone else meanwhile
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			tb.Fatal(err)
		}
		s := &server{tb: tb, addr: l.Addr().String()}
		l.Close()
		if s.start() {
			tb.Cleanup(s.kill)
			return s
		}
	}
	tb.Fatal("redis-server does not start")
	return nil
}

func (s *server) url() string { return "redis://" + s.addr + "/3" }

func (s *server) start() bool {
	s.tb.Helper()
	_, port, _ := net.SplitHostPort(s.addr)
	s.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
	dieWithTheTest(s.cmd)
	if err := s.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: s.addr})
	defer client.Close()
	deadline := time.After(patience)
	for {
		info, err := client.Info(s.tb.Context(), "server").Result()
		if err == nil && strings.Contains(info, fmt.Sprintf("process_id:%d\r", s.cmd.Process.Pid)) {
			return true
		}
		if err == nil { // somebody else's server on this port
			s.kill()
			return false
		}
		select {
		case <-deadline:
			s.kill()
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill ends the server as a crash would.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// eachRedis runs a test on miniredis and on a real server.
func eachRedis(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("miniredis", func(t *testing.T) {
		t.Parallel()
		m := miniredis.RunT(t)
		m.ClockTTL(true)
		test(t, "redis://"+m.Addr()+"/3")
	})
	t.Run("redis-server", func(t *testing.T) {
		t.Parallel()
		test(t, startServer(t).url())
	})
}

// logs is a logger whose lines can be read.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *logs) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func open(tb testing.TB, o Options) *Queue {
	tb.Helper()
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second // the machine may be busy; tests of the timeout set their own
	}
	q, err := Open(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := q.Close(); err != nil {
			tb.Error(err)
		}
	})
	return q
}

// dependOnWakes makes polling useless, so that only a wake-up can get a task handled.
func dependOnWakes(q *Queue) { q.wakes.waits = waits{time.Hour, time.Hour} }

// run runs a queue until the end of the test or until stop is called, which returns what Run did.
func run(tb testing.TB, q *Queue, handle Handler) (stop func() error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx, handle) }()
	stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(patience):
			return fmt.Errorf("Run did not return")
		}
	})
	tb.Cleanup(func() {
		if err := stop(); err != nil {
			tb.Error(err)
		}
	})
	return stop
}

// collect is a handler that passes deliveries on.
func collect() (Handler, <-chan []webhook.Delivery) {
	handled := make(chan []webhook.Delivery, 1<<16)
	return func(_ context.Context, ds []webhook.Delivery) error {
		handled <- ds
		return nil
	}, handled
}

func receive(tb testing.TB, handled <-chan []webhook.Delivery) []webhook.Delivery {
	tb.Helper()
	select {
	case ds := <-handled:
		return ds
	case <-time.After(patience):
		tb.Fatal("no task was handled")
		return nil
	}
}

func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-deadline:
			tb.Fatal("never happened: " + what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// delivery is a new one; no two are equal.
func delivery() webhook.Delivery {
	var d webhook.Delivery
	d.Tenant = webhook.TenantID(uuid.New())
	d.Message = webhook.MessageID(uuid.New())
	d.Endpoint = webhook.EndpointID(uuid.New())
	return d
}

// deliveries are n new ones of one message.
func deliveries(n int) []webhook.Delivery {
	ds := make([]webhook.Delivery, n)
	first := delivery()
	for i := range ds {
		ds[i] = first
		ds[i].Endpoint = webhook.EndpointID(uuid.New())
		ds[i].Attempt, ds[i].Feed = int16(i), int16(i+1)
	}
	return ds
}

// pushOne pushes a task of one new delivery.
func pushOne(tb testing.TB, q *Queue) webhook.Delivery {
	tb.Helper()
	d := delivery()
	if err := q.Push(tb.Context(), [][]webhook.Delivery{{d}}); err != nil {
		tb.Fatal(err)
	}
	return d
}

// mustHandle pushes a task and waits until that very task is handled.
func mustHandle(tb testing.TB, q *Queue, handled <-chan []webhook.Delivery) {
	tb.Helper()
	d := pushOne(tb, q)
	for !slices.Contains(receive(tb, handled), d) {
	}
}
