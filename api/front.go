package api

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

const (
	requestIDHeader = "X-Request-Id"
	// basePath is where clients expect the API, from the root of the host.
	basePath     = "/api/v1"
	operatorPath = basePath + "/operator"
)

// CORS: any origin may call the API with a token it holds; there are no cookies that a foreign page
// could ride on. The operator's routes are for no page.
const (
	corsMethods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
	corsMaxAge  = "600"
	corsExposed = "x-request-id, retry-after"
)

// front stands before the router: it evens out paths, answers preflights and names the request.
func (s *server) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = evenPath(r.URL.Path)
		if r.URL.RawPath != "" {
			r.URL.RawPath = evenPath(r.URL.RawPath)
		}
		h := w.Header()
		h[requestIDHeader] = []string{newRequestID()}
		h["X-Content-Type-Options"] = noSniff
		h["Cache-Control"] = noStore
		if forPages(r.URL.Path) {
			h["Access-Control-Allow-Origin"] = anyOrigin
			if r.Method == http.MethodOptions {
				preflight(w, r)
				return
			}
			h["Access-Control-Expose-Headers"] = exposed
		}
		if r.Method == http.MethodHead {
			// As GET, and the server leaves out the body.
			get := *r
			get.Method = http.MethodGet
			r = &get
		}
		next.ServeHTTP(w, r)
	})
}

// Values of headers that every answer shares; never written to.
var (
	noSniff   = []string{"nosniff"}
	noStore   = []string{"no-store"}
	anyOrigin = []string{"*"}
	exposed   = []string{corsExposed}
)

func forPages(path string) bool {
	return strings.HasPrefix(path, basePath) && path != operatorPath && !strings.HasPrefix(path, operatorPath+"/")
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", corsMethods)
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", corsMaxAge)
	h.Set("Vary", "Access-Control-Request-Headers")
	w.WriteHeader(http.StatusNoContent)
}

// evenPath takes away what clients add by accident, slashes in front and behind, without a redirect:
// some clients follow one without the body, others not at all.
func evenPath(path string) string {
	if strings.HasPrefix(path, "//") {
		path = "/" + strings.TrimLeft(path, "/")
	}
	if len(path) > 1 && path[len(path)-1] == '/' {
		path = strings.TrimRight(path, "/")
	}
	if path == "" {
		return "/"
	}
	return path
}

// newRequestID names one request. Nothing of it comes from the caller, who could otherwise write into
// the log.
func newRequestID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: the runtime ends the process instead
	var text [4 + 2*len(b)]byte
	copy(text[:], "req_")
	hex.Encode(text[4:], b[:])
	return string(text[:])
}

func requestID(c *gin.Context) string {
	if id := c.Writer.Header()[requestIDHeader]; len(id) > 0 {
		return id[0]
	}
	return ""
}

// route is the pattern that a request met, method included, as metrics and logs name it; "" = none.
func (s *server) route(c *gin.Context) string {
	return s.patterns[pattern{c.Request.Method, c.FullPath()}]
}

// observe counts the request and, at debug level, logs it. The path is logged as the route's pattern:
// a query or an id can be somebody's.
func (s *server) observe(c *gin.Context) {
	start := time.Now()
	c.Next()
	took := time.Since(start)
	if s.metrics != nil {
		s.metrics.HTTPRequest(s.route(c), c.Writer.Status(), took)
	}
	if ctx := c.Request.Context(); s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.DebugContext(ctx, "request", "request_id", requestID(c), "route", s.route(c),
			"status", c.Writer.Status(), "took", took)
	}
}

// contain turns a panic into a 500 whose body says nothing; the stack is for the log.
func (s *server) contain(c *gin.Context) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p) // net/http's own way of dropping a connection
		}
		s.log.ErrorContext(c.Request.Context(), "panic", "request_id", requestID(c), "route", s.route(c),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		if c.Writer.Written() {
			panic(http.ErrAbortHandler) // half an answer is out: the caller must not take it for a whole one
		}
		s.fail(c, fmt.Errorf("panic in %s", s.route(c)))
	}()
	c.Next()
}
