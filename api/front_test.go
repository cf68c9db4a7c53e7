package api

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
)

func TestPathsAreForgivenWithoutARedirect(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	for _, path := range []string{"/api/v1/app", "/api/v1/app/", "//api/v1/app", "//api/v1/app/", "///api/v1/app//"} {
		a.do("GET", path, a.key, nil).want(200)
		a.do("POST", path, a.key, `{"name":"n"}`).want(201)
	}
	a.do("GET", "//api/v1/app/"+app+"/", a.key, nil).want(200)
	// An empty segment is not taken away: what is left would be another route.
	a.do("GET", "/api/v1/app//endpoint", a.key, nil).want(404)
	a.do("DELETE", "/api/v1/app/"+app+"%2Fendpoint", a.key, nil).want(404)
	a.do("GET", "/api/v1/app/"+app, a.key, nil).want(200)
}

func TestUnknownRoutesAnswerJSON(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for _, path := range []string{"/", "/nothing", "/api/v1", "/api/v1/nothing", "/api/v2/app", "/api/v1/app/x/y/z"} {
		if code := r.do("GET", path, "", nil).want(404).str("code"); code != "not_found" {
			t.Errorf("%s: %s", path, code)
		}
	}
	for _, method := range []string{"DELETE", "PATCH", "PUT", "TRACE"} {
		got := r.do(method, "/api/v1/app", "", nil).want(405)
		if got.str("code") != "method_not_allowed" || !strings.Contains(got.header.Get("Allow"), "POST") {
			t.Errorf("%s: %s %v", method, got.body, got.header)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	r := setup(t)
	asked := "authorization, svix-req-id, idempotency-key, user-agent"
	for _, path := range []string{"/api/v1/app", "/api/v1/app/x/endpoint/y", "/api/v1/health"} {
		got := r.do("OPTIONS", path, "", nil, "Origin", "https://shop.example", "Access-Control-Request-Method", "PATCH",
			"Access-Control-Request-Headers", asked).want(204)
		h := got.header
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Headers") != asked || h.Get("Access-Control-Max-Age") != "600" ||
			!strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH") || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", path, h)
		}
	}
	if h := r.do("GET", "/api/v1/app", "", nil, "Origin", "https://shop.example").want(401).header; h.Get("Access-Control-Allow-Origin") != "*" {
		t.Error("an error must be readable too", h)
	}
	if h := r.do("OPTIONS", tenantsPath, "", nil, "Origin", "https://shop.example", "Access-Control-Request-Method", "GET").header; h.Get("Access-Control-Allow-Origin") != "" {
		t.Error("the operator's routes are for no page", h)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var ill, alone atomic.Bool
	r := setup(t, func(o *Options) {
		o.Ready = func(context.Context) error {
			if ill.Load() {
				return errors.New("secret-canary is away")
			}
			return nil
		}
		o.Queued = func() bool { return !alone.Load() }
	})
	paths := []string{"/health", "/health/live", "/health/ready", "/api/v1/health", "/api/v1/health/", "/api/v1/health/live", "/api/v1/health/ready"}
	for _, path := range paths {
		if got := r.do("GET", path, "", nil).want(200); got.str("status") != "ok" {
			t.Errorf("%s: %s", path, got.body)
		}
		if got := r.do("HEAD", path, "", nil).want(200); len(got.body) > 0 || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v", path, got.header)
		}
	}
	for _, redis := range []string{"ok", "error"} {
		alone.Store(redis == "error")
		want := `{"status":"ok","database":{"status":"ok"},"queue":{"status":"` + redis + `"},"cache":{"status":"` + redis + `"}}`
		if got := r.do("GET", "/api/v1/health", "", nil).want(200); string(got.body) != want {
			t.Errorf("%s, want %s", got.body, want)
		}
	}
	r.do("GET", "/api/v1/health/ping", "", nil).want(204)
	ill.Store(true)
	var got result
	for got = r.do("GET", "/health/ready", "", nil); got.status == 200; got = r.do("GET", "/health/ready", "", nil) {
		if t.Context().Err() != nil {
			t.Fatal("it never became ill")
		}
	}
	if got.want(503); got.str("code") != "unavailable" || got.header.Get("Retry-After") == "" || strings.Contains(string(got.body), "canary") {
		t.Fatalf("%s %v", got.body, got.header)
	}
	r.do("GET", "/health/live", "", nil).want(200)
}

func TestMetricsCountByRoute(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	a.get("/app/canary-1").want(404)
	a.do("GET", "/canary-2", "", nil).want(404)
	text := string(a.do("GET", "/metrics", "", nil).want(200).body)
	if !strings.Contains(text, `GET /api/v1/app/{app_id}`) || strings.Contains(text, "canary") {
		t.Fatalf("%.2000s", text)
	}
}

func TestPanicIsAnsweredWithoutTellingWhy(t *testing.T) {
	t.Parallel()
	logs := &logBuffer{}
	s := &server{log: jsonLog(logs)}
	engine, err := s.engine(nil)
	if err != nil {
		t.Fatal(err)
	}
	engine.GET("/boom", func(*gin.Context) { panic("canary") })
	w := httptest.NewRecorder()
	s.front(engine).ServeHTTP(w, httptest.NewRequest("GET", "/boom", nil))
	id := w.Header().Get("x-request-id")
	if w.Code != 500 || strings.Contains(w.Body.String(), "canary") || !strings.Contains(w.Body.String(), id) || id == "" {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if text := logs.String(); !strings.Contains(text, "canary") || !strings.Contains(text, id) || !strings.Contains(text, "front_test.go") {
		t.Fatal(text)
	}
}

func TestLogHoldsNoSecretsAndNoQueries(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	a.do("GET", basePath+"/app?iterator=query-canary", a.key, nil).want(422)
	a.post("/app/x/msg", envelope(`{"a":"payload-canary"}`, "")).want(404)
	a.do("GET", basePath+"/app", "phk_token-canary", nil).want(401)
	text := a.logs.String()
	if !strings.Contains(text, `"route":"GET /api/v1/app"`) || strings.Contains(text, "canary") || strings.Contains(text, a.key) {
		t.Fatal(text)
	}
}

func TestServerHasLimits(t *testing.T) {
	t.Parallel()
	s := NewServer(http.NotFoundHandler(), "127.0.0.1:1")
	if s.ReadHeaderTimeout != 10*time.Second || s.ReadTimeout != 30*time.Second || s.IdleTimeout != 60*time.Second || s.MaxHeaderBytes != 32<<10 || s.Addr != "127.0.0.1:1" {
		t.Fatalf("%+v", s)
	}
}

// A body that ends before its announced length is a bad request, not a server error.
func TestBodyCutShort(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("POST /api/v1/app HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + a.key + "\r\nContent-Length: 100\r\n\r\n{\"name\""))
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatal(resp.Status)
	}
}

func TestTrustedProxiesMustBeAddresses(t *testing.T) {
	t.Parallel()
	s := &server{log: jsonLog(&logBuffer{})}
	if _, err := s.engine([]string{"nonsense"}); err == nil {
		t.Fatal("nonsense is trusted")
	}
}
