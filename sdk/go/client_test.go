package posthaste_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

const testKey = "phk_of_the_tests"

// server answers in turn what a test wants, and keeps what it was asked.
type server struct {
	*httptest.Server

	mu      sync.Mutex
	answers []http.HandlerFunc
	asked   []asked
}

type asked struct {
	method, uri string
	header      http.Header
	body        string
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.asked = append(s.asked, asked{r.Method, r.RequestURI, r.Header, string(body)})
	answer := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	s.mu.Unlock()
	answer(w, r)
}

func (s *server) requests() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// says answers with a status, headers as "Name: value", and a body.
func says(status int, body string, headers ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// hangsUp ends the connection without an answer.
func hangsUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

// serve starts a server; its last answer is given from then on. waits are the client's between tries.
func serve(t *testing.T, answers ...http.HandlerFunc) (s *server, c *posthaste.Client, waits *[]time.Duration) {
	t.Helper()
	s = &server{answers: answers}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	c = client(t, posthaste.WithURL(s.URL))
	waits = new([]time.Duration)
	posthaste.SetSleep(c, func(ctx context.Context, d time.Duration) error {
		*waits = append(*waits, d)
		return ctx.Err()
	})
	return s, c, waits
}

func client(t *testing.T, options ...posthaste.Option) *posthaste.Client {
	t.Helper()
	c, err := posthaste.New(testKey, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

const (
	made = `{"id":"msg_1","eventType":"a","eventId":null,"payload":{"n":12345678901234567890},"channels":null,"tags":["x"],"timestamp":"2026-01-02T03:04:05.678Z","new":[1]}`
	busy = `{"code":"unavailable","detail":"Not now","requestId":"req_1"}`
)

func TestRequestIsWhatTheAPIReads(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, says(202, made))
	got, err := c.Messages.Create(t.Context(), "a/b c?", posthaste.MessageIn{
		EventType: "a", Payload: map[string]any{"html": "<b>&</b>"}, Tags: []string{"x"}, Channels: []string{},
		Application: &posthaste.ApplicationIn{Name: "Acme", UID: "acme", ThrottleRate: 5},
	}, posthaste.MessageCreateOptions{WithContent: posthaste.Set(false), IdempotencyKey: "mine"})
	if err != nil {
		t.Fatal(err)
	}
	r := s.requests()[0]
	if r.method != "POST" || r.uri != "/api/v1/app/a%2Fb%20c%3F/msg?with_content=false" {
		t.Errorf("%s %s", r.method, r.uri)
	}
	if want := `{"eventType":"a","payload":{"html":"<b>&</b>"},"application":{"name":"Acme","throttleRate":5,"uid":"acme"},"channels":[],"tags":["x"]}`; r.body != want {
		t.Errorf("sent %s\nwant %s", r.body, want)
	}
	for name, want := range map[string]string{
		"Authorization": "^Bearer " + testKey + "$", "Content-Type": "^application/json$", "Accept": "^application/json$",
		"Idempotency-Key": "^mine$", "User-Agent": `^posthaste-go/\S+ \(go1\.\S+; \w+/\w+\)$`,
	} {
		if value := r.header.Get(name); !regexp.MustCompile(want).MatchString(value) {
			t.Errorf("%s: %q, want %s", name, value, want)
		}
	}
	// A field that is unknown, null, or a number beyond float64 does no harm.
	if got.ID != "msg_1" || got.EventID != "" || string(got.Payload) != `{"n":12345678901234567890}` || got.Channels != nil || !got.Timestamp.Equal(time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)) {
		t.Errorf("%+v", got)
	}
}

func TestQueryHasWhatIsSet(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, says(200, `{"data":[],"iterator":null,"done":true}`))
	_, err := c.Attempts.ListByEndpointPage(t.Context(), "a", "e", posthaste.AttemptListByEndpointOptions{
		Limit: 7, EventTypes: []string{"a.b", "c"}, Before: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.FixedZone("", 3600)), Status: posthaste.Set(posthaste.StatusSuccess),
		WithContent: posthaste.Set(false), WithMsg: true, Tag: "a#b",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := "/api/v1/app/a/attempt/endpoint/e?before=2026-01-02T02%3A04%3A05.000006Z&event_types=a.b%2Cc&limit=7&status=0&tag=a%23b&with_content=false&with_msg=true"
	if got := s.requests()[0].uri; got != want {
		t.Errorf("asked %s\nwant  %s", got, want)
	}
}

func TestNamesCannotLeaveTheirPlace(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, says(204, ""))
	for name, want := range map[string]string{"..": "%2E%2E", ".": "%2E", "...": "...", "{x}": "%7Bx%7D", "a%2Fb": "a%252Fb", "ü": "%C3%BC", "a\r\nb": "a%0D%0Ab"} {
		if err := c.Applications.Delete(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		asked := s.requests()
		if got := asked[len(asked)-1].uri; got != "/api/v1/app/"+want {
			t.Errorf("%q: asked %s", name, got)
		}
	}
	before := len(s.requests())
	if err := c.Endpoints.Delete(t.Context(), "a", ""); err == nil || !strings.Contains(err.Error(), "endpoint is empty") {
		t.Errorf("an empty name: %v", err)
	}
	if len(s.requests()) != before {
		t.Error("a request with an empty name was made")
	}
}

func TestOneKeyForOneCall(t *testing.T) {
	t.Parallel()
	s, c, waits := serve(t, hangsUp, says(500, `{}`), says(503, busy, "Retry-After: 1"), says(202, made))
	got, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: struct{}{}})
	if err != nil || got.ID != "msg_1" {
		t.Fatal(got, err)
	}
	first := s.requests()
	if len(first) != 4 || len(*waits) != 3 {
		t.Fatalf("%d requests, waits %v", len(first), *waits)
	}
	key := first[0].header.Get("Idempotency-Key")
	for _, r := range first {
		if r.header.Get("Idempotency-Key") != key || r.body != first[0].body || r.body == "" {
			t.Errorf("key %q, body %q; the first had %q, %q", r.header.Get("Idempotency-Key"), r.body, key, first[0].body)
		}
	}
	if !strings.HasPrefix(key, "auto_") || len(key) < 25 {
		t.Errorf("key %q", key)
	}
	if w := *waits; w[0] < 50*time.Millisecond || w[0] > 100*time.Millisecond || w[1] < 100*time.Millisecond || w[1] > 200*time.Millisecond || w[2] < time.Second || w[2] > 1500*time.Millisecond {
		t.Errorf("waited %v", w)
	}
	if _, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: struct{}{}}); err != nil {
		t.Fatal(err)
	}
	if again := s.requests()[4].header.Get("Idempotency-Key"); again == key {
		t.Error("two calls have one key")
	}
}

