package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/posthaste/posthaste/api"
	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/dispatch"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/task"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
	"github.com/posthaste/posthaste/worker"
)

// Role is what a process does of the whole.
type Role string

// The roles.
const (
	RoleAll    Role = "all"    // both
	RoleAPI    Role = "api"    // takes messages
	RoleWorker Role = "worker" // delivers them
)

// Roles lists every role.
var Roles = []Role{RoleAll, RoleAPI, RoleWorker}

// Options say what to run.
type Options struct {
	Config  Config
	Role    Role
	Version string
	Logger  *slog.Logger
	// Quiet leaves out the notices: whoever starts the process opened what it opens on purpose.
	Quiet bool
	// PrivateQueue says that no other process uses this Redis.
	PrivateQueue bool
}

// App is one process, ready to run.
type App struct {
	o          Options
	log        *slog.Logger
	metrics    *telemetry.Metrics
	listener   net.Listener
	store      *store.Store
	queue      *queue.Queue
	dispatcher *dispatch.Dispatcher
	egress     *egress.Client
	tasks      *task.Tasks
	publisher  *publish.Publisher // nil without the API
	worker     *worker.Worker     // nil without the worker
	server     *http.Server
	draining   atomic.Bool
}

// New connects, checks that the database has the shape this release needs, listens, and builds what
// the role needs. Nothing is served before Run, which must follow.
func New(ctx context.Context, o Options) (_ *App, err error) {
	if !slices.Contains(Roles, o.Role) {
		return nil, fmt.Errorf("%q is no role: there are %v", o.Role, Roles)
	}
	tuneMemory(o.Config.MemoryLimit)
	// net/http writes bytes that a receiver sent unasked to the standard logger, which nobody else uses.
	log.SetOutput(io.Discard)
	a := &App{o: o, log: o.Logger, metrics: telemetry.NewMetrics()}
	if !o.Quiet {
		for _, line := range o.Config.Notices() {
			a.log.Warn(line)
		}
	}
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	// First, because it is what two processes on one machine quarrel about.
	if a.listener, err = net.Listen("tcp", o.Config.Addr); err != nil {
		return nil, fmt.Errorf("cannot listen on %s (choose another address with --addr or POSTHASTE_ADDR): %w", o.Config.Addr, err)
	}
	if err := prepareDatabase(ctx, o.Config, a.log); err != nil {
		return nil, err
	}
	a.store, err = store.Open(ctx, store.Options{
		URL: o.Config.DatabaseURL.Reveal(), MaxConns: o.Config.DBMaxConns, StatementTimeout: o.Config.StatementTimeout,
		Keyset: o.Config.MasterKey, Logger: a.log,
	})
	if err != nil {
		return nil, err
	}
	a.queue, err = queue.Open(queue.Options{
		URL: o.Config.RedisURL.Reveal(), ScriptTimeout: o.Config.LimitTimeout, Private: o.PrivateQueue, Logger: a.log,
	})
	if err != nil {
		return nil, err
	}
	if o.PrivateQueue {
		// It was empty a moment ago, as it is at every start: what was handed to the one before is fed
		// again, and nobody need be warned of a loss.
		if _, err := a.store.RecallReleased(ctx); err != nil {
			return nil, err
		}
		if err := a.store.KeepSentinel(ctx, ""); err != nil {
			return nil, err
		}
	}
	a.checkQueue(ctx)
	a.dispatcher = dispatch.New(dispatch.Options{Store: a.store, Queue: a.queue, Limiter: ratelimit.New(a.queue), Metrics: a.metrics, Logger: a.log})
	a.tasks = task.New(task.Options{
		Store: a.store, Dispatcher: a.dispatcher, Lease: o.Config.AttemptTimeout + webhook.LeaseMargin, Rate: o.Config.TaskRate,
		Metrics: a.metrics, Logger: a.log,
	})
	policy, err := a.policy()
	if err != nil {
		return nil, err
	}
	handler := a.workerHandler()
	if o.Role != RoleWorker {
		if handler, err = a.buildAPI(policy); err != nil {
			return nil, err
		}
	}
	if o.Role != RoleAPI {
		a.buildWorker(policy)
	}
	if o.Config.Pprof {
		handler = withProfiles(handler)
	}
	a.server = api.NewServer(a.closeWhileDraining(handler), o.Config.Addr)
	a.server.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
	return a, nil
}

// Addr is where the process listens.
func (a *App) Addr() string { return a.listener.Addr().String() }

