package app_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/app"
)

var update = flag.Bool("update", false, "rewrite what the documentation says instead of comparing")

func TestDocumentedSettings(t *testing.T) {
	const path = "../../docs/configuration.md"
	const begin, end = "-update` -->\n", "<!-- /settings -->"
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: the marks round the table are gone", path)
	}
	want := "\n" + app.SettingsTable() + "\n"
	if table == want {
		return
	}
	if !*update {
		t.Fatalf("%s is behind the settings; run: go test ./internal/app -run TestDocumentedSettings -update", path)
	}
	if err := os.WriteFile(path, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
