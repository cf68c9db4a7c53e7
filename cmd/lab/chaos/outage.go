package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// stopWorkers stops one worker process after the other for longer than a lease, and then lets it go on
// with what it believes to be its own.
func stopWorkers(ctx context.Context, s *stage) error {
	for i, worker := range s.workers {
		if err := s.until(ctx, strikeFrom+0.2*(float64(i)+s.random.Float64())); err != nil {
			return err
		}
		began := time.Now()
		worker.Signal(syscall.SIGSTOP)
		s.broke(ledger.Fault{What: "stop of " + worker.Name, At: began, Until: time.Now(), Resends: true, Unsent: true})
		err := rig.Pause(ctx, s.lease()+2*leaseSlack) // what only moves again when it goes on is late
		worker.Signal(syscall.SIGCONT)
		if err != nil {
			return err
		}
		s.bit("worker stopped")
	}
	return s.ready(ctx)
}

// outage is how long something that workers and API can do without stays away: longer than an attempt.
func (s *stage) outage() time.Duration { return s.options.AttemptTimeout * 4 / 3 }

// acceptWithin is the p99 of answers to posts while Redis is away: nobody may wait for it.
const acceptWithin = 250 * time.Millisecond

// withoutRedis kills Redis and brings it back, empty, after a while.
func withoutRedis(ctx context.Context, s *stage) error {
	if err := s.until(ctx, 0.2+0.1*s.random.Float64()); err != nil {
		return err
	}
	began := time.Now()
	if err := s.whileQueued(ctx, func() error { s.rig.KillRedis(); return nil }); err != nil {
		return err
	}
	away := time.Now() // and nobody stands still any more who may hold a lock
	if err := rig.Pause(ctx, s.outage()); err != nil {
		return err
	}
	ended := time.Now()
	if err := s.rig.StartRedis(ctx); err != nil {
		return err
	}
	s.bit("Redis away")
	s.broke(ledger.Fault{What: "absence of Redis", At: began, Until: time.Now().Add(refeedWithin), Resends: true})
	s.acceptsWithin(away, ended, acceptWithin)
	return nil
}

// acceptsWithin judges how soon posts were answered in a stretch of time.
func (s *stage) acceptsWithin(from, to time.Time, limit time.Duration) {
	_, tries := s.load.snapshot()
	var took []time.Duration
	for _, try := range tries {
		if try.Began.After(from) && try.Began.Before(to) && try.Status/100 == 2 {
			took = append(took, try.Took)
		}
	}
	if len(took) == 0 {
		s.found(ledger.API, "nothing was accepted for %v", to.Sub(from).Round(time.Millisecond))
		return
	}
	slices.Sort(took)
	p99 := took[(len(took)-1)*99/100]
	s.note("p99 of %d accepts meanwhile %v", len(took), p99.Round(10*time.Microsecond))
	if s.options.Timed && p99 > limit {
		s.found(ledger.API, "p99 of accepting was %v meanwhile; at most %v is allowed", p99, limit)
	}
}

// fullFor is how long Redis has no room.
const fullFor = 5 * time.Second

// fillRedis takes the room from Redis: with the policy it needs to have, it then refuses to write.
func fillRedis(ctx context.Context, s *stage) error {
	for _, share := range []float64{0.1 + 0.1*s.random.Float64(), 0.5 + 0.1*s.random.Float64()} {
		if err := s.until(ctx, share); err != nil {
			return err
		}
		began := time.Now()
		before, err := s.rig.RedisRefusals(ctx)
		if err != nil {
			return err
		}
		if err := s.rig.ConfigureRedis(ctx, "maxmemory", "1"); err != nil { // less than it has
			return err
		}
		if err := rig.Pause(ctx, fullFor); err != nil {
			return err
		}
		if err := s.rig.ConfigureRedis(ctx, "maxmemory", "0"); err != nil {
			return err
		}
		after, err := s.rig.RedisRefusals(ctx)
		if err != nil {
			return err
		}
		s.bits("write refused", after-before)
		s.broke(ledger.Fault{What: "full Redis", At: began, Until: time.Now().Add(refeedWithin), Resends: true})
		s.acceptsWithin(began, began.Add(fullFor), acceptWithin)
	}
	return nil
}

// restartPostgres restarts the server twice, once in order and once as after a crash.
func restartPostgres(ctx context.Context, s *stage) error {
	for _, step := range []struct {
		share     float64
		immediate bool
		name      string
	}{{0.2 + 0.1*s.random.Float64(), false, "fast restart"}, {0.6 + 0.1*s.random.Float64(), true, "immediate restart"}} {
		if err := s.until(ctx, step.share); err != nil {
			return err
		}
		began := time.Now()
		if err := s.rig.StopPostgres(ctx, step.immediate); err != nil {
			return fmt.Errorf("stop postgres: %w", err)
		}
		if err := s.rig.StartPostgres(ctx); err != nil {
			return fmt.Errorf("start postgres again: %w", err)
		}
		s.bit(step.name)
		// Results that were under way may be tried again for a moment after the return.
		s.broke(ledger.Fault{What: step.name + " of Postgres", At: began, Until: time.Now().Add(commitLag), Resends: true, Unlogged: true})
	}
	return s.ready(ctx)
}

// connectionsTaken is how long somebody else holds all connections of Postgres.
const connectionsTaken = 5 * time.Second

// takeConnections ends the product's connections to Postgres and takes all there are, for a while.
func takeConnections(ctx context.Context, s *stage) error {
	for _, share := range []float64{0.2 + 0.1*s.random.Float64(), 0.6 + 0.1*s.random.Float64()} {
		if err := s.until(ctx, share); err != nil {
			return err
		}
		began := time.Now()
		if err := s.holdConnections(ctx, connectionsTaken); err != nil {
			return err
		}
		s.bit("connections taken")
		s.broke(ledger.Fault{What: "loss of all connections to Postgres", At: began, Until: time.Now().Add(commitLag), Resends: true, Unlogged: true})
	}
	return s.ready(ctx)
}

// holdConnections takes every connection there is until the time is over: whatever the product gives
// up, or is made to, is taken as well.
func (s *stage) holdConnections(ctx context.Context, lasts time.Duration) (err error) {
	control, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	taken := []*pgx.Conn{control}
	defer func() {
		for _, conn := range taken {
			err = errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
		}
	}()
	for end := time.Now().Add(lasts); time.Now().Before(end); {
		_, err := control.Exec(ctx, `
			SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'lab'`)
		if err != nil {
			return fmt.Errorf("end connections: %w", err)
		}
		for {
			conn, err := s.rig.Connect(ctx)
			if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == tooManyConnections {
				break
			}
			if err != nil {
				return err
			}
			taken = append(taken, conn)
			if _, err := conn.Exec(ctx, "SET application_name = 'lab'"); err != nil {
				return fmt.Errorf("take a connection: %w", err)
			}
		}
		if err := rig.Pause(ctx, pollEvery); err != nil {
			return err
		}
	}
	return nil
}

// tooManyConnections is Postgres's code for having none left.
const tooManyConnections = "53300"
