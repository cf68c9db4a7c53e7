package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// refusal is a request that is refused: its body, the status and the place that the answer must name.
type refusal struct {
	what, body string
	status     int
	at         string // what the place begins with; "" = the answer names none
}

// malformed are bodies that are no envelope at all, whatever the operation.
var malformed = map[string]string{
	"cut off": `{"name":`, "two values": `{}{}`, "a text": `"x"`, "an array": `[{}]`, "a number": `1`, "null": `null`, "a word": `true`,
	"not JSON": `name=x`, "trailing comma": `{"name":"n",}`, "single quotes": `{'name':'n'}`, "a comment": `{/*x*/}`, "bare names": `{name:1}`,
	"NaN": `{"x":NaN}`, "Infinity": `{"x":-Infinity}`, "hexadecimal": `{"x":0x1}`, "leading zero": `{"x":01}`, "plus": `{"x":+1}`,
	"byte order mark": "\xef\xbb\xbf{}", "UTF-16": "{\x00}\x00", "broken UTF-8": "{\"x\":\"\xff\"}", "overlong UTF-8": "{\"x\":\"\xc0\xaf\"}",
	"surrogates as UTF-8": "{\"x\":\"\xed\xa0\x80\"}", "a raw NUL": "{\"x\":\"\x00\"}", "NUL behind it": "{}\x00", "a raw line feed": "{\"x\":\"\n\"}",
	"half an escape": `{"x":"\u12"}`, "no such escape": `{"x":"\x41"}`, "gzip": "\x1f\x8b\x08\x00\x00\x00\x00\x00",
	"too deep":                 `{"x":` + strings.Repeat(`[`, maxDepth) + strings.Repeat(`]`, maxDepth) + `}`,
	"endless":                  strings.Repeat(`{"x":`, 10_000),
	"a member twice":           `{"x":1,"x":1}`,
	"a member twice, escaped":  `{"x":1,"\u0078":2}`,
	"more members than anyone": `{` + numbered(maxEnvelope+1) + `}`,
}

func numbered(n int) string {
	members := make([]string, n)
	for i := range members {
		members[i] = fmt.Sprintf(`"m%d":0`, i)
	}
	return strings.Join(members, ",")
}

// kinds of JSON values, each with one that no rule but that of its kind can refuse.
var jsonKinds = map[string]string{"string": `"x"`, "number": `1.5`, "boolean": `true`, "array": `[]`, "object": `{}`, "null": `null`}

// table is an operation's refused bodies, made from the schema that the document shows of it: each is
// the valid one with one thing wrong.
func table(t *testing.T, doc map[string]any, op operation) (out []refusal) {
	t.Helper()
	text, _ := bodyOf(t, op).(string)
	var valid map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &valid); err != nil {
		t.Fatal(err)
	}
	for what, body := range malformed {
		out = append(out, refusal{what, body, 422, "body"})
	}
	if op.doc["requestBody"].(map[string]any)["required"] == true {
		out = append(out, refusal{"empty", "", 422, "body"}, refusal{"blank", " \r\n\t", 422, "body"})
	}
	schema := resolve(doc, op.doc["requestBody"].(map[string]any)["content"].(map[string]any)["application/json"].(map[string]any)["schema"])
	properties, _ := schema["properties"].(map[string]any)
	if len(properties) == 0 {
		t.Fatalf("%s: its body has no members", op.doc["operationId"])
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		less := maps.Clone(valid)
		delete(less, name.(string))
		out = append(out, refusal{name.(string) + " missing", encoded(t, less), 422, "body." + name.(string)})
	}
	for name, property := range properties {
		more := maps.Clone(valid)
		delete(more, name)
		rest := strings.TrimPrefix(encoded(t, more), "{")
		if rest != "}" {
			rest = "," + rest
		}
		with := func(what, value string) {
			out = append(out, refusal{name + " " + what, `{"` + name + `":` + value + rest, 422, "body." + name})
		}
		value := `null`
		if v, ok := valid[name]; ok {
			value = string(v)
		}
		with("twice", value+`,"`+name+`":`+value)
		wrongValues(resolve(doc, property), with)
	}
	return slices.DeleteFunc(out, func(c refusal) bool {
		// When something is made or replaced, null is as good as nothing for what may be left out.
		name, null := strings.CutSuffix(c.what, " null")
		return null && op.method != http.MethodPatch && properties[name] != nil && !slices.Contains(required, any(name))
	})
}

