package task

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// history is everything that can have happened to a message with an endpoint.
type history struct {
	eventType string
	channels  []string
	tags      []string
	kept      bool
	open      bool
	statuses  []webhook.Status
	https     []int16
}

func anyHistory(t *rapid.T) history {
	h := history{
		eventType: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "type"), kept: rapid.IntRange(0, 4).Draw(t, "kept") > 0,
		open: rapid.IntRange(0, 3).Draw(t, "open") == 0,
	}
	h.channels = rapid.SampledFrom([][]string{nil, {"eu"}, {"us", "eu"}}).Draw(t, "channels")
	h.tags = rapid.SampledFrom([][]string{nil, {"x"}}).Draw(t, "tags")
	for range rapid.IntRange(0, 3).Draw(t, "attempts") {
		s := rapid.SampledFrom([]webhook.Status{webhook.StatusSuccess, webhook.StatusFail, webhook.StatusCanceled}).Draw(t, "status")
		http := map[webhook.Status]int16{webhook.StatusSuccess: 204, webhook.StatusFail: 503, webhook.StatusCanceled: 0}[s]
		h.statuses, h.https = append(h.statuses, s), append(h.https, http)
	}
	return h
}

// wanted is the model: which kinds send a message with a history, in words of lists and statuses.
func (h history) wanted(kind webhook.TaskKind, filter webhook.TaskFilter, e webhook.Endpoint) bool {
	status := webhook.StatusOf(h.open, h.statuses)
	taken := slices.Contains(h.statuses, webhook.StatusSuccess)
	if !h.kept {
		return false
	}
	switch kind {
	case webhook.TaskRecover:
		return !h.open && len(h.statuses) > 0 && !taken
	case webhook.TaskReplayMissing:
		return !h.open && len(h.statuses) == 0 && (e.EventTypes == nil || slices.Contains(e.EventTypes, h.eventType)) &&
			(e.Channels == nil || slices.ContainsFunc(e.Channels, func(c string) bool { return slices.Contains(h.channels, c) }))
	case webhook.TaskBulkReplay:
		switch {
		case !h.open && len(h.statuses) == 0, filter.Channel != "" && !slices.Contains(h.channels, filter.Channel),
			filter.Tag != "" && !slices.Contains(h.tags, filter.Tag), filter.EventTypes != nil && !slices.Contains(filter.EventTypes, h.eventType),
			filter.Status == nil && h.open, filter.Status != nil && status != *filter.Status:
			return false
		case filter.StatusCodeClass == nil:
			return true
		}
		return len(h.https) > 0 && int(h.https[len(h.https)-1])/100*100 == *filter.StatusCodeClass
	case webhook.TaskPurge:
	}
	panic(kind)
}

// What SQL and rule select together is what the model says, for every kind, filter and history; a dry
// run counts exactly that, and the task sends exactly that.
func TestATaskSendsWhatItsKindSays(t *testing.T) {
	t.Parallel()
	r := setup(t, 100_000)
	rapid.Check(t, func(rt *rapid.T) {
		e := r.endpoint(func(e *webhook.Endpoint) {
			e.EventTypes = rapid.SampledFrom([][]string{nil, {"a"}}).Draw(rt, "endpoint types")
			e.Channels = rapid.SampledFrom([][]string{nil, {"eu"}, {"us"}}).Draw(rt, "endpoint channels")
		})
		defer func() {
			if err := r.view.DeleteEndpoint(t.Context(), r.app.ID.String(), e.ID.String()); err != nil {
				rt.Fatal(err)
			}
			r.exec(`DELETE FROM delivery`)
			r.exec(`DELETE FROM message`)
		}()
		kind := rapid.SampledFrom([]webhook.TaskKind{webhook.TaskRecover, webhook.TaskReplayMissing, webhook.TaskBulkReplay}).Draw(rt, "kind")
		n := r.wide(kind, e)
		if kind == webhook.TaskBulkReplay {
			n.Filter = webhook.TaskFilter{
				EventTypes: rapid.SampledFrom([][]string{nil, {"a"}, {"b", "c"}}).Draw(rt, "types"),
				Channel:    rapid.SampledFrom([]string{"", "", "eu"}).Draw(rt, "channel"), Tag: rapid.SampledFrom([]string{"", "", "x"}).Draw(rt, "tag"),
			}
			if rapid.Bool().Draw(rt, "by status") {
				n.Filter.Status = new(webhook.Status(rapid.IntRange(0, 4).Draw(rt, "status")))
			}
			if rapid.IntRange(0, 2).Draw(rt, "by class") == 0 {
				n.Filter.StatusCodeClass = new(rapid.SampledFrom([]int{0, 200, 500}).Draw(rt, "class"))
			}
		}
		var want, open []webhook.MessageID
		for i := range rapid.IntRange(0, 12).Draw(rt, "messages") {
			h := anyHistory(rt)
			id := r.publish(1, func(m *webhook.Message) { m.EventType, m.Channels, m.Tags = h.eventType, h.channels, h.tags })[0]
			for j, s := range h.statuses {
				r.attempt(e, id, s, h.https[j])
			}
			switch {
			case h.kept:
			case i%2 == 0:
				r.exec(`UPDATE message SET payload = NULL WHERE id = $1`, id.UUID())
			default:
				r.exec(`UPDATE message SET expires_at = now() WHERE id = $1`, id.UUID())
			}
			if h.wanted(kind, n.Filter, e) {
				want = append(want, id)
			}
			if h.open {
				open = append(open, id)
			}
		}
		for _, id := range open { // last, since publish takes away what is owed
			r.exec(`INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state, due_at)
				VALUES ($1, $2, $3, 0, 2, now() + interval '1 hour')`, e.TenantID.UUID(), id.UUID(), e.ID.UUID())
		}
		planned, err := r.view.PlanTask(t.Context(), n)
		if err != nil {
			rt.Fatal(err)
		}
		preview, err := r.tasks.Preview(t.Context(), planned)
		if err != nil || preview.Count != int64(len(want)) {
			rt.Fatalf("a dry run counts %+v (%v), want %d", preview, err, len(want))
		}
		if len(want) > 0 && (!preview.First.Equal(want[0].Time()) || !preview.Last.Equal(want[len(want)-1].Time())) {
			rt.Fatalf("a dry run spans %v to %v", preview.First, preview.Last)
		}
		task := r.begin(n)
		runner := r.tasks.Runner()
		for task.Phase != webhook.TaskWaiting {
			if _, err := runner.RunOnce(t.Context()); err != nil {
				rt.Fatal(err)
			}
			task = r.reread(task)
		}
		if got := r.owed(task); !slices.Equal(got, want) {
			rt.Fatalf("%s sends %v, want %v", kind, got, want)
		}
		if task.Counted != int64(len(want))+task.Skipped || task.Skipped != preview.Gone {
			rt.Fatalf("counted %d, skipped %d; the dry run says %d are gone", task.Counted, task.Skipped, preview.Gone)
		}
		if _, err := r.view.CancelTask(t.Context(), task.ID); err != nil {
			rt.Fatal(err)
		}
	})
}

