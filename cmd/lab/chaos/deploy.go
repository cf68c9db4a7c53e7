package chaos

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
)

const (
	// deployRounds is how often every process is replaced.
	deployRounds = 3
	// deployDrain is how long a process that stops goes on answering.
	deployDrain = "1s"
)

// deploy replaces every process in order, one after the other, a few times.
func deploy(ctx context.Context, s *stage) error {
	if err := s.until(ctx, strikeFrom); err != nil {
		return err
	}
	longest := time.Duration(0)
	for range deployRounds {
		for _, keeper := range s.all() {
			began := time.Now()
			if err := keeper.Restart(ctx); err != nil {
				s.found(ledger.Crash, "%v", err)
				return s.ready(ctx)
			}
			longest = max(longest, time.Since(began))
			s.bit("process replaced")
		}
	}
	s.note("a process was replaced in %v at most", longest.Round(10*time.Millisecond))
	return nil
}
