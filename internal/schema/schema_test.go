package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestSchemasAreCheckedAsSchemas(t *testing.T) {
	t.Parallel()
	nested := func(depth int) string {
		return strings.Repeat(`{"not":`, depth-1) + `{}` + strings.Repeat(`}`, depth-1)
	}
	sized := func(n int) string { return `{"title":"` + strings.Repeat("t", n-len(`{"title":""}`)) + `"}` }
	trues := func(n int) string { return `{"allOf":[` + strings.TrimSuffix(strings.Repeat("true,", n-2), ",") + `]}` }
	for _, c := range []struct{ what, text, err string }{
		{"empty", `{}`, ""},
		{"draft 7", `{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}`, ""},
		{"2019-09", `{"$schema":"https://json-schema.org/draft/2019-09/schema","type":"object"}`, ""},
		{"2020-12", `{"$schema":"https://json-schema.org/draft/2020-12/schema","$defs":{"a":{"type":"string"}},"properties":{"b":{"$ref":"#/$defs/a"}}}`, ""},
		{"draft 4", `{"$schema":"http://json-schema.org/draft-04/schema#"}`, "draft 7"},
		{"recursive", `{"properties":{"children":{"items":{"$ref":"#"}}}}`, ""},
		{"not JSON", `{`, "JSON"},
		{"unknown type", `{"type":"strnig"}`, "at /type"},
		{"required is no list", `{"required":"a"}`, "at /required"},
		{"deep inside", `{"properties":{"a":{"minLength":-1}}}`, "at /properties/a/minLength"},
		{"http", `{"$ref":"http://127.0.0.1:1/x.json"}`, "only lead into the schema"},
		{"https", `{"$ref":"https://example.com/x.json"}`, "only lead into the schema"},
		{"file", `{"$ref":"file:///etc/passwd"}`, "only lead into the schema"},
		{"file by $id", `{"$id":"file:///etc/","$ref":"passwd"}`, "only lead into the schema"},
		{"relative", `{"$ref":"../x.json"}`, "only lead into the schema"},
		{"own dialect", `{"$schema":"http://127.0.0.1:1/dialect"}`, "only lead into the schema"},
		{"nowhere", `{"$ref":"#/definitions/none"}`, "compiled"},
		{"backtracking", `{"pattern":"^(?=a)b"}`, "/pattern"},
		{"backreference", `{"pattern":"(a)\\1"}`, "/pattern"},
		{"pattern at the limit", `{"pattern":"a{990}"}`, ""},
		{"pattern over it", `{"pattern":"(ab){1000}"}`, "/pattern"},
		{"pattern of a name", `{"patternProperties":{"(ab){1000}":{}}}`, "format"},
		{"depth at the limit", nested(webhook.MaxSchemaDepth), ""},
		{"depth over it", nested(webhook.MaxSchemaDepth + 1), "deeper"},
		{"size at the limit", sized(webhook.MaxSchema), ""},
		{"size over it", sized(webhook.MaxSchema + 1), "bytes"},
		{"nodes at the limit", trues(maxNodes), ""},
		{"nodes over it", trues(maxNodes + 1), "objects"},
		{"a number that is a bomb", `{"maximum":1e1000000}`, "digits"},
		{"a long number", `{"maximum":` + strings.Repeat("1", maxNumber+1) + `}`, "digits"},
	} {
		start := time.Now()
		_, err := Compile([]byte(c.text))
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: %v, want %q", c.what, err, c.err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%s took %v", c.what, took)
		}
	}
}

