package embedded

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// workDir is a directory every user can enter, which t.TempDir is not.
func workDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "phe-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// record is a log that tests can read.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *record) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// begin is StartPostgres on whatever binaries there are, the bundle's included.
func begin(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	o.BundleDirs = RepositoryBundle()
	return StartPostgres(ctx, o)
}

func start(t testing.TB, o PostgresOptions) *Postgres {
	t.Helper()
	p, err := begin(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, p) })
	return p
}

func stop(t testing.TB, p *Postgres) {
	t.Helper()
	if err := p.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func query[T any](t testing.TB, url, sql string, args ...any) T {
	t.Helper()
	var value T
	conn := connect(t, url)
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	_ = conn.Close(t.Context())
	return value
}

func execute(t testing.TB, url, sql string) {
	t.Helper()
	conn := connect(t, url)
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	_ = conn.Close(t.Context())
}

// await waits for a condition that nothing signals.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !condition() {
		if !pause(ctx) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func awaitDone(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not end")
	}
}

func processExists(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestDataIsThereOnTheNextStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(workDir(t), "pg")
	p := start(t, PostgresOptions{Dir: dir})
	if p.Guest() || p.Version() == "" || !processExists(p.PID()) || p.Err() != nil {
		t.Fatalf("not the owner of a running server: %+v", p)
	}
	execute(t, p.URL("postgres"), "CREATE TABLE kept AS SELECT 7 AS n")
	stop(t, p)
	awaitDone(t, p.Done())
	if processExists(p.PID()) || p.Err() != nil {
		t.Fatalf("stopped server: running %v, error %v", processExists(p.PID()), p.Err())
	}
	stop(t, p) // a second stop is harmless

	again := start(t, PostgresOptions{Dir: dir})
	if n := query[int](t, again.URL("postgres"), "SELECT n FROM kept"); n != 7 {
		t.Fatalf("read %d, want 7", n)
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	show := func(p *Postgres, name string) string {
		return query[string](t, p.URL("postgres"), "SELECT current_setting($1)", name)
	}
	check := func(p *Postgres, want map[string]string) {
		t.Helper()
		for name, value := range want {
			if got := show(p, name); got != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
	}
	dir := workDir(t)
	p := start(t, PostgresOptions{Dir: dir, MaxConnections: 31, Settings: map[string]string{"work_mem": "7MB", "cluster_name": "mine"}})
	check(p, map[string]string{
		"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "31", "work_mem": "7MB",
		"cluster_name": "mine", "listen_addresses": "", "server_encoding": "UTF8", "TimeZone": "UTC",
	})
	if collation := query[string](t, p.URL("postgres"), "SELECT datcollate FROM pg_database WHERE datname = 'postgres'"); collation != "C" {
		t.Errorf("text sorts by %q, want C", collation)
	}
	stop(t, p)
	p = start(t, PostgresOptions{Dir: dir, Durable: true})
	check(p, map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "100"})
}

func TestSecondStarterIsGuest(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	owner := start(t, PostgresOptions{Dir: dir})
	execute(t, owner.URL("postgres"), "CREATE TABLE shared AS SELECT 3 AS n")

	guest := start(t, PostgresOptions{Dir: dir})
	if !guest.Guest() || guest.PID() != owner.PID() {
		t.Fatalf("guest %v of process %d, want of %d", guest.Guest(), guest.PID(), owner.PID())
	}
	if n := query[int](t, guest.URL("postgres"), "SELECT n FROM shared"); n != 3 {
		t.Fatalf("guest read %d, want 3", n)
	}
	stop(t, guest)
	awaitDone(t, guest.Done())
	if n := query[int](t, owner.URL("postgres"), "SELECT n FROM shared"); n != 3 {
		t.Fatalf("owner read %d after the guest left, want 3", n)
	}

	second := start(t, PostgresOptions{Dir: dir})
	stop(t, owner)
	awaitDone(t, second.Done()) // a guest hears of the end too
	if heir := start(t, PostgresOptions{Dir: dir}); heir.Guest() {
		t.Fatal("still a guest after the owner left")
	}
}

func TestManyStartersAtOnceHaveOneOwner(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	const starters = 6
	type outcome struct {
		p   *Postgres
		err error
	}
	outcomes := make(chan outcome, starters)
	for range starters {
		go func() {
			p, err := begin(t.Context(), PostgresOptions{Dir: dir})
			outcomes <- outcome{p, err}
		}()
	}
	owners := 0
	for range starters {
		o := <-outcomes
		if o.err != nil {
			t.Error(o.err)
			continue
		}
		t.Cleanup(func() { stop(t, o.p) })
		if !o.p.Guest() {
			owners++
		}
	}
	if owners != 1 {
		t.Fatalf("%d owners, want 1", owners)
	}
}

func TestStopImmediateKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := start(t, PostgresOptions{Dir: dir, Durable: true})
	execute(t, p.URL("postgres"), "CREATE TABLE kept AS SELECT 5 AS n")
	if err := p.StopImmediate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var log record
	p = start(t, PostgresOptions{Dir: dir, Durable: true, Log: log.logger()})
	if n := query[int](t, p.URL("postgres"), "SELECT n FROM kept"); n != 5 {
		t.Fatalf("read %d, want 5", n)
	}
	if !strings.Contains(log.String(), "automatic recovery in progress") {
		t.Errorf("no recovery in the log, so the stop was not immediate:\n%s", log.String())
	}
}