// PublicURL is where clients reach the process, without a slash at the end.
func (a *App) PublicURL() string {
	if a.o.Config.PublicURL != "" {
		return a.o.Config.PublicURL
	}
	if strings.HasSuffix(a.o.Config.Addr, ":0") {
		return "http://" + a.Addr()
	}
	return "http://" + a.o.Config.Addr
}

// policy is what deliveries may reach. Our own doors are closed to them, or a delivery could make the
// next one for ever.
func (a *App) policy() (egress.Policy, error) {
	c := a.o.Config
	p := egress.Policy{AllowNetworks: c.AllowNetworks, AllowHTTP: c.AllowHTTP, AllowPorts: c.AllowPorts}
	origin, err := egress.Origin(a.PublicURL())
	if err != nil {
		return p, fmt.Errorf("POSTHASTE_PUBLIC_URL: %w", err)
	}
	p.Own.Origins = []string{origin}
	if at, err := netip.ParseAddrPort(a.Addr()); err == nil {
		p.Own.Listeners = []netip.AddrPort{at}
	}
	return p, nil
}

func (a *App) buildAPI(policy egress.Policy) (http.Handler, error) {
	c := a.o.Config
	a.publisher = publish.New(publish.Options{
		Store: a.store, Dispatcher: a.dispatcher, Lease: c.AttemptTimeout + webhook.LeaseMargin, Metrics: a.metrics, Logger: a.log,
	})
	tokens, err := auth.NewAppTokens(c.MasterKey, time.Now)
	if err != nil {
		return nil, err
	}
	var proxies []string
	for _, p := range c.TrustedProxies {
		proxies = append(proxies, p.String())
	}
	return api.New(api.Options{
		Store: a.store, Publisher: a.publisher, Tasks: a.tasks, Limiter: ratelimit.New(a.queue), Policy: policy, Tokens: tokens, OperatorToken: c.OperatorToken, PublicURL: a.PublicURL(),
		TrustedProxies: proxies, Metrics: a.metrics, Logger: a.log, Ready: a.ready, Queued: a.queue.Available,
	})
}

// resolver asks one name server, whatever the machine is configured to ask; nil if it names none.
func resolver(server string) *net.Resolver {
	if server == "" {
		return nil
	}
	return &net.Resolver{Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, server)
	}}
}

func (a *App) buildWorker(policy egress.Policy) {
	c := a.o.Config
	a.egress = egress.New(egress.Options{
		Policy: policy, Timeout: c.AttemptTimeout, Resolver: resolver(c.NameServer),
		// As many as may be under way: with fewer, a busy host's connections are closed only to be opened again.
		MaxIdleConnsPerHost: c.WorkerConcurrency,
	})
	a.worker = worker.New(worker.Options{
		Store: a.store, Queue: a.queue, Dispatcher: a.dispatcher, Egress: a.egress, Tasks: a.tasks, Policy: webhook.Policy{Schedule: c.RetrySchedule},
		AttemptTimeout: c.AttemptTimeout, Concurrency: c.WorkerConcurrency, HostConcurrency: c.HostConcurrency, MaxAge: c.MaxAge, Metrics: a.metrics, Logger: a.log,
	})
}

// checkQueue tells the operator of a Redis that cannot be used or must not be used as it is. Neither
// stops the start: messages are accepted without a queue.
func (a *App) checkQueue(ctx context.Context) {
	health, err := a.queue.Check(ctx)
	switch {
	case err != nil:
		a.log.Warn("redis cannot be reached; messages are accepted and wait in the database until it can", "error", err)
	case health.MayEvict():
		a.log.Warn("redis may throw away tasks when its memory is full, which delays deliveries; set maxmemory-policy to noeviction",
			"maxmemory_policy", health.MaxMemoryPolicy)
	}
}

// Why a process that runs says it is not ready.
var (
	errQueue      = errors.New("redis cannot be reached")
	errDraining   = errors.New("the process is stopping")
	errPartitions = errors.New("there are not enough partitions ahead; is a worker running?")
)

// ready is nil while requests can be served and deliveries recorded.
func (a *App) ready(ctx context.Context) error {
	if a.draining.Load() {
		return errDraining
	}
	if err := a.store.Ping(ctx); err != nil {
		return err
	}
	ok, err := a.store.PartitionsReady(ctx, time.Now())
	if err == nil && !ok {
		err = errPartitions
	}
	return err
}

// closeWhileDraining asks clients to come back on another connection while the process stops, so that
// none is closed under a request that was just being sent.
func (a *App) closeWhileDraining(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// withProfiles serves Go's profiles beside everything else.
func withProfiles(next http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
			mux.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r) // past the mux, which would redirect paths that are not clean
	})
}
