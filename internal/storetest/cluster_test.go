package storetest

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestMain(m *testing.M) { Main(m) }

func migrateOnce(counter *atomic.Int32) func(context.Context, string) error {
	return func(ctx context.Context, at string) error {
		counter.Add(1)
		return run(ctx, at, "CREATE TABLE note (text text)")
	}
}

func count(t *testing.T, at, sql string, args ...any) int {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var n int
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func databaseOf(t *testing.T, at string) string {
	t.Helper()
	config, err := pgx.ParseConfig(at)
	if err != nil {
		t.Fatal(err)
	}
	return config.Database
}

// unique is a fingerprint no earlier run on a shared server has used.
func unique(t *testing.T) string { return t.Name() + t.TempDir() }

func TestEachTestHasItsOwnDatabase(t *testing.T) {
	var migrations atomic.Int32
	fingerprint := unique(t)
	cluster := Cluster(t)
	names := make(chan string, 4)
	t.Run("parallel", func(t *testing.T) {
		for range cap(names) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				at := Database(t, migrateOnce(&migrations), fingerprint)
				if n := count(t, at, "SELECT count(*) FROM note"); n != 0 {
					t.Errorf("%d rows of somebody else's", n)
				}
				if err := run(t.Context(), at, "INSERT INTO note VALUES ('mine')"); err != nil {
					t.Error(err)
				}
				names <- databaseOf(t, at)
			})
		}
	})
	if n := migrations.Load(); n != 1 {
		t.Errorf("migrated %d times, want once", n)
	}
	close(names)
	seen := map[string]bool{}
	for name := range names {
		if seen[name] {
			t.Errorf("two tests were given %s", name)
		}
		seen[name] = true
		if count(t, cluster, "SELECT count(*) FROM pg_database WHERE datname = $1", name) != 0 {
			t.Errorf("%s was not dropped", name)
		}
	}
}

func TestOpenConnectionsDoNotKeepADatabase(t *testing.T) {
	cluster := Cluster(t)
	var name string
	var open *pgx.Conn
	t.Run("leaves a connection open", func(t *testing.T) {
		at := Database(t, migrateOnce(new(atomic.Int32)), t.Name())
		name = databaseOf(t, at)
		var err error
		if open, err = pgx.Connect(t.Context(), at); err != nil {
			t.Fatal(err)
		}
	})
	if count(t, cluster, "SELECT count(*) FROM pg_database WHERE datname = $1", name) != 0 {
		t.Errorf("%s was not dropped", name)
	}
	_ = open.Close(context.Background())
}

func TestFailedMigrationFailsEveryTestAndIsNotCopied(t *testing.T) {
	cluster := Cluster(t)
	broken := errors.New("syntax error at or near SELEKT")
	calls := 0
	migrate := func(ctx context.Context, at string) error {
		calls++
		if err := run(ctx, at, "CREATE TABLE half (n int)"); err != nil {
			return err
		}
		return broken
	}
	fingerprint := unique(t)
	for range 2 {
		if _, err := templates.named(t.Context(), cluster, migrate, fingerprint); !errors.Is(err, broken) {
			t.Fatalf("error %v", err)
		}
	}
	if calls != 1 {
		t.Errorf("tried %d times, want once", calls)
	}
	// Another process, once the migrations are mended under the same fingerprint, starts from nothing.
	var other templateSet
	var mended atomic.Int32
	name, err := other.named(t.Context(), cluster, migrateOnce(&mended), fingerprint)
	if err != nil || mended.Load() != 1 {
		t.Fatalf("mended %d times: %v", mended.Load(), err)
	}
	dropTemplate(t, cluster, name)
}

func dropTemplate(t *testing.T, cluster, name string) {
	t.Helper()
	for _, sql := range []string{"ALTER DATABASE " + name + " IS_TEMPLATE false", "DROP DATABASE " + name + " WITH (FORCE)"} {
		if err := run(t.Context(), cluster, sql); err != nil {
			t.Error(err)
		}
	}
}

// Sets stand for processes: they share the server and nothing else.
func TestOneTemplateForManyProcesses(t *testing.T) {
	cluster := Cluster(t)
	fingerprint := unique(t)
	var migrations atomic.Int32
	const processes = 5
	type outcome struct {
		name string
		err  error
	}
	outcomes := make(chan outcome, processes)
	for range processes {
		go func() {
			var set templateSet
			name, err := set.named(t.Context(), cluster, migrateOnce(&migrations), fingerprint)
			outcomes <- outcome{name, err}
		}()
	}
	var name string
	for range processes {
		o := <-outcomes
		if o.err != nil {
			t.Error(o.err)
		}
		name = o.name
	}
	if n := migrations.Load(); n != 1 {
		t.Errorf("migrated %d times, want once", n)
	}
	at, err := databaseURL(cluster, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), at, "SELECT 1"); err == nil || !strings.Contains(err.Error(), "not currently accepting connections") {
		t.Errorf("a template takes connections: %v", err)
	}
	dropTemplate(t, cluster, name)
}

func TestDatabaseURL(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		"postgres://postgres@/postgres?host=%2Ftmp%2Fs&sslmode=disable": "postgres://postgres@/t_1?host=%2Ftmp%2Fs&sslmode=disable",
		"postgresql://u:p@localhost:5432":                               "postgresql://u:p@localhost:5432/t_1",
	} {
		if got, err := databaseURL(from, "t_1"); got != want || err != nil {
			t.Errorf("%s gives %s, %v; want %s", from, got, err, want)
		}
	}
	for _, from := range []string{"host=/tmp password=hunter2", "mysql://u:hunter2@h/d", "postgres://u:hunter2@h:x/d", ""} {
		if _, err := databaseURL(from, "t_1"); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), PostgresVariable) {
			t.Errorf("%s: error %v", from, err)
		}
	}
}

func TestPrivateClusterLeavesNothing(t *testing.T) {
	var c privateCluster
	if err := c.stop(); err != nil {
		t.Fatalf("stop before the first use: %v", err)
	}
	at, err := c.url(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again, err := c.url(t.Context()); again != at || err != nil {
		t.Fatalf("a second server was started: %s, %v", again, err)
	}
	dir, server := c.dir, c.server
	if err := c.stop(); err != nil {
		t.Fatal(err)
	}
	<-server.Done()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the data was left behind: %v", err)
	}
}
