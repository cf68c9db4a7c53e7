package task

import (
	"context"
	"log/slog"
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

// rig is a platform on which nobody delivers: what is handed out stays where it is.
type rig struct {
	t     *testing.T
	store *store.Store
	queue *queue.Queue
	tasks *Tasks
	view  store.View
	app   webhook.Application
	sql   *pgx.Conn
}

func setup(t *testing.T, rate int) *rig {
	t.Helper()
	s, url := storetest.OpenURL(t)
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	tenant := storetest.Tenant(t, s)
	r := &rig{t: t, store: s, sql: conn, view: s.View(webhook.Scope{Tenant: tenant.ID}), app: storetest.Application(t, s, tenant.ID)}
	d := r.dispatcher(storetest.Redis(t))
	r.tasks = New(Options{
		Store: s, Dispatcher: d, Lease: time.Minute, Rate: rate, Metrics: telemetry.NewMetrics(), Logger: slog.New(slog.DiscardHandler),
	})
	return r
}

// dispatcher is one with the queue of a Redis.
func (r *rig) dispatcher(url string) *dispatch.Dispatcher {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	q, err := queue.Open(queue.Options{URL: url, Private: true, Logger: log})
	if err != nil {
		r.t.Fatal(err)
	}
	d := dispatch.New(dispatch.Options{Store: r.store, Queue: q, Limiter: ratelimit.New(q), Metrics: telemetry.NewMetrics(), Logger: log})
	r.t.Cleanup(func() {
		over, end := context.WithCancel(context.Background())
		end()
		_ = d.Run(over) // it ends only by a run
		_ = q.Close()
	})
	r.queue = q
	return d
}

func (r *rig) exec(query string, args ...any) {
	r.t.Helper()
	if _, err := r.sql.Exec(r.t.Context(), query, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) endpoint(change ...func(*webhook.Endpoint)) webhook.Endpoint {
	r.t.Helper()
	return storetest.Endpoint(r.t, r.store, r.app, "https://example.com/hook", change...)
}

// publish stores messages; what they owe is taken away, as if they had never been owed.
func (r *rig) publish(n int, change ...func(*webhook.Message)) []webhook.MessageID {
	r.t.Helper()
	batch := make([]store.Accept, n)
	ids := make([]webhook.MessageID, n)
	for i := range batch {
		m := webhook.Message{
			TenantID: r.app.TenantID, ID: webhook.NewMessageID(), EventType: "user.created", Payload: []byte(`{}`), ExpiresAt: time.Now().Add(time.Hour),
		}
		for _, c := range change {
			c(&m)
		}
		batch[i] = store.Accept{Application: r.app.ID.String(), Message: m}
	}
	for i, a := range r.store.Accept(r.t.Context(), batch, store.Release{Released: true, Lease: time.Minute}) {
		if a.Err != nil {
			r.t.Fatal(a.Err)
		}
		ids[i] = a.Message.ID
	}
	r.exec(`DELETE FROM delivery WHERE task_id IS NULL`)
	return ids
}

// attempt writes what became of a message.
func (r *rig) attempt(e webhook.Endpoint, m webhook.MessageID, status webhook.Status, http int16) {
	r.t.Helper()
	r.exec(`INSERT INTO attempt (tenant_id, app_id, message_id, endpoint_id, id, trigger, number, sent, final, status, http_status,
			error_class, duration_ms, url)
		VALUES ($1, $2, $3, $4, $5, 0, 1, $6, true, $7, $8, '', 1, '')`, e.TenantID.UUID(), e.ApplicationID.UUID(), m.UUID(), e.ID.UUID(),
		webhook.NewAttemptID().UUID(), status != webhook.StatusCanceled, int16(status), http)
}

// wide is a range that holds every message of a test.
func (r *rig) wide(kind webhook.TaskKind, e webhook.Endpoint) store.NewTask {
	n := store.NewTask{Kind: kind, Application: r.app.ID.String(), Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour)}
	if !e.ID.IsZero() {
		n.Endpoint = e.ID.String()
	}
	return n
}

func (r *rig) begin(n store.NewTask) webhook.Task {
	r.t.Helper()
	t, err := r.view.CreateTask(r.t.Context(), n)
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

func (r *rig) reread(t webhook.Task) webhook.Task {
	r.t.Helper()
	t, err := r.view.Task(r.t.Context(), t.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return t
}

// owed are the messages that a task handed out, in their order.
func (r *rig) owed(t webhook.Task) []webhook.MessageID {
	r.t.Helper()
	rows, err := r.sql.Query(r.t.Context(), `SELECT message_id FROM delivery WHERE task_id = $1 ORDER BY message_id`, t.ID.UUID())
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		r.t.Fatal(err)
	}
	ids := make([]webhook.MessageID, len(raw))
	for i, id := range raw {
		ids[i] = id
	}
	return ids
}

// deliver records a result for everything that tasks have handed out.
func (r *rig) deliver(success bool) (n int) {
	r.t.Helper()
	fed, _, _, err := r.store.FeedDue(r.t.Context(), store.Scan{}, 0, time.Minute)
	if err != nil || len(fed) != 0 {
		r.t.Fatal(fed, err)
	}
	r.exec(`UPDATE delivery SET due_at = now() WHERE task_id IS NOT NULL`)
	fed, _, _, err = r.store.FeedDue(r.t.Context(), store.Scan{}, 10_000, time.Minute)
	if err != nil {
		r.t.Fatal(err)
	}
	results := make([]store.Recorded, len(fed))
	for i, f := range fed {
		a := webhook.Attempt{
			TenantID: f.Tenant, ApplicationID: r.app.ID, MessageID: f.Message, EndpointID: f.Endpoint, ID: webhook.NewAttemptID(),
			Trigger: f.Trigger, Number: 1, Sent: true, Status: webhook.StatusFail, HTTPStatus: 500, Class: webhook.ClassServerError,
		}
		if success {
			a.Status, a.HTTPStatus, a.Class = webhook.StatusSuccess, 200, webhook.ClassNone
		}
		results[i] = store.Recorded{Delivery: f.Delivery, Attempt: a, Outcome: webhook.Outcome{Final: true}}
	}
	if len(results) > 0 {
		if err := r.store.Record(r.t.Context(), results); err != nil {
			r.t.Fatal(err)
		}
	}
	return len(results)
}

// ended steps a task to its end; each result is a success or not, as said. A new runner steps each
// time, as if every leader were killed after one step.
func (r *rig) ended(t webhook.Task, success bool) webhook.Task {
	r.t.Helper()
	for range 1000 {
		if t = r.reread(t); t.Status != webhook.TaskRunning {
			return t
		}
		if _, err := r.tasks.Runner().RunOnce(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
		r.deliver(success)
	}
	r.t.Fatalf("it does not end: %+v", t)
	return t
}
