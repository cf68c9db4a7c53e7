package worker

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func fifo(e *webhook.Endpoint) { e.Ordering = webhook.OrderingFIFO }

func skips(e *webhook.Endpoint) { e.OnExhausted = webhook.ExhaustedSkips }

// taken are the bodies that a receiver answered 2xx, each at its first time.
type taken struct {
	mu    sync.Mutex
	first []string
}

func (s *taken) add(body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.first, body) {
		s.first = append(s.first, body)
	}
}

func (s *taken) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.first)
}

// judged is a receiver that takes what take says it does; n counts how often that body has come.
func judged(t *testing.T, take func(body string, n int) bool) (*receiver, *taken) {
	got := &taken{}
	var mu sync.Mutex
	times := map[string]int{}
	var r *receiver
	r = receive(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		_, bodies := r.requests()
		body := bodies[n-1]
		mu.Lock()
		times[body]++
		count := times[body]
		mu.Unlock()
		if !take(body, count) {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		got.add(body)
	})
	return r, got
}

func numbered(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }

func TestAnOrderedEndpointGetsItsMessagesOneAfterTheOther(t *testing.T) {
	p := start(t)
	var mu sync.Mutex
	under, most := 0, 0
	r, got := judged(t, func(string, int) bool {
		mu.Lock()
		under++
		most = max(most, under)
		mu.Unlock()
		defer func() { mu.Lock(); under--; mu.Unlock() }()
		return true
	})
	p.endpoint(r.URL, fifo)
	const n = 100
	var want []string
	for i := range n {
		want = append(want, numbered(i))
		p.publish(numbered(i))
	}
	p.drained()
	if !slices.Equal(got.all(), want) || most != 1 {
		t.Errorf("%d at once, taken in the order %v", most, got.all())
	}
	if requests, _ := r.requests(); len(requests) != n {
		t.Errorf("%d requests for %d messages", len(requests), n)
	}
}

func TestNothingOvertakesWhatIsRetried(t *testing.T) {
	p := start(t)
	r, got := judged(t, func(body string, n int) bool { return body != numbered(3) || n == 3 })
	p.endpoint(r.URL, fifo)
	var want []string
	for i := range 40 {
		want = append(want, numbered(i))
		p.publish(numbered(i))
	}
	p.drained()
	if !slices.Equal(got.all(), want) {
		t.Errorf("taken in the order %v", got.all())
	}
	if requests, _ := r.requests(); len(requests) != 42 {
		t.Errorf("%d requests, want 42: one each, and two that failed", len(requests))
	}
}

// A line goes at its limit, over all that looks at it: who accepts, whose task ends, and the feeder.
func TestAnOrderedEndpointKeepsToItsRate(t *testing.T) {
	p := start(t)
	r, got := judged(t, func(string, int) bool { return true })
	const n, rate, burst = 30, 50, 5
	p.endpoint(r.URL, fifo, func(e *webhook.Endpoint) { e.ThrottleRate, e.ThrottleBurst = rate, burst })
	var want []string
	begun := time.Now()
	for i := range n {
		want = append(want, numbered(i))
		p.publish(numbered(i))
	}
	p.drained()
	if took, least := time.Since(begun), time.Second*(n-burst)/rate; took < least || took > 10*least {
		t.Errorf("it took %s, where the limit is %s", took, least)
	}
	if requests, _ := r.requests(); len(requests) != n || !slices.Equal(got.all(), want) {
		t.Errorf("%d requests, taken in the order %v", len(requests), got.all())
	}
}

