package app

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// collectAt is GOGC: with little live memory, collecting at four times of it rather than at double
	// saves some 7 % of CPU per delivery.
	collectAt = 400
	// memoryShare is the percentage of what there is that the process lets itself use before it
	// collects eagerly. The rest is for what Go does not count, and for Postgres's cache beside it.
	memoryShare = 75
)

// tuneMemory sets the garbage collector, except what the environment sets already.
func tuneMemory(configured int64) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectAt)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	if limit := memoryLimit(configured, availableMemory("/")); limit > 0 {
		debug.SetMemoryLimit(limit)
	}
}

// memoryLimit is the limit for a process that may use so many bytes; 0 = none, when nothing is known.
// Collecting rarely without a limit would turn a burst of big payloads into the kernel's memory killer.
func memoryLimit(configured, available int64) int64 {
	if configured > 0 {
		return configured
	}
	if available <= 0 {
		return 0
	}
	return max(available/100*memoryShare, MinMemoryLimit)
}

// availableMemory is the least of the machine's memory and the control group's limit, in bytes; 0 when
// the system says nothing of it. root is where the system's files are.
func availableMemory(root string) int64 {
	least := int64(math.MaxInt64)
	if total := totalMemory(filepath.Join(root, "proc/meminfo")); total > 0 {
		least = total
	}
	for _, name := range []string{
		"sys/fs/cgroup/memory.max",                   // version 2, as a container sees its own group
		"sys/fs/cgroup/memory/memory.limit_in_bytes", // version 1
	} {
		raw, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64); err == nil && limit > 0 {
			least = min(least, limit)
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

func totalMemory(meminfo string) int64 {
	file, err := os.Open(meminfo)
	if err != nil {
		return 0
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 3 && fields[0] == "MemTotal:" && fields[2] == "kB" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			if err == nil {
				return kib << 10
			}
		}
	}
	return 0
}
