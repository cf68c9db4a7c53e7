package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// wrongQueries are values of a parameter that break its rule, by the status they are answered with: 400
// for what cannot be understood, 422 for what can and is not allowed.
func wrongQueries(parameter map[string]any) (cannot, mayNot []string) {
	schema := parameter["schema"].(map[string]any)
	bound := func(name string) (int, bool) {
		n, ok := schema[name].(float64)
		return int(n), ok
	}
	switch {
	case schema["type"] == "integer":
		cannot = []string{"x", "1.5", "1e3", "0x10", "1_000", "9223372036854775808", "-9223372036854775809", "\x00", "\xff", "\u0661", "--1", "1,2", "1 ", strings.Repeat("9", 5000)}
		if schema["enum"] != nil {
			cannot = append(cannot, "-1", "7", "00")
		}
		if n, ok := bound("minimum"); ok {
			mayNot = append(mayNot, fmt.Sprint(n-1), "-9223372036854775808")
		}
		if n, ok := bound("maximum"); ok {
			mayNot = append(mayNot, fmt.Sprint(n+1), "9223372036854775807")
		}
	case schema["type"] == "boolean":
		cannot = []string{"maybe", "2", "yes", "\x00", "tRuE", "truee", " true"}
	case schema["format"] == "date-time":
		cannot = []string{"yesterday", "2024-01-01", "2024-13-01T00:00:00Z", "2024-02-30T00:00:00Z", "2024-01-01T25:00:00Z", "99999-01-01T00:00:00Z",
			"1969-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "-2024-01-01T00:00:00Z", "1704067200", "now", "\x00", "\xff", "2024-01-01T00:00:00+99:99", strings.Repeat("2", 5000)}
	case schema["enum"] != nil:
		cannot = []string{"x", "ASCENDING", "\x00", "\xff", "ascending,descending"}
	case schema["type"] == "array":
		mayNot = []string{"a b", "\x00", "\xff", "é", "a,b c", strings.Repeat("a", 257), strings.Repeat("a,", maxListItems+1)}
	case parameter["name"] == "iterator":
		mayNot = []string{"-", "a b", "\x00", "\xff", "é", "- a", strings.Repeat("a", 258), strings.Repeat("a", 20_000), "a/b", "%"}
	case schema["pattern"] != nil:
		mayNot = []string{"a b", "\x00", "\xff", "é", "a,b", strings.Repeat("a", 257), strings.Repeat("a", 20_000)}
	case schema["maxLength"] != nil:
		mayNot = []string{strings.Repeat("a", 257), strings.Repeat("a", 20_000)}
	}
	return cannot, mayNot
}

// Every parameter of every operation, with everything it may not be.
func TestEveryWrongQueryIsRefused(t *testing.T) {
	t.Parallel()
	r := setup(t)
	refused := 0
	r.every(func(op operation, path, token string) {
		body := bodyOf(t, op)
		parameters, _ := op.doc["parameters"].([]any)
		queries := 0
		for _, p := range parameters {
			parameter := p.(map[string]any)
			if parameter["in"] != "query" {
				continue
			}
			queries++
			name := parameter["name"].(string)
			cannot, mayNot := wrongQueries(parameter)
			for status, values := range map[int][]string{400: cannot, 422: mayNot} {
				for _, value := range values {
					got := r.do(op.method, path+"?"+url.Values{name: {value}}.Encode(), token, body)
					refused++
					switch {
					case got.status != status:
						t.Errorf("%s?%s=%.40q: %d %.200s", op.doc["operationId"], name, value, got.status, got.body)
					case status == 422 && !slices.Equal(got.places(), []string{"query." + name}):
						t.Errorf("%s?%s=%.40q: named are %q", op.doc["operationId"], name, value, got.places())
					case status == 400 && !strings.Contains(got.str("detail"), name):
						t.Errorf("%s?%s=%.40q: %s", op.doc["operationId"], name, value, got.body)
					}
				}
			}
		}
		if queries == 0 {
			return
		}
		for _, query := range []string{"%zz", "a=%", "a=%f", ";", "limit=1;limit=2"} {
			if got := r.do(op.method, path+"?"+query, token, body); got.status != 400 {
				t.Errorf("%s?%s: %d %s", op.doc["operationId"], query, got.status, got.body)
			}
		}
		if op.method != "GET" {
			return
		}
		// What is not known does not count, however there is of it.
		plain := r.do("GET", path, token, nil)
		for _, query := range []string{"nobody=1", "Limit=1", "limit[]=1", "=", "&&&", "a=" + strings.Repeat("x", 20_000)} {
			if got := r.do("GET", path+"?"+query, token, nil); got.status != plain.status || string(got.body) != string(plain.body) {
				t.Errorf("%s?%.40s: %d %s, without %s", op.doc["operationId"], query, got.status, got.body, plain.body)
			}
		}
	})
	if refused < 400 {
		t.Errorf("only %d queries were tried", refused)
	}
}

// Iterators belong to a list: another's, and what is nearly one, are refused.
func TestIteratorsOfOtherListsAreRefused(t *testing.T) {
	t.Parallel()
	r := setup(t)
	ids := []string{
		webhook.NewApplicationID().String(), webhook.NewEndpointID().String(), webhook.NewMessageID().String(), webhook.NewAttemptID().String(),
		webhook.NewTenantID().String(), webhook.NewAPIKeyID().String(), webhook.NewSecretID().String(),
	}
	lists := 0
	r.every(func(op operation, path, token string) {
		if op.method != "GET" || !strings.Contains(encoded(t, op.doc), `"iterator"`) || strings.HasPrefix(op.path, eventTypesPath) || op.path == plansPath {
			return // event types and plans are listed by name, and any name is a place between two
		}
		lists++
		own, _ := r.do("GET", path, token, nil).want(200).fields()["iterator"].(string)
		kind, _, ok := strings.Cut(own, "_")
		if !ok {
			t.Fatalf("%s: its list is empty", op.doc["operationId"])
		}
		wrong := append([]string{own[:len(own)-1], own + "0", strings.ToUpper(own), "--" + own, " " + own, own + " ", kind + "_", flipped(own), "+-" + own, "-+" + own}, nearly(own)...)
		for _, id := range ids {
			if !strings.HasPrefix(id, kind+"_") {
				wrong = append(wrong, id, "-"+id)
			}
		}
		for _, text := range wrong {
			got := r.do("GET", path+"?"+url.Values{"iterator": {text}}.Encode(), token, nil)
			if got.status != 422 || !slices.Equal(got.places(), []string{"query.iterator"}) {
				t.Errorf("%s, iterator %q: %d %s", op.doc["operationId"], text, got.status, got.body)
			}
		}
		for _, text := range []string{own, "-" + own, "+" + own} {
			r.do("GET", path+"?"+url.Values{"iterator": {text}}.Encode(), token, nil).want(200)
		}
	})
	if lists < 9 {
		t.Errorf("only %d lists were found", lists)
	}
}

// flipped is a text with the case of its letters turned.
func flipped(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, text)
}