// What has used up its attempts blocks the stream, and nothing else does.
func TestAnExhaustedHeadBlocksUntilItIsTakenByHand(t *testing.T) {
	p := start(t)
	var mu sync.Mutex
	mended := false
	r, got := judged(t, func(body string, _ int) bool {
		mu.Lock()
		defer mu.Unlock()
		return body != numbered(1) || mended
	})
	e := p.endpoint(r.URL, fifo)
	var messages []webhook.Message
	for i := range 5 {
		messages = append(messages, p.publish(numbered(i)))
	}
	p.until("the head is exhausted", func() bool { return p.states(e)[webhook.StateBlocked] == 1 })
	if s := p.states(e); s[webhook.StateFIFO] != 3 || len(s) != 2 || !slices.Equal(got.all(), []string{numbered(0)}) {
		t.Fatalf("states %v, taken %v", s, got.all())
	}
	list, err := p.view.AttemptsByMessage(t.Context(), p.app.ID.String(), messages[1].ID.String(), store.AttemptFilter{}, store.Page{})
	if err != nil || len(list.Data) != 3 || slices.ContainsFunc(list.Data, func(a webhook.Attempt) bool { return a.Final }) {
		t.Errorf("attempts of what blocks: %+v, %v", list.Data, err)
	}
	mu.Lock()
	mended = true
	mu.Unlock()
	handOut, err := p.pub.Resend(t.Context(), p.view, p.app.ID.String(), messages[1].ID.String(), e.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	handOut()
	p.drained()
	if want := []string{numbered(0), numbered(1), numbered(2), numbered(3), numbered(4)}; !slices.Equal(got.all(), want) {
		t.Errorf("taken in the order %v", got.all())
	}
}

func TestAnExhaustedHeadIsSkippedIfTheEndpointSaysSo(t *testing.T) {
	p := start(t)
	r, got := judged(t, func(body string, _ int) bool { return body != numbered(1) })
	p.endpoint(r.URL, fifo, skips)
	var messages []webhook.Message
	for i := range 4 {
		messages = append(messages, p.publish(numbered(i)))
	}
	p.drained()
	if want := []string{numbered(0), numbered(2), numbered(3)}; !slices.Equal(got.all(), want) {
		t.Errorf("taken in the order %v", got.all())
	}
	if attempts := p.ended(messages[1]); len(attempts) != 3 || !attempts[2].Final || attempts[2].Status != webhook.StatusFail {
		t.Errorf("attempts of what was skipped: %+v", attempts)
	}
}

// A receiver that hangs holds no place that others need, and gives back the one that it has.
func TestALineThatHangsLeavesItsPlace(t *testing.T) {
	p := assemble(t, func(o *Options) { o.Concurrency, o.SlowAfter = 1, 50*time.Millisecond })
	p.run()
	answer := make(chan struct{})
	hangs, _ := judged(t, func(string, int) bool { <-answer; return true })
	line := p.endpoint(hangs.URL, fifo)
	p.publish(numbered(0))
	p.until("it hangs", func() bool { _, bodies := hangs.requests(); return len(bodies) == 1 })
	r, got := judged(t, func(string, int) bool { return true })
	p.endpoint(r.URL)
	p.publish(numbered(1))
	p.until("the other gets its message", func() bool { return len(got.all()) == 1 })
	if n := p.worker.slots.slowInUse(); n != 1 {
		t.Errorf("%d slow places are taken, want that of the line", n)
	}
	close(answer)
	p.drained()
	p.until("the places are given back", func() bool { return p.worker.slots.slowInUse() == 0 })
	if n := p.states(line); len(n) != 0 {
		t.Errorf("still owed: %v", n)
	}
	p.publish(numbered(2))
	p.drained()
}

// What its worker took with it goes again when the lease ends, in its place.
func TestAWorkerThatDiesLosesNoPlace(t *testing.T) {
	p := assemble(t)
	r, got := judged(t, func(string, int) bool { return true })
	e := p.endpoint(r.URL, fifo)
	var want []string
	for i := range 50 {
		want = append(want, numbered(i))
		p.publish(numbered(i))
	}
	p.until("a task is out", func() bool { return p.states(e)[webhook.StateReleased] > 0 })
	p.flushQueue()
	p.exec(`UPDATE delivery SET due_at = now() WHERE state = 1`)
	p.exec(`UPDATE stream SET due_at = now()`)
	p.run()
	p.drained()
	if !slices.Equal(got.all(), want) {
		t.Errorf("taken in the order %v", got.all())
	}
}

// A worker that was stopped and goes on sends nothing that is somebody else's by then.
func TestAZombieSendsNothingThatIsNotItsOwn(t *testing.T) {
	p := assemble(t)
	r, _ := judged(t, func(string, int) bool { return true })
	e := p.endpoint(r.URL, fifo)
	for i := range 4 {
		p.publish(numbered(i))
	}
	p.until("a task is out", func() bool { return p.states(e)[webhook.StateReleased] > 0 })
	released := func() (task []webhook.Delivery) {
		p.until("it is handed out again", func() bool { // whoever published may just be looking at the line, too
			p.exec(`UPDATE delivery SET due_at = now() WHERE state = 1`)
			tasks, _, err := p.store.FeedStreams(t.Context(), []store.StreamKey{{Tenant: e.TenantID, Endpoint: e.ID}}, p.worker.lease(), true, nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(tasks) == 1 {
				task = tasks[0]
			}
			return len(tasks) == 1
		})
		return task
	}
	zombie := streamTask{w: p.worker, rest: released()}
	p.worker.stop = t.Context()
	if _, ok := zombie.next(); !ok {
		t.Fatal("what is its own may not be sent")
	}
	released()
	// Its leases have ended by its own clock, and the rows say so when it asks for more time.
	for k := range zombie.ends {
		zombie.ends[k] = time.Now()
	}
	if j, ok := zombie.next(); ok {
		t.Errorf("it would send %v", j.Delivery)
	}
	// Nor does it send what it finds changed when it reads again.
	again := streamTask{w: p.worker, rest: zombie.rest}
	if j, ok := again.next(); ok {
		t.Errorf("it would send %v", j.Delivery)
	}
}

// order switches an endpoint's ordering.
func (p *platform) order(e webhook.Endpoint, to webhook.Ordering) {
	p.t.Helper()
	_, err := p.view.PatchEndpoint(p.t.Context(), p.app.ID.String(), e.ID.String(), func(n *store.NewEndpoint) error {
		n.Ordering = to
		return nil
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// A line begins when what was owed before it is gone, however long that takes.
func TestSwitchingAnOrderOnWaitsForWhatIsOwed(t *testing.T) {
	p := start(t)
	answer := make(chan struct{})
	r, got := judged(t, func(body string, _ int) bool {
		if body == numbered(0) {
			<-answer
		}
		return true
	})
	e := p.endpoint(r.URL)
	open := p.publish(numbered(0))
	p.until("it is under way", func() bool { _, bodies := r.requests(); return len(bodies) == 1 })
	p.order(e, webhook.OrderingFIFO)
	want := []string{numbered(0)}
	for i := 1; i <= 3; i++ {
		want = append(want, numbered(i))
		p.publish(numbered(i))
	}
	p.until("the line is looked at", func() bool { return p.count("stream WHERE held_since IS NOT NULL") == 1 })
	// Whoever accepted without having seen the order has committed by then.
	p.exec(`UPDATE stream SET held_since = held_since - interval '1 min', due_at = now()`)
	p.until("the line knows what it waits for", func() bool {
		return p.count("stream WHERE held_from = $1", open.ID.UUID()) == 1
	})
	if s := p.states(e); s[webhook.StateFIFO] != 3 || s[webhook.StateReleased] != 1 {
		t.Errorf("states %v", s)
	}
	close(answer)
	p.drained()
	if !slices.Equal(got.all(), want) {
		t.Errorf("taken in the order %v", got.all())
	}
}

// What was in a line goes by itself when there is none any more, what blocked it included.
func TestSwitchingAnOrderOffLetsTheLineGo(t *testing.T) {
	p := start(t)
	var mended atomic.Bool
	r, got := judged(t, func(body string, _ int) bool { return body != numbered(1) || mended.Load() })
	e := p.endpoint(r.URL, fifo)
	const n = 40
	for i := range n {
		p.publish(numbered(i))
	}
	p.until("the head is exhausted", func() bool { return p.states(e)[webhook.StateBlocked] == 1 })
	mended.Store(true)
	p.order(e, webhook.OrderingNone)
	p.drained()
	if len(got.all()) != n {
		t.Errorf("%d of %d were taken", len(got.all()), n)
	}
	if p.count("stream") != 0 {
		t.Error("the stream is still there")
	}
	p.publish(numbered(n))
	p.drained()
}

func TestAPausedLineWaitsAndGoesOnInOrder(t *testing.T) {
	p := start(t)
	r, got := judged(t, func(string, int) bool { return true })
	e := p.endpoint(r.URL, fifo)
	want := []string{numbered(0)}
	p.publish(numbered(0))
	p.drained()
	if err := p.view.PauseEndpoint(t.Context(), p.app.ID.String(), e.ID.String(), "api"); err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 40; i++ {
		want = append(want, numbered(i))
		p.publish(numbered(i))
	}
	p.exec(`UPDATE stream SET due_at = now()`) // as a sweep does now and then
	p.until("it waits for somebody", func() bool { return p.count("stream WHERE due_at = 'infinity'") == 1 })
	if s := p.states(e); s[webhook.StateFIFO] != 40 || len(got.all()) != 1 {
		t.Errorf("paused, %v are owed and %d taken", s, len(got.all()))
	}
	if err := p.view.ResumeEndpoint(t.Context(), p.app.ID.String(), e.ID.String()); err != nil {
		t.Fatal(err)
	}
	p.drained()
	if !slices.Equal(got.all(), want) {
		t.Errorf("taken in the order %v", got.all())
	}
}

func TestWhatIsOwedToADeletedOrderedEndpointEnds(t *testing.T) {
	p := start(t)
	r, _ := judged(t, func(string, int) bool { return false })
	e := p.endpoint(r.URL, fifo)
	for i := range 40 {
		p.publish(numbered(i))
	}
	p.until("the head is exhausted", func() bool { return p.states(e)[webhook.StateBlocked] == 1 })
	if err := p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), e.ID.String()); err != nil {
		t.Fatal(err)
	}
	p.drained()
}

// states counts what is owed to an endpoint.
func (p *platform) states(e webhook.Endpoint) map[webhook.State]int {
	p.t.Helper()
	rows, err := p.sql.Query(p.t.Context(), `SELECT state, count(*) FROM delivery WHERE endpoint_id = $1 AND trigger = 0 GROUP BY state`, e.ID.UUID())
	if err != nil {
		p.t.Fatal(err)
	}
	defer rows.Close()
	out := map[webhook.State]int{}
	for rows.Next() {
		var state, n int
		if err := rows.Scan(&state, &n); err != nil {
			p.t.Fatal(err)
		}
		out[webhook.State(state)] = n
	}
	return out
}

// Whatever happens, what is taken is taken in the order in which it was accepted.
func TestOrderHoldsWhateverHappens(t *testing.T) {
	p := start(t)
	p.exec(`CREATE TABLE place (endpoint_id uuid, message_id uuid, seq bigint)`)
	p.exec(`CREATE FUNCTION keep_place() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO place VALUES (NEW.endpoint_id, NEW.message_id, NEW.seq); RETURN NULL; END $$`)
	p.exec(`CREATE TRIGGER keep_place AFTER INSERT ON delivery FOR EACH ROW EXECUTE FUNCTION keep_place()`)
	// Each check takes a second or two.
	checks := flag.Lookup("rapid.checks").Value
	before := checks.String()
	_ = checks.Set("8")
	defer func() { _ = checks.Set(before) }()
	rapid.Check(t, func(rt *rapid.T) {
		// The receiver's fate for each body: how often it fails before it is taken.
		fails := rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 5}), 60, 60).Draw(rt, "fails")
		r, got := judged(t, func(body string, n int) bool {
			var in struct{ N int }
			_ = json.Unmarshal([]byte(body), &in)
			return n > fails[in.N%len(fails)]
		})
		e := p.endpoint(r.URL, fifo, skips)
		next := 0
		var mu sync.Mutex
		for _, op := range rapid.SliceOfN(rapid.SampledFrom([]string{"accept", "accept", "accept", "lease", "lost"}), 5, 15).Draw(rt, "operations") {
			switch op {
			case "accept":
				var together sync.WaitGroup
				for range 4 {
					together.Go(func() {
						mu.Lock()
						n := next
						next++
						mu.Unlock()
						p.publish(numbered(n))
					})
				}
				together.Wait()
			case "lease": // as if the worker that has it were dead
				p.exec(`UPDATE delivery SET due_at = now() WHERE state = 1 AND endpoint_id = $1`, e.ID.UUID())
				p.exec(`UPDATE stream SET due_at = now() WHERE endpoint_id = $1`, e.ID.UUID())
			case "lost":
				if _, err := p.store.RecallReleased(t.Context()); err != nil {
					rt.Fatal(err)
				}
			}
		}
		p.drained()
		p.inOrder(rt, e, got.all())
		if err := p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), e.ID.String()); err != nil {
			rt.Fatal(err)
		}
	})
}

// inOrder compares what was taken with the order in which deliveries ended.
func (p *platform) inOrder(t *rapid.T, e webhook.Endpoint, got []string) {
	p.t.Helper()
	var last int
	for _, body := range got {
		var seq int
		err := p.sql.QueryRow(p.t.Context(), `SELECT l.seq FROM place l JOIN message m ON m.id = l.message_id
			WHERE l.endpoint_id = $1 AND convert_from(m.payload, 'UTF8') = $2`, e.ID.UUID(), body).Scan(&seq)
		if err != nil {
			t.Fatal(err)
		}
		if seq <= last {
			t.Fatal("place " + strconv.Itoa(seq) + " was taken after place " + strconv.Itoa(last))
		}
		last = seq
	}
}
