package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/embedded"
)

const (
	// database is the name of the database the product uses.
	database = "posthaste"
	// serverWait bounds the start or stop of Postgres or Redis.
	serverWait = time.Minute
	// commandWait bounds one posthaste command, such as a migration.
	commandWait = time.Minute
	// redisWait bounds one Redis command.
	redisWait = 5 * time.Second
)

// Options describe an installation.
type Options struct {
	Dir      string   // where data and logs go; it must exist
	Binary   string   // the posthaste binary
	Settings []string // NAME=value for every posthaste process, besides what the rig itself needs
	// PostgresSettings are server settings; the cluster always keeps fsync on.
	PostgresSettings map[string]string
	MaxConnections   int
	RedisProxy       bool // the product reaches Redis through a Proxy
}

// SmallServer is the settings of Postgres for a measurement: sizes a small server would have. Durability
// stays as Postgres has it by default.
func SmallServer() map[string]string {
	return map[string]string{"shared_buffers": "256MB", "max_wal_size": "2GB"}
}

// Rig is one private installation: Postgres with fsync on, redis-server without persistence, a
// migrated database. Posthaste's processes are started by Keep.
type Rig struct {
	Nursery

	options  Options
	postgres *embedded.Postgres
	redis    *embedded.RedisServer
	// Both stay the same through restarts, so they are read without looking at the servers.
	databaseURL string
	redisAt     string
	proxy       *Proxy // nil unless asked for
	secrets     []string
	logs        *os.File
	log         *slog.Logger
	keepers     []*Keeper
}

// Open starts the servers and migrates the database.
func Open(ctx context.Context, o Options) (*Rig, error) {
	logs, err := os.OpenFile(filepath.Join(o.Dir, "servers.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the rig: %w", err)
	}
	r := &Rig{
		options: o, logs: logs,
		log:     slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		secrets: []string{"POSTHASTE_MASTER_KEY=" + randomKey(), "POSTHASTE_OPERATOR_TOKEN=" + randomKey()},
	}
	if err := r.open(ctx); err != nil {
		r.Close()
		return nil, fmt.Errorf("open the rig: %w", err)
	}
	return r, nil
}

func (r *Rig) open(ctx context.Context) error {
	if err := r.StartPostgres(ctx); err != nil {
		return err
	}
	if err := r.StartRedis(ctx); err != nil {
		return err
	}
	if r.options.RedisProxy {
		proxy, err := NewProxy(r.redisAt)
		if err != nil {
			return err
		}
		r.proxy = proxy
	}
	r.databaseURL = r.postgres.URL(database)
	conn, err := pgx.Connect(ctx, r.postgres.URL("postgres"))
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+database)
	_ = conn.Close(ctx)
	if err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	_, err = r.Command(ctx, "migrate", "up")
	return err
}

// randomKey is 32 random bytes in base64.
func randomKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return base64.StdEncoding.EncodeToString(key)
}

// Close ends everything the rig started.
func (r *Rig) Close() {
	for _, keeper := range r.keepers {
		keeper.abandon()
	}
	r.Nursery.Close()
	if r.proxy != nil {
		r.proxy.Close()
	}
	if r.redis != nil {
		r.redis.Kill()
	}
	if r.postgres != nil {
		ctx, cancel := context.WithTimeout(context.Background(), serverWait)
		defer cancel()
		if err := r.postgres.StopImmediate(ctx); err != nil {
			r.log.Error("stop postgres", "error", err)
		}
	}
	_ = r.logs.Close()
}

// StartPostgres starts the server, also again after a stop.
func (r *Rig) StartPostgres(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	server, err := embedded.StartPostgres(ctx, embedded.PostgresOptions{
		Dir: filepath.Join(r.options.Dir, "postgres"), Durable: true,
		MaxConnections: r.options.MaxConnections, Settings: r.options.PostgresSettings, Log: r.log,
	})
	if err != nil {
		return err
	}
	r.postgres = server
	return nil
}

// StopPostgres stops the server: in order, disconnecting everybody, or at once as a crash would.
func (r *Rig) StopPostgres(ctx context.Context, immediate bool) error {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	if immediate {
		return r.postgres.StopImmediate(ctx)
	}
	return r.postgres.Stop(ctx)
}