func TestWhatIsRepeated(t *testing.T) {
	t.Parallel()
	publish := func(c *posthaste.Client) error {
		_, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: struct{}{}})
		return err
	}
	tenant := func(c *posthaste.Client) error { // without a key that makes it safe
		_, err := c.Operator.Tenants.Create(t.Context(), posthaste.TenantIn{Name: "n"})
		return err
	}
	get := func(c *posthaste.Client) error {
		_, err := c.Messages.Get(t.Context(), "a", "m")
		return err
	}
	remove := func(c *posthaste.Client) error { return c.Applications.Delete(t.Context(), "a") }
	long := fmt.Sprintf("Retry-After: %d", int(posthaste.LongestAsked.Seconds())+1)
	bound := fmt.Sprintf("Retry-After: %d", int(posthaste.LongestAsked.Seconds()))
	for _, c := range []struct {
		name   string
		call   func(*posthaste.Client) error
		answer http.HandlerFunc
		tries  int
	}{
		{"publish, 500", publish, says(500, "{}"), 4},
		{"publish, 502 of a proxy", publish, says(502, "<html>"), 4},
		{"publish, no answer", publish, hangsUp, 4},
		{"publish, 429 with a time", publish, says(429, "{}", "Retry-After: 2"), 4},
		{"publish, 429 without", publish, says(429, "{}"), 1},
		{"publish, 429 at the longest", publish, says(429, "{}", bound), 4},
		{"publish, 429 for longer", publish, says(429, "{}", long), 1},
		{"publish, 503 for longer", publish, says(503, "{}", long), 1},
		{"publish, 400", publish, says(400, "{}"), 1},
		{"publish, 409", publish, says(409, "{}"), 1},
		{"publish, 422", publish, says(422, "{}"), 1},
		{"publish, a redirect", publish, says(307, "", "Location: /elsewhere"), 1},
		{"publish, no JSON", publish, says(202, "<html>"), 1},
		{"publish, no body", publish, says(202, ""), 1},
		{"tenant, 500", tenant, says(500, "{}"), 1},
		{"tenant, no answer", tenant, hangsUp, 1},
		{"tenant, 429 with a time", tenant, says(429, "{}", "Retry-After: 1"), 4},
		{"get, 500", get, says(500, "{}"), 4},
		{"get, no answer", get, hangsUp, 4},
		{"delete, 503", remove, says(503, "{}"), 4},
	} {
		s, client, waits := serve(t, c.answer)
		err := c.call(client)
		if err == nil || len(s.requests()) != c.tries || len(*waits) != c.tries-1 {
			t.Errorf("%s: %d tries, want %d; %v", c.name, len(s.requests()), c.tries, err)
		}
	}
}

