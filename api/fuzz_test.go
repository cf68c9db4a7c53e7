package api

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// slowEnvelope is checkEnvelope in the obvious way, for valid JSON: token by token.
func slowEnvelope(body []byte) (ok bool, names []string) {
	if !utf8.Valid(body) {
		return false, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	depth, deepest := 0, 0
	name := false // a name of the outermost object's comes next
	object := false
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return false, nil
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			deepest = max(deepest, depth)
			if depth == 1 {
				object = token == json.Delim('{')
				name = object
				continue
			}
		case json.Delim('}'), json.Delim(']'):
			if depth--; depth == 1 {
				name = object
			}
			continue
		}
		if depth == 1 && object {
			if name {
				names = append(names, token.(string))
			}
			name = !name
		}
	}
	if deepest > maxDepth || len(names) > maxEnvelope {
		return false, nil
	}
	for i, n := range names {
		if slices.Contains(names[:i], n) {
			return false, nil
		}
	}
	return true, names
}

// FuzzEnvelope: of every valid JSON, the quick look at it says what the slow one says; and what a publish
// reads from it is what stands under the very names, its payload the very bytes.
func FuzzEnvelope(f *testing.F) {
	for _, seed := range []string{
		`{"eventType":"a","payload":{}}`, `{"eventType":"a","payload":{"a":1,"a":2}}`, `{"eventType":"a","eventType":"b","payload":{}}`,
		`{"eventType":"a","\u0065ventType":"b"}`, `{"eventtype":"a","payload":{}}`, `["a","a"]`, `[{"a":1,"a":2}]`, `{"a":["b","b"],"b":{"c":{"c":1}},"c":"a"}`,
		`{"a\"":1,"a":2}`, `{"a\\":1,"a\\\\":2}`, "{\"a\":\"\xff\"}", `{"":1,"":2}`, strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
		`"x"`, `1`, ` {"payload" : { "x" : 1e400 } , "eventType":"a" } `, `{"payload":null,"data":{},"eventType":"a"}`, `{"eventType":"a","payload":{},"data":1}`,
		`{"\ud800":1,"\ud801":2}`, `{"eventType":"a","payload":{},"ſ":1}`, `{"eventType":"a","payload":{},"channelſ":["x"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		quick := checkEnvelope(body, nil)
		if quick != nil && webhook.KindOf(quick) != webhook.KindInvalid {
			t.Fatalf("%q: %v", body, quick)
		}
		if !json.Valid(body) {
			return
		}
		slow, names := slowEnvelope(body)
		if (quick == nil) != slow {
			t.Fatalf("%q: the quick way says %v, the slow way %v", body, quick, slow)
		}
		var in messageIn
		if decodeMessage(body, &in) != nil {
			return
		}
		if !slow {
			t.Fatalf("%q was read", body)
		}
		var raw map[string]json.RawMessage
		if err := json.Unmarshal(body, &raw); err != nil {
			if string(bytes.TrimSpace(body)) != "null" {
				t.Fatalf("%q was read: %v", body, err)
			}
		}
		if len(raw) != len(names) {
			t.Fatalf("%q: %d names are %q", body, len(raw), names)
		}
		var eventType string
		_ = json.Unmarshal(raw["eventType"], &eventType)
		if string(in.EventType) != eventType {
			t.Fatalf("%q: the event type is read as %q", body, in.EventType)
		}
		payload := raw["payload"]
		if len(payload) == 0 || string(payload) == "null" {
			payload = raw["data"]
		}
		if string(payload) == "null" {
			payload = nil
		}
		if !bytes.Equal(in.Payload, payload) {
			t.Fatalf("%q: the payload is read as %q", body, in.Payload)
		}
		if m, _, err := in.message(); err == nil && (len(m.Payload) > webhook.MaxPayload || !isName(m.EventType) || len(m.Channels) > webhook.MaxChannels || len(m.Tags) > webhook.MaxTags) {
			t.Fatalf("%q: accepted as %+v", body, m)
		}
	})
}

// FuzzBatchItems: a list is split as the decoder splits it.
func FuzzBatchItems(f *testing.F) {
	for _, seed := range []string{`[]`, `[ ]`, `[{},{}]`, `[1,"a,b]",[1,[2]],{"a":[","]}]`, `["\"",",\\"]`, " [ {} , null ] ", `[[],[[]]]`, `["\u005d"]`} {
		f.Add([]byte(seed), 3)
	}
	f.Fuzz(func(t *testing.T, text []byte, limit int) {
		text = bytes.TrimSpace(text) // as a member's text comes
		var want []json.RawMessage
		if len(text) == 0 || text[0] != '[' || json.Unmarshal(text, &want) != nil {
			return
		}
		limit = max(limit, 0)
		got, ok := elements(text, limit)
		if ok != (len(want) <= limit) {
			t.Fatalf("%q: %d elements of at most %d: %v", text, len(want), limit, ok)
		}
		if !ok {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %d elements, want %d", text, len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], bytes.TrimSpace(want[i])) {
				t.Fatalf("%q: element %d is %q", text, i, got[i])
			}
		}
	})
}

// FuzzSpecification: a specification, JSON or YAML, costs in proportion to its size, and what is imported
// from it is what could be created, the same every time.
func FuzzSpecification(f *testing.F) {
	for _, seed := range []string{
		`{"openapi":"3.1.0","webhooks":{"a.b":{"post":{"description":"d","requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/S"}}}}}}},"components":{"schemas":{"S":{"type":"object","properties":{"s":{"$ref":"#/components/schemas/S"}}}}}}`,
		"openapi: 3.0.3\nx-webhooks:\n  a:\n    post:\n      summary: s\n      requestBody:\n        content:\n          application/json:\n            schema: {type: string, nullable: true}\n",
		"openapi: 3.1.0\nwebhooks:\n  a: {$ref: '#/components/pathItems/p'}\ncomponents:\n  pathItems:\n    p: {get: {deprecated: true}}\n",
		"a: &x [1]\nb: *x\n", "- - - -\n", "? a\n: b\n", "{", "%YAML 1.1\n---\na: 1\n...\n", "a: .inf\n", "a: !!binary aGk=\n", "1: 2\n", "<<: {a: 1}\n", "a: 0x1F\nb: 1_000\nc: 2001-01-01\n",
		"a: |\n  b\n  c\n", "\xff", "a: \"\\u0000\"\n", "a: 1\na: 2\n", "[[[[", strings.Repeat("- ", 100),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		start := time.Now()
		text, err := specJSON(raw)
		if took := time.Since(start); took > 5*time.Second {
			t.Fatalf("%d bytes took %v", len(raw), took)
		}
		if err != nil {
			return
		}
		if !json.Valid(text) || checkText(text) != nil || len(text) > 16*len(raw)+64 {
			t.Fatalf("%q became %q", raw, text)
		}
		if json.Valid([]byte(raw)) && strings.HasPrefix(strings.TrimSpace(raw), "{") && string(text) != raw {
			t.Fatalf("%q became %q", raw, text)
		}
		found, err := eventTypesOf(text)
		if err != nil {
			if webhook.KindOf(err) != webhook.KindInvalid {
				t.Fatal(err)
			}
			return
		}
		size := 0
		for i, e := range found {
			size += len(e.Schemas)
			var versions map[string]json.RawMessage
			if !isName(e.Name) || strings.ContainsRune(e.Description, 0) || i > 0 && found[i-1].Name >= e.Name ||
				len(e.Schemas) > 0 && (json.Unmarshal(e.Schemas, &versions) != nil || len(versions) != 1 || versions[importedVersion] == nil) {
				t.Fatalf("%q gives %+v", raw, e)
			}
		}
		if size > maxImported || len(found) > maxMembers {
			t.Fatalf("%d event types of %d bytes", len(found), size)
		}
		if again, err := eventTypesOf(text); err != nil || !reflect.DeepEqual(again, found) {
			t.Fatalf("%q gives something else each time", raw)
		}
	})
}

var iteratorForm = regexp.MustCompile(`^[-+]?msg_[0-9A-Za-z]{27}$`)

// FuzzIterator: an iterator that is taken is an id, perhaps with a direction before it, and the store
// reads the very same.
func FuzzIterator(f *testing.F) {
	id := webhook.NewMessageID().String()
	for _, seed := range []string{"", id, "-" + id, "+" + id, "--" + id, "-+" + id, id + "-", strings.ToUpper(id), "app" + id[3:], "-", "msg_", id[:20], "\x00" + id} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := pageQuery{Iterator: text}.page(true, isMessageID)
		at := strings.TrimPrefix(strings.TrimPrefix(text, "-"), "+")
		if strings.HasPrefix(text, "-") {
			at = text[1:]
		}
		_, parseErr := webhook.ParseID[webhook.MessageID](at)
		want := text == "" || iteratorForm.MatchString(text) && parseErr == nil
		if (err == nil) != want {
			t.Fatalf("%q: %v", text, err)
		}
		if err != nil && webhook.KindOf(err) != webhook.KindInvalid {
			t.Fatalf("%q: %v", text, err)
		}
		if err == nil && (p.Iterator != text || p.Limit != webhook.DefaultPage) {
			t.Fatalf("%q became %+v", text, p)
		}
	})
}

// FuzzTime: a time that is understood is within its years, and is understood as the same when it is
// written again; everything that RFC 3339 allows is understood.
func FuzzTime(f *testing.F) {
	for _, seed := range []string{
		"2026-11-23T12:00:00Z", "2026-11-23T12:00:00.123456789+05:30", "2026-11-23T12:00Z", "2026-11-23 12:00:00 UTC", "2026-11-23T12:00:00 05:30",
		"1969-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "2026-02-29T00:00:00Z", "2026-11-23T24:00:00Z", "2026-11-23T12:00:60Z", "2026-11-23T12:00:00,5Z", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, ok := parseTime(text)
		if plain, err := time.Parse(time.RFC3339, text); err == nil {
			if inYears := plain.UTC().Year() >= minYear && plain.UTC().Year() <= maxYear; ok != inYears || ok && !at.Equal(plain) {
				t.Fatalf("%q is %v, %v", text, at, ok)
			}
		}
		if !ok {
			return
		}
		if at.Year() < minYear || at.Year() > maxYear || at.Location() != time.UTC {
			t.Fatalf("%q is %v", text, at)
		}
		if again, ok := parseTime(at.Format(time.RFC3339Nano)); !ok || !again.Equal(at) {
			t.Fatalf("%q is %v, which is %v", text, at, again)
		}
	})
}

// FuzzQuery: a query is understood within its rules or is the caller's mistake.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"limit=1&iterator=x&channel=a&tag=b&event_types=a,b&event_types[]=c&event_types[0]=d", "limit=251", "limit=-1", "before=2026-11-23T12:00:00Z&after=x",
		"status=2&status_code_class=500&with_msg=true&with_content=0", "event_types=" + strings.Repeat("a,", maxListItems+1), "%zz", ";", "limit=%00", "limit=&limit=3",
	} {
		f.Add(seed)
	}
	plan := newParamPlan(reflect.TypeFor[attemptQuery](), newDocument(gin.New(), "").registry)
	f.Fuzz(func(t *testing.T, raw string) {
		c := &gin.Context{Request: &http.Request{URL: &url.URL{RawQuery: raw}}}
		var in attemptQuery
		err := plan.read(c, reflect.ValueOf(&in).Elem())
		values, parseErr := url.ParseQuery(raw)
		if err != nil {
			if kind := webhook.KindOf(err); kind != webhook.KindBadRequest && kind != webhook.KindInvalid {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		if parseErr != nil {
			t.Fatalf("%q is understood", raw)
		}
		if in.Limit < 0 || in.Limit > webhook.MaxPage || len(in.EventTypes) > maxListItems || len(in.Iterator) > 257 || in.Iterator != values.Get("iterator") {
			t.Fatalf("%q is read as %+v", raw, in)
		}
		for _, name := range in.EventTypes {
			if !isName(string(name)) {
				t.Fatalf("%q is read as %+v", raw, in)
			}
		}
		if in.Channel != "" && !inAlphabet(string(in.Channel), channelAlphabet, webhook.MaxChannelLength) || in.Tag != "" && !inAlphabet(string(in.Tag), tagAlphabet, webhook.MaxTagLength) {
			t.Fatalf("%q is read as %+v", raw, in)
		}
	})
}

// FuzzFront: whatever a stranger asks for, the answer is short, says nothing but no, and is JSON.
func FuzzFront(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/api/v1/app", ""}, {"POST", "//api/v1/app//", "Bearer x"}, {"DELETE", "/api/v1/app/%2e%2e/operator/tenant", "bearer "}, {"OPTIONS", "/api/v1/app/x", ""},
		{"HEAD", "/api/v1/operator/tenant", "Bearer phk_"}, {"PUT", "/api/v1/app/%00/endpoint/%ff", "Basic eDp5"}, {"TRACE", "/api/v1/event-type/import/openapi", "Bearer a.b.c"},
		{"GET", "/api/v1/app?%zz", "Bearer whsec_x"}, {"X", "/api/v1/operator", ""}, {"POST", "/api/v1/auth/logout", "Bearer eyJhbGciOiJub25lIn0.e30."},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	token, err := auth.ParseOperatorToken(operatorToken)
	if err != nil {
		f.Fatal(err)
	}
	s := &server{log: slog.New(slog.DiscardHandler), patterns: map[pattern]string{}, operator: token, now: time.Now,
		tokens: appTokens(f, storetest.Keyset(f))}
	engine, err := s.engine(nil)
	if err != nil {
		f.Fatal(err)
	}
	doc := newDocument(engine, "")
	for _, r := range s.routes() {
		doc.add(s, r)
	}
	handler := s.front(engine)
	f.Fuzz(func(t *testing.T, method, target, authorization string) {
		u, err := url.ParseRequestURI(target)
		if _, keyErr := auth.ParseAPIKey(strings.TrimSpace(authorization[min(len(authorization), len("bearer ")):])); err != nil || keyErr == nil || method == "" {
			return // no server would read it, or it is somebody's key
		}
		req := &http.Request{Method: method, URL: u, Host: "x", RemoteAddr: "192.0.2.1:1", Body: io.NopCloser(strings.NewReader("{}")),
			Header: http.Header{"Authorization": {authorization}}}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req.WithContext(t.Context()))
		switch w.Code {
		case http.StatusNoContent:
			if method != http.MethodOptions || w.Body.Len() > 0 {
				t.Fatalf("%s %q: %d %s", method, target, w.Code, w.Body)
			}
			return
		case http.StatusUnauthorized, http.StatusNotFound, http.StatusMethodNotAllowed:
		default:
			t.Fatalf("%s %q: %d %s", method, target, w.Code, w.Body)
		}
		if w.Code == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "" {
			t.Fatalf("%s %q: what is allowed is not said", method, target)
		}
		var out errorOut
		if method != http.MethodHead && (json.Unmarshal(w.Body.Bytes(), &out) != nil || out.Code == "" || out.RequestID != w.Header().Get("X-Request-Id") || w.Body.Len() > 300) {
			t.Fatalf("%s %q: %s", method, target, w.Body)
		}
	})
}
