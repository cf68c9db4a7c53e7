package api

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// hostile are bodies that mean harm or nothing.
var hostile = map[string]string{
	"empty":               ``,
	"not JSON":            `{`,
	"two values":          `{}{}`,
	"a text":              `"x"`,
	"null":                `null`,
	"an array":            `[{}]`,
	"a number":            `1e999`,
	"deep arrays":         strings.Repeat(`[`, 100_000),
	"deep objects":        strings.Repeat(`{"a":`, 100_000),
	"deep inside":         `{"name":"n","payload":` + strings.Repeat(`[`, 9_000) + strings.Repeat(`]`, 9_000) + `}`,
	"broken UTF-8":        "{\"name\":\"\xff\xfe\",\"description\":\"\xc3\x28\",\"eventType\":\"\xed\xa0\x80\"}",
	"byte order mark":     "\xef\xbb\xbf{}",
	"raw NUL":             "{\"name\":\"a\x00b\"}",
	"long":                `{"name":"` + strings.Repeat("n", 70_000) + `","description":"` + strings.Repeat("d", 70_000) + `","url":"` + strings.Repeat("u", 70_000) + `"}`,
	"10 MB":               `{"name":"` + strings.Repeat("n", 10<<20) + `"}`,
	"wrong types":         `{"name":1,"uid":[],"url":{},"description":[1],"disabled":"yes","eventTypes":{},"channels":"c","metadata":[],"headers":[],"schemas":1,"eventType":{},"payload":"p","scopes":"admin","key":1,"at":1,"gracePeriodSeconds":"x"}`,
	"nulls":               `{"name":null,"uid":null,"url":null,"description":null,"disabled":null,"eventTypes":null,"channels":null,"metadata":null,"headers":null,"schemas":null,"eventType":null,"payload":null,"scopes":null,"key":null,"at":null}`,
	"items of wrong type": `{"name":"n","url":"http://127.0.0.1:8072/","description":"d","eventTypes":[{},[],1,null],"channels":[[{}]],"metadata":{"a":{"b":1}},"headers":{"a":{"b":1}},"scopes":[1],"eventType":"a","payload":{},"tags":[[]],"featureFlags":[{}]}`,
	"huge numbers":        `{"name":"n","throttleRate":1e999,"version":99999999999999999999,"gracePeriodSeconds":1e30,"payloadRetentionPeriod":-1e18}`,
	"NUL escapes":         `{"name":"a\u0000","uid":"a\u0000","url":"http://127.0.0.1:8072/\u0000","description":"\u0000","metadata":{"\u0000":"\u0000"},"headers":{"x":"\u0000"},"schemas":{"1":{"\u0000":"\u0000"}},"groupName":"\u0000","eventType":"\u0000","payload":{"a":"\u0000"},"eventId":"\u0000","channels":["\u0000"],"tags":["\u0000"],"featureFlags":["\u0000"],"secret":"\u0000","key":"\u0000","deleteHeaders":["\u0000"]}`,
	"lone surrogates":     `{"name":"\ud800","url":"http://127.0.0.1:8072/\udfff","description":"\udc00\ud800","metadata":{"\ud800":"\ud800"},"headers":{"x-a":"\ud800"},"schemas":{"1":{"a":"\ud800"}},"eventType":"user.created","payload":{"a":"\ud800"},"scopes":["read"]}`,
	"repeated members":    `{"name":"a","name":{"b":1},"url":"x","url":1,"description":"a","description":[],"payload":{},"payload":1,"eventType":"a","eventType":[]}`,
	"other case":          `{"NAME":"a","Url":"x","DESCRIPTION":"d","EventType":"e","PAYLOAD":{},"Scopes":["admin"],"UID":"a/b"}`,
	"control characters":  `{"name":"\u0001\u001b[31m","url":"http://127.0.0.1:8072/\u001b","description":"\u001b[2J","eventType":"a\u001b","payload":{}}`,
	"many wrong items":    `{"name":"n","url":"http://127.0.0.1:8072/","description":"d","eventTypes":[` + strings.Repeat(`1,`, 500_000) + `1],"channels":[` + strings.Repeat(`"",`, 300_000) + `""]}`,
	"prototype":           `{"__proto__":{"name":"x"},"constructor":{"prototype":{}},"name":"n"}`,
}

