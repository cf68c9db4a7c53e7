package app_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/posthaste/posthaste/"

// rank orders the packages: one may import only what ranks lower. Packages below another share its
// rank, so that a package may be split.
var rank = map[string]int{
	"internal/webhook": 0,
	"migrations":       0,

	"internal/signature":   1,
	"internal/egress":      1,
	"internal/ratelimit":   1,
	"internal/schema":      1,
	"internal/embedded":    1,
	"internal/telemetry":   1,
	"internal/seal":        1,
	"internal/failpoint":   1,
	"internal/groupcommit": 1,

	"internal/store": 2,
	"internal/queue": 2,
	"internal/auth":  2,

	"internal/dispatch": 3,
	"internal/publish":  4,
	"internal/task":     4,

	"portal": 4,

	"api":    5,
	"worker": 5,

	"internal/app": 6,
	"cmd":          7,
	"examples":     7,
}

// owners are the only importers of a library.
var owners = map[string][]string{
	"gorm.io":                       {"internal/store"},
	"github.com/hibiken/asynq":      {"internal/queue"},
	"github.com/golang-jwt":         {"internal/auth"},
	"github.com/gin-gonic":          {"api"},
	"github.com/danielgtaylor/huma": {"api"},
	"github.com/pressly/goose":      {"internal/store"},
	"github.com/spf13/cobra":        {"cmd"},
	"github.com/tetratelabs/wazero": {"worker"},
	"github.com/standard-webhooks":  {}, // our signatures are checked against it, not made with it
	"github.com/stretchr":           {},
	"go.uber.org/mock":              {},
	"github.com/golang/mock":        {},
	"github.com/testcontainers":     {},
	"github.com/fergusstrange":      {},
	"github.com/svix":               {},
	"github.com/chromedp":           {},
	"github.com/sirupsen/logrus":    {},
	"github.com/joho/godotenv":      {},
	"github.com/spf13/viper":        {},
}

// within reports whether a package is one of a family or below it.
func within(pkg, family string) bool { return pkg == family || strings.HasPrefix(pkg, family+"/") }

func rankOf(pkg string) (family string, r int, ok bool) {
	for family, r := range rank {
		if within(pkg, family) {
			return family, r, true
		}
	}
	return "", 0, false
}

// testSupport reports whether a package exists for tests: storetest, signaturetest and what is below them.
func testSupport(pkg string) bool {
	return slices.ContainsFunc(strings.Split(pkg, "/"), func(part string) bool { return strings.HasSuffix(part, "test") })
}

// importBreaks says which rules a package of ours breaks by an import. Test files may reach further
// up, or a pipeline could not be tested end to end; libraries with an owner are the owner's even there,
// unless nobody may have them outside of tests.
func importBreaks(pkg, imported string, inTest bool) string {
	inTest = inTest || testSupport(pkg)
	own, isOwn := strings.CutPrefix(imported, module)
	if !isOwn {
		for library, by := range owners {
			if !strings.HasPrefix(imported, library) || inTest && len(by) == 0 {
				continue
			}
			if !slices.ContainsFunc(by, func(family string) bool { return within(pkg, family) }) {
				return fmt.Sprintf("%s imports %s, which belongs to %v", pkg, imported, by)
			}
		}
		return ""
	}
	if inTest || strings.HasPrefix(own, "sdk/") && within(pkg, "examples") {
		return ""
	}
	if testSupport(own) {
		if within(pkg, "cmd/lab") {
			return ""
		}
		return fmt.Sprintf("%s imports %s, which is for tests", pkg, own)
	}
	family, r, ok := rankOf(pkg)
	if !ok {
		return fmt.Sprintf("%s has no place in the order of packages", pkg)
	}
	ownFamily, ownRank, ok := rankOf(own)
	if !ok {
		return fmt.Sprintf("%s imports %s, which has no place in the order of packages", pkg, own)
	}
	if family == ownFamily || ownRank < r {
		return ""
	}
	return fmt.Sprintf("%s imports %s, which is not below it", pkg, own)
}

func TestImportRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		pkg, imported string
		inTest        bool
		breaks        bool
	}{
		{"internal/webhook", "time", false, false},
		{"internal/webhook", module + "internal/store", false, true},
		{"internal/webhook", module + "internal/signature", false, true},
		{"internal/signature", module + "internal/webhook", false, false},
		{"internal/signature", module + "internal/seal", false, true},
		{"internal/telemetry", module + "internal/store", false, true},
		{"internal/store", module + "internal/webhook", false, false},
		{"internal/store", module + "internal/seal", false, false},
		{"internal/store", module + "internal/queue", false, true},
		{"internal/queue", module + "internal/store", false, true},
		{"internal/auth", module + "internal/store", false, true},
		{"internal/dispatch", module + "internal/store", false, false},
		{"internal/dispatch", module + "internal/publish", false, true},
		{"internal/publish", module + "internal/dispatch", false, false},
		{"internal/publish", module + "api", false, true},
		{"api", module + "internal/publish", false, false},
		{"api", module + "worker", false, true},
		{"worker", module + "api", false, true},
		{"worker", module + "api", true, false},
		{"api", module + "internal/app", false, true},
		{"internal/app", module + "api", false, false},
		{"internal/app", module + "cmd/posthaste", false, true},
		{"cmd/posthaste", module + "internal/app", false, false},
		{"cmd/lab", module + "cmd/lab/wire", false, false},
		{"internal/signature/vectors", module + "internal/signature", false, false},
		{"internal/store", module + "internal/storetest", false, true},
		{"internal/store", module + "internal/storetest", true, false},
		{"internal/storetest", module + "internal/store", false, false},
		{"internal/storetest/testenv", module + "internal/embedded", false, false},
		{"internal/misc", module + "internal/webhook", false, true},
		{"api", module + "internal/misc", false, true},
		{"api", "gorm.io/gorm", false, true},
		{"api", "gorm.io/gorm", true, true},
		{"internal/store", "gorm.io/gorm/schema", false, false},
		{"worker", "github.com/hibiken/asynq", false, true},
		{"internal/app", "github.com/gin-gonic/gin", false, true},
		{"api", "github.com/danielgtaylor/huma/v2", false, false},
		{"internal/publish", "github.com/golang-jwt/jwt/v5", false, true},
		{"internal/signature", "github.com/standard-webhooks/standard-webhooks/libraries/go", true, false},
		{"internal/signature", "github.com/standard-webhooks/standard-webhooks/libraries/go", false, true},
	} {
		if got := importBreaks(c.pkg, c.imported, c.inTest); (got != "") != c.breaks {
			t.Errorf("%s imports %s (test %v): %q", c.pkg, c.imported, c.inTest, got)
		}
	}
}

// source is one Go file of the repository.
type source struct {
	pkg    string // folder, from the repository's root
	file   *ast.File
	set    *token.FileSet
	inTest bool
}

// sources parses every Go file of this module.
func sources(t *testing.T) (all []source) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			base := entry.Name()
			if name != root && (strings.HasPrefix(base, ".") || base == "node_modules" || base == "testdata") {
				return filepath.SkipDir
			}
			// A folder with a go.mod is another module.
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && name != root {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(name))
		if err != nil {
			return err
		}
		all = append(all, source{filepath.ToSlash(rel), file, set, strings.HasSuffix(name, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found", len(all))
	}
	return all
}

func TestImportsGoOneWay(t *testing.T) {
	for _, s := range sources(t) {
		for _, spec := range s.file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if broken := importBreaks(s.pkg, imported, s.inTest); broken != "" {
				t.Errorf("%s: %s", s.set.Position(spec.Pos()), broken)
			}
		}
	}
}

// clients are the ways net/http has of making a request. What a stranger can aim goes through egress,
// which decides what may be dialled, so that nothing else may have one.
var clients = []string{"Client", "DefaultClient", "Transport", "DefaultTransport", "Get", "Head", "Post", "PostForm"}

// mayCall reports whether a package has its own HTTP client: egress, and commands whose target is
// whoever runs them.
func mayCall(pkg string) bool {
	return within(pkg, "internal/egress") || within(pkg, "cmd") || within(pkg, "examples")
}

// forbiddenUses are the places of a file where it makes HTTP requests or switches off TLS's checks.
func forbiddenUses(s source) (at []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "http" && slices.Contains(clients, n.Sel.Name) && !mayCall(s.pkg) {
				at = append(at, fmt.Sprintf("%s: http.%s; requests go through internal/egress", s.set.Position(n.Pos()), n.Sel.Name))
			}
		case *ast.Ident:
			if n.Name == "InsecureSkipVerify" {
				at = append(at, fmt.Sprintf("%s: %s", s.set.Position(n.Pos()), n.Name))
			}
		}
		return true
	})
	return at
}

func TestOnlyEgressMakesRequests(t *testing.T) {
	for _, s := range sources(t) {
		if s.inTest || testSupport(s.pkg) {
			continue
		}
		for _, use := range forbiddenUses(s) {
			t.Error(use)
		}
	}
}

func TestForbiddenUsesAreFound(t *testing.T) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "x.go", `package x
import "net/http"
var a = http.DefaultClient
var b = &http.Client{}
var c = tls.Config{InsecureSkipVerify: true}
func d() { http.Get("x"); http.NewRequest("GET", "x", nil) }`, 0)
	if err != nil {
		t.Fatal(err)
	}
	if at := forbiddenUses(source{pkg: "worker", file: file, set: set}); len(at) != 4 {
		t.Errorf("found %q", at)
	}
	if at := forbiddenUses(source{pkg: "internal/egress", file: file, set: set}); len(at) != 1 {
		t.Errorf("in egress found %q", at)
	}
}

// topLevel is what may lie at the top of the repository.
var topLevel = []string{
	"cmd", "api", "worker", "portal", "migrations", "sdk", "examples", "internal", "docs", ".ci",
	"docker-compose.yml", "Dockerfile", "go.mod", "go.sum", "README.md", "Makefile", "LICENSE", "SECURITY.md",
	"staticcheck.conf", ".gitignore",
}

func TestTopLevelHoldsOnlyWhatIsAgreed(t *testing.T) {
	const root = "../.."
	ignore, err := os.ReadFile(path.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	allowed := append([]string{".git", "go.work", "go.work.sum"}, topLevel...)
	for _, match := range regexp.MustCompile(`(?m)^/([^/\s]+)/?$`).FindAllStringSubmatch(string(ignore), -1) {
		allowed = append(allowed, match[1])
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if !slices.Contains(allowed, entry.Name()) {
			t.Errorf("%s is not one of the agreed folders and files", entry.Name())
		}
	}
}
