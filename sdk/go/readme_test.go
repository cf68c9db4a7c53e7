package posthaste_test

import (
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// What the README shows is Go that means something: every block is type-checked as part of a program that
// has a client.
func TestReadmeIsGo(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 5 {
		t.Fatalf("%d blocks of Go", len(blocks))
	}
	set := token.NewFileSet()
	check := types.Config{Importer: importer.ForCompiler(set, "gc", compiled(t, ".", "context", "errors", "fmt", "net/http", "os"))}
	var failed bool
	// A sample leaves out what it does not show: that a value is used, that a function returns.
	check.Error = func(err error) {
		if e := err.(types.Error); !e.Soft && !strings.Contains(e.Msg, "missing return") {
			failed = true
			t.Errorf("README.md: %v", err)
		}
	}
	for _, block := range blocks {
		lines := regexp.MustCompile(`(?m)^import .*$`).ReplaceAllString(block[1], "")
		source := `package sample
import ("context"; "errors"; "fmt"; "net/http"; "os"; posthaste "github.com/posthaste/posthaste/sdk/go")
var (_ = errors.Is; _ = fmt.Sprint; _ = http.Get; _ = os.Getenv)
func sample(ctx context.Context, client *posthaste.Client, err error) error {
` + lines + `
	return err
}`
		// What is declared in the sample hides the arguments.
		file, err := parser.ParseFile(set, "README.md", strings.Replace(source, ") error {\n", ") error { {\n", 1)+"}", 0)
		if err != nil {
			t.Errorf("%v in\n%s", err, block[1])
			continue
		}
		failed = false
		if _, _ = check.Check("sample", set, []*ast.File{file}, nil); failed {
			t.Logf("in\n%s", block[1])
		}
	}
}

// compiled opens what the compiler knows of packages and of what they import.
func compiled(t *testing.T, packages ...string) func(path string) (io.ReadCloser, error) {
	t.Helper()
	list, err := exec.CommandContext(t.Context(), "go", append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}} {{.Export}}"}, packages...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(list)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
}
