package reference

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

func TestPretty(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ value, want string }{
		{`{"a":1,"b":[1,2]}`, `{"a": 1, "b": [1, 2]}`},
		{`"a:b,\"c:d"`, `"a:b,\"c:d"`},
		{`{}`, `{}`},
		{`{"description":"An invoice is paid in full.","other":"this is too long","list":[]}`,
			"{\n  \"description\": \"An invoice is paid in full.\",\n  \"other\": \"this is too long\",\n  \"list\": []\n}"},
		{`[{"eventType":"invoice.paid","id":"in_1043"},{"eventType":"invoice.paid","id":"in_1044"}]`,
			"[\n  {\"eventType\": \"invoice.paid\", \"id\": \"in_1043\"},\n  {\"eventType\": \"invoice.paid\", \"id\": \"in_1044\"}\n]"},
	} {
		got, err := pretty(json.RawMessage(c.value))
		if err != nil || got != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.value, err, got, c.want)
		}
	}
}

func TestHighlight(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for _, part := range highlight(`{"a": "b: \"1\"", "c": [-1.5e3, true, null]}`) {
		if part.Class == "" {
			b.WriteString(part.Text)
		} else {
			b.WriteString("<" + part.Class + " " + part.Text + ">")
		}
	}
	if want := `{<key "a">: <string "b: \"1\"">, <key "c">: [<number -1.5e3>, <number true>, <number null>]}`; b.String() != want {
		t.Errorf("%s\nwant %s", b.String(), want)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ schema, want string }{
		{`{"type":"integer","minimum":1,"maximum":65535}`, "1 to 65,535"},
		{`{"type":"integer","minimum":0,"maximum":2147483647}`, "0 to 2,147,483,647"},
		{`{"type":"string","minLength":1,"maxLength":256,"pattern":"x","patternDescription":"letters"}`, "1 to 256 characters|letters"},
		{`{"type":"string","maxLength":20,"pattern":"^x$"}`, "at most 20 characters|matches ^x$"},
		{`{"type":"array","minItems":3,"maxItems":3}`, "exactly 3 items"},
		{`{"type":"array","minItems":2}`, "at least 2 items"},
		{`{"type":"boolean"}`, ""},
	} {
		var s schema
		if err := json.Unmarshal([]byte(c.schema), &s); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(rules(&s), "|"); got != c.want {
			t.Errorf("%s: %q, want %q", c.schema, got, c.want)
		}
	}
}

func TestTypes(t *testing.T) {
	t.Parallel()
	var d document
	for _, c := range []struct {
		schema, want string
		null         bool
	}{
		{`{"type":["array","null"],"items":{"type":"string"}}`, "list of strings", true},
		{`{"type":"object","additionalProperties":{"type":["string","null"]}}`, "map of strings", false},
		{`{"type":"object","additionalProperties":true}`, "object", false},
		{`{"type":"array","items":{"type":"array","items":{"type":"string","format":"date-time"}}}`, "list of list of dates and times", false},
		{`{}`, "any", false},
	} {
		var s schema
		if err := json.Unmarshal([]byte(c.schema), &s); err != nil {
			t.Fatal(err)
		}
		if got, null := d.typeOf(&s); got != c.want || null != c.null {
			t.Errorf("%s: %q, %v", c.schema, got, null)
		}
	}
}

// A document is shown as text, whatever is in it, and a schema within itself has an end.
func TestForeignTextStaysText(t *testing.T) {
	t.Parallel()
	site, err := New([]byte(`{"info":{"title":"<script>alert(1)</script>"},"paths":{"/a/{b}":{"post":{"operationId":"x\"><script>","summary":"<img src=x>",
		"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/Tree"}}}},
		"responses":{"200":{"description":"OK","content":{"application/json":{"schema":{"$ref":"#/components/schemas/Tree"}}}}}}}},
		"components":{"schemas":{"Tree":{"type":"object","required":["it's","child"],"properties":{"child":{"$ref":"#/components/schemas/Tree"},
		"it's":{"type":"string","description":"</code><b>","examples":["it's"]}}}}}}`), "/d", "javascript:alert(1)")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	site.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/d", nil))
	page := w.Body.String()
	for _, bad := range []string{"<script>alert", "<img src=x>", "<b>\n", `"><script>`, `"javascript:`} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	if !strings.Contains(page, "&lt;img src=x&gt;") || !strings.Contains(page, "it&#39;\\&#39;&#39;s") {
		t.Errorf("%.3000s", page)
	}
}

// What is copied is what is meant: nothing that only helps reading is in a command.
func TestCurl(t *testing.T) {
	t.Parallel()
	op := located{method: "PUT", path: "/a/{b}/c"}
	op.Parameters = []parameter{{Name: "b", In: "path", Example: json.RawMessage(`"x y"`)}}
	op.Security = []map[string][]string{{"operatorToken": {}}, {"apiKey": {}}}
	var b strings.Builder
	for _, part := range curl(op, "https://h.example", `{"a": "it's"}`) {
		b.WriteString(part.Text)
	}
	want := "curl -X PUT https://h.example/a/x%20y/c \\\n  -H \"Authorization: Bearer $OPERATOR_TOKEN\" \\\n" +
		"  -H 'Content-Type: application/json' \\\n  -d '{\"a\": \"it'\\''s\"}'"
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

func TestBrokenDocuments(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "[]", `{"paths":1}`} {
		if _, err := New([]byte(text), "/docs", "/x"); err == nil {
			t.Errorf("%q makes a page", text)
		}
	}
}

func TestAccepts(t *testing.T) {
	t.Parallel()
	for header, want := range map[string]bool{"": false, "gzip": true, "br, gzip;q=0.5": true, "gzip;q=0": false, "gzip; q=0.0": false, "deflate": false} {
		if got := accepts(header); got != want {
			t.Errorf("%q: %v", header, got)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	text, err := os.ReadFile("../openapi.json")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := New(text, "/docs", "/api/v1/openapi.json"); err != nil {
			b.Fatal(err)
		}
	}
}
