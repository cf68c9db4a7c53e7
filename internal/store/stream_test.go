package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func ordered(e *webhook.Endpoint) { e.Ordering = webhook.OrderingFIFO }

// feedStream releases what may go to an ordered endpoint.
func (p *pipeline) feedStream(e webhook.Endpoint) []webhook.Delivery {
	p.t.Helper()
	tasks, _, err := p.FeedStreams(p.t.Context(), []store.StreamKey{{Tenant: e.TenantID, Endpoint: e.ID}}, lease, true, nil)
	ok(p.t, err)
	return slices.Concat(tasks...)
}

func (p *pipeline) several(n int) (list []store.Accept) {
	for range n {
		list = append(list, p.message())
	}
	return list
}

func (p *pipeline) cancelPending(e webhook.Endpoint, want int) {
	p.t.Helper()
	canceled, more, err := p.view.CancelPending(p.t.Context(), p.app.ID.String(), e.ID.String())
	if canceled != want || more || err != nil {
		p.t.Fatalf("canceled %d, want %d; more %t, %v", canceled, want, more, err)
	}
}

// A line is counted as what waits, and canceled with everything else: what blocks it, what is to be tried
// again and what waits for its turn, but not what is under way.
func TestCancelingALine(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(ordered)
	first := p.accept(released, p.several(5)...)[0]
	if s := p.status(e); s.Backlog.Ordered != 5 || s.Backlog.Parked+s.Backlog.Waiting != 0 || *s.Backlog.Oldest != first.Message.ID {
		t.Errorf("of five in line: %+v", s.Backlog)
	}
	task := p.feedStream(e)
	p.record(p.result(task[0], false, webhook.Outcome{Blocked: true}))
	ok(t, p.PutBackStream(t.Context(), task[1:]))
	b, err := p.view.TenantBacklog(t.Context())
	ok(t, err)
	if b.Ordered != 5 || b.Parked+b.Waiting+b.Released != 0 || *b.Oldest != first.Message.ID {
		t.Errorf("blocked: %+v", b)
	}
	c, err := p.Census(t.Context())
	ok(t, err)
	if c.Ordered != 5 || c.Parked+c.Waiting+c.Released != 0 {
		t.Errorf("blocked: %+v", c)
	}
	p.cancelPending(e, 5)
	l, err := p.view.AttemptsByMessage(t.Context(), p.app.ID.String(), first.Message.ID.String(), store.AttemptFilter{}, store.Page{})
	ok(t, err)
	if len(l.Data) != 2 || !slices.ContainsFunc(l.Data, func(a webhook.Attempt) bool {
		return a.Number == 2 && !a.Sent && a.Final && a.Status == webhook.StatusCanceled && a.Class == webhook.ClassCanceled
	}) {
		t.Errorf("what blocked ended as %+v", l.Data)
	}
	// The line is empty and nothing blocks it.
	p.accept(released, p.several(2)...)
	task = p.feedStream(e)
	if len(task) != 2 {
		t.Fatalf("then %d go, want 2", len(task))
	}
	p.accept(released, p.several(4)...)
	p.cancelPending(e, 4)
	if n := p.count(`delivery WHERE endpoint_id = $1 AND state = 1`, e.ID.UUID()); n != 2 {
		t.Errorf("%d are still under way, want 2", n)
	}
	p.record(p.result(task[0], false, webhook.Outcome{Wait: time.Hour}))
	ok(t, p.PutBackStream(t.Context(), task[1:]))
	p.accept(released, p.several(1)...)
	if s := p.status(e); s.Backlog.Ordered != 2 || s.Backlog.Waiting != 1 {
		t.Errorf("one is to be tried again: %+v", s.Backlog)
	}
	p.cancelPending(e, 3)
	if task := p.feedStream(e); len(task) != 0 || p.count("delivery") != 0 || p.count("stream WHERE due_at IS NULL") != 1 {
		t.Errorf("%d go of an empty line, or it is looked at again", len(task))
	}
}

