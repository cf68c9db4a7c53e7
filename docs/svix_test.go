package docs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/contracttest"
)

// What the page says is missing is missing, and nothing else is.
func TestMissingOperationsAreNamed(t *testing.T) {
	var document struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal([]byte(readPage(t, "../api/openapi.json")), &document); err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, operation := range contracttest.Operations() {
		method, path, _ := strings.Cut(operation, " ")
		_, exists := document.Paths[path][strings.ToLower(method)]
		if exists || strings.HasPrefix(path, "/api/v1/health") { // which needs no key, and is not in the document
			continue
		}
		if want.Len() == 0 {
			want.WriteString("| method | path |\n| --- | --- |\n")
		}
		fmt.Fprintf(&want, "| %s | `%s` |\n", method, path)
	}
	have := section(t, "coming-from-svix.md", "missing")
	if *update {
		const mark = "<!-- missing -->\n"
		page := strings.Replace(readPage(t, "coming-from-svix.md"), mark+have, mark+want.String(), 1)
		if err := os.WriteFile("coming-from-svix.md", []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		have = want.String()
	}
	if have != want.String() {
		t.Errorf("what is missing is not what the page says (-update rewrites it); want\n%s", want.String())
	}
}

// The clients that the page names are those of the tests.
func TestClientsAreThoseOfTheTests(t *testing.T) {
	var want strings.Builder
	want.WriteString("| client | version |\n| --- | --- |\n")
	for _, folder := range []string{"js2", "js1"} {
		var pack struct{ Dependencies map[string]string }
		if err := json.Unmarshal([]byte(readPage(t, "../internal/conformance/testdata/"+folder+"/package.json")), &pack); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&want, "| npm `svix` | %s |\n", pack.Dependencies["svix"])
	}
	module := regexp.MustCompile(`(?m)(github\.com/svix/svix-webhooks) v(\S+)`).FindStringSubmatch(readPage(t, "../go.mod"))
	if module == nil {
		t.Fatal("go.mod does not have the client")
	}
	fmt.Fprintf(&want, "| Go `%s` | %s |\n", module[1], module[2])
	var react struct{ Dependencies map[string]string }
	if err := json.Unmarshal([]byte(readPage(t, "../internal/conformance/testdata/react/package.json")), &react); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&want, "| npm `svix-react`, in a browser | %s |\n", react.Dependencies["svix-react"])
	if have := section(t, "coming-from-svix.md", "clients"); have != want.String() {
		t.Errorf("clients on the page:\n%s\nwant\n%s", have, want.String())
	}
}
