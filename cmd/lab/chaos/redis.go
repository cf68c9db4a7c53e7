package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// refeedWithin is how long after it was emptied the queue is filled again: it is looked at once a
// second, and filling takes a moment. What is being sent at that moment may be sent again.
const refeedWithin = 3 * time.Second

// flushes is how often the queue is emptied.
const flushes = 5

func flushRedis(ctx context.Context, s *stage) error {
	for _, share := range s.moments(flushes) {
		if err := s.until(ctx, share); err != nil {
			return err
		}
		if err := s.whileQueued(ctx, func() error { return s.flush(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) flush(ctx context.Context) error {
	began := time.Now()
	if err := s.rig.FlushRedis(ctx); err != nil {
		return err
	}
	s.bit("flush")
	s.broke(ledger.Fault{What: "FLUSHALL", At: began, Until: time.Now().Add(refeedWithin), Resends: true})
	return nil
}

const (
	// queuedEnough is how many tasks make the loss of the queue worth it, and queueWait how long to
	// wait for them.
	queuedEnough = 10
	queueWait    = 2 * time.Second
)

// whileQueued does something to the queue's tasks while there are some, and counts them as destroyed.
func (s *stage) whileQueued(ctx context.Context, do func() error) error {
	return s.queueHeld(ctx, func(tasks int) error {
		s.bits("task destroyed", tasks)
		return do()
	})
}

// queueHeld does something while the queue holds tasks. Workers empty it within milliseconds, so they
// are stopped for a moment, as a machine that swaps would be.
func (s *stage) queueHeld(ctx context.Context, do func(tasks int) error) error {
	for _, worker := range s.workers {
		worker.Signal(syscall.SIGSTOP)
	}
	defer func() {
		for _, worker := range s.workers {
			worker.Signal(syscall.SIGCONT)
		}
	}()
	tasks := 0
	err := poll(ctx, queueWait, "tasks in the queue", func() (done bool, err error) {
		tasks, err = s.rig.QueuedTasks(ctx)
		return tasks >= queuedEnough, err
	})
	if err != nil && !errors.Is(err, errNotInTime) {
		return err
	}
	return do(tasks)
}

// redisDown is how long Redis stays away.
const redisDown = time.Second

func killRedis(ctx context.Context, s *stage) error {
	for _, share := range []float64{0.2 + 0.1*s.random.Float64(), 0.6 + 0.1*s.random.Float64()} {
		if err := s.until(ctx, share); err != nil {
			return err
		}
		began := time.Now()
		if err := s.whileQueued(ctx, func() error { s.rig.KillRedis(); return nil }); err != nil {
			return err
		}
		if err := rig.Pause(ctx, redisDown); err != nil {
			return err
		}
		if err := s.rig.StartRedis(ctx); err != nil {
			return err
		}
		s.bit("restart")
		s.broke(ledger.Fault{What: "restart of Redis", At: began, Until: time.Now().Add(refeedWithin), Resends: true})
	}
	return nil
}

// redisAge is how old what Redis comes back with is: all tasks in it have been done meanwhile.
const redisAge = 5 * time.Second

// ageRedis kills Redis and brings it back with what it held a while ago: tasks that have been done
// since, and none of those that came later. Nothing tells that it is not what it was.
func ageRedis(ctx context.Context, s *stage) error {
	for _, share := range []float64{strikeFrom + 0.1*s.random.Float64(), 0.5 + 0.1*s.random.Float64()} {
		if err := s.until(ctx, share); err != nil {
			return err
		}
		if err := s.queueHeld(ctx, func(int) error { return s.rig.SnapshotRedis(ctx) }); err != nil {
			return err
		}
		if err := rig.Pause(ctx, redisAge); err != nil {
			return err
		}
		if err := s.whileQueued(ctx, func() error { return s.returnOld(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// returnOld kills Redis and starts it with the snapshot, while no worker takes anything.
func (s *stage) returnOld(ctx context.Context) error {
	began := time.Now()
	s.rig.KillRedis()
	if err := s.rig.StartRedis(ctx); err != nil {
		return err
	}
	stale, err := s.rig.QueuedTasks(ctx)
	if err != nil {
		return err
	}
	s.bits("stale task", stale)
	s.bit("old Redis")
	s.broke(ledger.Fault{What: "return of an old Redis", At: began, Until: time.Now().Add(refeedWithin), Resends: true})
	return s.rig.DropSnapshot()
}

const (
	// redisDelay is what a slow way adds to every answer of Redis.
	redisDelay = 500 * time.Millisecond
	// redisResets is the share of requests to Redis on which a bad way breaks the connection.
	redisResets = 0.1
	// badWeather is how long each kind of trouble lasts.
	badWeather = 6 * time.Second
)

// badWayToRedis puts Redis behind a way that is slow, then one on which nothing passes and no
// connection ends, then one that breaks connections.
func badWayToRedis(ctx context.Context, s *stage) error {
	if err := s.countGoroutines(); err != nil {
		return err
	}
	for i, trouble := range []struct {
		what string
		rig.Weather
	}{
		{"slow Redis", rig.Weather{Delay: redisDelay}},
		{"silent Redis", rig.Weather{Silent: true}},
		{"breaking connections to Redis", rig.Weather{Resets: redisResets}},
	} {
		if err := s.until(ctx, strikeFrom+0.25*(float64(i)+0.5*s.random.Float64())); err != nil {
			return err
		}
		began := time.Now()
		s.rig.Weather(trouble.Weather)
		err := rig.Pause(ctx, badWeather)
		ended := time.Now()
		s.rig.Weather(rig.Weather{})
		if err != nil {
			return err
		}
		s.broke(ledger.Fault{What: trouble.what, At: began, Until: time.Now().Add(refeedWithin), Resends: true})
		s.acceptsWithin(began, ended, acceptWithin)
		if err := s.unpark(ctx); err != nil {
			return err
		}
	}
	did := s.rig.Weather(rig.Weather{})
	s.bits("answer delayed", did.Delayed)
	s.bits("request held up", did.Held)
	s.bits("connection reset", did.Reset)
	return nil
}

// unparkMost is how long what had to wait may take to be handed out again.
const unparkMost = 20 * time.Second

// unpark waits until nothing waits any more for Redis: what follows is to be judged by itself, and not
// by the rush that comes after a dam.
func (s *stage) unpark(ctx context.Context) error {
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return poll(ctx, unparkMost, "parked deliveries to be released", func() (bool, error) {
		var parked bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM delivery WHERE state = 3)").Scan(&parked); err != nil {
			return false, fmt.Errorf("look for parked deliveries: %w", err)
		}
		return !parked, nil
	})
}

// countGoroutines notes how many goroutines each process has.
func (s *stage) countGoroutines() error {
	s.before = make(map[string]int)
	for _, keeper := range s.all() {
		n, _, err := keeper.Goroutines()
		if err != nil {
			return err
		}
		s.before[keeper.Name] = n
	}
	return nil
}

const (
	// goroutineSlack is how many more goroutines a process may have afterwards, busy or not.
	goroutineSlack = 50
	// goroutineWait is how long those that wait for a timeout of theirs may take to end.
	goroutineWait = 15 * time.Second
)

// keepsNoGoroutines judges whether the trouble left goroutines behind.
func keepsNoGoroutines(ctx context.Context, s *stage) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	for _, keeper := range s.all() {
		now, profile := 0, []byte(nil)
		err := poll(ctx, goroutineWait, "goroutines to end", func() (done bool, err error) {
			now, profile, err = keeper.Goroutines()
			return now <= s.before[keeper.Name]+goroutineSlack, err
		})
		if errors.Is(err, errNotInTime) {
			s.found(ledger.Leftover, "%s has %d goroutines, %d before", keeper.Name, now, s.before[keeper.Name])
			if err := os.WriteFile(filepath.Join(s.rig.Dir(), keeper.Name+".goroutines.txt"), profile, 0o644); err != nil {
				return fmt.Errorf("keep evidence: %w", err)
			}
			continue
		}
		if err != nil {
			return err
		}
		s.note("%s: %d goroutines before, %d after", keeper.Name, s.before[keeper.Name], now)
	}
	return nil
}
