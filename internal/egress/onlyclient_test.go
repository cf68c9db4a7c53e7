package egress

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// otherClients are ways to an HTTP request past this package, and the switch that turns certificates off.
var otherClients = regexp.MustCompile(`\bhttp\.(Get|Post|PostForm|Head)\(|\bhttp\.Default(Client|Transport)\b|\bhttp\.(Client|Transport)\{|\bnew\(http\.(Client|Transport)\)|\bhttp\.ProxyFromEnvironment\b|\bInsecureSkipVerify\b`)

// exempt may have clients of their own: the load generator, which is not the product, and the SDKs,
// which run at the customer.
var exempt = []string{"internal/egress/", "cmd/lab/", "sdk/", "examples/"}

// exemptFiles talk to an address that nobody outside can choose, each for the reason given.
var exemptFiles = map[string]string{
	"cmd/posthaste/health.go": "asks the health route at the address this process was configured to listen on",
	"cmd/posthaste/sample.go": "calls the API of the process that the command itself started",
}

// TestThereIsOneClient walks the project's Go files: everything a stranger can aim goes through egress.
func TestThereIsOneClient(t *testing.T) {
	root := projectRoot(t)
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if entry.IsDir() {
			if base := entry.Name(); path != root && (strings.HasPrefix(base, ".") || base == "node_modules" || base == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || isExempt(name) {
			return nil
		}
		files++
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for number, line := range strings.Split(string(source), "\n") {
			if found := otherClients.FindString(line); found != "" && !strings.HasPrefix(strings.TrimSpace(line), "//") {
				t.Errorf("%s:%d: %s: requests go through internal/egress", name, number+1, found)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 5 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestOtherClientsAreRecognised(t *testing.T) {
	for line, want := range map[string]bool{
		`resp, err := http.Get(url)`: true, `http.Post(u, "", nil)`: true, `c := &http.Client{}`: true, `http.DefaultClient.Do(r)`: true,
		`c := http.Client{Timeout: t}`: true, `t := &http.Transport{`: true, `tls.Config{InsecureSkipVerify: true}`: true, `new(http.Client)`: true,
		`http.MethodPost`: false, `http.Getter(x)`: false, `w http.ResponseWriter`: false, `http.Error(w, "x", 1)`: false,
	} {
		if got := otherClients.MatchString(line); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func isExempt(name string) bool {
	if _, ok := exemptFiles[name]; ok {
		return true
	}
	for _, prefix := range exempt {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func projectRoot(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}
