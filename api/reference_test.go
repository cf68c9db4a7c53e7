package api

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/browsertest"
)

// Every operation of the document is on the page, reachable by its id, and everything that is linked is
// there. The page works as it is served: nothing comes from elsewhere, and its policy stops nothing.
func TestReference(t *testing.T) {
	t.Parallel()
	r := setup(t)
	page := browsertest.Start(t).NewPage(t)
	page.Open(r.url + "/docs")
	for _, op := range operations(golden(t)) {
		id := op.doc["operationId"].(string)
		shown := browsertest.Value[string](page, fmt.Sprintf(`(() => {
			const article = document.getElementById(%q);
			return article ? article.querySelector(".route").innerText + " " + article.querySelector("h3").innerText : "";
		})()`, id))
		if !strings.Contains(strings.ReplaceAll(shown, "\n", ""), op.method) || !strings.Contains(shown, op.path) || !strings.Contains(shown, strings.TrimSuffix(op.doc["summary"].(string), " (deprecated)")) {
			t.Errorf("%s is shown as %q", id, shown)
		}
		if n := browsertest.Value[int](page, fmt.Sprintf(`document.querySelectorAll('.side a[href="#%s"]').length`, id)); n != 1 {
			t.Errorf("%s is %d times in the contents", id, n)
		}
	}
	if broken := browsertest.Value[string](page, `[...document.querySelectorAll("a[href^='#']")].map((a) => a.hash.slice(1)).filter((id) => !document.getElementById(id)).join()`); broken != "" {
		t.Errorf("links to nothing: %s", broken)
	}
	if twice := browsertest.Value[string](page, `[...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i).join()`); twice != "" {
		t.Errorf("two things have the id: %s", twice)
	}
	var asked []string
	for _, request := range page.Requests() {
		asked = append(asked, strings.TrimPrefix(request.URL, r.url))
	}
	if slices.Sort(asked); !slices.Equal(slices.Compact(asked), []string{"/docs", "/docs/icon.svg", "/docs/reference.css", "/docs/reference.js"}) {
		t.Errorf("the page asked for %q", asked)
	}

	t.Run("what scripts add", func(t *testing.T) {
		page.Type(".side input", "resend")
		page.Wait(`document.querySelectorAll(".side li:not([hidden])").length === 1`)
		page.Type(".side input", "GET /app/{app_id}/msg")
		page.Wait(`document.querySelectorAll(".side li:not([hidden])").length > 1 && document.querySelector(".none").hidden`)
		page.Type(".side input", "nothing has this")
		page.Wait(`!document.querySelector(".none").hidden`)
		page.Open(r.url + "/docs#v1.message.create")
		page.Wait(`document.querySelector('.side a[href="#v1.message.create"]').getAttribute("aria-current") === "location"`)
		if top := browsertest.Value[float64](page, `document.getElementById("v1.message.create").getBoundingClientRect().top`); top < -1 || top > 100 {
			t.Errorf("the link leads to %.0f", top)
		}
	})
	t.Run("looks", func(t *testing.T) {
		for _, size := range [][2]int64{{1280, 800}, {360, 740}} {
			page.Size(size[0], size[1])
			for _, scheme := range []string{"light", "dark"} {
				page.Scheme(scheme)
				for _, anchor := range []string{"", "#errors", "#authentication", "#v1.endpoint.create", "#v1.message.create", "#v1.message-attempt.get"} {
					page.Open(r.url + "/docs" + anchor)
					page.Wait(`document.readyState === "complete"`)
					if wide := browsertest.Value[int](page, `document.documentElement.scrollWidth`); wide > int(size[0]) {
						t.Errorf("%d pixels wide in a window of %d", wide, size[0])
					}
					page.Screenshot(fmt.Sprintf("reference-%d-%s%s", size[0], scheme, strings.ReplaceAll(anchor, "#", "-")))
				}
				page.Click(`article[id="v1.message-attempt.list-by-msg"] .answer summary`)
				page.Click(`article[id="v1.message-attempt.list-by-msg"] .answer .fields summary`)
				page.Screenshot(fmt.Sprintf("reference-%d-%s-fields", size[0], scheme))
			}
		}
		page.Click(".menu summary")
		page.Wait(`document.querySelector(".menu nav").offsetHeight > 0`)
		page.Screenshot("reference-360-menu")
		page.Click(`.menu a[href="#v1.application.list"]`)
		page.Wait(`!document.querySelector(".menu").open && location.hash === "#v1.application.list"`)
	})
	t.Run("without scripts", func(t *testing.T) {
		page := browsertest.Start(t).NewPage(t)
		page.WithoutScripts()
		page.Open(r.url + "/docs#v1.endpoint.create")
		if text := browsertest.Value[string](page, `document.getElementById("v1.endpoint.create").innerText`); !strings.Contains(text, "curl") || strings.Contains(text, "Copy") {
			t.Errorf("%.500s", text)
		}
	})
}