// Whatever comes to whichever operation, the answer is JSON of the documented shape and never the
// server's fault; the recorder checks both. Afterwards the server still serves.
func TestHostileBodies(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant()
	values := a.objects()
	values["tenant_id"], values["key_id"], values["plan_name"] = a.id.String(), "nobody", "nothing"
	for _, op := range operations(golden(t)) {
		if op.doc["requestBody"] == nil {
			continue
		}
		token := a.key
		if op.isOperator() {
			token = operatorToken
		}
		for what, body := range hostile {
			if what == "10 MB" && op.method != "POST" {
				continue // the same reader everywhere; ten megabytes many times over are slow
			}
			got := r.do(op.method, fill(op.path, values), token, body)
			switch {
			case what == "10 MB" && got.status != 413:
				t.Errorf("%s, %s: %d %.200s", op.doc["operationId"], what, got.status, got.body)
			case got.status >= 500:
				t.Errorf("%s, %s: %d %.200s", op.doc["operationId"], what, got.status, got.body)
			case strings.Contains(string(got.body), "SQLSTATE"), strings.Contains(string(got.body), "goroutine"), strings.Contains(string(got.body), "Go struct"):
				t.Errorf("%s, %s: internals: %.300s", op.doc["operationId"], what, got.body)
			}
		}
	}
	a.get("/app").want(200)
}

func TestHostilePathsAndQueries(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant()
	values := a.objects()
	values["tenant_id"], values["plan_name"] = a.id.String(), "nothing"
	junk := []string{
		"%00", "%ff", "a%2Fb", "..%2f..", "%2e%2e", "%0d%0ax:y", "'%20OR%201=1--", strings.Repeat("a", 300), "app_", "ep_" + strings.Repeat("z", 27),
		"msg_" + strings.Repeat("0", 27), "%E2%80%AE", "%25", "$1", "*", "null",
	}
	queries := []string{
		"limit=%00", "limit=99999999999999999999", "iterator=%ff", "iterator=-", "channel=%00", "tag=%ff", "event_types=%00,%ff",
		"event_types[99999]=a", "event_types[x]=a", "before=%00", "after=9999-12-31T23:59:59Z", "before=99999-01-01T00:00:00Z",
		"status=-1", "status_code_class=1e9", "with_content=%00", "a=%zz", ";", "&&&", "=", "order=%00", "endpoint_id=%ff",
		"event_types=" + strings.Repeat("a,", maxListItems+1), "before=2024-01-01T00:00Z&after=2024-01-02T00:00Z",
	}
	made := map[string]bool{} // names that a PUT has given to an object
	for _, op := range operations(golden(t)) {
		token := a.key
		if op.isOperator() {
			token = operatorToken
		}
		body := bodyOf(t, op)
		for _, p := range pathParameter.FindAllStringSubmatch(op.path, -1) {
			for _, segment := range junk {
				bad := map[string]string{}
				for name, value := range values {
					bad[name] = value
				}
				if op.method == "PUT" && p[1] != "app_id" && (segment == "app_" || segment == "null") {
					continue // names that are free
				}
				bad[p[1]] = segment
				got := r.do(op.method, fill(op.path, bad), token, body)
				if name := p[1] + "=" + segment; op.method == "PUT" && got.status == 201 {
					made[name] = true
				} else if got.status >= 500 || got.status < 400 && op.method != "PUT" && !made[name] {
					t.Errorf("%s with %s=%s: %d %.200s", op.doc["operationId"], p[1], segment, got.status, got.body)
				}
			}
		}
		if op.method != "GET" {
			continue
		}
		for _, query := range queries {
			if got := r.do("GET", fill(op.path, values)+"?"+query, token, nil); got.status >= 500 {
				t.Errorf("%s?%s: %d %.200s", op.doc["operationId"], query, got.status, got.body)
			}
		}
	}
	a.get("/app").want(200)
}

func TestHostileHeaders(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := a.url + basePath + "/app"
	for _, header := range []http.Header{
		{"Authorization": {"Bearer"}}, {"Authorization": {"Basic eDp5"}}, {"Authorization": {"Bearer  "}}, {"Authorization": {a.key}},
		{"Authorization": {"Bearer " + strings.Repeat("x", 8000)}}, {"Authorization": {"Bearer \xff\xfe"}},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		a.send(req).want(401)
	}
	for _, kind := range []string{"", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "\xff"} {
		a.post("/app", `{"name":"n"}`, "Content-Type", kind).want(201)
	}
	a.post("/app", `{"name":"n"}`, "Accept", "application/xml").want(201)
	a.post("/app", `{"name":"n"}`, "Content-Encoding", "gzip").want(201) // it is not, and nobody unpacks it
	a.do("GET", basePath+"/app", a.key, nil, "Accept", "image/png;q=0").want(200)
	a.do("GET", basePath+"/app?"+url.Values{"a": {strings.Repeat("x", 20_000)}}.Encode(), a.key, nil).want(200)
}
