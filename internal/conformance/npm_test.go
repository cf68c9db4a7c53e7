package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The npm client before 2.0.
func TestNpm1(t *testing.T) { t.Parallel(); npm(t, "js1", bulkExpunge) }

// The npm client since 2.0.
func TestNpm2(t *testing.T) { t.Parallel(); npm(t, "js2") }

// limit is far more than a run takes; the scenario waits for what it wants without a limit of its own.
const limit = 3 * time.Minute

// npm runs the scenario with the client that a folder's lock file names.
func npm(t *testing.T, folder string, lacks ...string) {
	t.Helper()
	dir := installed(t, filepath.Join("testdata", folder))
	p := start(t)
	has := present(t, p)
	setting, err := json.Marshal(map[string]any{"url": p.front.url, "token": p.key, "operations": has})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "run.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "POSTHASTE_CONFORMANCE="+string(setting))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, strings.ReplaceAll(out.String(), p.key, "***"))
	}
	covered(t, p, has, lacks...)
}

// installed is a folder with its dependencies in place. The test is skipped where there is no Node.js.
func installed(t *testing.T, dir string) string {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the npm client cannot be tried: no %s on this machine", tool)
		}
	}
	// Two test processes may come here at once, and npm ci begins by removing what is there. The lock lies
	// on the folder itself and ends with the process that holds it.
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", dir, err)
	}
	if current(dir) {
		return dir
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// current reports whether npm has finished installing what the lock file asks for. npm writes its
// hidden copy of the lock file last.
func current(dir string) bool {
	type lockFile struct {
		Packages map[string]struct {
			Integrity string `json:"integrity"`
		} `json:"packages"`
	}
	var want, have lockFile
	for file, into := range map[string]*lockFile{"package-lock.json": &want, "node_modules/.package-lock.json": &have} {
		text, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || json.Unmarshal(text, into) != nil {
			return false
		}
	}
	for name, p := range want.Packages {
		if name != "" && have.Packages[name].Integrity != p.Integrity {
			return false
		}
	}
	return true
}
