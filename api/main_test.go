package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/task"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestMain(m *testing.M) { storetest.Main(m) }

const operatorToken = "operator-token-of-the-tests-0123456789"

// rig is a real API server on a real database, with nobody delivering.
type rig struct {
	t     testing.TB
	store *store.Store
	url   string // of the server
	db    string // of the database
	http  *http.Client
	logs  *logBuffer
	tasks *task.Tasks
}

// exec writes to the database behind the store's back.
func (r *rig) exec(query string) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.db)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = conn.Close(r.t.Context()) }()
	if _, err := conn.Exec(r.t.Context(), query); err != nil {
		r.t.Fatal(err)
	}
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// options are those of a whole API over a fresh database.
func options(t testing.TB, s *store.Store, log *slog.Logger) Options {
	t.Helper()
	q, err := queue.Open(queue.Options{URL: storetest.Redis(t), Private: true, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	metrics := telemetry.NewMetrics()
	d := dispatch.New(dispatch.Options{Store: s, Queue: q, Metrics: metrics, Logger: log})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(ctx) })
	pub := publish.New(publish.Options{Store: s, Dispatcher: d, Lease: time.Minute, Metrics: metrics, Logger: log})
	t.Cleanup(func() { pub.Close(); cancel(); running.Wait(); _ = q.Close() })
	token, err := auth.ParseOperatorToken(operatorToken)
	if err != nil {
		t.Fatal(err)
	}
	return Options{
		Store: s, Publisher: pub, Tasks: task.New(task.Options{Store: s, Dispatcher: d, Lease: time.Minute, Metrics: metrics, Logger: log}), PublicURL: "http://127.0.0.1:8071", Tokens: appTokens(t, storetest.Keyset(t)), OperatorToken: token, Metrics: metrics, Logger: log,
		Policy: egress.Policy{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
	}
}

func appTokens(t testing.TB, keyset *seal.Keyset) *auth.AppTokens {
	t.Helper()
	tokens, err := auth.NewAppTokens(keyset, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

// setup starts a server; everything it answers is checked against its own document.
func setup(t testing.TB, changes ...func(*Options)) *rig {
	t.Helper()
	s, db := storetest.OpenURL(t)
	logs := &logBuffer{}
	o := options(t, s, slog.New(slog.NewJSONHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for _, change := range changes {
		change(&o)
	}
	handler, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	server.Config = NewServer(handler, "")
	server.Start()
	transport := &http.Transport{MaxIdleConnsPerHost: 16}
	t.Cleanup(func() { transport.CloseIdleConnections(); server.Close() })
	r := &rig{t: t, store: s, url: server.URL, db: db, logs: logs, tasks: o.Tasks}
	t.Cleanup(func() {
		if t.Failed() {
			for line := range strings.Lines(logs.String()) {
				if strings.Contains(line, `"level":"ERROR"`) {
					t.Log(line)
				}
			}
		}
	})
	r.http = &http.Client{Transport: newRecorder(t, transport, handler), CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return r
}

// tenant is somebody with a key.
type tenant struct {
	*rig
	id  webhook.TenantID
	key string
}

func (r *rig) tenant(scopes ...string) tenant {
	r.t.Helper()
	return r.keyOf(storetest.Tenant(r.t, r.store).ID, scopes...)
}

func (r *rig) keyOf(id webhook.TenantID, scopes ...string) tenant {
	r.t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"admin"}
	}
	text, _, _ := auth.NewAPIKey()
	storetest.APIKey(r.t, r.store, id, text.Reveal(), scopes...)
	return tenant{r, id, text.Reveal()}
}

// result is an answer, read.
type result struct {
	t      testing.TB
	status int
	header http.Header
	body   []byte
}

// fields is the body as an object.
func (r result) fields() map[string]any {
	r.t.Helper()
	var m map[string]any
	if err := json.Unmarshal(r.body, &m); err != nil {
		r.t.Fatalf("body is not a JSON object: %q", r.body)
	}
	return m
}

func (r result) str(name string) string {
	r.t.Helper()
	s, ok := r.fields()[name].(string)
	if !ok {
		r.t.Fatalf("%s is not a string in %s", name, r.body)
	}
	return s
}

// want fails unless the status is as said.
func (r result) want(status int) result {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.body)
	}
	return r
}

// into decodes the body.
func (r result) into(to any) {
	r.t.Helper()
	if err := json.Unmarshal(r.body, to); err != nil {
		r.t.Fatalf("decode %q: %v", r.body, err)
	}
}

// do sends a request as it is. body is sent raw if it is a string or bytes, as JSON otherwise.
func (r *rig) do(method, path, token string, body any, header ...string) result {
	r.t.Helper()
	var reader io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		reader = strings.NewReader(b)
	case []byte:
		reader = bytes.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			r.t.Fatal(err)
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url+path, reader)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return r.send(req)
}

func (r *rig) send(req *http.Request) result {
	r.t.Helper()
	resp, err := r.http.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return result{r.t, resp.StatusCode, resp.Header, text}
}

func (a tenant) get(path string) result {
	a.t.Helper()
	return a.do("GET", basePath+path, a.key, nil)
}
func (a tenant) post(path string, body any, header ...string) result {
	a.t.Helper()
	return a.do("POST", basePath+path, a.key, body, header...)
}
func (a tenant) put(path string, body any) result {
	a.t.Helper()
	return a.do("PUT", basePath+path, a.key, body)
}
func (a tenant) patch(path string, body any) result {
	a.t.Helper()
	return a.do("PATCH", basePath+path, a.key, body)
}
func (a tenant) delete(path string) result {
	a.t.Helper()
	return a.do("DELETE", basePath+path, a.key, nil)
}

// obj is a JSON object.
type obj = map[string]any

// app makes an application and returns its id.
func (a tenant) app() string {
	a.t.Helper()
	return a.post("/app", obj{"name": "An application"}).want(201).str("id")
}

// endpoint makes an endpoint and returns its id.
func (a tenant) endpoint(app string) string {
	a.t.Helper()
	return a.post("/app/"+app+"/endpoint", obj{"url": "http://127.0.0.1:8072/hook"}).want(201).str("id")
}

// message publishes one and returns its id.
func (a tenant) message(app string) string {
	a.t.Helper()
	return a.post("/app/"+app+"/msg", obj{"eventType": "user.created", "payload": obj{"a": 1}}).want(202).str("id")
}

// attempt records one, as a worker would, and returns its id.
func (a tenant) attempt(app, endpoint, message string, edits ...func(*webhook.Attempt)) string {
	a.t.Helper()
	appID, err1 := webhook.ParseID[webhook.ApplicationID](app)
	endpointID, err2 := webhook.ParseID[webhook.EndpointID](endpoint)
	messageID, err3 := webhook.ParseID[webhook.MessageID](message)
	if err1 != nil || err2 != nil || err3 != nil {
		a.t.Fatal(err1, err2, err3)
	}
	at := webhook.Attempt{
		TenantID: a.id, ApplicationID: appID, MessageID: messageID, EndpointID: endpointID, ID: webhook.NewAttemptIDAt(time.Now()),
		Number: 1, Sent: true, Status: webhook.StatusFail, HTTPStatus: 500, Class: webhook.ClassServerError,
		Duration: 12 * time.Millisecond, URL: "http://127.0.0.1:8072/hook", Response: []byte("oops"),
	}
	for _, edit := range edits {
		edit(&at)
	}
	err := a.store.Record(a.t.Context(), []store.Recorded{{
		Delivery: webhook.Delivery{DeliveryKey: webhook.DeliveryKey{Tenant: a.id, Message: messageID, Endpoint: endpointID}},
		Attempt:  at,
	}})
	if err != nil {
		a.t.Fatal(err)
	}
	return at.ID.String()
}