func TestWaitsGrowToABound(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(says(500, "{}"))
	defer s.Close()
	c := client(t, posthaste.WithURL(s.URL), posthaste.WithRetries(40))
	var waits []time.Duration
	posthaste.SetSleep(c, func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	})
	if err := c.Applications.Delete(t.Context(), "a"); !errors.Is(err, posthaste.ErrUnavailable) {
		t.Fatal(err)
	}
	if len(waits) != 40 {
		t.Fatalf("%d waits", len(waits))
	}
	full := 100 * time.Millisecond
	for i, d := range waits {
		if d < full/2 || d > full {
			t.Errorf("wait %d is %v, want %v to %v", i+1, d, full/2, full)
		}
		full = min(2*full, posthaste.LongestWait)
	}
}

func TestCallsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	_, c, _ := serve(t, says(500, "{}"))
	posthaste.SetSleep(c, func(ctx context.Context, _ time.Duration) error {
		cancel()
		return posthaste.Sleep(ctx, time.Hour)
	})
	err := c.Applications.Delete(ctx, "a")
	var refused *posthaste.Error
	if !errors.Is(err, context.Canceled) || !errors.As(err, &refused) || refused.Status != 500 {
		t.Errorf("cancelled while waiting: %v", err)
	}
	if err := c.Applications.Delete(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	short, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := posthaste.Sleep(short, time.Hour); err != context.DeadlineExceeded {
		t.Errorf("a wait beyond the deadline: %v", err)
	}
	if err := posthaste.Sleep(t.Context(), time.Nanosecond); err != nil {
		t.Error(err)
	}
}