// What waits for a pause to end is not late.
func TestAPausedLineIsNotOverdue(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(ordered)
	p.accept(released, p.several(2)...)
	task := p.feedStream(e)
	p.record(p.result(task[0], false, webhook.Outcome{Wait: time.Hour}))
	ok(t, p.PutBackStream(t.Context(), task[1:]))
	p.pause(e)
	p.exec(`UPDATE delivery SET due_at = now() - interval '1 h' WHERE state = 2`)
	for _, late := range []bool{false, true} {
		c, err := p.Census(t.Context())
		ok(t, err)
		if is := c.Overdue > 0; is != late {
			t.Errorf("a line that is due %t is overdue for %s", late, c.Overdue)
		}
		p.exec(`UPDATE stream SET due_at = now() - interval '1 min'`)
	}
}

// The head of a line is found by its index, also by a plan that was made when nothing was owed to anybody:
// a backlog is not read for it.
func TestTheHeadOfALineIsFoundByItsIndex(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com", ordered)
	head := statement{store.StreamRowsSQL, []any{fmt.Sprintf("{%x}", e.TenantID.UUID()), fmt.Sprintf("{%x}", e.ID.UUID()), webhook.MaxStreamTask}}
	due := statement{store.DueStreamsByTenantSQL, []any{"00000000-0000-0000-0000-000000000000", 16, 4}}
	w.exec(t, `VACUUM ANALYZE delivery, stream`) // else the planner guesses instead of knowing that they are empty
	for _, full := range []bool{false, true} {
		for _, c := range []struct {
			statement
			index string
		}{{head, "delivery_stream"}, {due, "stream_tenant"}} {
			for _, generic := range []bool{false, true} {
				lines := w.planWith(t, "SET enable_seqscan = off", c.statement, generic) // as the store has it
				if !slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "using "+c.index) }) ||
					slices.ContainsFunc(lines, func(line string) bool { return strings.Contains(line, "Seq Scan") || strings.Contains(line, "Bitmap") }) {
					t.Errorf("with a backlog %t, generic plan %t:\n%s", full, generic, strings.Join(lines, "\n"))
				}
			}
		}
		w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state, seq)
			SELECT $1, gen_random_uuid(), $2, 0, 4, n FROM generate_series(1, 5000) n`, e.TenantID.UUID(), e.ID.UUID())
		w.exec(t, `INSERT INTO stream (tenant_id, endpoint_id, due_at) SELECT gen_random_uuid(), gen_random_uuid(), now() FROM generate_series(1, 5000)`)
		w.exec(t, `ANALYZE delivery, stream`)
	}
}

// A process that is frozen in the middle of feeding a line holds its lock. Who accepts for that line waits
// until Postgres ends the frozen transaction, and is not refused.
func TestAFrozenFeederRefusesNobody(t *testing.T) {
	t.Parallel()
	p := newPipeline(t)
	e := p.endpoint(ordered, func(e *webhook.Endpoint) { e.ThrottleRate = 10 })
	p.accept(released, p.message())
	key := []store.StreamKey{{Tenant: e.TenantID, Endpoint: e.ID}}
	all := func(_ context.Context, wants []store.StreamWant) []store.StreamGrant {
		return []store.StreamGrant{{N: wants[0].N}}
	}
	asked, thaw, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	unfreeze := sync.OnceFunc(func() { close(thaw) })
	defer unfreeze()
	go func() {
		_, _, err := p.FeedStreams(t.Context(), key, lease, true, func(ctx context.Context, wants []store.StreamWant) []store.StreamGrant {
			close(asked)
			<-thaw
			return all(ctx, wants)
		})
		ended <- err
	}()
	<-asked
	p.accept(released, p.message())
	unfreeze()
	if err := <-ended; err == nil {
		t.Error("what was begun before the freeze was committed after it")
	}
	tasks, _, err := p.FeedStreams(t.Context(), key, lease, true, all)
	ok(t, err)
	if got := slices.Concat(tasks...); len(got) != 2 {
		t.Errorf("fed %d after the thaw, want 2", len(got))
	}
}
