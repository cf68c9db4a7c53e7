package dispatch

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
	store *store.Store
	queue *queue.Queue
	d     *Dispatcher
	app   webhook.Application
	sql   *pgx.Conn
}

func newRig(t *testing.T, window int, redisURL string) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	s, url := storetest.OpenURL(t)
	q, err := queue.Open(queue.Options{URL: redisURL, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	d := New(Options{Store: s, Queue: q, Limiter: ratelimit.New(q), LiveWindow: window, FedWindow: window, Metrics: telemetry.NewMetrics(), Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	app := storetest.Application(t, s, storetest.Tenant(t, s).ID)
	storetest.Endpoint(t, s, app, "https://example.com/")
	return &rig{t: t, store: s, queue: q, d: d, app: app, sql: storetest.Connect(t, url)}
}

func (r *rig) released(n int) (deliveries []webhook.Delivery) {
	r.t.Helper()
	batch := make([]store.Accept, n)
	for i := range batch {
		batch[i] = store.Accept{Application: r.app.ID.String(), Message: webhook.Message{
			TenantID: r.app.TenantID, ID: webhook.NewMessageID(), EventType: "e", Payload: []byte(`{}`), ExpiresAt: time.Now().Add(time.Hour),
		}}
	}
	for _, a := range r.store.Accept(r.t.Context(), batch, store.Release{Released: true, Lease: 30 * time.Second}) {
		if a.Err != nil {
			r.t.Fatal(a.Err)
		}
		deliveries = append(deliveries, a.Deliveries...)
	}
	return deliveries
}

func (r *rig) count(state webhook.State) (n int) {
	r.t.Helper()
	if err := r.sql.QueryRow(r.t.Context(), `SELECT count(*) FROM delivery WHERE state = $1`, state).Scan(&n); err != nil {
		r.t.Fatal(err)
	}
	return n
}

// offered hands over what was just accepted and waits until it is pushed.
func (r *rig) offered(deliveries []webhook.Delivery) {
	r.t.Helper()
	before := r.d.live.waiting.Load()
	r.d.Offer(deliveries, nil)
	r.until("it is pushed", func() bool { return r.d.live.waiting.Load() > before })
}

func (r *rig) quiet() bool {
	quiet, available := r.d.Quiet(r.t.Context())
	return quiet && available
}

func (r *rig) until(what string, holds func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			r.t.Fatal(what, ": it never came")
		}
	}
}

func TestTheWindowClosesWhenItIsFullAndOpensAgain(t *testing.T) {
	r := newRig(t, 4, storetest.Redis(t))
	if !r.d.Admits() || r.d.Room(t.Context()) != 4 {
		t.Fatal("an empty window admits nothing")
	}
	r.d.Push(t.Context(), feds(r.released(queue.MaxTaskDeliveries+1)))
	if room := r.d.Room(t.Context()); room != 2 || !r.d.Admits() {
		t.Errorf("the feeder has room for %d tasks, want 2; and its own leave accepts theirs", room)
	}
	r.d.Push(t.Context(), feds(r.released(queue.MaxTaskDeliveries+1)))
	if room := r.d.Room(t.Context()); room != 0 {
		t.Errorf("room for %d tasks in a full window", room)
	}
	for range 4 * emptiest {
		if !r.d.Admits() {
			t.Error("a window that is not full admits nothing")
		}
		r.offered(r.released(1))
	}
	if r.d.Admits() {
		t.Error("a full window admits more")
	}
	taken := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		_ = r.queue.Run(ctx, func(context.Context, []webhook.Delivery) error { taken <- struct{}{}; return nil })
	})
	for range 4 + 4*emptiest {
		<-taken
	}
	cancel()
	running.Wait()
	r.until("the window opens", r.d.Admits)
}

// What background tasks owe takes no room from what is live, and goes only while that is little.
func TestBulkTakesNoRoomFromWhatIsLive(t *testing.T) {
	r := newRig(t, 2*quietShare, storetest.Redis(t))
	bulk := feds(r.released(300))
	for i := range bulk {
		bulk[i].Lane = webhook.LaneBulk
	}
	r.d.Push(t.Context(), bulk)
	if room := r.d.Room(t.Context()); room != 2*quietShare || !r.d.Admits() || !r.quiet() {
		t.Errorf("with bulk alone there is room for %d", room)
	}
	r.d.Push(t.Context(), feds(r.released(1)))
	r.d.Push(t.Context(), feds(r.released(1)))
	if !r.quiet() {
		t.Error("an eighth of the window is not quiet")
	}
	r.d.Push(t.Context(), feds(r.released(1)))
	if r.quiet() {
		t.Error("more than an eighth of the window is quiet")
	}
}

// As many deliveries may wait in full tasks as in emptier ones, not as many tasks.
func TestTheWindowCountsDeliveries(t *testing.T) {
	var w window
	w.size = 64
	for range 100 {
		w.pushed(queue.MaxTaskDeliveries)
	}
	if got := w.room(); got < -37 || got > -33 {
		t.Errorf("100 full tasks in a window of 64 leave room for %d", got)
	}
	w.waiting.Store(0)
	for range 100 {
		w.pushed(queue.MaxTaskDeliveries / 4)
	}
	if got := w.room(); got < 150 || got > 160 {
		t.Errorf("100 quarters in a window of 64 leave room for %d", got)
	}
}

func TestWhatIsOfferedIsPushedInFewTasks(t *testing.T) {
	r := newRig(t, 0, storetest.Redis(t))
	r.d.Offer(nil, nil)
	const n = 2*queue.MaxTaskDeliveries + 6
	r.d.Offer(r.released(n), nil)
	r.until("it is pushed", func() bool {
		tasks, err := r.queue.Lengths(t.Context())
		return err == nil && tasks.Live == 3
	})
	if got := r.count(webhook.StateReleased); got != n {
		t.Errorf("%d deliveries are released, want %d", got, n)
	}
}

func TestWithoutRedisNothingIsAdmittedAndWhatWasReleasedIsParked(t *testing.T) {
	r := newRig(t, 0, "redis://127.0.0.1:1/0")
	r.d.Offer(r.released(40), nil)
	r.until("it is parked", func() bool { return r.count(webhook.StateParked) == 40 })
	if r.d.Admits() || r.d.Room(t.Context()) != 0 {
		t.Error("a queue that is gone has room")
	}
}

func feds(deliveries []webhook.Delivery) []store.Fed {
	fed := make([]store.Fed, len(deliveries))
	for i, d := range deliveries {
		fed[i].Delivery = d
		fed[i].Lane = webhook.LaneFed
	}
	return fed
}