// wrongValues are values that break one rule of a schema each.
func wrongValues(schema map[string]any, with func(what, value string)) {
	types := typesOf(schema)
	if len(types) == 0 {
		return // anything
	}
	for kind, value := range jsonKinds {
		if !slices.Contains(types, kind) {
			with(kind, value)
		}
	}
	bound := func(name string) (int, bool) {
		n, ok := schema[name].(float64)
		return int(n), ok
	}
	if slices.Contains(types, "integer") {
		for _, n := range []string{"1.5", "1e400", "-1e400", "9223372036854775808", "-9223372036854775809", "1e30", strings.Repeat("9", 400)} {
			with(n[:min(len(n), 30)], n)
		}
		if n, ok := bound("minimum"); ok {
			with("too small", fmt.Sprint(n-1))
			if n > 0 {
				with("-0", "-0")
			}
		}
		if n, ok := bound("maximum"); ok {
			with("too large", fmt.Sprint(n+1))
		}
	}
	if slices.Contains(types, "string") {
		with("with NUL", `"a\u0000"`)
		if n, ok := bound("maxLength"); ok {
			with("too long", `"`+strings.Repeat("a", n+1)+`"`)
		}
		if n, ok := bound("minLength"); ok && n > 0 {
			with("empty", `""`)
		}
		if schema["pattern"] != nil {
			for _, text := range []string{"a b", "é", "a\\n", "\\u001b", "a/../b?", "\\ud800"} {
				with("with "+text, `"`+text+`"`)
			}
		}
		if schema["enum"] != nil {
			with("of no kind", `"nobody-knows"`)
		}
		if schema["format"] == "date-time" {
			for _, text := range []string{"", "yesterday", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-01-01", "1704067200", "2024-01-01T25:00:00Z"} {
				with("at "+text, `"`+text+`"`)
			}
		}
	}
	if slices.Contains(types, "array") {
		items, _ := schema["items"].(map[string]any)
		if n, ok := bound("maxItems"); ok {
			with("too many", "["+strings.TrimSuffix(strings.Repeat(`"a",`, n+1), ",")+"]")
		}
		with("endless", "["+strings.TrimSuffix(strings.Repeat(`0,`, 100_000), ",")+"]")
		if items["$ref"] == nil { // messages of a batch fail each for itself
			wrongValues(items, func(what, value string) { with("with an item "+what, "["+value+"]") })
		}
	}
	if slices.Contains(types, "object") {
		if of, ok := schema["additionalProperties"].(map[string]any); ok {
			wrongValues(of, func(what, value string) { with("with a member "+what, `{"a":`+value+`}`) })
			with("with NUL in a name", `{"a\u0000":"x"}`)
		}
	}
}

func typesOf(schema map[string]any) (types []string) {
	switch typ := schema["type"].(type) {
	case string:
		types = []string{typ}
	case []any:
		for _, t := range typ {
			types = append(types, t.(string))
		}
	}
	return types
}

