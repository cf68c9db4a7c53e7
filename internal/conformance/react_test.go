package conformance_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/posthaste/posthaste/internal/browsertest"
	"github.com/posthaste/posthaste/internal/npmtest"
)

// abroad is the product as a page of another origin meets it: it notes what a browser asks and gets.
type abroad struct {
	url string

	mu   sync.Mutex
	seen []exchange
}

type exchange struct {
	method, path    string
	status          int
	request, answer http.Header
}

func newAbroad(t *testing.T, f *front) *abroad {
	a := &abroad{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noted := &noting{ResponseWriter: w, status: http.StatusOK}
		f.ServeHTTP(noted, r)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.seen = append(a.seen, exchange{r.Method, r.URL.Path, noted.status, r.Header.Clone(), w.Header().Clone()})
	}))
	t.Cleanup(server.Close)
	a.url = server.URL
	return a
}

func (a *abroad) exchanges() []exchange {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]exchange{}, a.seen...)
}

// noting is a response writer that remembers the status.
type noting struct {
	http.ResponseWriter
	status int
}

func (n *noting) WriteHeader(status int) { n.status = status; n.ResponseWriter.WriteHeader(status) }

// shop is a page of a tenant's, on an origin of its own, that shows one customer their endpoints.
type shop struct {
	url     string
	setting map[string]string
}

func newShop(t *testing.T, serverURL, token, application string) *shop {
	t.Helper()
	dir := filepath.Join("testdata", "react")
	npmtest.Install(t, dir)
	script := filepath.Join(t.TempDir(), "page.js")
	build := exec.CommandContext(t.Context(), "node", "node_modules/esbuild/bin/esbuild", "page.jsx", "--bundle", "--format=esm", "--jsx=automatic",
		"--define:process={}", // the client reads Node's, which a browser has not
		`--define:process.env.NODE_ENV="production"`, "--outfile="+script)
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("bundle the page: %v\n%s", err, out)
	}
	s := &shop{setting: map[string]string{"serverUrl": serverURL, "token": token, "application": application}}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(dir, "index.html"))
	})
	mux.HandleFunc("/page.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, script) })
	mux.HandleFunc("/setting.json", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(s.setting) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = strings.Replace(server.URL, "127.0.0.1", "localhost", 1) // another host, not only another port
	return s
}

// shown is what the page shows of a hook.
type shown struct {
	Data  any
	Error *struct {
		Name string
		Code int
		Body struct {
			Code   string
			Detail any
		}
	}
}

func show(t *testing.T, page *browsertest.Page, selector string) (out shown) {
	t.Helper()
	page.Wait(fmt.Sprintf(`document.querySelector(%q)?.textContent.length > 2`, selector))
	text := browsertest.Value[string](page, fmt.Sprintf(`document.querySelector(%q).textContent`, selector))
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatalf("%s: %v: %s", selector, err, text)
	}
	return out
}

