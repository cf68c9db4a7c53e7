package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Servers that wait for a task, for an hour if need be, are let go by a stop.
func TestStopReleasesIdleServers(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url, Grace: time.Hour})
		dependOnWakes(q)
		handle, handled := collect()
		stop := run(t, q, handle)
		mustHandle(t, q, handled)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		pushOne(t, q)
		if n, err := length(t.Context(), q); n != 1 || err != nil {
			t.Errorf("length %d, %v: a stopped queue takes tasks", n, err)
		}
		run(t, q, handle) // and can run again
		receive(t, handled)
	})
}

func TestStopWaitsForHandlers(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url, Grace: time.Hour})
		started, finish, finished := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- q.Run(ctx, func(ctx context.Context, _ []webhook.Delivery) error {
				close(started)
				<-finish
				finished <- ctx.Err()
				return nil
			})
		}()
		pushOne(t, q)
		<-started
		cancel()
		select {
		case err := <-done:
			t.Fatalf("Run returned %v while a handler was running", err)
		default:
		}
		close(finish)
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := <-finished; err != nil {
			t.Errorf("the handler's context ended within the grace: %v", err)
		}
		if left := leftovers(t, q); left != "" {
			t.Errorf("left behind: %s", left)
		}
	})
}

func TestHandlersEndWithTheGrace(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url, Grace: time.Millisecond})
		started := make(chan struct{})
		stop := run(t, q, func(ctx context.Context, _ []webhook.Delivery) error {
			close(started)
			<-ctx.Done()
			return ctx.Err()
		})
		pushOne(t, q)
		<-started
		if err := stop(); err != nil {
			t.Error(err)
		}
		// Nobody took it over, so whoever comes next may have it at once.
		if n, err := length(t.Context(), q); n != 1 || err != nil {
			t.Errorf("length %d, %v", n, err)
		}
	})
}

func TestAHandlerThatIgnoresItsContextIsReported(t *testing.T) {
	t.Parallel()
	q := open(t, Options{URL: startServer(t).url(), Grace: time.Millisecond})
	started, finish := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- q.Run(ctx, func(context.Context, []webhook.Delivery) error {
			close(started)
			<-finish
			return nil
		})
	}()
	pushOne(t, q)
	<-started
	cancel()
	if err := <-done; err == nil || !strings.Contains(err.Error(), "1 handlers did not return") {
		t.Errorf("got %v", err)
	}
	close(finish)
}

func TestOnlyOneRun(t *testing.T) {
	t.Parallel()
	q := open(t, Options{URL: startServer(t).url()})
	handle, handled := collect()
	run(t, q, handle)
	mustHandle(t, q, handled)
	if err := q.Run(t.Context(), handle); err == nil {
		t.Error("it ran twice")
	}
}

// Whatever becomes of a task, Redis keeps nothing of it.
func TestFailedTasksLeaveNothing(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		var lines logs
		q := open(t, Options{URL: url, Logger: lines.logger()})
		failing, panicking := pushOne(t, q), pushOne(t, q)
		pusher := asynq.NewClientFromRedisClient(q.client)
		for range 3 {
			for _, payload := range [][]byte{{payloadVersion + 1, 9}, {payloadVersion}, nil} {
				if _, err := pusher.Enqueue(asynq.NewTask(taskType, payload), asynq.Queue(q.names[0]), asynq.MaxRetry(0)); err != nil {
					t.Fatal(err)
				}
			}
		}
		handled := make(chan []webhook.Delivery, 10)
		run(t, q, func(_ context.Context, ds []webhook.Delivery) error {
			defer func() { handled <- ds }()
			switch ds[0] {
			case failing:
				return errors.New("no room")
			case panicking:
				panic("no luck")
			}
			return nil
		})
		receive(t, handled)
		receive(t, handled)
		eventually(t, "all tasks are gone", func() bool { return leftovers(t, q) == "" })
		for text, want := range map[string]int{"no room": 1, "no luck": 1, "cannot read": 1} {
			if n := lines.count(text); n != want {
				t.Errorf("%q was logged %d times, want %d", text, n, want)
			}
		}
	})
}

// leftovers are the keys that belong to a task, or say that there are some.
func leftovers(tb testing.TB, q *Queue) string {
	tb.Helper()
	keys, err := q.client.Keys(tb.Context(), "asynq:{posthaste:live:*").Result()
	if err != nil {
		tb.Fatal(err)
	}
	var left []string
	for _, key := range keys {
		if !strings.Contains(key, "}:processed") {
			left = append(left, key)
		}
	}
	return strings.Join(left, " ")
}

func TestRedisStaysSmall(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		const tasks = 10_000
		q := open(t, Options{URL: url})
		handle, handled := collect()
		run(t, q, handle)
		for range tasks / 100 {
			batch := make([][]webhook.Delivery, 100)
			for i := range batch {
				batch[i] = deliveries(1)
			}
			if err := q.Push(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			for range batch {
				receive(t, handled)
			}
		}
		eventually(t, "all tasks are gone", func() bool { return leftovers(t, q) == "" })
		// Per queue a total and a count for the day (two around midnight); per server its description
		// and, while it works, its tasks; the lists of queues, servers and their tasks.
		limit := int64((DefaultQueues+2)*(3+2) + 3)
		if n := q.client.DBSize(t.Context()).Val(); n > limit {
			t.Errorf("%d keys after %d tasks, want at most %d: %v", n, tasks, limit, q.client.Keys(t.Context(), "*").Val())
		}
	})
}

func TestSweepRemovesWhatAKilledWorkerLeft(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url})
		inspector := asynq.NewInspectorFromRedisClient(q.client)
		if n := q.sweep(inspector); n != 0 {
			t.Errorf("removed %d tasks from nothing", n)
		}
		for range 2 * DefaultQueues {
			pushOne(t, q)
		}
		for _, name := range q.names[1:q.live] {
			if n, err := inspector.ArchiveAllPendingTasks(name); n != 2 || err != nil {
				t.Fatalf("%d archived, %v", n, err)
			}
		}
		if n := q.sweep(inspector); n != 2*(DefaultQueues-1) {
			t.Errorf("removed %d tasks", n)
		}
		if n, err := length(t.Context(), q); n != 2 || err != nil {
			t.Errorf("length %d, %v: a waiting task was removed", n, err)
		}
		for _, key := range strings.Fields(leftovers(t, q)) {
			if !strings.Contains(key, "{"+q.names[0]+"}") {
				t.Errorf("left behind: %s", key)
			}
		}
	})
}