func resolve(doc map[string]any, schema any) map[string]any {
	s := schema.(map[string]any)
	if ref, ok := s["$ref"].(string); ok {
		return doc["components"].(map[string]any)["schemas"].(map[string]any)[ref[strings.LastIndex(ref, "/")+1:]].(map[string]any)
	}
	return s
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// places are where a 422 says that rules are broken; nil = it says none.
func (r result) places() (places []string) {
	detail, _ := r.fields()["detail"].([]any)
	for _, d := range detail {
		var loc []string
		for _, part := range d.(map[string]any)["loc"].([]any) {
			loc = append(loc, part.(string))
		}
		places = append(places, strings.Join(loc, "."))
	}
	return places
}

// ledger is how many rows each table of a database has, and what they say together. When a key was last
// used does not count.
func ledger(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	rows, err := conn.Query(t.Context(), `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
		AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(tables) < 12 {
		t.Fatal(tables, err)
	}
	var out strings.Builder
	for _, name := range tables {
		var n int
		var sum *string
		err := conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT count(*), md5(string_agg((to_jsonb(x) - 'last_used_at')::text, '' ORDER BY x::text)) FROM %s x`,
			pgx.Identifier{name}.Sanitize())).Scan(&n, &sum)
		if err != nil {
			t.Fatal(err)
		}
		if sum == nil {
			sum = new(string)
		}
		fmt.Fprintf(&out, "%s %d %s\n", name, n, *sum)
	}
	return out.String()
}

// every calls f for each operation of the document, with a path and a credential that exist, and fails
// if it has changed a single row.
func (r *rig) every(f func(op operation, path, token string)) {
	t := r.t.(*testing.T)
	t.Helper()
	a := r.tenant()
	values := a.objects()
	values["tenant_id"], values["key_id"], values["plan_name"] = a.id.String(), "the-key", "the-plan"
	r.do("PUT", plansPath+"/the-plan", operatorToken, obj{"limits": obj{}}).want(201)
	r.do("POST", tenantsPath+"/"+a.id.String()+"/api-key", operatorToken, obj{"name": "n", "uid": "the-key", "scopes": []string{"read"}}).want(201)
	session := a.post("/auth/app-portal-access/"+values["app_id"], nil).want(200).str("token")
	conn := r.sql()
	for _, op := range operations(golden(t)) {
		token := a.key
		switch {
		case op.isOperator():
			token = operatorToken
		case op.isApplication():
			token = session
		}
		before := ledger(t, conn)
		f(op, fill(op.path, values), token)
		if after := ledger(t, conn); after != before {
			t.Errorf("%s: refused requests left something behind:\n%s\n%s", op.doc["operationId"], before, after)
		}
	}
	a.get("/app").want(200)
}

// Whatever is wrong with a body, the answer says where, and nothing of the request stays, the key that
// would make a repeat safe included.
func TestEveryWrongBodyIsRefused(t *testing.T) {
	t.Parallel()
	r, doc := setup(t), golden(t)
	refused := 0
	r.every(func(op operation, path, token string) {
		if op.doc["requestBody"] == nil {
			return
		}
		for i, c := range table(t, doc, op) {
			name := fmt.Sprintf("%s, %s", op.doc["operationId"], c.what)
			got := r.do(op.method, path, token, c.body, idempotencyHeader, fmt.Sprint("wrong-", i))
			refused++
			if got.status != c.status {
				t.Errorf("%s: %d %.200s", name, got.status, got.body)
			} else if places := got.places(); !slices.ContainsFunc(places, func(place string) bool { return strings.HasPrefix(place, c.at) }) {
				t.Errorf("%s: named are %q, not %s", name, places, c.at)
			}
			for _, internal := range []string{"SQLSTATE", "goroutine", "Go struct", "reflect", "json:", "api."} {
				if bytes.Contains(got.body, []byte(internal)) {
					t.Errorf("%s: internals: %.300s", name, got.body)
				}
			}
		}
	})
	if refused < 1000 {
		t.Errorf("only %d bodies were tried", refused)
	}
}

// A body may have as many bytes as it may have; with one more it is refused, whether its length was
// told or not, and before anything is made of it.
func TestBodiesAtTheirLimit(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.every(func(op operation, path, token string) {
		if op.doc["requestBody"] == nil {
			return
		}
		for _, chunked := range []bool{false, true} {
			send := func(size int) result {
				wrong := []byte(`{"name":[]`) // refused for what it is, if it is read
				body := append(append(wrong, bytes.Repeat([]byte(" "), size-len(wrong)-1)...), ',')
				req, err := http.NewRequestWithContext(t.Context(), op.method, r.url+path, bytes.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if chunked {
					req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), -1
				}
				req.Header.Set("Authorization", "Bearer "+token)
				return r.send(req)
			}
			if got := send(webhook.MaxBody); got.status != 422 {
				t.Errorf("%s at the limit: %d %s", op.doc["operationId"], got.status, got.body)
			}
			if got := send(webhook.MaxBody + 1); got.status != 413 || got.str("code") != "payload_too_large" {
				t.Errorf("%s over the limit: %d %s", op.doc["operationId"], got.status, got.body)
			}
		}
	})
}

