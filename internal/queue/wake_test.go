package queue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

func TestPushWakesItsOwnProcess(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url, Private: true})
		dependOnWakes(q)
		handle, handled := collect()
		run(t, q, handle)
		for range 50 {
			mustHandle(t, q, handled)
		}
	})
}

func TestPushWakesOtherProcesses(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		worker, api := open(t, Options{URL: url}), open(t, Options{URL: url})
		dependOnWakes(worker)
		handle, handled := collect()
		run(t, worker, handle)
		eventually(t, "wake-ups are proven", worker.wakes.proven)
		for range 50 {
			mustHandle(t, api, handled)
		}
	})
}

// What was pushed before anybody listened is found when listening begins.
func TestWhatWaitsAtTheStartIsHandled(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		worker, api := open(t, Options{URL: url}), open(t, Options{URL: url})
		dependOnWakes(worker)
		for range 10 {
			pushOne(t, api)
		}
		handle, handled := collect()
		run(t, worker, handle)
		for range 10 {
			receive(t, handled)
		}
	})
}

// A push that comes after the question and before the wait must not be slept through.
func TestAWakeUpBetweenQuestionAndWaitIsNotMissed(t *testing.T) {
	w := newWakes(1, 0, true, nil)
	questions := 0
	d := &dequeuer{bell: w.bells[0], longest: func() time.Duration { return time.Hour }}
	answer := d.await(func() *redis.Cmd {
		questions++
		if questions == 1 {
			w.ring(1)
			w.ring(1)
			return redis.NewCmdResult(nil, redis.Nil)
		}
		return redis.NewCmdResult("task", nil)
	})
	if questions != 2 || answer.Val() != "task" {
		t.Errorf("%d questions, %v", questions, answer)
	}
	select {
	case <-w.bells[0]:
		t.Error("two rings are kept as two")
	default:
	}
}

func TestAwaitEnds(t *testing.T) {
	nothing := redis.NewCmdResult(nil, redis.Nil)
	for name, test := range map[string]struct {
		longest time.Duration
		stopped bool
		answer  *redis.Cmd
		want    error
		asks    int
	}{
		"a task":             {time.Hour, false, redis.NewCmdResult("task", nil), nil, 1},
		"unknown script":     {time.Hour, false, redis.NewCmdResult(nil, redis.ErrNoScript), redis.ErrNoScript, 1},
		"nothing for long":   {time.Millisecond, false, nothing, redis.Nil, 1},
		"stopped":            {time.Hour, true, redis.NewCmdResult("task", nil), redis.Nil, 0},
		"redis out of order": {time.Hour, false, redis.NewCmdResult(nil, errBadPayload), errBadPayload, 1},
	} {
		stop := make(chan struct{})
		if test.stopped {
			close(stop)
		}
		d := &dequeuer{longest: func() time.Duration { return test.longest }, stop: stop}
		asks := 0
		got := d.await(func() *redis.Cmd { asks++; return test.answer })
		if !errors.Is(got.Err(), test.want) || asks != test.asks {
			t.Errorf("%s: %v after %d questions", name, got.Err(), asks)
		}
	}
}

// asynq asks again at once after an error; the pauses grow, end with success and are cut by a stop.
func TestFailingDequeuesArePacedAndStoppable(t *testing.T) {
	d := &dequeuer{longest: func() time.Duration { return time.Hour }}
	fail := func() *redis.Cmd { return redis.NewCmdResult(nil, errBadPayload) }
	for _, want := range []time.Duration{minDequeueBackoff, 2 * minDequeueBackoff} {
		start := time.Now()
		d.await(fail)
		if d.backoff != want || time.Since(start) < want/2 {
			t.Errorf("paused %v, at most %v; want %v", time.Since(start), d.backoff, want)
		}
	}
	d.await(func() *redis.Cmd { return redis.NewCmdResult("task", nil) })
	if d.backoff != 0 {
		t.Error("success does not end the backoff")
	}
	stop := make(chan struct{})
	d.stop, d.backoff = stop, time.Hour
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.pause()
	}()
	close(stop)
	<-done
	if d.backoff != maxDequeueBackoff {
		t.Errorf("backoff grows to %v", d.backoff)
	}
}