func TestStopDisconnectsClients(t *testing.T) {
	t.Parallel()
	p := start(t, PostgresOptions{Dir: workDir(t)})
	busy := connect(t, p.URL("postgres"))
	finished := make(chan error, 1)
	if _, err := busy.Exec(t.Context(), "SELECT pg_advisory_lock(1)"); err != nil {
		t.Fatal(err)
	}
	waiting := connect(t, p.URL("postgres"))
	go func() {
		_, err := waiting.Exec(context.Background(), "SELECT pg_advisory_lock(1)")
		finished <- err
	}()
	await(t, "the client to wait for its lock", func() bool {
		return query[int](t, p.URL("postgres"), "SELECT count(*)::int FROM pg_locks WHERE locktype = 'advisory' AND NOT granted") == 1
	})
	stop(t, p)
	if err := <-finished; err == nil {
		t.Fatal("the waiting client was not disconnected")
	}
}

func TestListenAddress(t *testing.T) {
	t.Parallel()
	p := start(t, PostgresOptions{Dir: workDir(t), Listen: "127.0.0.1:0"})
	host, port, err := net.SplitHostPort(p.Address())
	if err != nil || host != "127.0.0.1" || port == "0" {
		t.Fatalf("listens on %q: %v", p.Address(), err)
	}
	if n := query[int](t, "postgres://postgres@"+p.Address()+"/postgres?sslmode=disable", "SELECT 1"); n != 1 {
		t.Fatalf("read %d over TCP, want 1", n)
	}
	if n := query[int](t, p.URL("postgres"), "SELECT 1"); n != 1 {
		t.Fatalf("read %d over the socket, want 1", n)
	}
	for _, refused := range []string{"0.0.0.0:0", ":5433", "192.0.2.1:5433", "example.com:5433", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1", "127.0.0.1:x"} {
		if _, _, err := listenAddress(refused); err == nil {
			t.Errorf("%q was taken", refused)
		}
	}
	for _, taken := range []string{"127.0.0.1:65535", "[::1]:1", "localhost:5433", "127.9.9.9:5433"} {
		if _, _, err := listenAddress(taken); err != nil {
			t.Errorf("%q: %v", taken, err)
		}
	}
}

func TestLogHoldsNoValues(t *testing.T) {
	t.Parallel()
	var log record
	p := start(t, PostgresOptions{Dir: workDir(t), Log: log.logger(), Listen: "127.0.0.1:0"})
	conn := connect(t, p.URL("postgres"))
	for _, sql := range []string{
		"SELECT 'hunter2'::int",
		"CREATE TABLE u (v text PRIMARY KEY); INSERT INTO u VALUES ('hunter2'), ('hunter2')",
		"SELECT hunter2",
		"SELECT * FROM pg_sleep(0), pg_terminate_backend(pg_backend_pid()) AS hunter2",
	} {
		if _, err := conn.Exec(t.Context(), sql); err == nil {
			t.Fatalf("%s did not fail", sql)
		}
	}
	stop(t, p)
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "database system is shut down") {
		t.Fatalf("log:\n%s", text)
	}
}