// nearly are ids with one sign changed, of which the checksum knows.
func nearly(id string) (wrong []string) {
	at := strings.IndexByte(id, '_') + 1
	for _, i := range []int{at, at + 10, len(id) - 1} {
		sign := "1"
		if id[i] == '1' {
			sign = "2"
		}
		wrong = append(wrong, id[:i]+sign+id[i+1:])
	}
	return wrong
}

// HEAD is GET without its body, wherever there is one.
func TestHeadIsGetWithoutABody(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.every(func(op operation, path, token string) {
		if op.method != "GET" {
			return
		}
		get, head := r.do("GET", path, token, nil).want(200), r.do("HEAD", path, token, nil).want(200)
		if len(head.body) > 0 || head.header.Get("Content-Length") != fmt.Sprint(len(get.body)) || head.header.Get("Content-Type") != get.header.Get("Content-Type") {
			t.Errorf("%s: %v %q, GET says %d bytes", op.doc["operationId"], head.header, head.body, len(get.body))
		}
	})
}

// An id that is not quite one names nothing, wherever it stands, and nothing is made in its place.
func TestEveryWrongIDIsNotFound(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.every(func(op operation, path, token string) {
		body := bodyOf(t, op)
		template, segments := strings.Split(op.path, "/"), strings.Split(path, "/")
		for i, part := range template {
			if !strings.HasPrefix(part, "{") {
				continue
			}
			id := segments[i]
			if op.method == "PUT" && i == len(template)-1 {
				continue // what is not there is made
			}
			wrong := []string{
				"x", "null", "undefined", "0", "-1", webhook.NewSecretID().String(), webhook.NewMessageID().String(), webhook.NewAttemptID().String(),
				webhook.NewApplicationID().String(), webhook.NewEndpointID().String(), strings.Repeat("a", 256), id + "0", id[:len(id)-1], flipped(id),
			}
			if strings.Contains(id, "_") {
				wrong = append(wrong, nearly(id)...)
			}
			for _, name := range wrong {
				segments[i] = name
				got := r.do(op.method, strings.Join(segments, "/"), token, body, idempotencyHeader, "wrong")
				if got.status != 404 || got.str("code") != "not_found" {
					t.Errorf("%s with %s = %q: %d %s", op.doc["operationId"], part, name, got.status, got.body)
				}
			}
			segments[i] = id
		}
	})
}

