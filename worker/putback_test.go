package worker

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// TestBlackHolesKeepNobodyWaiting lets many endpoints take every request and answer none. Those that answer
// are served all the while.
func TestBlackHolesKeepNobodyWaiting(t *testing.T) {
	const concurrency, holes, each = 16, 24, 4
	p := assemble(t, func(o *Options) {
		o.Concurrency, o.AttemptTimeout, o.SlowAfter = concurrency, 2*time.Minute, 300*time.Millisecond
	})
	release := make(chan struct{})
	var hanging atomic.Int32
	hole := receive(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		hanging.Add(1)
		defer hanging.Add(-1)
		<-release
	})
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	for range holes {
		p.endpoint(hole.URL)
	}
	for range each {
		p.publish(`{}`)
	}
	p.exec(`UPDATE endpoint SET channels = '{none}'`)
	p.run()
	p.until("as many hang as there are places", func() bool { return hanging.Load() >= concurrency })
	quick := receive(t, status(http.StatusOK))
	p.endpoint(quick.URL)
	for range 20 {
		p.ended(p.publish(`{}`))
	}
	if n := hanging.Load(); n < concurrency {
		t.Errorf("only %d requests hang: nothing was shown", n)
	}
	var attempts int
	if err := p.sql.QueryRow(t.Context(), `SELECT count(*) FROM attempt a JOIN endpoint e ON e.id = a.endpoint_id WHERE e.url = $1`, hole.URL).Scan(&attempts); err != nil || attempts != 0 {
		t.Errorf("%d attempts were burnt (%v)", attempts, err)
	}
	letGo()
	p.drained()
	if requests, _ := hole.requests(); len(requests) != holes*each {
		t.Errorf("%d requests for %d deliveries", len(requests), holes*each)
	}
}

// A delivery to a paused endpoint, or one whose circuit breaker is open, goes back without an attempt.
func TestWhatIsHeldIsPutBack(t *testing.T) {
	for _, state := range []webhook.GateState{webhook.GatePaused, webhook.GateOpen} {
		p := assemble(t)
		r := receive(t, status(http.StatusOK))
		e := p.endpoint(r.URL)
		m := p.publish(`{}`)
		p.exec(`INSERT INTO endpoint_gate (tenant_id, endpoint_id, state, since, reason) VALUES ($1, $2, $3, now(), '')`,
			p.app.TenantID.UUID(), e.ID.UUID(), state)
		p.exec(`INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at) VALUES ($1, $2, 'infinity')`, p.app.TenantID.UUID(), e.ID.UUID())
		p.run()
		p.until("the delivery is parked", func() bool {
			var parked bool
			if err := p.sql.QueryRow(t.Context(), `SELECT state = 3 AND attempt = 0 FROM delivery WHERE message_id = $1`, m.ID.UUID()).Scan(&parked); err != nil {
				t.Fatal(err)
			}
			return parked
		})
		if requests, _ := r.requests(); len(requests) != 0 {
			t.Errorf("%d requests", len(requests))
		}
		p.exec(`DELETE FROM endpoint_gate`)
		p.exec(`UPDATE endpoint_wake SET due_at = now()`)
		if a := p.ended(m); len(a) != 1 || a[0].Number != 1 || a[0].Status != webhook.StatusSuccess {
			t.Errorf("afterwards: %+v", a)
		}
	}
}

// A column of the endpoint bounds its requests, and what is over it waits without an attempt.
func TestAnEndpointsConcurrencyIsObserved(t *testing.T) {
	p := assemble(t)
	var now, most atomic.Int32
	r := receive(t, func(_ int, _ http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		pause(r.Context(), 5*time.Millisecond) // what the receiver does
		now.Add(-1)
	})
	e := p.endpoint(r.URL)
	p.exec(`UPDATE endpoint SET concurrency = 2 WHERE id = $1`, e.ID.UUID())
	const total = 60
	for range total {
		p.publish(`{}`)
	}
	p.run()
	p.drained()
	if requests, _ := r.requests(); len(requests) != total || most.Load() > 2 {
		t.Errorf("%d requests for %d deliveries, %d at once", len(requests), total, most.Load())
	}
}