// Levels and members of an envelope at their limits are no reason to refuse it.
func TestEnvelopesAtTheirLimits(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	deep := strings.Repeat(`[`, maxDepth-2) + strings.Repeat(`]`, maxDepth-2)
	a.post(path, envelope(`{"a":`+deep+`}`, "")).want(202)
	a.post(path, envelope(`{"a":[`+deep+`]}`, "")).want(422)
	a.post(path, envelope(`{}`, ","+numbered(maxEnvelope-2))).want(202)
	a.post(path, envelope(`{}`, ","+numbered(maxEnvelope-1))).want(422)
	a.post("/app", `{"name":"n",`+numbered(maxEnvelope-1)+`}`).want(201)
	a.post("/app", `{"name":"n",`+numbered(maxEnvelope)+`}`).want(422)

	// Inside of a payload everything that JSON allows passes, and stays what it was.
	odd := `{"a":1,"a":2,"A":3,"\u0061":4,"nul":"\u0000","half":"\ud800","n":1e400,"m":-0,"big":123456789012345678901234567890,"f":1.0}`
	var sent messageOut
	a.post(path, envelope(odd, "")).want(202).into(&sent)
	var read messageOut
	a.get(path + "/" + sent.ID.String()).want(200).into(&read)
	if string(read.Payload) != odd {
		t.Errorf("%s came back as %s", odd, read.Payload)
	}
	// A name in another case is a mistake, and would count or not depending on who reads it.
	for _, body := range []string{`{"eventtype":"a","payload":{}}`, `{"eventType":"a","payload":{},"EventID":"x"}`, `{"eventType":"a","Payload":{},"payload":{}}`} {
		if got := a.post(path, body).want(422); !strings.Contains(string(got.body), "must be spelled") {
			t.Errorf("%s: %s", body, got.body)
		}
		if got := a.post(path+"/batch", batchOf(body)).want(202).results(); got[0].Error == nil || !strings.HasPrefix(strings.Join(got[0].Error.Fields[0].Loc, "."), "body.messages.[0].") {
			t.Errorf("%s: %+v", body, got)
		}
	}
	a.post(path+"/batch", `{"Messages":[]}`).want(422)
}

// Each message of a batch is refused for itself, with what would refuse it alone.
func TestEveryWrongMessageOfABatchIsRefused(t *testing.T) {
	t.Parallel()
	r, doc := setup(t), golden(t)
	a := r.tenant()
	path := "/app/" + a.app() + "/msg/batch"
	i := slices.IndexFunc(operations(doc), func(op operation) bool { return op.doc["operationId"] == "v1.message.create" })
	var bodies []string
	var cases []refusal
	for _, c := range table(t, doc, operations(doc)[i]) {
		if !utf8.ValidString(c.body) || !json.Valid([]byte(c.body)) || strings.Contains(c.what, "too deep") {
			continue // would be the whole call's fault
		}
		bodies, cases = append(bodies, c.body), append(cases, c)
	}
	conn := r.sql()
	before := ledger(t, conn)
	for chunk := range slices.Chunk(bodies, 50) {
		results := a.post(path, batchOf(chunk...)).want(202).results()
		for j, result := range results {
			if result.ID != nil || result.Error == nil || result.Error.Code != "validation_error" {
				t.Errorf("%.200s: %+v", chunk[j], result)
			}
		}
	}
	if after := ledger(t, conn); after != before {
		t.Errorf("refused messages left something behind:\n%s\n%s", before, after)
	}
	if len(cases) < 50 {
		t.Errorf("only %d messages were tried", len(cases))
	}
}
