package dispatch

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// lines is a rig whose limits keep the time that the test sets.
type lines struct {
	*rig
	d       *Dispatcher
	limiter *ruledLimiter
}

func newLines(t *testing.T) *lines {
	r := newRig(t, 0, storetest.Redis(t))
	r.exec(`DELETE FROM endpoint_secret`)
	r.exec(`DELETE FROM endpoint`)
	l := &lines{rig: r, limiter: &ruledLimiter{now: 1e15, buckets: make(map[ratelimit.Key]ratelimit.Bucket)}}
	l.d = l.under(l.limiter)
	return l
}

// under is a dispatcher with another limiter.
func (l *lines) under(limiter Limiter) *Dispatcher {
	d := &Dispatcher{store: l.store, queue: l.queue, limiter: limiter, metrics: l.rig.d.metrics, log: l.rig.d.log}
	d.fed.size = 1000
	return d
}

func (l *lines) endpoint(rate, burst int) webhook.Endpoint {
	return storetest.Endpoint(l.t, l.store, l.app, hook, func(e *webhook.Endpoint) {
		e.Ordering, e.ThrottleRate, e.ThrottleBurst = webhook.OrderingFIFO, rate, burst
	})
}

func keyOf(e webhook.Endpoint) store.StreamKey {
	return store.StreamKey{Tenant: e.TenantID, Endpoint: e.ID}
}

// feed lets what may go of some endpoints go, and says how many that is.
func (l *lines) feed(endpoints ...webhook.Endpoint) int {
	l.t.Helper()
	var keys []store.StreamKey
	for _, e := range endpoints {
		keys = append(keys, keyOf(e))
	}
	released, _ := l.d.FeedStreams(l.t.Context(), keys, webhook.LaneFed, lease, true)
	return released
}

// out is what of an endpoint is handed out, in the order of its places.
func (l *lines) out(e webhook.Endpoint) (list []webhook.Delivery) {
	l.t.Helper()
	rows, err := l.sql.Query(l.t.Context(), `SELECT tenant_id, message_id, endpoint_id, attempt, feed FROM delivery
		WHERE endpoint_id = $1 AND state = 1 ORDER BY seq`, e.ID.UUID())
	if err != nil {
		l.t.Fatal(err)
	}
	d := webhook.Delivery{Ordered: true}
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&d.Tenant), (*[16]byte)(&d.Message), (*[16]byte)(&d.Endpoint), &d.Attempt, &d.Feed}, func() error {
		list = append(list, d)
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return list
}

// take has what is handed out of an endpoint be taken by its receiver.
func (l *lines) take(e webhook.Endpoint) (messages []webhook.MessageID) {
	l.t.Helper()
	var results []store.Recorded
	for _, d := range l.out(e) {
		if d.Attempt != 0 {
			l.t.Errorf("waiting burnt %d attempts", d.Attempt)
		}
		messages = append(messages, d.Message)
		results = append(results, store.Recorded{Delivery: d, Outcome: webhook.Outcome{Final: true}, Attempt: webhook.Attempt{
			TenantID: d.Tenant, ApplicationID: e.ApplicationID, MessageID: d.Message, EndpointID: d.Endpoint, ID: webhook.NewAttemptID(),
			Number: 1, Sent: true, Final: true, Status: webhook.StatusSuccess,
		}})
	}
	if err := l.store.Record(l.t.Context(), results); err != nil {
		l.t.Fatal(err)
	}
	return messages
}

// pass lets time pass for the limits.
func (l *lines) pass(d time.Duration) { l.limiter.now += d.Microseconds() }

// throttled is how many deliveries are said to have been held back, as it is written.
func (l *lines) throttled() string {
	l.t.Helper()
	answer := httptest.NewRecorder()
	l.d.metrics.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(answer.Body.String()) {
		if value, found := strings.CutPrefix(line, "posthaste_throttled_total "); found {
			return strings.TrimSpace(value)
		}
	}
	l.t.Fatal("the metrics do not say what was held back")
	return ""
}