func TestEveryTryHasItsTimeout(t *testing.T) {
	t.Parallel()
	first := make(chan struct{})
	s, _, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // the client gives up
		close(first)
	}, says(204, ""))
	c := client(t, posthaste.WithURL(s.URL), posthaste.WithTimeout(100*time.Millisecond), posthaste.WithRetries(50)) // many: a busy machine is slow to answer, too
	if err := c.Applications.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	<-first
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		kind   error
		want   posthaste.Error
		text   string
	}{
		{404, `{"code":"not_found","detail":"Entity not found","requestId":"req_1"}`, posthaste.ErrNotFound, posthaste.Error{Code: "not_found", Detail: "Entity not found", RequestID: "req_1"},
			"posthaste: DELETE /api/v1/app/{app}: 404 not_found: Entity not found (req_1)"},
		{422, `{"detail":[{"loc":["body","name"],"msg":"is required","type":"value_error"},{"loc":["body"],"msg":"m","type":"t"}],"requestId":"req_2"}`, posthaste.ErrInvalid,
			posthaste.Error{Code: "validation_error", Fields: []posthaste.FieldError{{Loc: []string{"body", "name"}, Msg: "is required", Type: "value_error"}, {Loc: []string{"body"}, Msg: "m", Type: "t"}}, RequestID: "req_2"},
			"posthaste: DELETE /api/v1/app/{app}: 422 validation_error: body.name is required; body m (req_2)"},
		{422, `{"code":"idempotency_key_reused","detail":"d"}`, posthaste.ErrInvalid, posthaste.Error{Code: "idempotency_key_reused", Detail: "d"}, "posthaste: DELETE /api/v1/app/{app}: 422 idempotency_key_reused: d"},
		{400, `{}`, posthaste.ErrBadRequest, posthaste.Error{Detail: "Bad Request"}, "posthaste: DELETE /api/v1/app/{app}: 400: Bad Request"},
		{401, ``, posthaste.ErrUnauthorized, posthaste.Error{Detail: "Unauthorized"}, "posthaste: DELETE /api/v1/app/{app}: 401: Unauthorized"},
		{403, `[1]`, posthaste.ErrForbidden, posthaste.Error{Detail: "Forbidden"}, ""},
		{409, `{"detail":{"a":1}}`, posthaste.ErrConflict, posthaste.Error{Detail: "Conflict"}, ""},
		{413, `null`, posthaste.ErrTooLarge, posthaste.Error{Detail: "Request Entity Too Large"}, ""},
		{429, `{"detail":null}`, posthaste.ErrRateLimited, posthaste.Error{Detail: "Too Many Requests"}, ""},
		{502, `<html>`, posthaste.ErrUnavailable, posthaste.Error{Detail: "Bad Gateway"}, ""},
		{418, `{"code":"teapot","detail":"short"}`, nil, posthaste.Error{Code: "teapot", Detail: "short"}, ""},
	} {
		_, client, _ := serve(t, says(c.status, c.body))
		err := client.Applications.Delete(t.Context(), "secret-name")
		var got *posthaste.Error
		if !errors.As(err, &got) {
			t.Errorf("%d: %v", c.status, err)
			continue
		}
		same := got.Status == c.status && got.Code == c.want.Code && got.Detail == c.want.Detail && got.RequestID == c.want.RequestID &&
			fmt.Sprint(got.Fields) == fmt.Sprint(c.want.Fields)
		if !same || c.text != "" && err.Error() != c.text {
			t.Errorf("%d: %+v\n%v", c.status, got, err)
		}
		if strings.Contains(err.Error(), "secret-name") {
			t.Errorf("%d: a name is in the error: %v", c.status, err)
		}
		for _, kind := range []error{posthaste.ErrBadRequest, posthaste.ErrUnauthorized, posthaste.ErrForbidden, posthaste.ErrNotFound, posthaste.ErrConflict,
			posthaste.ErrTooLarge, posthaste.ErrInvalid, posthaste.ErrRateLimited, posthaste.ErrUnavailable} {
			if errors.Is(err, kind) != (kind == c.kind) {
				t.Errorf("%d is %v: %v", c.status, kind, errors.Is(err, kind))
			}
		}
	}
}

func TestRetryAfterIsReadInBothForms(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][2]time.Duration{
		"7": {7 * time.Second, 7 * time.Second}, "": {}, "-1": {}, "soon": {}, "99999999999999999999": {},
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat):  {59 * time.Minute, time.Hour},
		time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): {},
	} {
		_, c, _ := serve(t, says(429, "{}", "Retry-After: "+value, "X-Request-Id: req_9"))
		var refused *posthaste.Error
		if err := c.Applications.Delete(t.Context(), "a"); !errors.As(err, &refused) || refused.RetryAfter < want[0] || refused.RetryAfter > want[1] || refused.RequestID != "req_9" {
			t.Errorf("%q: %+v", value, refused)
		}
	}
}

func TestFailuresWithoutAnAnswerNameNoURL(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, hangsUp)
	err := c.Applications.Delete(t.Context(), "secret-name")
	if err == nil || strings.Contains(err.Error(), "secret-name") || strings.Contains(err.Error(), s.URL) || !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	const bound = 1000
	for _, c := range []struct {
		size int
		want error
	}{{bound, nil}, {bound + 1, posthaste.ErrResponseTooLarge}} {
		text := `{"id":"app_1","name":"` + strings.Repeat("x", c.size-len(`{"id":"app_1","name":""}`)) + `"}`
		s, _, _ := serve(t, says(200, text))
		client := client(t, posthaste.WithURL(s.URL), posthaste.WithMaxResponse(bound))
		if _, err := client.Applications.Get(t.Context(), "a"); !errors.Is(err, c.want) {
			t.Errorf("%d bytes: %v, want %v", c.size, err, c.want)
		}
		if len(s.requests()) != 1 {
			t.Errorf("%d bytes: asked %d times", c.size, len(s.requests()))
		}
	}
}

