package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
)

// points gives each life of a process the next failpoint in turn, to bite after a number of passages
// that suits the run's length. The two processes of a role begin at different points.
func (s *stage) points(points []point, process int) func(life int) []string {
	if len(points) == 0 {
		return nil
	}
	random := rand.New(rand.NewPCG(s.options.Seed, uint64(100+process)))
	return func(life int) []string {
		if !s.armed.Load() {
			return nil
		}
		p := points[(life+process*len(points)/2)%len(points)]
		around := max(s.total/p.every, 2)
		return []string{fmt.Sprintf("POSTHASTE_FAILPOINTS=%s=kill:hit=%d", p.name, 1+around/2+random.IntN(around))}
	}
}

// workerPoints are the failpoints of a worker: the same in every life, if the fault has such a rule.
func (s *stage) workerPoints(process int) func(life int) []string {
	if s.fault.rule != "" {
		return func(int) []string { return []string{"POSTHASTE_FAILPOINTS=" + s.fault.rule} }
	}
	return s.points(s.fault.workerPoints, process)
}

// bit counts something that was done to the installation.
func (s *stage) bit(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bites[what]++
}

// bits counts something that happened so many times.
func (s *stage) bits(what string, times int) {
	if times == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bites[what] += times
}

// broke notes a fault for the checker.
func (s *stage) broke(f ledger.Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, f)
}

// ask notes sends that are asked for once more.
func (s *stage) ask(asks []ledger.Ask) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, asks...)
}

// note keeps a figure for the result's line.
func (s *stage) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// found notes a violation that the fault itself saw.
func (s *stage) found(invariant ledger.Invariant, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.extra.Add(invariant, format, args...)
}

// failpointBites counts the failpoints that bit, by name, from the log they write before they bite.
func (s *stage) failpointBites() (map[string]int, error) {
	counts := make(map[string]int)
	file, err := os.Open(s.biteLog)
	if errors.Is(err, os.ErrNotExist) {
		return counts, nil
	}
	if err != nil {
		return nil, fmt.Errorf("count bites: %w", err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var bite struct{ Name string }
		if err := json.Unmarshal(lines.Bytes(), &bite); err != nil {
			return nil, fmt.Errorf("count bites: %w", err)
		}
		counts[bite.Name]++
	}
	return counts, nil
}

// bitten waits until every failpoint of the fault has bitten at least once; the load goes on meanwhile.
func (s *stage) bitten(ctx context.Context, limit time.Duration) error {
	err := poll(ctx, limit, "every failpoint", func() (bool, error) {
		counts, err := s.failpointBites()
		if err != nil {
			return false, err
		}
		for _, p := range slices.Concat(s.fault.apiPoints, s.fault.workerPoints) {
			if counts[p.name] == 0 {
				return false, nil
			}
		}
		return true, nil
	})
	if errors.Is(err, errNotInTime) {
		return nil // the count of bites shows which are missing
	}
	return err
}

// bitesText is what bit how often, for a person.
func bitesText(bites map[string]int) string {
	var parts []string
	for name, n := range bites {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
