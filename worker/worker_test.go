package worker

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/task"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// platform is the whole pipeline in one process, with real Postgres, Redis and HTTP.
type platform struct {
	t      *testing.T
	store  *store.Store
	queue  *queue.Queue
	disp   *dispatch.Dispatcher
	pub    *publish.Publisher
	worker *Worker
	view   store.View
	app    webhook.Application

	options store.Options
	redis   string
	sql     *pgx.Conn
	stop    func() // the worker that runs, if one does
}

// start runs a platform whose retries come in quick succession.
func start(t *testing.T, change ...func(*Options)) *platform {
	t.Helper()
	p := assemble(t, change...)
	p.run()
	return p
}

// run starts the worker; it is stopped by stop, or after the test.
func (p *platform) run() {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	w := p.worker
	w.stop = ctx
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			p.t.Error(err)
		}
	})
	p.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	p.t.Cleanup(p.stop)
}

// assemble makes a platform whose worker is not running yet.
func assemble(t *testing.T, change ...func(*Options)) *platform {
	t.Helper()
	return assembleWith(t, 0, change...)
}

// assembleWith is assemble with a window of so many tasks.
func assembleWith(t *testing.T, window int, change ...func(*Options)) *platform {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	url, redisURL := storetest.Migrated(t), storetest.Redis(t)
	options := storetest.Options(t, url)
	s := storetest.OpenAt(t, options)
	q, err := queue.Open(queue.Options{URL: redisURL, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	d := dispatch.New(dispatch.Options{Store: s, Queue: q, Limiter: ratelimit.New(q), LiveWindow: window, FedWindow: window, Metrics: telemetry.NewMetrics(), Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	client := egress.New(egress.Options{Policy: egress.Policy{
		AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowHTTP: true,
	}})
	o := Options{
		Store: s, Queue: q, Dispatcher: d, Egress: client, Metrics: telemetry.NewMetrics(), Logger: log,
		Policy:         webhook.Policy{Schedule: []time.Duration{time.Millisecond, time.Millisecond}},
		AttemptTimeout: 5 * time.Second, MaxAge: 90 * 24 * time.Hour,
	}
	for _, c := range change {
		c(&o)
	}
	o.Tasks = task.New(task.Options{
		Store: s, Dispatcher: d, Lease: o.AttemptTimeout + webhook.LeaseMargin, Rate: 10_000, Metrics: o.Metrics, Logger: log,
	})
	w := New(o)
	pub := publish.New(publish.Options{Store: s, Dispatcher: d, Lease: w.lease(), Metrics: o.Metrics, Logger: log})
	t.Cleanup(func() { pub.Close(); cancel(); running.Wait(); client.Close() })
	tenant := storetest.Tenant(t, s)
	return &platform{
		t: t, store: s, queue: q, disp: d, pub: pub, worker: w,
		view: s.View(webhook.Scope{Tenant: tenant.ID}), app: storetest.Application(t, s, tenant.ID),
		options: options, redis: redisURL, sql: storetest.Connect(t, url),
	}
}

func (p *platform) exec(query string, args ...any) {
	p.t.Helper()
	if _, err := p.sql.Exec(p.t.Context(), query, args...); err != nil {
		p.t.Fatal(err)
	}
}

// queued is how many tasks wait in the queues.
func (p *platform) queued(ctx context.Context) (int, error) {
	n, err := p.queue.Lengths(ctx)
	return n.Live + n.Fed, err
}

// flushQueue waits until what was accepted has been pushed, and then empties Redis.
func (p *platform) flushQueue() {
	p.t.Helper()
	p.until("the queue holds something", func() bool {
		n, err := p.queued(p.t.Context())
		return err == nil && n > 0
	})
	o, err := redis.ParseURL(p.redis)
	if err != nil {
		p.t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	if err := client.FlushDB(p.t.Context()).Err(); err != nil {
		p.t.Fatal(err)
	}
}

// until waits for a condition; the test's own deadline bounds it.
func (p *platform) until(what string, holds func() bool) {
	p.t.Helper()
	for !holds() {
		if p.t.Context().Err() != nil {
			p.t.Fatal(what, ": it never came")
		}
		pause(p.t.Context(), 5*time.Millisecond)
	}
}

// drained waits until nothing is owed.
func (p *platform) drained() {
	p.t.Helper()
	p.until("nothing is owed", func() bool {
		var n int
		if err := p.sql.QueryRow(p.t.Context(), `SELECT count(*) FROM delivery`).Scan(&n); err != nil {
			p.t.Fatal(err)
		}
		return n == 0
	})
}

func (p *platform) endpoint(url string, change ...func(*webhook.Endpoint)) webhook.Endpoint {
	p.t.Helper()
	return storetest.Endpoint(p.t, p.store, p.app, url, change...)
}

func (p *platform) publish(payload string) webhook.Message {
	p.t.Helper()
	m, _, err := p.pub.Accept(p.t.Context(), publish.Request{
		Tenant: p.app.TenantID, Application: p.app.ID.String(),
		Message: webhook.Message{EventType: "user.created", Payload: []byte(payload)},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

// ended waits until nothing of a message is owed and returns its attempts, oldest first.
func (p *platform) ended(m webhook.Message) (attempts []webhook.Attempt) {
	p.t.Helper()
	p.until("the message has ended", func() bool {
		var n int
		if err := p.sql.QueryRow(p.t.Context(), `SELECT count(*) FROM delivery WHERE message_id = $1`, m.ID.UUID()).Scan(&n); err != nil {
			p.t.Fatal(err)
		}
		return n == 0
	})
	list, err := p.view.AttemptsByMessage(p.t.Context(), p.app.ID.String(), m.ID.String(), store.AttemptFilter{WithContent: true}, store.Page{})
	if err != nil {
		p.t.Fatal(err)
	}
	slices.Reverse(list.Data)
	return list.Data
}

// receiver answers as told and keeps what it got.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []*http.Request
	bodies []string
	answer func(n int, w http.ResponseWriter, r *http.Request) // n counts from 1
}

func receive(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.got = append(r.got, req)
		r.bodies = append(r.bodies, string(body))
		n := len(r.got)
		r.mu.Unlock()
		r.answer(n, w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) requests() ([]*http.Request, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got, r.bodies
}

func status(code int) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}
