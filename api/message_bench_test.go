package api

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// benchBody is an ordinary publish with a payload of about 500 bytes.
var benchBody = `{"eventType":"user.created","eventId":"order-1","channels":["a","b"],"payload":{"id":"usr_1","data":"` + strings.Repeat("x", 440) + `"}}`

// discard is a response that nobody reads.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// BenchmarkPublishEdge is all the API itself does to a publish: front, router, key, body, envelope,
// answer; everything but the commit.
func BenchmarkPublishEdge(b *testing.B) {
	s := storetest.Open(b)
	o := options(b, s, jsonLog(&logBuffer{}))
	srv := &server{store: s, log: o.Logger, metrics: o.Metrics, patterns: map[pattern]string{}}
	c := &clock{}
	srv.keys = newKeyring(s, o.Logger, c.now)
	text, _, _ := auth.NewAPIKey()
	storetest.APIKey(b, s, storetest.Tenant(b, s).ID, text.Reveal(), "send")
	engine, err := srv.engine(nil)
	if err != nil {
		b.Fatal(err)
	}
	engine.POST(ginPath(messagesPath), func(c *gin.Context) {
		who, err := srv.authorize(c, route{class: classTenant, scope: auth.Send})
		if err != nil {
			b.Error(err)
		}
		r, _, with, err := readPublish(c, who.view.Scope().Tenant)
		if err != nil {
			b.Error(err)
		}
		r.Message.ID = webhook.NewMessageID()
		answer(c, http.StatusAccepted, appendMessage(nil, r.Message, with, nil))
	})
	handler := srv.front(engine)
	b.ReportAllocs()
	for b.Loop() {
		req, err := http.NewRequest("POST", "/api/v1/app/shop/msg", io.NopCloser(strings.NewReader(benchBody)))
		if err != nil {
			b.Fatal(err)
		}
		req.Header["Authorization"] = []string{"Bearer " + text.Reveal()}
		req.Header["Idempotency-Key"] = []string{"auto_0123456789"}
		req.RemoteAddr = "192.0.2.1:1234"
		w := &discard{header: make(http.Header, 8)}
		if handler.ServeHTTP(w, req); w.status != http.StatusAccepted {
			b.Fatal(w.status)
		}
	}
}

// BenchmarkPublish is a whole publish, commit included, by as many callers as one process serves well.
func BenchmarkPublish(b *testing.B) {
	s := storetest.Open(b)
	handler, err := New(options(b, s, jsonLog(&logBuffer{})))
	if err != nil {
		b.Fatal(err)
	}
	tenant := storetest.Tenant(b, s).ID
	text, _, _ := auth.NewAPIKey()
	storetest.APIKey(b, s, tenant, text.Reveal(), "send")
	app := storetest.Application(b, s, tenant).ID.String()
	body := strings.Replace(benchBody, `"eventId":"order-1",`, "", 1)
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req := httptest.NewRequest("POST", "/api/v1/app/"+app+"/msg", strings.NewReader(body))
			req.Header.Set("Authorization", "Bearer "+text.Reveal())
			w := &discard{header: make(http.Header, 8)}
			if handler.ServeHTTP(w, req); w.status != http.StatusAccepted {
				b.Error(w.status)
			}
		}
	})
}

// BenchmarkPublishBatch is a whole batch, commit included; one iteration is one message, so that it
// compares with BenchmarkPublish.
func BenchmarkPublishBatch(b *testing.B) {
	s := storetest.Open(b)
	handler, err := New(options(b, s, jsonLog(&logBuffer{})))
	if err != nil {
		b.Fatal(err)
	}
	tenant := storetest.Tenant(b, s).ID
	text, _, _ := auth.NewAPIKey()
	storetest.APIKey(b, s, tenant, text.Reveal(), "send")
	app := storetest.Application(b, s, tenant).ID.String()
	message := strings.Replace(benchBody, `"eventId":"order-1",`, "", 1)
	post := func(n int) {
		body := `{"messages":[` + strings.Repeat(message+",", n-1) + message + `]}`
		req := httptest.NewRequest("POST", "/api/v1/app/"+app+"/msg/batch", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+text.Reveal())
		w := &discard{header: make(http.Header, 8)}
		if handler.ServeHTTP(w, req); w.status != http.StatusAccepted {
			b.Fatal(w.status)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= webhook.MaxBatch {
		post(min(left, webhook.MaxBatch))
	}
}
