package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/queue"
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
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	d := dispatch.New(dispatch.Options{Store: s, Queue: q, Metrics: telemetry.NewMetrics(), Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	p := New(Options{Store: s, Dispatcher: d, Lease: 30 * time.Second, Metrics: telemetry.NewMetrics(), Logger: log})
	t.Cleanup(func() { p.Close(); cancel(); running.Wait() })
	app := storetest.Application(t, s, storetest.Tenant(t, s).ID)
	storetest.Endpoint(t, s, app, "https://example.com/")
	return &rig{t: t, pub: p, store: s, queue: q, app: app, sql: conn}
}

func (r *rig) request(payload string) Request {
	return Request{Tenant: r.app.TenantID, Application: r.app.ID.String(),
		Message: webhook.Message{EventType: "e", Payload: []byte(payload)}}
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
	m, err := r.pub.Accept(t.Context(), r.request(`{"x":1}`))
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
		if n, err = r.queue.Length(t.Context()); err != nil {
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
			m, err := r.pub.Accept(t.Context(), request)
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
		if _, err := r.pub.Accept(t.Context(), r.request(`{}`)); err != nil {
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
	if _, err := r.pub.Accept(gone, r.request(`{}`)); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("a caller that left: %v", err)
	}
	r.store.Close()
	if _, err := r.pub.Accept(t.Context(), r.request(`{}`)); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("without a database: %v", err)
	}
	r.pub.Close()
	if _, err := r.pub.Accept(t.Context(), r.request(`{}`)); webhook.KindOf(err) != webhook.KindUnavailable {
		t.Errorf("after Close: %v", err)
	}
}
