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

	"github.com/posthaste/posthaste/internal/npmtest"
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
	dir := filepath.Join("testdata", folder)
	npmtest.Install(t, dir)
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
