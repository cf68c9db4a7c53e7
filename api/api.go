// Package api is the HTTP API: gin routes the requests, huma's types describe them, and one table of
// routes, each with who may call it, is what both the router and the OpenAPI document are built from.
// One file per noun holds its JSON shapes first and its handlers after them.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/schema"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/task"
	"github.com/posthaste/posthaste/internal/telemetry"
)

// Options are what the API stands on.
type Options struct {
	Store          *store.Store
	Publisher      *publish.Publisher
	Tasks          *task.Tasks
	Limiter        *ratelimit.Limiter              // of how fast messages are accepted; nil = no limit of that kind holds
	Policy         egress.Policy                   // which URLs an endpoint may have
	Tokens         *auth.AppTokens                 // makes and reads application tokens
	OperatorToken  auth.OperatorToken              // opens the operator routes; zero = there are none
	PublicURL      string                          // where clients reach this API, without a slash at the end; "" = unsaid
	TrustedProxies []string                        // addresses and CIDRs whose X-Forwarded-For is believed; nil = nobody's
	Metrics        *telemetry.Metrics              // where requests are counted and what /metrics shows; nil = neither
	Logger         *slog.Logger                    // nil = silent
	Ready          func(ctx context.Context) error // nil = the database answers
	Queued         func() bool                     // whether the queue can be used at the moment; nil = it can
}

// Limits of a server that strangers connect to. A request has to arrive within ReadTimeout; an idle
// connection is closed after IdleTimeout. There is no write timeout: a slow reader holds a buffer of
// one page and no lock.
const (
	ReadHeaderTimeout = 10 * time.Second
	ReadTimeout       = 30 * time.Second
	IdleTimeout       = 60 * time.Second
	MaxHeaderBytes    = 32 << 10
)

// NewServer is an HTTP server with the limits above.
func NewServer(handler http.Handler, addr string) *http.Server {
	return &http.Server{
		Addr:              addr,
		Handler:           handler,
		ReadHeaderTimeout: ReadHeaderTimeout,
		ReadTimeout:       ReadTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
	}
}

// server is the API at work.
type server struct {
	store     *store.Store
	publisher *publish.Publisher
	tasks     *task.Tasks
	limiter   *ratelimit.Limiter // nil = none
	policy    egress.Policy
	operator  auth.OperatorToken
	log       *slog.Logger
	now       func() time.Time
	keys      *keyring
	tokens    *auth.AppTokens
	sessions  *sessions
	publicURL string
	ready     *readiness
	queued    func() bool
	metrics   *telemetry.Metrics // nil = none
	patterns  map[pattern]string // how metrics call a route
	schemas   *schema.Cache      // of event types, compiled
	inline    *bodyPlan          // of an application inside a publish
	document  []byte             // the OpenAPI document
}

// New builds the API's handler. It starts nothing in the background.
func New(o Options) (http.Handler, error) {
	if o.Store == nil || o.Publisher == nil || o.Tasks == nil || o.Tokens == nil {
		return nil, errors.New("api: a store, a publisher, tasks and application tokens are needed")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Ready == nil {
		o.Ready = o.Store.Ping
	}
	if o.Queued == nil {
		o.Queued = func() bool { return true }
	}
	s := &server{
		store:     o.Store,
		publisher: o.Publisher,
		tasks:     o.Tasks,
		limiter:   o.Limiter,
		policy:    o.Policy,
		operator:  o.OperatorToken,
		tokens:    o.Tokens,
		publicURL: strings.TrimSuffix(o.PublicURL, "/"),
		log:       o.Logger,
		now:       time.Now,
		ready:     newReadiness(o.Ready),
		queued:    o.Queued,
		metrics:   o.Metrics,
		patterns:  make(map[pattern]string),
		schemas:   schema.NewCache(),
	}
	s.keys = newKeyring(o.Store, o.Logger, func() time.Time { return s.now() })
	s.sessions = newSessions(o.Store, func() time.Time { return s.now() })
	engine, err := s.engine(o.TrustedProxies)
	if err != nil {
		return nil, err
	}
	if err := s.mount(engine, o); err != nil {
		return nil, err
	}
	return s.front(engine), nil
}

// pattern is a route as gin knows it.
type pattern struct{ method, path string }

// engine is gin without what it does on its own: redirects, plain-text errors, trust in every proxy.
func (s *server) engine(proxies []string) (*gin.Engine, error) {
	e := gin.New()
	e.RedirectTrailingSlash = false
	e.RedirectFixedPath = false
	e.HandleMethodNotAllowed = true
	// Routed by the path as it was sent: an escaped slash in an id must not reach another route.
	e.UseRawPath = true
	e.UnescapePathValues = true
	if err := e.SetTrustedProxies(proxies); err != nil {
		return nil, errors.New("api: trusted proxies must be IP addresses or CIDRs")
	}
	e.Use(s.observe, s.contain)
	e.NoRoute(func(c *gin.Context) { s.fail(c, errNoRoute) })
	e.NoMethod(func(c *gin.Context) { s.fail(c, errNoMethod) })
	return e, nil
}

// mount builds the router and the document from the table of routes.
func (s *server) mount(engine *gin.Engine, o Options) error {
	doc := newDocument(engine, strings.TrimSuffix(o.PublicURL, "/"))
	for _, r := range s.routes() {
		if r.class == classOperator && s.operator.IsZero() {
			continue
		}
		doc.add(s, r)
	}
	inline := reflect.TypeFor[applicationIn]()
	s.inline = newBodyPlan(inline, doc.registry.Schema(inline, true, ""), doc.registry, false)
	doc.describe()
	text, err := doc.text()
	if err != nil {
		return err
	}
	s.document = text
	s.mountPlain(engine)
	return nil
}
