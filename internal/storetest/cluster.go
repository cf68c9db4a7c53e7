// Package storetest gives each test a Postgres database and a Redis of its own. Servers are shared:
// those that the testenv program names in the environment, else one private Postgres for the process,
// started by the first test that asks and stopped by Main, and a Redis in memory for each test.
package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/internal/embedded"
)

const (
	// PostgresVariable names the environment variable with the URL of a shared Postgres, as superuser.
	PostgresVariable = "TEST_DATABASE_URL"
	// Connections is how many clients a test cluster takes, for all packages tested at once.
	Connections = 300
	// templateLock is the advisory lock under which templates are made; the number means nothing.
	templateLock = 0x706f7374
	// cleanupLimit bounds what is done after a test has ended, which has no context of its own.
	cleanupLimit = 30 * time.Second
)

// Main runs the tests of a package, stops the private cluster and then fails on goroutines that are
// left; leaks tells it of those to overlook. It is all a TestMain has to call, and does not return.
func Main(m *testing.M, leaks ...goleak.Option) {
	goleak.VerifyTestMain(stopper{m}, leaks...)
}

// stopper stops the private cluster between the tests and the search for leaks.
type stopper struct{ tests goleak.TestingM }

func (s stopper) Run() int {
	code := s.tests.Run()
	if err := private.stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// Cluster is the URL of the "postgres" database of a running server, as superuser, for tests of the
// server itself; most want Database. Without a Postgres the test fails, it is not skipped.
func Cluster(t testing.TB) string {
	t.Helper()
	if shared := os.Getenv(PostgresVariable); shared != "" {
		if _, err := databaseURL(shared, "postgres"); err != nil {
			t.Fatal(err)
		}
		return shared
	}
	at, err := private.url(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// Database is the URL of a new database, dropped after the test. It is a copy of a template to which
// migrate was applied; fingerprint tells templates apart and must change with what migrate does.
func Database(t testing.TB, migrate func(ctx context.Context, url string) error, fingerprint string) string {
	t.Helper()
	cluster := Cluster(t)
	template, err := templates.named(t.Context(), cluster, migrate, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	var random [8]byte
	_, _ = rand.Read(random[:])
	name := "t_" + hex.EncodeToString(random[:])
	if err := run(t.Context(), cluster, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("copy the template database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := run(ctx, cluster, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	at, err := databaseURL(cluster, name)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// templates are those this process has made or found, by cluster and name.
var templates templateSet

type templateSet struct {
	mu    sync.Mutex
	known map[string]error
}

// named makes the template unless it is there already, and gives its name. A template that could not
// be made is not tried again: every test that wants it fails at once, with the same error.
func (s *templateSet) named(ctx context.Context, cluster string, migrate func(context.Context, string) error, fingerprint string) (string, error) {
	sum := sha256.Sum256([]byte(fingerprint))
	name := "tmpl_" + hex.EncodeToString(sum[:8])
	key := cluster + " " + name
	s.mu.Lock()
	defer s.mu.Unlock()
	err, known := s.known[key]
	if !known {
		err = makeTemplate(ctx, cluster, name, migrate)
		if s.known == nil {
			s.known = map[string]error{}
		}
		if ctx.Err() == nil { // else only this one test was given up
			s.known[key] = err
		}
	}
	if err != nil {
		return "", fmt.Errorf("make the template database: %w", err)
	}
	return name, nil
}

// makeTemplate is safe to call from several processes. A database is marked as a template only when it
// is whole, and nobody can connect to it then: an open connection would make copying fail.
func makeTemplate(ctx context.Context, cluster, name string, migrate func(context.Context, string) error) (err error) {
	conn, err := pgx.Connect(ctx, cluster)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }() // lets go of the lock, too
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return err
	}
	var done bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)", name).Scan(&done)
	if err != nil || done {
		return err
	}
	for _, sql := range []string{"DROP DATABASE IF EXISTS " + name + " WITH (FORCE)", "CREATE DATABASE " + name} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	at, err := databaseURL(cluster, name)
	if err != nil {
		return err
	}
	if err := migrate(ctx, at); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	_, err = conn.Exec(ctx, "ALTER DATABASE "+name+" WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
	return err
}

func run(ctx context.Context, at, sql string) (err error) {
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

// databaseURL is the URL of another database of the same server.
func databaseURL(cluster, name string) (string, error) {
	at, err := url.Parse(cluster)
	if err != nil || (at.Scheme != "postgres" && at.Scheme != "postgresql") {
		// The text may hold a password, and so may the parser's error.
		return "", fmt.Errorf("%s: must be a postgres:// URL", PostgresVariable)
	}
	at.Path = "/" + name
	return at.String(), nil
}

// private is the server of this process, when none is shared.
var private privateCluster

type privateCluster struct {
	mu     sync.Mutex
	dir    string
	server *embedded.Postgres
	err    error
}

func (c *privateCluster) url(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil && c.err == nil {
		// One failure is enough: the next test would wait for the same.
		if c.err = c.start(context.WithoutCancel(ctx)); c.err != nil {
			return "", c.err
		}
	}
	if c.err != nil {
		return "", c.err
	}
	return c.server.URL("postgres"), nil
}

func (c *privateCluster) start(ctx context.Context) (err error) {
	if c.dir, err = os.MkdirTemp("", "posthaste-test-"); err != nil {
		return err
	}
	c.server, err = embedded.StartPostgres(ctx, embedded.PostgresOptions{
		Dir:            c.dir,
		BundleDirs:     embedded.RepositoryBundle(),
		MaxConnections: Connections,
	})
	return err
}

func (c *privateCluster) stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	if c.server != nil {
		// Nothing in it is worth a checkpoint.
		err = c.server.StopImmediate(context.Background())
	}
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	c.server, c.dir, c.err = nil, "", nil
	return err
}