func TestPayloadsAreChecked(t *testing.T) {
	t.Parallel()
	const order = `{"type":"object","required":["id"],"additionalProperties":false,"properties":{
		"id":{"type":"string","pattern":"^o-"},"lines":{"type":"array","items":{"properties":{"n":{"type":"integer","minimum":1}}}},
		"kind":{"enum":["a","b"]},"at":{"type":"string","format":"date-time"},"re":{"format":"regex"}}}`
	for _, c := range []struct{ payload, at, rule string }{
		{`{"id":"o-1","lines":[{"n":1}],"kind":"a","at":"2026-01-01T00:00:00Z","re":"("}`, "", ""},
		{`{}`, "", "lacks id"},
		{`{"id":7}`, "id", "must be of type string, not number"},
		{`{"id":"secret-value"}`, "id", "breaks the schema's rule pattern"},
		{`{"id":"o-1","lines":[{"n":1},{"n":0}]}`, "lines/[1]/n", "breaks the schema's rule minimum"},
		{`{"id":"o-1","kind":"secret-value"}`, "kind", "breaks the schema's rule enum"},
		{`{"id":"o-1","at":"secret-value"}`, "at", "breaks the schema's rule format"},
		{`{"id":"o-1","more":1}`, "", "has more, which the schema does not allow"},
	} {
		s, err := Compile([]byte(order))
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.Check([]byte(c.payload))
		switch {
		case err != nil:
			t.Errorf("%s: %v", c.payload, err)
		case c.rule == "" && len(found) > 0, c.rule != "" && len(found) != 1:
			t.Errorf("%s: %v", c.payload, found)
		case c.rule != "" && (strings.Join(found[0].Path, "/") != c.at || found[0].Rule != c.rule):
			t.Errorf("%s: %v", c.payload, found)
		case strings.Contains(fmt.Sprint(found), "secret-value"):
			t.Errorf("%s: a value is told: %v", c.payload, found)
		}
	}
}