// A path answers the methods that it has; of others it says which those are.
func TestEveryOtherMethodIsRefused(t *testing.T) {
	t.Parallel()
	r := setup(t)
	methods := map[string][]string{}
	templates := map[string][]string{} // by method
	r.every(func(op operation, path, _ string) {
		methods[path] = append(methods[path], op.method)
		templates[op.method] = append(templates[op.method], op.path)
	})
	for path, known := range methods {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "X-Y"} {
			if slices.Contains(known, method) {
				continue
			}
			got := r.do(method, path, "", `{}`)
			if got.status == 401 && slices.ContainsFunc(templates[method], func(template string) bool { return meets(template, path) }) {
				continue // a word of this path is a name in that one
			}
			if got.status != 405 || got.str("code") != "method_not_allowed" {
				t.Errorf("%s %s: %d %s", method, path, got.status, got.body)
				continue
			}
			allowed := strings.Split(got.header.Get("Allow"), ", ")
			for _, k := range known {
				if !slices.Contains(allowed, k) {
					t.Errorf("%s %s: allowed are %q, not %s", method, path, allowed, k)
				}
			}
		}
		head := r.do("HEAD", path, "", nil)
		isGet := slices.ContainsFunc(templates["GET"], func(template string) bool { return meets(template, path) })
		if want := map[bool]int{true: 401, false: 405}[isGet]; head.status != want || len(head.body) > 0 || head.header.Get("Content-Length") == "0" {
			t.Errorf("HEAD %s: %d %s, want %d", path, head.status, head.body, want)
		}
		options := r.do("OPTIONS", path, "", nil)
		if strings.HasPrefix(path, operatorPath) {
			options.want(405)
		} else {
			options.want(204)
		}
	}
}

// meets reports whether a path is one of a template's.
func meets(template, path string) bool {
	a, b := strings.Split(template, "/"), strings.Split(path, "/")
	return slices.EqualFunc(a, b, func(a, b string) bool { return strings.HasPrefix(a, "{") || a == b })
}

// Headers that are out of bounds are the caller's mistake, whatever the operation.
func TestEveryWrongHeaderIsRefused(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.every(func(op operation, path, token string) {
		for _, authorization := range []string{
			"", "Bearer", "Bearer ", "Basic eDp5", token, "Bearer  \t ", "Bearer " + token + "x", "Bearer " + strings.Repeat("x", 16_000), "Bearer \xff\xfe",
			"Bearer " + token + ", Bearer " + token, "Token " + token, "bearer" + token,
		} {
			req, err := http.NewRequestWithContext(t.Context(), op.method, r.url+path, strings.NewReader("{"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header["Authorization"] = []string{authorization}
			if got := r.send(req); got.status != 401 || got.str("code") != "authentication_failed" || got.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s, Authorization %.40q: %d %s", op.doc["operationId"], authorization, got.status, got.body)
			}
		}
		if op.method != "POST" || op.isOperator() || op.isApplication() {
			return
		}
		got := r.do("POST", path, token, bodyOf(t, op), idempotencyHeader, strings.Repeat("k", webhook.MaxIdempotencyKey+1))
		if got.status != 422 || !slices.Equal(got.places(), []string{"header.idempotency-key"}) {
			t.Errorf("%s, a long key: %d %s", op.doc["operationId"], got.status, got.body)
		}
		if op.doc["requestBody"] == nil {
			return
		}
		// What a body is said to be does not make it anything else.
		for name, value := range map[string]string{
			"Content-Type": "application/xml", "content-type": "application/json; charset=utf-16", "Content-Encoding": "gzip", "Accept": "text/html;q=1, */*;q=0", "Accept-Charset": "utf-16", "Content-Language": "x",
			"Transfer-Encoding": "identity", "If-Match": `"x"`, "Range": "bytes=0-1", "X-HTTP-Method-Override": "GET", "Expect": "100-continue",
		} {
			if got := r.do("POST", path, token, "\x1f\x8b\x08", name, value, idempotencyHeader, "wrong"); got.status != 422 || len(got.places()) != 1 {
				t.Errorf("%s, %s %s: %d %s", op.doc["operationId"], name, value, got.status, got.body)
			}
		}
	})
}

// What the server answers before it is a request of ours: an expectation nobody can meet, a body that
// never comes, headers beyond all measure.
func TestRequestsThatNeverArrive(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant()
	conn := r.sql()
	before := ledger(t, conn)
	host := strings.TrimPrefix(r.url, "http://")
	head := "POST /api/v1/app HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + a.key + "\r\n"
	for name, c := range map[string]struct {
		raw  string
		want int
	}{
		"an expectation":        {head + "Expect: the-impossible\r\nContent-Length: 12\r\n\r\n{\"name\":\"n\"}", 417},
		"a body cut off":        {head + "Content-Length: 100\r\n\r\n{\"name\":\"n\"}", 400},
		"a chunk cut off":       {head + "Transfer-Encoding: chunked\r\n\r\nff\r\n{\"name\":\"n\"}", 400},
		"no body at all":        {head + "\r\n", 422},
		"endless headers":       {head + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 64) + "\r\n", 431},
		"a length beyond all":   {head + "Content-Length: 9223372036854775807\r\n\r\n{}", 413},
		"a length of no number": {head + "Content-Length: 9223372036854775808\r\n\r\n{}", 400},
	} {
		c1, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		_ = c1.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.WriteString(c1, c.raw)
		_ = c1.(*net.TCPConn).CloseWrite()
		answer, err := http.ReadResponse(bufio.NewReader(c1), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if answer.StatusCode != c.want {
			t.Errorf("%s: %s", name, answer.Status)
		}
		_ = c1.Close()
	}
	if after := ledger(t, conn); after != before {
		t.Errorf("something is left behind:\n%s\n%s", before, after)
	}
}
