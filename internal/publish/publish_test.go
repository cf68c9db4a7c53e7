package publish

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMain(m *testing.M) { storetest.Main(m) }

type rig struct {
	t     *testing.T
	pub   *Publisher
	store *store.Store
	queue *queue.Queue
	app   webhook.Application
	sql   *pgx.Conn
}

func newRig(t *testing.T, redisURL string) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, url := storetest.OpenURL(t)
	q, err := queue.Open(queue.Options{URL: redisURL, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	d := dispatch.New(dispatch.Options{Store: s, Queue: q, Limiter: ratelimit.New(q), Metrics: telemetry.NewMetrics(), Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	p := New(Options{Store: s, Dispatcher: d, Lease: 30 * time.Second, Metrics: telemetry.NewMetrics(), Logger: log})
	t.Cleanup(func() { p.Close(); cancel(); running.Wait() })
	app := storetest.Application(t, s, storetest.Tenant(t, s).ID)
	storetest.Endpoint(t, s, app, "https://example.com/")
	return &rig{t: t, pub: p, store: s, queue: q, app: app, sql: storetest.Connect(t, url)}
}

func (r *rig) request(payload string) Request {
	return Request{Tenant: r.app.TenantID, Application: r.app.ID.String(),
		Message: webhook.Message{EventType: "e", Payload: []byte(payload)}}
}

// queued is how many tasks wait in the queues.
func (r *rig) queued(ctx context.Context) (int, error) {
	n, err := r.queue.Lengths(ctx)
	return n.Live + n.Fed, err
}

func (r *rig) count(from string) (n int) {
	r.t.Helper()
	if err := r.sql.QueryRow(r.t.Context(), `SELECT count(*) FROM `+from).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

func TestWhatIsAcceptedIsStoredWithWhatItOwesAndHandedOut(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	m, _, err := r.pub.Accept(t.Context(), r.request(`{"x":1}`))
	if err != nil {
		t.Fatal(err)
	}
	if m.ApplicationID != r.app.ID || m.TenantID != r.app.TenantID || string(m.Payload) != `{"x":1}` || m.ID.IsZero() {
		t.Errorf("accepted as %+v", m)
	}
	if keep := m.ExpiresAt.Sub(m.CreatedAt()); keep < 89*24*time.Hour || keep > 91*24*time.Hour {
		t.Errorf("the payload is kept for %v", keep)
	}
	if n := r.count(`message JOIN delivery ON message_id = id WHERE state = 1`); n != 1 {
		t.Errorf("%d deliveries are stored with their message, want 1", n)
	}
	for n := 0; n == 0; {
		if n, err = r.queued(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConcurrentMessagesShareTransactionsAndKeepTheirAnswers(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	var group sync.WaitGroup
	for i := range 200 {
		group.Go(func() {
			payload := fmt.Sprintf(`{"i":%d}`, i)
			request := r.request(payload)
			if i%10 == 0 {
				request.Application = webhook.NewApplicationID().String()
			}
			m, _, err := r.pub.Accept(t.Context(), request)
			if i%10 == 0 {
				if webhook.KindOf(err) != webhook.KindNotFound || err == nil {
					t.Errorf("message %d to nobody: %v", i, err)
				}
			} else if err != nil || string(m.Payload) != payload {
				t.Errorf("message %d: %s, %v", i, m.Payload, err)
			}
		})
	}
	group.Wait()
	if n := r.count("message"); n != 180 {
		t.Errorf("%d messages are stored, want 180", n)
	}
	if n := r.count("(SELECT DISTINCT xmin FROM message) x"); n >= 180 {
		t.Errorf("180 messages took %d transactions", n)
	}
}

func TestWithoutRedisMessagesAreAcceptedAndParked(t *testing.T) {
	r := newRig(t, "redis://127.0.0.1:1/0")
	for range 5 {
		if _, _, err := r.pub.Accept(t.Context(), r.request(`{}`)); err != nil {
			t.Fatal(err)
		}
	}
	for r.count("delivery WHERE state = 3") != 5 {
		if t.Context().Err() != nil {
			t.Fatal("they were never parked")
		}
	}
	if n := r.count("endpoint_wake"); n != 1 {
		t.Errorf("%d wakes, want 1", n)
	}
}

func TestAnswersSayWhenNobodyKnows(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.pub.Accept(gone, r.request(`{}`)); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("a caller that left: %v", err)
	}
	r.store.Close()
	if _, _, err := r.pub.Accept(t.Context(), r.request(`{}`)); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("without a database: %v", err)
	}
	r.pub.Close()
	if _, _, err := r.pub.Accept(t.Context(), r.request(`{}`)); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("after Close: %v", err)
	}
}

// batch sends a batch of n messages.
func (r *rig) batch(n int) error {
	b := Batch{Tenant: r.app.TenantID, Application: r.app.ID.String(), Answer: func(accepted []store.Accepted) (store.Response, error) {
		for _, a := range accepted {
			if a.Err != nil {
				return store.Response{}, a.Err
			}
		}
		return store.Response{Status: 202}, nil
	}}
	for range n {
		b.Requests = append(b.Requests, r.request(`{}`))
	}
	_, err := r.pub.AcceptTogether(r.t.Context(), b)
	return err
}

func TestOneCallsMessagesAreOneTransactionAndLargeOnesAreFedInShares(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	for r.pub.o.Dispatcher.Room(t.Context()) == 0 {
		if t.Context().Err() != nil {
			t.Fatal("the window never opened")
		}
	}
	if err := r.batch(releaseAtOnce); err != nil {
		t.Fatal(err)
	}
	if n := r.count("delivery WHERE state = 1"); n != releaseAtOnce {
		t.Errorf("%d of a small call's deliveries were handed out", n)
	}
	if err := r.batch(1000); err != nil { // many times what one group would hold
		t.Fatal(err)
	}
	if n := r.count("delivery WHERE state = 3"); n != 1000 {
		t.Errorf("%d of a large call's deliveries are parked", n)
	}
	if n := r.count("(SELECT DISTINCT xmin FROM message) x"); n != 2 {
		t.Errorf("two calls took %d transactions", n)
	}
}

func TestBatchesWaitForOneAnotherAndNobodyForThem(t *testing.T) {
	r := newRig(t, storetest.Redis(t))
	var leave []func()
	for range maxTogether {
		l, err := r.pub.batches.take(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	if _, _, err := r.pub.Accept(t.Context(), r.request(`{}`)); err != nil {
		t.Fatalf("a single message behind batches: %v", err)
	}
	waiting, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for range maxTogetherWaiting {
		group.Go(func() {
			if _, err := r.pub.batches.take(waiting); err == nil {
				t.Error("a slot that nobody left was taken")
			}
		})
	}
	for r.pub.batches.waiting.Load() < maxTogether+maxTogetherWaiting {
		runtime.Gosched()
	}
	if err := r.batch(1); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("one batch too many: %v", err)
	}
	stop()
	group.Wait()
	for _, l := range leave {
		l()
	}
	if err := r.batch(1); err != nil {
		t.Errorf("after the slots were left: %v", err)
	}
}
