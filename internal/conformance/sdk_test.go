package conformance_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// Our own client is a module of its own, and so is the program that uses it here: it has an address and
// a token, as a customer has, and nothing else of ours. So it runs as a program, and this module needs no
// requirement of a version, no replacement and no workspace for it.
func TestOwnSDK(t *testing.T) {
	t.Parallel()
	p := start(t)
	profile := filepath.Join(t.TempDir(), "coverage")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestEveryOperation$",
		"-coverpkg=github.com/posthaste/posthaste/sdk/go", "-coverprofile="+profile, "./internal/customer")
	cmd.Dir = filepath.FromSlash("../../sdk/go")
	cmd.Env = append(os.Environ(), "GOWORK=off",
		"POSTHASTE_TEST_URL="+p.front.url, "POSTHASTE_TEST_OPERATOR_TOKEN="+operatorToken, "POSTHASTE_TEST_FAULTS="+p.front.url+faultPath)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, id := range p.front.document.OperationIDs() {
		if !p.front.succeeded(id) {
			t.Errorf("%s was not called with success: add a step for it to sdk/go/internal/customer", id)
		}
	}
	// Some operations have two methods, so the operations alone do not show that each was called.
	text, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	methods := regexp.MustCompile(`(?m)operations\.gen\.go:(\d+)\.\S+ \d+ (\d+)$`).FindAllStringSubmatch(string(text), -1)
	if len(methods) < 50 {
		t.Fatalf("only %d methods in the coverage", len(methods))
	}
	for _, m := range methods {
		if m[2] == "0" {
			t.Errorf("sdk/go/operations.gen.go:%s was not called: add a step for it to sdk/go/internal/customer", m[1])
		}
	}
}
