package failpoint_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A point that nothing passes would be a fault that no test can inject, and looks like one that can.
func TestEveryPointIsPassedSomewhere(t *testing.T) {
	text, err := os.ReadFile("names.go")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)^\t(\w+) +Point = "`).FindAllStringSubmatch(string(text), -1)
	passed := make(map[string]bool)
	pass := regexp.MustCompile(`failpoint\.(?:Hit|HitOf|Error)\(failpoint\.(\w+)[,)]`)
	for _, dir := range []string{"api", "worker", "internal"} {
		err := filepath.WalkDir(filepath.Join("..", "..", dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return fs.SkipDir
			case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			source, err := os.ReadFile(path)
			for _, m := range pass.FindAllSubmatch(source, -1) {
				passed[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(named) < 10 {
		t.Fatalf("only %d points were found", len(named))
	}
	for _, n := range named {
		if !passed[n[1]] {
			t.Errorf("nothing passes %s", n[1])
		}
	}
}
