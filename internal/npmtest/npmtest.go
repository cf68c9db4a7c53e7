// Package npmtest puts npm packages in place for tests that judge us by code that is not ours. For tests
// only.
package npmtest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Install has in dir what its package-lock.json names, and nothing else: no script of a package is run.
// The test is skipped where there is no Node.js.
func Install(t testing.TB, dir string) {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("npm packages cannot be tried: no %s on this machine", tool)
		}
	}
	// Test processes of several packages may come here at once, and npm ci begins by removing what is
	// there. The lock lies on the folder itself and ends with the process that holds it.
	lock, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatalf("lock %s: %v", dir, err)
	}
	if current(dir) {
		return
	}
	cmd := exec.CommandContext(t.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
}

// current reports whether npm has finished installing what the lock file asks for. npm writes its
// hidden copy of the lock file last.
func current(dir string) bool {
	type lockFile struct {
		Packages map[string]struct {
			Integrity string `json:"integrity"`
			Optional  bool   `json:"optional"` // such as binaries for other systems, which npm leaves out
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
		installed, ok := have.Packages[name]
		if name == "" || !ok && p.Optional {
			continue
		}
		if installed.Integrity != p.Integrity {
			return false
		}
	}
	return true
}