// A page of a foreign origin lets a customer manage endpoints with the official React hooks and an
// application token, and gets errors as the client's own.
func TestReactHooks(t *testing.T) {
	t.Parallel()
	browser := browsertest.Start(t)
	p := start(t)
	status, text := p.call(t, http.MethodPost, "/api/v1/auth/app-portal-access/shop", p.key, `{"application":{"name":"Shop","uid":"shop"}}`)
	var access struct{ Token string }
	if err := json.Unmarshal(text, &access); err != nil || status != http.StatusOK || access.Token == "" {
		t.Fatalf("app-portal-access: %d %s", status, text)
	}
	if status, text := p.call(t, http.MethodPost, "/api/v1/event-type", p.key, `{"name":"invoice.paid","description":"An invoice is paid"}`); status != http.StatusCreated {
		t.Fatalf("event type: %d %s", status, text)
	}
	api := newAbroad(t, p.front)
	s := newShop(t, api.url, access.Token, "shop")
	page := browser.NewPage(t, "status of 401", "status of 404", "status of 422")

	page.Open(s.url)
	ids := map[string]string{}
	for _, name := range []string{"one", "two", "three"} {
		if name == "three" {
			page.Click("#types")
		}
		page.Type("#new-url", "http://127.0.0.1:8072/"+name)
		page.Type("#new-description", name)
		page.Click("#create")
		page.Wait(fmt.Sprintf(`document.querySelector("li[data-description=%s]")`, name))
		ids[name] = browsertest.Value[string](page, fmt.Sprintf(`document.querySelector("li[data-description=%s]").dataset.id`, name))
	}
	if got := browsertest.Value[string](page, `[...document.querySelectorAll("li")].map((li) => [li.dataset.description, li.dataset.types, li.dataset.rate].join()).join(";")`); got != `three,["invoice.paid"],7;two,null,` && got != `three,["invoice.paid"],7;two,[],` {
		t.Errorf("the list is %s", got)
	}
	page.Click("#next")
	page.Wait(`document.querySelector("li[data-description=one]") && !document.querySelector("#previous").disabled && document.querySelector("#next").disabled`)
	page.Click("#previous")
	page.Wait(`document.querySelector("li[data-description=three]")`)

	one := func(name, button string) string { return fmt.Sprintf(`li[data-id=%s] .%s`, ids[name], button) }
	page.Click(one("two", "update"))
	page.Wait(fmt.Sprintf(`document.querySelector("li[data-id=%s]").dataset.description === "changed" && document.querySelector("li[data-id=%[1]s]").dataset.disabled === "true"`, ids["two"]))
	page.Click(one("three", "delete"))
	page.Wait(fmt.Sprintf(`document.querySelectorAll("li").length === 2 && !document.querySelector("li[data-id=%s]")`, ids["three"]))
	page.Screenshot("endpoints")

	// The server has what the page says.
	_, text = p.call(t, http.MethodGet, "/api/v1/app/shop/endpoint?order=ascending", p.key, "")
	var list struct {
		Data []struct {
			ID, Description string
			Disabled        bool
		}
	}
	if err := json.Unmarshal(text, &list); err != nil || len(list.Data) != 2 || list.Data[0].ID != ids["one"] || !list.Data[1].Disabled || list.Data[1].Description != "changed" {
		t.Errorf("%v %s", err, text)
	}

	t.Run("errors", func(t *testing.T) {
		page.Type("#new-url", "nowhere")
		page.Click("#create")
		page.Wait(`document.querySelector("#created").textContent.includes("error")`)
		got := show(t, page, "#created")
		if e := got.Error; e == nil || e.Name != "ApiException" && e.Code != 422 || e.Code != 422 || !strings.Contains(fmt.Sprint(e.Body.Detail), "body url") {
			t.Errorf("a bad URL: %+v", got)
		}
		page.Click(one("one", "spoil"))
		page.Wait(fmt.Sprintf(`document.querySelector("li[data-id=%s] .failed")?.textContent.includes("422")`, ids["one"]))
		// Deleted behind the page's back: the next look at it fails as not found.
		page.Open(s.url + "/?endpoint=" + ids["three"])
		if e := show(t, page, "#endpoint").Error; e == nil || e.Code != 404 || e.Body.Code != "not_found" {
			t.Errorf("a deleted endpoint: %+v", e)
		}
	})
	t.Run("details", func(t *testing.T) {
		page.Open(s.url + "/?endpoint=" + ids["one"])
		for _, hook := range []string{"#endpoint", "#secret", "#stats", "#attempts", "#messages", "#event-types", "#headers"} {
			if got := show(t, page, hook); got.Error != nil || got.Data == nil {
				t.Errorf("%s: %+v", hook, got)
			}
		}
		page.Click("#set-headers")
		page.Wait(`document.querySelector("#headers")?.textContent.includes('"x-shop":"1"')`)
		page.Click("#patch-headers")
		page.Wait(`document.querySelector("#headers")?.textContent.includes('"x-shop":"2"')`)
	})
	t.Run("ended token", func(t *testing.T) {
		if status, text := p.call(t, http.MethodPost, "/api/v1/auth/app/shop/expire-all", p.key, `{}`); status != http.StatusNoContent {
			t.Fatalf("expire-all: %d %s", status, text)
		}
		for { // the server may believe a session for up to a second
			page.Open(s.url + "/?endpoint=" + ids["one"])
			if e := show(t, page, "#endpoint").Error; e != nil {
				if e.Code != 401 || e.Body.Code != "authentication_failed" {
					t.Errorf("%+v", e)
				}
				break
			}
		}
	})
	checkCORS(t, api.exchanges(), s.url)
}

// checkCORS looks at what passed between a browser and the API.
func checkCORS(t *testing.T, seen []exchange, origin string) {
	t.Helper()
	asked, statuses, methods := map[string]int{}, map[int]int{}, map[string]int{}
	for _, e := range seen {
		if e.request.Get("Origin") != origin || e.request.Get("Cookie") != "" {
			t.Errorf("%s %s comes from %q with cookies %q", e.method, e.path, e.request.Get("Origin"), e.request.Get("Cookie"))
		}
		if e.answer.Get("Access-Control-Allow-Origin") != "*" || e.answer.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s %s → %d: %v", e.method, e.path, e.status, e.answer)
		}
		if e.method != http.MethodOptions {
			statuses[e.status]++
			methods[e.method]++
			if !strings.Contains(e.answer.Get("Access-Control-Expose-Headers"), "x-request-id") {
				t.Errorf("%s %s: the page cannot read the request id", e.method, e.path)
			}
			continue
		}
		asked[e.request.Get("Access-Control-Request-Method")+" "+e.path]++
		if e.status != http.StatusNoContent || e.answer.Get("Access-Control-Max-Age") != "600" {
			t.Errorf("preflight of %s: %d %v", e.path, e.status, e.answer)
		}
		allowed := e.answer.Get("Access-Control-Allow-Headers")
		wanted := e.request.Get("Access-Control-Request-Headers")
		for _, name := range []string{"authorization", "svix-req-id"} {
			if !strings.Contains(wanted, name) {
				t.Errorf("the client no longer sends %s: %s", name, wanted)
			}
		}
		if method := e.request.Get("Access-Control-Request-Method"); method == http.MethodPost && !strings.Contains(wanted, "idempotency-key") {
			t.Errorf("the client no longer sends idempotency keys: %s", wanted)
		}
		if allowed != wanted || !strings.Contains(e.answer.Get("Access-Control-Allow-Methods"), e.request.Get("Access-Control-Request-Method")) {
			t.Errorf("preflight of %s asked for %s, got %v", e.path, wanted, e.answer)
		}
	}
	for _, status := range []int{200, 201, 204, 401, 404, 422} {
		if statuses[status] == 0 {
			t.Errorf("no answer of %d passed", status)
		}
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		if methods[method] == 0 {
			t.Errorf("no %s passed", method)
		}
	}
	// The browser asks once and remembers it for Max-Age; the page lists far more often.
	if n := asked["POST /api/v1/app/shop/endpoint"]; n != 1 {
		t.Errorf("%d preflights for creating endpoints", n)
	}
}