// spy reports the keys of every script.
type spy struct {
	redis.UniversalClient
	keys chan []string
}

func (s *spy) EvalSha(ctx context.Context, digest string, keys []string, args ...any) *redis.Cmd {
	select {
	case s.keys <- keys:
	default:
	}
	return s.UniversalClient.EvalSha(ctx, digest, keys, args...)
}

// An asynq that dequeues otherwise would no longer be recognised and would ask 1,000 times a second.
func TestTheDequeueOfAsynqIsRecognised(t *testing.T) {
	eachRedis(t, func(t *testing.T, url string) {
		q := open(t, Options{URL: url})
		s := &spy{UniversalClient: q.client, keys: make(chan []string, 100)}
		server := asynq.NewServerFromRedisClient(s, asynq.Config{
			Queues: map[string]int{q.names[0]: 1}, Concurrency: 1, LogLevel: asynq.FatalLevel, TaskCheckInterval: time.Millisecond,
		})
		if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error { return nil })); err != nil {
			t.Fatal(err)
		}
		defer server.Shutdown()
		d := &dequeuer{pending: pendingKey(q.names[0]), paused: pausedKey(q.names[0])}
		for {
			select {
			case keys := <-s.keys:
				if d.dequeues(keys) {
					return
				}
			case <-time.After(patience):
				t.Fatal("no script looked like the dequeue")
			}
		}
	})
}

func TestWithoutPubSubItPolls(t *testing.T) {
	t.Parallel()
	url := startServer(t).url()
	admin := open(t, Options{URL: url})
	err := admin.client.Do(t.Context(), "acl", "setuser", "mute", "on", ">mute", "~*", "+@all", "resetchannels").Err()
	if err != nil {
		t.Fatal(err)
	}
	var lines logs
	q := open(t, Options{URL: strings.Replace(url, "redis://", "redis://mute:mute@", 1), Logger: lines.logger()})
	q.wakes.waits = waits{woken: time.Hour, polled: 5 * time.Millisecond}
	q.wakes.probes.backoff = time.Millisecond
	handle, handled := collect()
	run(t, q, handle)
	eventually(t, "it says so", func() bool { return lines.count("polling for tasks") > 0 })
	mustHandle(t, admin, handled) // pushed by another process
	mustHandle(t, q, handled)     // by one that may not publish
	if n := lines.count("polling for tasks"); n != 1 || q.wakes.proven() {
		t.Errorf("said %d times; proven: %v", n, q.wakes.proven())
	}
}

func TestABrokenSubscriptionIsReplaced(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	var lines logs
	q := open(t, Options{URL: s.url(), Logger: lines.logger()})
	q.wakes.probes = probes{idle: patience, timeout: patience, backoff: time.Millisecond}
	handle, handled := collect()
	run(t, q, handle)
	eventually(t, "wake-ups are proven", q.wakes.proven)
	if err := q.client.Do(t.Context(), "client", "kill", "type", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a broken subscription is noticed", func() bool { return lines.count("polling for tasks") == 1 })
	eventually(t, "it says that it works again", func() bool { return lines.count("arrive again") == 1 })
	mustHandle(t, q, handled)
}

func TestHeard(t *testing.T) {
	w := newWakes(3, 0, false, nil)
	for payload, want := range map[string]queueSet{
		"other 5":             0b101,
		"other 7":             0b111,
		"other fff8":          0, // queues of a process configured otherwise
		w.self + " 7":         0, // rung already
		w.self + " probe":     0,
		"other probe":         0,
		"other":               0,
		"":                    0,
		"other 1ffffffffffff": 0,
	} {
		w.heard(payload)
		var rung queueSet
		for i, bell := range w.bells {
			select {
			case <-bell:
				rung.add(i)
			default:
			}
		}
		if rung != want {
			t.Errorf("%q rang %b, want %b", payload, rung, want)
		}
	}
	if !allQueues.has(MaxQueues - 1) {
		t.Error("a set does not hold all queues")
	}
}