func TestReferenceIsServedSafely(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for path, kind := range map[string]string{"/docs": "text/html", "/docs/": "text/html", "/docs/reference.css": "text/css", "/docs/reference.js": "text/javascript", "/docs/icon.svg": "image/svg+xml"} {
		got := r.do("GET", path, "", nil, "Accept-Encoding", "identity").want(200)
		h := got.header
		policy := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: policy %q lacks %s", path, policy, part)
			}
		}
		if strings.Contains(policy, "unsafe") || !strings.HasPrefix(h.Get("Content-Type"), kind) || h.Get("X-Content-Type-Options") != "nosniff" ||
			h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cache-Control") != "no-cache" || h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: %v", path, h)
		}
		r.do("GET", path, "", nil, "Accept-Encoding", "gzip;q=0", "If-None-Match", "W/"+h.Get("ETag")).want(http.StatusNotModified)
		if head := r.do("HEAD", path, "", nil, "Accept-Encoding", "identity").want(200); len(head.body) > 0 || head.header.Get("ETag") != h.Get("ETag") {
			t.Errorf("%s: %v", path, head.header)
		}
		packed := r.do("GET", path, "", nil, "Accept-Encoding", "br, gzip;q=0.8").want(200)
		if packed.header.Get("Content-Encoding") != "gzip" || packed.header.Get("ETag") == h.Get("ETag") || packed.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %v", path, packed.header)
		}
		t.Logf("%s: %d bytes, %d compressed", path, len(got.body), len(packed.body))
	}
	r.do("GET", "/docs/page.html", "", nil).want(404)
	r.do("POST", "/docs", "", nil).want(405)
}

// The example of every operation is one that the API takes.
func TestExamplesAreValid(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	a.post("/event-type", `{"name":"invoice.paid","description":"d"}`).want(201)
	schemas := golden(t)["components"].(map[string]any)["schemas"].(map[string]any)
	for name := range bodyExamples {
		if schemas[name] == nil {
			t.Errorf("there is no %s to give an example of", name)
		}
	}
	for _, op := range operations(golden(t)) {
		body, ok := op.doc["requestBody"].(map[string]any)
		if !ok {
			continue
		}
		ref := body["content"].(map[string]any)["application/json"].(map[string]any)["schema"].(map[string]any)["$ref"].(string)
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		example := bodyExamples[name]
		if example == "" {
			t.Errorf("%s needs an example in bodyExamples", name)
			continue
		}
		// A range of the past may be too long ago by now.
		example = strings.ReplaceAll(example, "2026-03-02", time.Now().Add(-36*time.Hour).UTC().Format(time.DateOnly))
		key := a.key
		if strings.HasPrefix(op.path, operatorPath) {
			key = operatorToken
		}
		values := map[string]string{}
		for parameter, value := range parameterExamples {
			values[parameter] = value
		}
		if got := a.do(op.method, fill(op.path, values), key, example); got.status == 400 || got.status >= 422 || got.status == 401 || got.status == 403 {
			t.Errorf("%s %s: the example is answered with %d %s", op.method, op.path, got.status, got.body)
		}
	}
}
