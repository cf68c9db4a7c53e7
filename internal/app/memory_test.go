package app

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAvailableMemoryIsTheLeastThatIsKnown(t *testing.T) {
	const meminfo, v2, v1 = "proc/meminfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing known", nil, 0},
		{"machine", map[string]string{meminfo: "MemTotal:        2097152 kB\nMemFree: 1 kB\n"}, 2 << 30},
		{"container", map[string]string{meminfo: "MemTotal:        2097152 kB\n", v2: "536870912\n"}, 512 << 20},
		{"unlimited container", map[string]string{meminfo: "MemTotal:        2097152 kB\n", v2: "max\n"}, 2 << 30},
		{"version 1, unlimited", map[string]string{meminfo: "MemTotal:        2097152 kB\n", v1: "9223372036854771712\n"}, 2 << 30},
		{"version 1", map[string]string{v1: "1073741824\n"}, 1 << 30},
		{"nonsense", map[string]string{meminfo: "MemTotal: many kB\n", v2: "-1"}, 0},
	} {
		root := t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got := availableMemory(root); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestMemoryLimit(t *testing.T) {
	for _, c := range []struct{ configured, available, want int64 }{
		{0, 0, 0},
		{1 << 30, 512 << 20, 1 << 30}, // what the operator says counts
		{0, 1000 << 20, 750 << 20},
		{0, 16 << 20, MinMemoryLimit},
	} {
		if got := memoryLimit(c.configured, c.available); got != c.want {
			t.Errorf("configured %d of %d: %d, want %d", c.configured, c.available, got, c.want)
		}
	}
}
