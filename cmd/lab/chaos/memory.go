package chaos

import (
	"context"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

const (
	// growthMost is how much more memory a worker may take while its receivers try to fill it.
	growthMost = 32 << 20
	// memoryBefore is how long its memory is watched before, under the same load.
	memoryBefore = 5 * time.Second
	// memoryEvery is how often it is looked at.
	memoryEvery = 50 * time.Millisecond
)

// dropBombs posts to guests whose answers are made to exhaust a reader, and compares what the workers
// take of memory with what they took before.
func dropBombs(ctx context.Context, s *stage) error {
	if err := s.until(ctx, strikeFrom); err != nil {
		return err
	}
	before, err := s.memoryDuring(ctx, func() error { return rig.Pause(ctx, memoryBefore) })
	if err != nil {
		return err
	}
	after, err := s.memoryDuring(ctx, func() error { return misbehave(ctx, s) })
	if err != nil {
		return err
	}
	for _, worker := range s.workers {
		was, is := before.Bytes(worker.Name), after.Bytes(worker.Name)
		s.note("%s took %d MiB before and %d MiB meanwhile", worker.Name, was>>20, is>>20)
		if is-was > growthMost {
			s.found(ledger.Leftover, "%s grew by %d MiB; at most %d are allowed", worker.Name, (is-was)>>20, growthMost>>20)
		}
	}
	return nil
}

// memoryDuring is the most memory that each worker has taken while something was done.
func (s *stage) memoryDuring(ctx context.Context, do func() error) (*rig.PeakMemory, error) {
	roots := make(map[string]int)
	for _, worker := range s.workers {
		roots[worker.Name] = worker.PID()
	}
	peak := &rig.PeakMemory{Every: memoryEvery}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { peak.Run(ctx, roots) })
	err := do()
	cancel()
	watching.Wait()
	return peak, err
}
