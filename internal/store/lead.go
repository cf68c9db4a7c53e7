package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// leadEvery is how often a process that does not lead tries to.
	leadEvery = time.Second
	// leadCheck is how often the leader makes sure that its connection, and with it its lock, is alive.
	leadCheck = 2 * time.Second
	// leadSilence is how long a leader may say nothing until Postgres ends its session, and with it its
	// lock. Else a process that is stopped, or a machine that swaps or has left the network, would keep
	// everybody from leading for as long as its connection lasts.
	leadSilence = 5 * leadCheck
)

// Lead runs do in one process of the installation at a time: the one that holds the advisory lock key.
// do's context ends when the lock is lost or ctx ends; Lead returns when ctx ends or do returns an
// error.
func (s *Store) Lead(ctx context.Context, key int64, do func(ctx context.Context) error) error {
	for {
		err := s.leadOnce(ctx, key, do)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !errors.Is(err, errNotLeader) {
			if _, ours := errors.AsType[*leaderError](err); ours {
				return err
			}
			s.log.Warn("cannot try to lead", "error", err)
		}
		timer := time.NewTimer(leadEvery/2 + rand.N(leadEvery))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

var errNotLeader = errors.New("another process leads")

// leaderError is an error of the leader's own work, as opposed to one of becoming it.
type leaderError struct{ err error }

func (e *leaderError) Error() string { return e.err.Error() }
func (e *leaderError) Unwrap() error { return e.err }

func (s *Store) leadOnce(ctx context.Context, key int64, do func(ctx context.Context) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("lead: %w", err)
	}
	var got bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, key).Scan(&got); err != nil {
		conn.Release()
		return fmt.Errorf("lead: %w", err)
	}
	if !got {
		conn.Release()
		return errNotLeader
	}
	// The lock belongs to the session: it must end with this call, so the connection does not go back.
	c := conn.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer cancel()
		_ = c.Close(ctx)
	}()
	if _, err := c.Exec(ctx, fmt.Sprintf(`SET idle_session_timeout = %d`, leadSilence.Milliseconds())); err != nil {
		return fmt.Errorf("lead: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- do(ctx) }()
	ticker := time.NewTicker(leadCheck)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return &leaderError{err}
			}
			return nil
		case <-ticker.C:
			if err := s.alive(ctx, c.Ping); err != nil {
				cancel()
				<-done
				return fmt.Errorf("lead: lost the lock: %w", err)
			}
		}
	}
}

func (s *Store) alive(ctx context.Context, ping func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	return ping(ctx)
}
