package worker

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// replay asks for everything that an endpoint was never owed, as the API does.
func (p *platform) replay(e webhook.Endpoint) webhook.Task {
	p.t.Helper()
	task, err := p.view.CreateTask(p.t.Context(), store.NewTask{
		Kind: webhook.TaskReplayMissing, Application: p.app.ID.String(), Endpoint: e.ID.String(),
		Since: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.worker.o.Tasks.Wake()
	return task
}

func (p *platform) taskEnded(task webhook.Task) webhook.Task {
	p.t.Helper()
	p.until("the task has ended", func() (ended bool) {
		var err error
		if task, err = p.view.Task(p.t.Context(), task.ID); err != nil {
			p.t.Fatal(err)
		}
		return task.Status != webhook.TaskRunning
	})
	return task
}

func TestATaskIsDelivered(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusOK))
	sent := make([]webhook.Message, 70)
	for i := range sent {
		sent[i] = p.publish(`{}`)
	}
	task := p.taskEnded(p.replay(p.endpoint(r.URL)))
	if task.Status != webhook.TaskFinished || task.Done != 70 || task.Counted != 70 || task.Failed+task.Skipped != 0 {
		t.Errorf("%+v", task)
	}
	requests, _ := r.requests()
	var got, want []string
	for _, req := range requests {
		got = append(got, req.Header.Get("Webhook-Id"))
	}
	for _, m := range sent {
		want = append(want, m.ID.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%d messages arrived, want %d, each once", len(got), len(want))
	}
}

// A replay to a paused endpoint rests until it is resumed, and one to an endpoint whose breaker is open is
// what it is probed with. Nothing else is owed to either.
func TestATaskWaitsForItsEndpoint(t *testing.T) {
	for say, open := range map[string]bool{"paused": false, "open": true} {
		t.Run(say, func(t *testing.T) {
			p := start(t, quick)
			r := receive(t, status(http.StatusOK))
			for range 20 {
				p.publish(`{}`)
			}
			e := p.endpoint(r.URL)
			if open {
				streak := webhook.Streak{URL: r.URL, Failures: 10}
				if _, err := p.store.OpenBreaker(t.Context(), e.TenantID, e.ID, streak, time.Hour); err != nil {
					t.Fatal(err)
				}
			} else if err := p.view.PauseEndpoint(t.Context(), p.app.ID.String(), e.ID.String(), "api"); err != nil {
				t.Fatal(err)
			}
			task := p.replay(e)
			p.until("all of it rests", func() bool { return p.count("delivery WHERE state = 3 AND task_id IS NOT NULL") == 20 })
			feeds := p.count("delivery WHERE feed > 1")
			if requests, _ := r.requests(); len(requests) != 0 || feeds != 0 {
				t.Fatalf("%d requests, %d went round", len(requests), feeds)
			}
			if err := p.view.ResumeEndpoint(t.Context(), p.app.ID.String(), e.ID.String()); err != nil {
				t.Fatal(err)
			}
			if task = p.taskEnded(task); task.Status != webhook.TaskFinished || task.Done != 20 {
				t.Errorf("%+v", task)
			}
			p.gated(0, "true")
		})
	}
}

// A worker that stops in the middle and one that follows bring a task to its end together.
func TestATaskOutlivesItsWorker(t *testing.T) {
	p := assemble(t)
	arrived := make(chan struct{}, 1000)
	r := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		w.WriteHeader(http.StatusOK)
	})
	for range 200 {
		p.publish(`{}`)
	}
	e := p.endpoint(r.URL)
	p.run()
	task := p.replay(e)
	<-arrived
	p.stop()
	p.worker = New(p.worker.o)
	p.run()
	task = p.taskEnded(task)
	if task.Status != webhook.TaskFinished || task.Done != 200 || task.Counted != 200 {
		t.Errorf("%+v", task)
	}
	if requests, _ := r.requests(); len(requests) < 200 {
		t.Errorf("%d requests", len(requests))
	}
}

// What a task handed out and Redis lost is fed again, into the bulk lane.
func TestATaskOutlivesRedis(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	e := p.endpoint(r.URL, func(e *webhook.Endpoint) { e.Channels = []string{"none"} })
	for range 40 {
		p.publish(`{}`)
	}
	if _, err := p.view.PatchEndpoint(t.Context(), p.app.ID.String(), e.ID.String(), func(e *store.NewEndpoint) error { e.Channels = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	task := p.replay(e)
	runner := p.worker.o.Tasks.Runner()
	for task.Released == 0 {
		if _, err := runner.RunOnce(t.Context()); err != nil {
			t.Fatal(err)
		}
		var err error
		if task, err = p.view.Task(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		}
	}
	o, err := redis.ParseURL(p.redis)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	if n, err := client.LLen(t.Context(), "asynq:{posthaste:bulk}:pending").Result(); err != nil || n == 0 {
		t.Fatalf("%d tasks are in the bulk queue (%v)", n, err)
	}
	// A sentinel is known, as after any feeder.
	value, err := p.queue.Sentinel(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.store.KeepSentinel(t.Context(), value); err != nil {
		t.Fatal(err)
	}
	if err := client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	p.run()
	if task = p.taskEnded(task); task.Status != webhook.TaskFinished || task.Done != 40 {
		t.Errorf("%+v", task)
	}
}

// A task whose receiver keeps every request waiting takes no slot from what is live.
func TestATaskKeepsNothingLiveWaiting(t *testing.T) {
	p := assemble(t, func(o *Options) { o.Concurrency = 8 })
	release := make(chan struct{})
	var once sync.Once
	t.Cleanup(func() { once.Do(func() { close(release) }) })
	var waiting, most atomic.Int32
	slow := receive(t, func(int, http.ResponseWriter, *http.Request) {
		n := waiting.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		waiting.Add(-1)
	})
	for range 30 {
		p.publish(`{}`)
	}
	e := p.endpoint(slow.URL)
	p.run()
	task := p.replay(e)
	p.until("the task waits for its receiver", func() bool { return waiting.Load() > 0 })
	if _, err := p.view.PatchEndpoint(t.Context(), p.app.ID.String(), e.ID.String(), func(e *store.NewEndpoint) error { e.Channels = []string{"none"}; return nil }); err != nil {
		t.Fatal(err)
	}
	quick := receive(t, status(http.StatusOK))
	p.endpoint(quick.URL)
	for range 16 {
		if attempts := p.ended(p.publish(`{}`)); len(attempts) != 1 || attempts[0].Trigger != webhook.TriggerScheduled {
			t.Errorf("live attempts %+v", attempts)
		}
	}
	if n := most.Load(); n != 1 {
		t.Errorf("the task had %d of 8 slots, want a share of its own of 1", n)
	}
	once.Do(func() { close(release) })
	if task = p.taskEnded(task); task.Done != 30 {
		t.Errorf("%+v", task)
	}
}