// Every one of these would take from seconds to years if it were let.
func TestHostileChecksEnd(t *testing.T) {
	t.Parallel()
	numbers := func(n int) string { return strings.TrimSuffix(strings.Repeat("1234567,", n), ",") }
	distinct := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprint(i))
		}
		return strings.Join(list, ",")
	}
	doubling := func(keyword string, n int) string {
		var b strings.Builder
		b.WriteString(`{"definitions":{`)
		for i := range n {
			fmt.Fprintf(&b, `"d%d":{"%s":[{"$ref":"#/definitions/d%d"},{"$ref":"#/definitions/d%d"}]},`, i, keyword, i+1, i+1)
		}
		fmt.Fprintf(&b, `"d%d":{"type":"string"}},"$ref":"#/definitions/d0"}`, n)
		return b.String()
	}
	both := `{"definitions":{"t":{"properties":{"c":{"$ref":"#/definitions/t"}},"patternProperties":{"c":{"$ref":"#/definitions/t"}}}},"$ref":"#/definitions/t"}`
	for what, c := range map[string]struct{ schema, payload string }{
		"doubling anyOf":  {doubling("anyOf", 50), `{}`},
		"doubling allOf":  {doubling("allOf", 50), `{}`},
		"doubling oneOf":  {doubling("oneOf", 50), `{}`},
		"doubling 2020":   {strings.Replace(strings.Replace(doubling("anyOf", 50), `{`, `{"$schema":"https://json-schema.org/draft/2020-12/schema",`, 1), `"type":"string"`, `"type":["string"]`, 1), `{}`},
		"many mismatches": {`{"allOf":[` + strings.TrimSuffix(strings.Repeat(`{"properties":{"a":{"items":{"type":"string"}}}},`, 300), ",") + `]}`, `{"a":[` + numbers(1600) + `]}`},
		"doubling down":   {both, strings.Repeat(`{"c":`, 60) + `1` + strings.Repeat(`}`, 60)},
		"huge enum":       {`{"properties":{"a":{"items":{"enum":[` + distinct(8000) + `]}}}}`, `{"a":[` + numbers(9000) + `]}`},
		"long text":       {`{"properties":{"a":{"pattern":"(a*)*(a|aa)*b$"}}}`, `{"a":"` + strings.Repeat("a", maxText+1) + `"}`},
		"large pattern":   {`{"properties":{"a":{"pattern":"(a?){200}b"}}}`, `{"a":"` + strings.Repeat("a", maxText) + `"}`},
		"many values":     {`{"properties":{"a":{"items":{"type":"string"}}}}`, `{"a":[` + numbers(maxValues) + `]}`},
		"a number's bomb": {`{"properties":{"a":{"maximum":1}}}`, `{"a":1e1000000}`},
	} {
		s, err := Compile([]byte(c.schema))
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		start := time.Now()
		if found, err := s.Check([]byte(c.payload)); !errors.Is(err, ErrCost) {
			t.Errorf("%s: %d mismatches, %v", what, len(found), err)
		}
		if took := time.Since(start); took > 20*maxTime { // the machine may be busy; seconds would be ours
			t.Errorf("%s took %v", what, took)
		}
		if s, err = Compile([]byte(`{"type":"object"}`)); err != nil {
			t.Fatal(err)
		}
		if found, err := s.Check([]byte(`{}`)); err != nil || len(found) > 0 {
			t.Errorf("after %s: %v %v", what, found, err)
		}
	}
	// A pattern that makes backtracking engines stop is quick here.
	s, err := Compile([]byte(`{"properties":{"a":{"pattern":"^(a+)+$"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if found, err := s.Check([]byte(`{"a":"` + strings.Repeat("a", 5000) + `!"}`)); err != nil || len(found) != 1 {
		t.Errorf("%v %v", found, err)
	}
}

func TestASchemaRestsAfterACheckThatTookTooLong(t *testing.T) {
	t.Parallel()
	s, err := Compile([]byte(`{"type":"object"}`))
	if err != nil {
		t.Fatal(err)
	}
	s.tired = time.Now()
	if _, err := s.Check([]byte(`{}`)); !errors.Is(err, ErrCost) {
		t.Errorf("tired: %v", err)
	}
	s.tired = time.Now().Add(-restAfter)
	if _, err := s.Check([]byte(`{}`)); err != nil {
		t.Errorf("rested: %v", err)
	}
}

func TestCacheIsBoundedAndKnowsTexts(t *testing.T) {
	t.Parallel()
	c := NewCache()
	text := func(i int) []byte { return fmt.Appendf(nil, `{"title":"%d"}`, i) }
	first, err := c.Compiled(text(0))
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxCached {
		if _, err := c.Compiled(text(i)); err != nil {
			t.Fatal(err)
		}
	}
	if again, _ := c.Compiled(text(0)); again != first || c.order.Len() != maxCached {
		t.Errorf("at the limit something was dropped: %d", c.order.Len())
	}
	if _, err := c.Compiled(text(maxCached)); err != nil {
		t.Fatal(err)
	}
	if c.order.Len() != maxCached || len(c.by) != maxCached {
		t.Errorf("%d are kept", c.order.Len())
	}
	if again, _ := c.Compiled(text(0)); again != first {
		t.Error("the one used last was dropped")
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	c := NewCache()
	versions := json.RawMessage(`{"1":{"required":["a"]},"9":{"required":["b"]},"10":{"required":["c"]}}`)
	for payload, want := range map[string]string{`{"a":1}`: "", `{"b":1}`: "", `{"c":1}`: "", `{}`: "lacks c"} {
		found, err := c.CheckPayload(versions, []byte(payload))
		if err != nil || (want == "") != (len(found) == 0) || want != "" && found[0].Rule != want {
			t.Errorf("%s: %v %v", payload, found, err)
		}
	}
	err := c.CheckVersions(json.RawMessage(`{"1":{},"2":{"type":7}}`))
	var told *webhook.Error
	if !errors.As(err, &told) || told.Kind != webhook.KindInvalid || len(told.Fields) != 1 || strings.Join(told.Fields[0].Loc, ".") != "body.schemas.2" {
		t.Errorf("%v", err)
	}
	if err := c.CheckVersions(nil); err != nil {
		t.Error(err)
	}
}