// KillPostgres kills every process of the server at once, as a loss of power would; nothing is written
// any more, and the next start recovers what was committed.
func (r *Rig) KillPostgres(ctx context.Context) error {
	processes, err := tree(r.postgres.PID())
	if err != nil {
		return fmt.Errorf("kill postgres: %w", err)
	}
	for _, s := range processes {
		// One that ended meanwhile is gone already; its number is not given away that soon.
		_ = syscall.Kill(s.pid, syscall.SIGKILL)
	}
	select {
	case <-r.postgres.Done():
	case <-ctx.Done():
		return fmt.Errorf("kill postgres: %w", context.Cause(ctx))
	}
	return r.postgres.StopImmediate(ctx) // gives back lock and socket
}

// Dir is where data and logs are.
func (r *Rig) Dir() string { return r.options.Dir }

// PostgresPID is the process id of the postmaster.
func (r *Rig) PostgresPID() int { return r.postgres.PID() }

// PostgresVersion is the version of the server.
func (r *Rig) PostgresVersion() string { return r.postgres.Version() }

// RedisPID is the process id of redis-server.
func (r *Rig) RedisPID() int { return r.redis.PID() }

// Connect opens a connection to the product's database, past the product.
func (r *Rig) Connect(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, r.databaseURL)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", err)
	}
	return conn, nil
}

// environment is the whole environment of a posthaste process.
func (r *Rig) environment(extra ...string) []string {
	redis := r.redisAt
	if r.proxy != nil {
		redis = r.proxy.Address
	}
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.options.Dir, "TMPDIR=" + os.TempDir(), "TZ=UTC",
		"DATABASE_URL=" + r.databaseURL,
		"REDIS_URL=redis://" + redis + "/0",
		"POSTHASTE_ALLOW_NETWORKS=127.0.0.0/8",
		"POSTHASTE_ALLOW_HTTP=true",
		"POSTHASTE_LOG_LEVEL=warn",
		"POSTHASTE_PPROF=true",
	}
	env = append(env, r.secrets...)
	env = append(env, r.options.Settings...)
	return append(env, extra...)
}

// Command runs a posthaste command to its end and returns what it printed.
func (r *Rig) Command(ctx context.Context, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandWait)
	defer cancel()
	command := exec.CommandContext(ctx, r.options.Binary, args...)
	command.Env = r.environment()
	var errorText bytes.Buffer
	command.Stderr = &errorText
	out, err := command.Output()
	if err != nil {
		return out, fmt.Errorf("posthaste %s: %w\n%s", strings.Join(args, " "), err, errorText.Bytes())
	}
	return out, nil
}

// Tenant is a tenant and a key that may do everything for it.
type Tenant struct{ ID, Key string }

// NewTenant makes a tenant with an API key, as an operator would.
func (r *Rig) NewTenant(ctx context.Context, name string) (Tenant, error) {
	var tenant, key struct{ ID, Key string }
	if err := r.admin(ctx, &tenant, "tenant", "create", "--name", name, "--uid", name); err != nil {
		return Tenant{}, err
	}
	if err := r.admin(ctx, &key, "api-key", "create", "--tenant", tenant.ID, "--name", "lab"); err != nil {
		return Tenant{}, err
	}
	if tenant.ID == "" || key.Key == "" {
		return Tenant{}, errors.New("make a tenant: posthaste admin printed no id or no key")
	}
	return Tenant{ID: tenant.ID, Key: key.Key}, nil
}

func (r *Rig) admin(ctx context.Context, into any, args ...string) error {
	out, err := r.Command(ctx, append([]string{"admin"}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("posthaste admin %s: read its answer: %w", args[0], err)
	}
	return nil
}

const (
	// firstPort to lastPort are the ports of processes. They lie below those that systems take for
	// connections that go out, of which there are many: a process that is started again would find its
	// port taken by one.
	firstPort = 20_000
	lastPort  = 26_000
	// portTries is how many of them are tried.
	portTries = 100
)

// FreeAddress is a loopback address that nothing listens on at this moment.
func FreeAddress() (string, error) {
	var err error
	for range portTries {
		var listener net.Listener
		listener, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(firstPort+mathrand.IntN(lastPort-firstPort)))
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
