package rig

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

// clockTick is the unit of the CPU times in /proc; Linux shows them in hundredths of a second on
// every architecture Go runs on.
const clockTick = 10 * time.Millisecond

// stat is what is needed of /proc/<pid>/stat.
type stat struct {
	pid, parent int
	cpu         time.Duration // user and system, with those of children that were waited for
}

// parseStat reads one line of /proc/<pid>/stat. The program's name may hold spaces and parentheses,
// so fields are counted from the last closing one.
func parseStat(line []byte) (stat, error) {
	end := bytes.LastIndexByte(line, ')')
	begin := bytes.IndexByte(line, ' ')
	if end < 0 || begin < 0 {
		return stat{}, fmt.Errorf("parse process statistics: %q", line)
	}
	fields := bytes.Fields(line[end+1:])
	const parentField, userField, childSystemField = 1, 11, 14
	if len(fields) <= childSystemField {
		return stat{}, fmt.Errorf("parse process statistics: %d fields", len(fields))
	}
	var s stat
	var err error
	if s.pid, err = strconv.Atoi(string(line[:begin])); err != nil {
		return stat{}, fmt.Errorf("parse process statistics: %w", err)
	}
	if s.parent, err = strconv.Atoi(string(fields[parentField])); err != nil {
		return stat{}, fmt.Errorf("parse process statistics: %w", err)
	}
	for _, field := range fields[userField : childSystemField+1] {
		ticks, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("parse process statistics: %w", err)
		}
		s.cpu += time.Duration(ticks) * clockTick
	}
	return s, nil
}

// tree is the processes below and including root, from one look at /proc. Processes that end
// meanwhile are left out; their time is then in their parent's.
func tree(root int) ([]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := make(map[int][]stat)
	var found []stat
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile("/proc/" + entry.Name() + "/stat")
		if err != nil {
			continue
		}
		s, err := parseStat(line)
		if err != nil {
			return nil, err
		}
		if s.pid == root {
			found = append(found, s)
		}
		children[s.parent] = append(children[s.parent], s)
	}
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("process %d is not running", root)
	}
	return found, nil
}

// CPU is the processor time used so far by a process and everything below it.
func CPU(root int) (time.Duration, error) {
	processes, err := tree(root)
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, s := range processes {
		sum += s.cpu
	}
	return sum, nil
}

// Memory is what a process and everything below it keep resident, in bytes. Shared memory is counted
// once (the largest), so that Postgres' backends do not each add the shared buffers; pages of files
// are left out, since the kernel may drop them.
func Memory(root int) (int64, error) {
	processes, err := tree(root)
	if err != nil {
		return 0, err
	}
	var private, shared int64
	for _, s := range processes {
		text, err := os.ReadFile("/proc/" + strconv.Itoa(s.pid) + "/status")
		if err != nil {
			continue
		}
		private += statusField(text, "RssAnon:")
		shared = max(shared, statusField(text, "RssShmem:"))
	}
	return private + shared, nil
}

// statusField is a field of /proc/<pid>/status that is given in kB, in bytes.
func statusField(text []byte, name string) int64 {
	_, rest, ok := bytes.Cut(text, []byte("\n"+name))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	kilobytes, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(line), []byte(" kB"))), 10, 64)
	if err != nil {
		return 0
	}
	return kilobytes << 10
}

// PeakMemory looks at the memory of some processes again and again and remembers the most.
type PeakMemory struct {
	Every time.Duration // between looks; 0 = memoryInterval

	mu   sync.Mutex
	peak map[string]int64
}

// memoryInterval is rare enough to cost nothing and often enough to see a peak under steady load.
const memoryInterval = time.Second

// Run samples the named processes until the context ends.
func (m *PeakMemory) Run(ctx context.Context, roots map[string]int) {
	tick := time.NewTicker(cmp.Or(m.Every, memoryInterval))
	defer tick.Stop()
	for {
		for name, root := range roots {
			now, err := Memory(root)
			if err != nil {
				continue // it ended; what it used before counts
			}
			m.mu.Lock()
			if m.peak == nil {
				m.peak = make(map[string]int64)
			}
			m.peak[name] = max(m.peak[name], now)
			m.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Bytes is the most seen of one process.
func (m *PeakMemory) Bytes(name string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peak[name]
}

// PeakResident is the most memory a single process ever had resident, in bytes, by the kernel's own
// high-water mark.
func PeakResident(pid int) (int64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, fmt.Errorf("read a process's peak memory: %w", err)
	}
	return statusField(text, "VmHWM:"), nil
}

// Goroutines is how many goroutines a posthaste process has at this moment, and what they do, by its
// own profile. Those of connections that are kept for the next request are left out.
func (k *Keeper) Goroutines() (count int, profile []byte, err error) {
	client := wire.Client{Address: k.Address}
	defer client.Close()
	answer, err := client.Do("GET", "/debug/pprof/goroutine?debug=1", "", nil)
	if err != nil {
		return 0, nil, fmt.Errorf("count the goroutines of %s: %w", k.Name, err)
	}
	if count, err = countGoroutines(answer.Body); err != nil {
		return 0, nil, fmt.Errorf("count the goroutines of %s: it answered %d: %w", k.Name, answer.Status, err)
	}
	return count, answer.Body, nil
}

// countGoroutines reads a profile: paragraphs that begin with how many goroutines they are about.
func countGoroutines(profile []byte) (count int, err error) {
	title, rest, ok := bytes.Cut(profile, []byte("\n"))
	if !ok || !bytes.HasPrefix(title, []byte("goroutine profile: ")) {
		return 0, fmt.Errorf("%.100q is no profile", profile)
	}
	for paragraph := range bytes.SplitSeq(rest, []byte("\n\n")) {
		if len(bytes.TrimSpace(paragraph)) == 0 || bytes.Contains(paragraph, []byte("net/http.(*persistConn)")) {
			continue
		}
		number, _, _ := bytes.Cut(paragraph, []byte(" @ "))
		n, err := strconv.Atoi(string(number))
		if err != nil {
			return 0, fmt.Errorf("%.100q is no part of a profile", paragraph)
		}
		count += n
	}
	return count, nil
}
