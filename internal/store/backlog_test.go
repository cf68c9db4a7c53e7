package store_test

import (
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func (p *pipeline) status(e webhook.Endpoint) store.EndpointStatus {
	p.t.Helper()
	s, err := p.view.EndpointStatus(p.t.Context(), p.app.ID.String(), e.ID.String())
	ok(p.t, err)
	return s
}

func TestAnEndpointsStatus(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e, other := p.endpoint(), p.endpoint()
	if s := p.status(e); s.State != webhook.EndpointActive || s.Wake != nil || s.Backlog != (store.Backlog{}) {
		t.Errorf("of nothing: %+v", s)
	}
	p.pause(e)
	first := p.accept(released, p.message(), p.message())[0]
	s := p.status(e)
	if s.State != webhook.EndpointPaused || s.Gate.Reason != "api" || s.At.Sub(s.Gate.Since) > time.Minute || !s.Gate.NextAt.IsZero() ||
		s.Wake == nil || !s.Wake.DueAt.IsZero() || s.Backlog.Parked != 2 || s.Backlog.Waiting != 0 || s.Backlog.Oldest == nil || *s.Backlog.Oldest != first.Message.ID {
		t.Errorf("paused: %+v", s)
	}
	p.exec(`UPDATE delivery SET state = 2, due_at = now() + interval '1 h' WHERE endpoint_id = $1 AND message_id = $2`, e.ID.UUID(), first.Message.ID.UUID())
	if s := p.status(e); s.Backlog.Parked != 1 || s.Backlog.Waiting != 1 || *s.Backlog.Oldest != first.Message.ID {
		t.Errorf("one waits: %+v", s)
	}
	p.resume(e)
	if s := p.status(e); s.State != webhook.EndpointDraining || s.Gate != (webhook.Gate{}) {
		t.Errorf("resumed: %+v", s)
	}
	did(t, true)(p.OpenBreaker(t.Context(), p.tenant, e.ID, streakOf(someURL, 10), time.Hour))
	if s := p.status(e); s.State != webhook.EndpointOpen || s.Gate.Failures != 10 || s.Gate.Reason != "connection_refused" ||
		s.Gate.NextAt.Sub(s.At) < 59*time.Minute || !s.Gate.NextAt.Equal(s.Wake.DueAt) {
		t.Errorf("open: %+v", s)
	}
	if s := p.status(other); s.State != webhook.EndpointActive || s.Backlog.Parked+s.Backlog.Waiting != 0 {
		t.Errorf("another one: %+v", s)
	}
	b, err := p.view.TenantBacklog(t.Context())
	ok(t, err)
	if b.Parked != 1 || b.Waiting != 1 || b.Released != 2 || b.Held[webhook.GateOpen] != 1 || b.At.IsZero() || *b.Oldest != first.Message.ID {
		t.Errorf("the tenant's: %+v", b)
	}
}

// Counting ends at its bound, whatever there is, and reads little beyond it.
func TestABacklogIsCountedUpToABound(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint()
	p.pause(e)
	p.exec(`INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state)
		SELECT $1, gen_random_uuid(), $2, 0, 3 FROM generate_series(1, $3)`, p.tenant.UUID(), e.ID.UUID(), store.MaxCounted)
	if s := p.status(e); s.Backlog.Parked != store.MaxCounted {
		t.Errorf("%d are counted, want %d", s.Backlog.Parked, store.MaxCounted)
	}
	p.exec(`INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state)
		SELECT $1, gen_random_uuid(), $2, 0, 3 FROM generate_series(1, 5000)`, p.tenant.UUID(), e.ID.UUID())
	if s := p.status(e); s.Backlog.Parked != store.MaxCounted+1 {
		t.Errorf("%d are counted, want %d", s.Backlog.Parked, store.MaxCounted+1)
	}
	canceled, more, err := p.view.CancelPending(t.Context(), p.app.ID.String(), e.ID.String())
	if canceled != store.MaxCanceled || !more || err != nil {
		t.Errorf("canceled %d, more %t, %v", canceled, more, err)
	}
	canceled, more, err = p.view.CancelPending(t.Context(), p.app.ID.String(), e.ID.String())
	if canceled != 5000 || more || err != nil {
		t.Errorf("then %d, more %t, %v", canceled, more, err)
	}
}

func TestCancelingWhatIsPending(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e, other := p.endpoint(), p.endpoint()
	underWay := p.accept(released, p.message())[0]
	parkedOnes := p.accept(parked, p.message(), p.message())
	p.exec(`UPDATE delivery SET state = 2, attempt = 3, due_at = now() + interval '1 h' WHERE endpoint_id = $1 AND message_id = $2`,
		e.ID.UUID(), parkedOnes[1].Message.ID.UUID())
	before := time.Now().Add(-time.Second)
	canceled, more, err := p.view.CancelPending(t.Context(), p.app.ID.String(), e.ID.String())
	if canceled != 2 || more || err != nil {
		t.Fatalf("canceled %d, more %t, %v", canceled, more, err)
	}
	if n := p.count(`delivery WHERE endpoint_id = $1 AND message_id = $2 AND state = 1`, e.ID.UUID(), underWay.Message.ID.UUID()); n != 1 {
		t.Error("what is under way was canceled")
	}
	if n := p.count(`delivery WHERE endpoint_id = $1`, other.ID.UUID()); n != 3 {
		t.Errorf("%d are owed to another endpoint, want 3", n)
	}
	for i, number := range []int16{1, 4} {
		l, err := p.view.AttemptsByMessage(t.Context(), p.app.ID.String(), parkedOnes[i].Message.ID.String(), store.AttemptFilter{}, store.Page{})
		ok(t, err)
		if len(l.Data) != 1 {
			t.Fatalf("%d attempts", len(l.Data))
		}
		a := l.Data[0]
		if a.Sent || !a.Final || a.Status != webhook.StatusCanceled || a.Class != webhook.ClassCanceled || a.Number != number || a.EndpointID != e.ID ||
			a.Detail.Error == "" || a.URL != e.URL || a.ID.Time().Before(before) || a.ID.Time().After(time.Now().Add(time.Second)) {
			t.Errorf("it ended as %+v", a)
		}
	}
}