// Variables of our environment must neither change the server nor be readable in it.
func TestChildDoesNotInheritTheEnvironment(t *testing.T) {
	t.Setenv("PGPORT", "1")
	t.Setenv("PGDATA", "/nowhere")
	t.Setenv("POSTHASTE_MASTER_KEY", "hunter2")
	t.Setenv("LC_ALL", "de_DE.UTF-8")
	p := start(t, PostgresOptions{Dir: workDir(t)})
	if env, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID()) + "/environ"); err == nil {
		if text := string(env); strings.Contains(text, "hunter2") || !strings.Contains(text, "LC_ALL=C\x00") {
			t.Errorf("the server's environment is %q", text)
		}
	}
	if group, err := syscall.Getpgid(p.PID()); err != nil || group != p.PID() {
		t.Errorf("the server is in process group %d (%v), where a Ctrl-C for us reaches it", group, err)
	}
}

func TestLongPathMovesTheSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(workDir(t), strings.Repeat("a-long-name/", 10), "pg")
	p := start(t, PostgresOptions{Dir: dir})
	socket := p.file.socket
	if strings.HasPrefix(socket, dir) {
		t.Fatalf("the socket lies in %s", socket)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("socket directory: %v, %v", info, err)
	}
	if n := query[int](t, p.URL("postgres"), "SELECT 1"); n != 1 {
		t.Fatalf("read %d, want 1", n)
	}
	stop(t, p)
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket's directory was left behind: %v", err)
	}
}

func TestSocketPathLimit(t *testing.T) {
	t.Parallel()
	const name = "/sock/.s.PGSQL.65535"
	base := workDir(t)
	at := func(total int) cluster {
		dir := base + "/" + strings.Repeat("d", total-len(name)-len(base)-1)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return cluster{dir: dir}
	}
	if _, temporary, err := at(socketPathLimit).socketDir(); err != nil || temporary {
		t.Errorf("at the limit the socket leaves the directory: %v, %v", temporary, err)
	}
	dir, temporary, err := at(socketPathLimit + 1).socketDir()
	if err != nil || !temporary {
		t.Errorf("over the limit the socket stays in the directory: %v, %v", temporary, err)
	}
	_ = os.Remove(dir)
}

func TestStrangeDirectoryNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{`it's a+b %20 d\r`, "with,comma"} {
		p := start(t, PostgresOptions{Dir: filepath.Join(workDir(t), name)})
		if n := query[int](t, p.URL("postgres"), "SELECT 1"); n != 1 {
			t.Fatalf("%s: read %d, want 1", name, n)
		}
	}
	if args := (cluster{}).arguments(`/a"b`, "", defaultPort); !slices.Contains(args, `unix_socket_directories="/a""b"`) {
		t.Errorf("a quote ends the list of directories: %q", args)
	}
}

func TestCancelledStartLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := begin(ctx, PostgresOptions{Dir: dir})
		failed <- err
	}()
	await(t, "initdb to work", func() bool {
		_, err := os.Stat(filepath.Join(dir, "data.init", "global"))
		return err == nil
	})
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want that it was cancelled", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Fatalf("half a cluster was put in place: %v", err)
	}
	// The lock is free, and what initdb left is no obstacle.
	if p := start(t, PostgresOptions{Dir: dir}); p.Guest() {
		t.Fatal("guest of a start that was cancelled")
	}
}

func TestBadSettingIsReportedInTheServersWords(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	_, err := begin(t.Context(), PostgresOptions{Dir: dir + "/pg", Settings: map[string]string{"work_mem": "much"}})
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "work_mem"`) {
		t.Fatalf("error %v", err)
	}
	if p := start(t, PostgresOptions{Dir: dir + "/pg"}); p.Guest() {
		t.Fatal("the failed start kept the lock")
	}
}
