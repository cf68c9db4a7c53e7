package api

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/api/reference"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// readyLife is how long one look at what we stand on is believed, so that anybody may ask at any rate.
	readyLife = 250 * time.Millisecond
	// readyTimeout is how long such a look may take.
	readyTimeout = 2 * time.Second
)

// readiness asks whether requests can be served, at most once per readyLife.
type readiness struct {
	ask   func(context.Context) error
	mu    sync.Mutex
	asked time.Time
	err   error
}

func newReadiness(ask func(context.Context) error) *readiness { return &readiness{ask: ask} }

func (r *readiness) check(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asked.IsZero() && time.Since(r.asked) < readyLife {
		return r.err
	}
	// Not the caller's context: its going away must not make the next one think we are ill.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	if r.err = r.ask(ctx); r.err != nil {
		r.err = webhook.Unavailable(r.err, "Not ready to serve")
	}
	r.asked = time.Now()
	return r.err
}

// ginPath writes a path of the document as gin wants it.
func ginPath(path string) string { return strings.NewReplacer("{", ":", "}", "").Replace(path) }

// docsPath is where people read what the API can do.
const docsPath = "/docs"

// mountPlain adds what needs no credential and is no operation: health, metrics, the document and the
// page that shows it.
func (s *server) mountPlain(engine *gin.Engine) {
	get := func(path string, serve gin.HandlerFunc) {
		engine.GET(path, serve)
		s.patterns[pattern{http.MethodGet, path}] = http.MethodGet + " " + path
	}
	for _, base := range []string{"", basePath} {
		get(base+"/health/live", s.live)
		get(base+"/health/ready", s.isReady)
		get(base+"/health", s.details)
	}
	get(basePath+"/health/ping", s.ping)
	get(basePath+"/openapi.json", func(c *gin.Context) { answer(c, http.StatusOK, s.document) })
	// Made for the first reader: most processes have none.
	site := sync.OnceValues(func() (*reference.Site, error) { return reference.New(s.document, docsPath, basePath+"/openapi.json") })
	for _, path := range reference.Paths(docsPath) {
		get(path, func(c *gin.Context) {
			page, err := site()
			if err != nil {
				s.fail(c, err)
				return
			}
			page.ServeHTTP(c.Writer, c.Request)
		})
	}
	if s.metrics != nil {
		get("/metrics", gin.WrapH(s.metrics.Handler()))
	}
}

// live says that the process answers; it asks nobody else, so that a database that is away does not
// get every process killed.
func (s *server) live(c *gin.Context) { answer(c, http.StatusOK, []byte(`{"status":"ok"}`)) }

// isReady says that requests can be served.
func (s *server) isReady(c *gin.Context) {
	if err := s.ready.check(c.Request.Context()); err != nil {
		s.fail(c, err)
		return
	}
	s.live(c)
}

// componentOut is how one thing we stand on is doing.
type componentOut struct {
	Status string `json:"status"`
}

// healthOut is readiness with its parts. The queue may be away while requests are served: what is
// accepted meanwhile waits in the database. The cache is in the same Redis.
type healthOut struct {
	Status   string       `json:"status"`
	Database componentOut `json:"database"`
	Queue    componentOut `json:"queue"`
	Cache    componentOut `json:"cache"`
}

// details answers as isReady does, and says more when all is well enough.
func (s *server) details(c *gin.Context) {
	if err := s.ready.check(c.Request.Context()); err != nil {
		s.fail(c, err)
		return
	}
	redis := componentOut{"ok"}
	if !s.queued() {
		redis.Status = "error"
	}
	text, err := encode(healthOut{Status: "ok", Database: componentOut{"ok"}, Queue: redis, Cache: redis})
	if err != nil { // it is made of strings
		panic(err)
	}
	answer(c, http.StatusOK, text)
}

func (s *server) ping(c *gin.Context) { answer(c, http.StatusNoContent, nil) }
