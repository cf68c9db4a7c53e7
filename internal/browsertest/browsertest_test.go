package browsertest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve serves one page at every path but those of answers.
func serve(t *testing.T, policy, page string, answers map[string]int) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		if policy != "" {
			w.Header().Set("Content-Security-Policy", policy)
		}
		if status, ok := answers[r.URL.Path]; ok {
			w.WriteHeader(status)
			return
		}
		_, _ = fmt.Fprintf(w, `<!doctype html><title>t</title><link rel="icon" href="data:,">%s`, page)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// watched notes errors instead of failing.
type watched struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (w *watched) Error(args ...any)      { w.errors = append(w.errors, fmt.Sprint(args...)) }
func (w *watched) Cleanup(cleanup func()) { w.cleanups = append(w.cleanups, cleanup) }
func (w *watched) finish()                { w.cleanups[0]() }
func (w *watched) has(part string) bool   { return strings.Contains(strings.Join(w.errors, "\n"), part) }

func TestWhatAPageComplainsOfFailsTheTest(t *testing.T) {
	browser := Start(t)
	for _, c := range []struct{ name, policy, page, want string }{
		{"console.error", "", `<script>console.error("canary", 7)</script>`, "canary 7"},
		{"exception", "", `<script>throw new Error("canary")</script>`, "Error: canary"},
		{"rejection", "", `<script>Promise.reject(new Error("canary"))</script>`, "Error: canary"},
		{"policy on scripts", "script-src 'self'", `<script>1</script>`, "Content Security Policy"},
		{"policy on styles", "style-src 'self'", `<p style="color: red">x`, "Content Security Policy"},
		{"missing", "", `<img src="/missing">`, "404"},
		{"request elsewhere", "", `<img src="http://elsewhere.example/x.png">`, "leaves the machine"},
		{"nothing", "default-src 'self'; img-src data:", `<p>fine`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &watched{TB: t}
			p := browser.NewPage(w)
			p.Open(serve(t, c.policy, c.page, map[string]int{"/missing": 404}))
			p.Wait(`document.readyState === "complete"`)
			w.finish()
			if c.want == "" && len(w.errors) > 0 || !w.has(c.want) {
				t.Errorf("errors %q, want %q", w.errors, c.want)
			}
		})
	}
	t.Run("allowed", func(t *testing.T) {
		p := browser.NewPage(t, "status of 404")
		p.Open(serve(t, "", `<img src="/missing">`, map[string]int{"/missing": 404}))
	})
}

func TestPage(t *testing.T) {
	p := Start(t).NewPage(t)
	p.Scheme("dark")
	p.Size(400, 300)
	address := serve(t, "script-src 'self'; style-src 'self'", `<input value="old"><a href="/next">next</a>`, nil)
	p.Open(address)
	if got := Value[string](p, `[innerWidth, matchMedia("(prefers-color-scheme: dark)").matches].join()`); got != "400,true" {
		t.Error(got)
	}
	p.Type("input", "new")
	p.Wait(`document.querySelector("input").value === "new"`)
	p.Type("input", "newer")
	p.Wait(`document.querySelector("input").value === "newer"`)
	p.Click("a")
	p.Wait(`location.pathname === "/next"`)
	p.Screenshot("next")
	requests := p.Requests()
	if len(requests) == 0 || requests[0] != (Request{"GET", address + "/", "Document"}) || requests[len(requests)-1].URL != address+"/next" {
		t.Errorf("%+v", requests)
	}
}

func TestWithoutScripts(t *testing.T) {
	p := Start(t).NewPage(t)
	p.WithoutScripts()
	p.Open(serve(t, "", `<script>document.title = "ran"</script>`, nil))
	if title := Value[string](p, `document.title`); title != "t" {
		t.Error(title)
	}
}