func TestAnOrderedEndpointKeepsToItsRate(t *testing.T) {
	l := newLines(t)
	e := l.endpoint(10, 4)
	want := l.parked(40)
	var got []webhook.MessageID
	goes := func(when string, n int) {
		t.Helper()
		if released := l.feed(e); released != n {
			t.Fatalf("%s %d went, want %d", when, released, n)
		}
		got = append(got, l.take(e)...)
	}
	goes("at first", 4)
	goes("with its burst used up", 0)
	if n := l.rows(`stream WHERE due_at BETWEEN now() AND now() + interval '500 ms'`); n != 1 {
		t.Error("nobody will ask again soon")
	}
	if n := l.throttled(); n != "1" {
		t.Errorf("%s are counted as held back, want the head", n)
	}
	l.pass(99 * time.Millisecond)
	goes("a moment too early", 0)
	l.pass(time.Millisecond)
	goes("after a tenth of a second", 1)
	l.pass(time.Hour)
	goes("after a pause", 4)
	l.pass(250 * time.Millisecond)
	goes("after a quarter of a second", 2)
	_, err := l.store.View(webhook.Scope{Tenant: e.TenantID}).PatchEndpoint(t.Context(), l.app.ID.String(), e.ID.String(), func(n *store.NewEndpoint) error {
		n.ThrottleRate, n.ThrottleBurst = 100, 12
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if due, err := l.store.DueStreams(t.Context(), 10); err != nil || !slices.Contains(due, keyOf(e)) {
		t.Errorf("a changed limit is not looked at: %v, %v", due, err)
	}
	goes("under a higher limit", 8)
	l.pass(30 * time.Millisecond)
	goes("at its rate", 3)
	l.exec(`UPDATE endpoint SET throttle_rate = NULL, throttle_burst = NULL`)
	goes("without a limit", 18)
	if !slices.Equal(got, want) {
		t.Errorf("they went in the order %v, want %v", got, want)
	}
}

func TestAProbeOfAnOrderedEndpointAsksNoLimit(t *testing.T) {
	l := newLines(t)
	e := l.endpoint(1, 2)
	l.parked(5)
	if n := l.feed(e); n != 2 {
		t.Fatalf("%d went", n)
	}
	l.take(e)
	if opened, err := storetest.OpenBreaker(t.Context(), l.store, e.TenantID, e.ID, failing(10), time.Hour); err != nil || !opened {
		t.Fatal(opened, err)
	}
	l.exec(`UPDATE endpoint_gate SET next_at = now()`)
	if n := l.feed(e); n != 1 {
		t.Errorf("%d went as a probe", n)
	}
}

// What tenants' limits grant is shared by all of their lines.
func TestOrderedEndpointsShareTheirTenantsLimit(t *testing.T) {
	l := newLines(t)
	a, b, c := l.endpoint(0, 0), l.endpoint(0, 0), l.endpoint(0, 0)
	l.exec(`UPDATE tenant SET deliver_rate = 10, deliver_burst = 6`)
	l.parked(20)
	if n := l.feed(a, b, c); n != 6 {
		t.Fatalf("%d went, want 6", n)
	}
	for _, e := range []webhook.Endpoint{a, b, c} {
		if n := len(l.take(e)); n != 2 {
			t.Errorf("%d went to one of three, want 2", n)
		}
	}
	// Then one has room: that of whom the look is for first.
	l.pass(100 * time.Millisecond)
	if n := l.feed(b, c, a); n != 1 || len(l.out(b)) != 1 {
		t.Errorf("%d went, %d to the first", n, len(l.out(b)))
	}
}

// A tenant with more due lines than one look takes in hides nobody.
func TestATenantWithVeryManyLinesHidesNoOther(t *testing.T) {
	l := newLines(t)
	big, small := l.app, storetest.Application(t, l.store, storetest.Tenant(t, l.store).ID)
	l.endpoint(0, 0)
	l.exec(`INSERT INTO endpoint (tenant_id, id, app_id, url, description, ordering, created_at, updated_at)
		SELECT tenant_id, gen_random_uuid(), app_id, url, '', ordering, now(), now() FROM endpoint, generate_series(1, 599)`)
	l.exec(`INSERT INTO stream (tenant_id, endpoint_id) SELECT tenant_id, id FROM endpoint ON CONFLICT DO NOTHING`)
	l.parked(1)
	l.app = small
	e := l.endpoint(0, 0)
	l.parked(1)
	l.app = big
	f := l.d.NewFeeder()
	for range 2 {
		released, more, err := f.FeedDueStreams(t.Context(), lease)
		if err != nil || !more || released != streamShare {
			t.Fatalf("a look released %d, and says that there is more: %v, %v", released, more, err)
		}
	}
	if len(l.out(e)) != 1 {
		t.Error("two looks did not find it")
	}
}

// interrupted is a limiter that grants in the last moment of a look.
type interrupted struct {
	*ruledLimiter
	end context.CancelFunc
}

func (i interrupted) Take(ctx context.Context, wants []ratelimit.Want) ([]ratelimit.Grant, error) {
	defer i.end()
	return i.ruledLimiter.Take(ctx, wants)
}

func TestWhatWasGrantedToALookThatFailedIsGivenBack(t *testing.T) {
	l := newLines(t)
	e := l.endpoint(10, 4)
	l.parked(10)
	ctx, cancel := context.WithCancel(t.Context())
	n, _ := l.under(interrupted{l.limiter, cancel}).FeedStreams(ctx, []store.StreamKey{keyOf(e)}, webhook.LaneFed, lease, true)
	if n != 0 || len(l.out(e)) != 0 {
		t.Fatalf("%d went, %d are out", n, len(l.out(e)))
	}
	if n := l.feed(e); n != 4 {
		t.Errorf("then %d went, want 4", n)
	}
}

// What cannot be pushed goes back into its line.
func TestWithoutAQueueALineStaysAsItIs(t *testing.T) {
	r := newRig(t, 0, "redis://127.0.0.1:1/0")
	e := storetest.Endpoint(t, r.store, r.app, hook, func(e *webhook.Endpoint) { e.Ordering = webhook.OrderingFIFO })
	r.parked(3)
	r.d.FeedStreams(t.Context(), []store.StreamKey{keyOf(e)}, webhook.LaneFed, lease, true)
	if n := r.count(webhook.StateFIFO); n != 3 {
		t.Errorf("%d are in line, want 3", n)
	}
}