// Where the last attempt matters, it is the last, however they are stored.
func TestTheLastAttemptCounts(t *testing.T) {
	t.Parallel()
	r := setup(t, 1000)
	e := r.endpoint()
	ids := r.publish(2)
	r.attempt(e, ids[0], webhook.StatusFail, 503)
	r.attempt(e, ids[0], webhook.StatusSuccess, 200)
	r.attempt(e, ids[1], webhook.StatusFail, 404)
	r.attempt(e, ids[1], webhook.StatusCanceled, 0)
	for _, c := range []struct {
		filter webhook.TaskFilter
		want   int64
	}{
		{webhook.TaskFilter{StatusCodeClass: new(200)}, 1}, {webhook.TaskFilter{StatusCodeClass: new(500)}, 0},
		{webhook.TaskFilter{StatusCodeClass: new(400)}, 0}, {webhook.TaskFilter{StatusCodeClass: new(0)}, 1},
		{webhook.TaskFilter{Status: new(webhook.StatusFail)}, 0}, {webhook.TaskFilter{Status: new(webhook.StatusCanceled)}, 1},
	} {
		n := r.wide(webhook.TaskBulkReplay, e)
		n.Filter = c.filter
		planned, err := r.view.PlanTask(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := r.tasks.Preview(t.Context(), planned); err != nil || p.Count != c.want {
			t.Errorf("%+v: %+v, %v", c, p, err)
		}
	}
}

func TestTheClassOfNoAnswerIsItsOwn(t *testing.T) {
	for _, c := range []struct {
		status int16
		class  int
		in     bool
	}{{0, 0, true}, {200, 0, false}, {0, 100, false}, {200, 200, true}, {299, 200, true}, {300, 200, false}, {199, 200, false}} {
		if inClass(c.status, c.class) != c.in {
			t.Errorf("%+v", c)
		}
	}
}

// A step hands out as many as there is room for, and goes on right behind them.
func TestAStepStopsWhereTheRoomEnds(t *testing.T) {
	facts := store.TaskFacts{End: true}
	for range 10 {
		facts.List = append(facts.List, store.TaskFact{Message: webhook.NewMessageID(), Tried: true, Last: webhook.StatusFail, Kept: len(facts.List)%5 != 0})
	}
	task := webhook.Task{EndpointID: webhook.NewEndpointID(), Phase: webhook.TaskActing, Since: time.Now()}
	step := decide(task, facts, recoverRule, 3)
	if len(step.Owe) != 3 || step.Owe[2] != facts.List[3].Message || step.Phase != webhook.TaskActing {
		t.Fatalf("%+v", step)
	}
	// What is of no interest behind them is passed over at once.
	if step.Cursor != facts.List[3].Message || step.Skipped != 1 {
		t.Errorf("%+v", step)
	}
	if step := decide(task, facts, recoverRule, 8); len(step.Owe) != 8 || step.Skipped != 2 || step.Phase != webhook.TaskWaiting {
		t.Errorf("with room for all: %+v", step)
	}
	if step := decide(task, facts, recoverRule, 7); step.Phase != webhook.TaskActing {
		t.Errorf("one is left: %+v", step)
	}
	task.Phase = webhook.TaskCounting
	if step := decide(task, facts, recoverRule, 0); step.Counted != 10 || len(step.Owe) != 0 || step.Phase != webhook.TaskActing || step.Cursor != store.TaskStart(task) {
		t.Errorf("counting: %+v", step)
	}
}