func TestRedirectsGetNothing(t *testing.T) {
	t.Parallel()
	thief, _, _ := serve(t, says(200, "{}"))
	s, _, _ := serve(t, says(307, "", "Location: "+thief.URL))
	followed := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, option := range []posthaste.Option{posthaste.WithTimeout(time.Minute), posthaste.WithHTTPClient(followed)} {
		c := client(t, posthaste.WithURL(s.URL), option)
		_, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: struct{}{}})
		var refused *posthaste.Error
		if !errors.As(err, &refused) || refused.Status != 307 {
			t.Errorf("%v", err)
		}
	}
	if n := len(thief.requests()); n != 0 {
		t.Errorf("%d requests were redirected", n)
	}
	if followed.CheckRedirect != nil {
		t.Error("the caller's client was changed")
	}
}

func TestCertificatesThatAreWrongStayWrong(t *testing.T) {
	t.Parallel()
	s := &server{answers: []http.HandlerFunc{says(204, "")}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = quiet
	s.StartTLS()
	t.Cleanup(s.Close)
	c := client(t, posthaste.WithURL(s.URL))
	waits := 0
	posthaste.SetSleep(c, func(context.Context, time.Duration) error { waits++; return nil })
	if err := c.Applications.Delete(t.Context(), "a"); err == nil || waits != 0 {
		t.Errorf("%v after %d repeats", err, waits)
	}
	c = client(t, posthaste.WithURL(s.URL+"/"), posthaste.WithHTTPClient(s.Client()))
	if err := c.Applications.Delete(t.Context(), "a"); err != nil {
		t.Error(err)
	}
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"", "a b", "key\n", "schlüssel"} {
		if _, err := posthaste.New(key); err == nil || key != "" && strings.Contains(err.Error(), key) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	for name, option := range map[string]posthaste.Option{
		"no scheme": posthaste.WithURL("webhooks.example.com"), "ftp": posthaste.WithURL("ftp://a"), "no host": posthaste.WithURL("https://"),
		"a user": posthaste.WithURL("https://u:p@a"), "a query": posthaste.WithURL("https://a?b"), "a fragment": posthaste.WithURL("https://a#b"),
		"no URL": posthaste.WithURL("https://a b"), "timeout": posthaste.WithTimeout(0), "retries": posthaste.WithRetries(-1), "answer": posthaste.WithMaxResponse(0),
		"no client": posthaste.WithHTTPClient(nil), "agent": posthaste.WithUserAgent("a\nb"),
	} {
		if _, err := posthaste.New(testKey, option); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestOptionsAreHeeded(t *testing.T) {
	t.Parallel()
	s, _, _ := serve(t, says(500, "{}"))
	c := client(t, posthaste.WithURL(s.URL+"/prefix/"), posthaste.WithRetries(0), posthaste.WithUserAgent("billing/1.4"))
	if err := c.Applications.Delete(t.Context(), "a"); !errors.Is(err, posthaste.ErrUnavailable) {
		t.Error(err)
	}
	asked := s.requests()
	if len(asked) != 1 || asked[0].uri != "/prefix/api/v1/app/a" || !strings.HasPrefix(asked[0].header.Get("User-Agent"), "billing/1.4 posthaste-go/") {
		t.Errorf("%+v", asked)
	}
	if asked[0].header.Get("Idempotency-Key") != "" || asked[0].header.Get("Content-Type") != "" || asked[0].body != "" {
		t.Errorf("%+v", asked[0])
	}
}

func TestClientHidesItsKey(t *testing.T) {
	t.Parallel()
	c := client(t)
	holder := struct{ c *posthaste.Client }{c}
	for _, shown := range []string{fmt.Sprint(c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%+v", c.Messages), fmt.Sprintf("%#v", *c), fmt.Sprintf("%+v", holder)} {
		if strings.Contains(shown, testKey) {
			t.Errorf("printed: %s", shown)
		}
	}
	if text, err := json.Marshal(c); err != nil || strings.Contains(string(text), testKey) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestClientsAreShared(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, says(202, made))
	var calls sync.WaitGroup
	for i := range 50 {
		calls.Go(func() {
			if _, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: map[string]int{"i": i}}); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	keys, bodies := map[string]bool{}, map[string]bool{}
	for _, r := range s.requests() {
		keys[r.header.Get("Idempotency-Key")], bodies[r.body] = true, true
	}
	if len(keys) != 50 || len(bodies) != 50 {
		t.Errorf("%d keys, %d bodies", len(keys), len(bodies))
	}
}

func TestBodiesThatCannotBeWrittenAreNotSent(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, says(202, made))
	if _, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: func() {}}); err == nil {
		t.Error("a function was sent")
	}
	if len(s.requests()) != 0 {
		t.Error("a request was made")
	}
}
