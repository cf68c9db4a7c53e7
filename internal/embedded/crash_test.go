package embedded

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// anotherOwner runs a server in another process and returns that process and the server's id.
func anotherOwner(t *testing.T, dir string, as *account, env ...string) (*exec.Cmd, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if as != nil {
		copied := filepath.Join(workDir(t), "embedded.test") // go test builds where others cannot look
		if err := copyFile(self, copied); err != nil {
			t.Fatal(err)
		}
		self = copied
	}
	cmd := exec.Command(self)
	cmd.Env = append(append(os.Environ(), helperVariable+"="+dir, bundleVariable+"="+strings.Join(RepositoryBundle(), "")), env...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as.credential()}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "pid: "); ok {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return cmd, pid
		}
		said = append(said, lines.Text())
	}
	text := strings.Join(said, "\n")
	if strings.Contains(text, ErrNoRedis.Error()) {
		t.Skip(text)
	}
	t.Fatalf("the other process failed: %s", text)
	return nil, 0
}

func TestKilledOwnerTakesItsServerAlong(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has death signals")
	}
	dir := workDir(t)
	owner, pid := anotherOwner(t, dir, nil)
	guest := start(t, PostgresOptions{Dir: dir})
	if !guest.Guest() || guest.PID() != pid {
		t.Fatalf("guest %v of process %d, want of %d", guest.Guest(), guest.PID(), pid)
	}
	execute(t, guest.URL("postgres"), "CREATE TABLE kept AS SELECT 11 AS n")
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	// At once: the old server is still writing its checkpoint.
	var log record
	p := start(t, PostgresOptions{Dir: dir, Log: log.logger()})
	for p.Guest() { // the kernel lets go of the lock a moment after the kill
		stop(t, p)
		p = start(t, PostgresOptions{Dir: dir, Log: log.logger()})
	}
	awaitDone(t, guest.Done())
	if n := query[int](t, p.URL("postgres"), "SELECT n FROM kept"); n != 11 {
		t.Fatalf("read %d, want 11", n)
	}
	if text := log.String(); strings.Contains(text, "not properly shut down") || !strings.Contains(text, "database system was shut down") {
		t.Errorf("the killed owner's server did not stop in order:\n%s", text)
	}
}

func TestOwnerWhoLeavesStopsItsServer(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	owner, pid := anotherOwner(t, dir, nil)
	if err := owner.Process.Signal(syscall.Signal(0)); err != nil {
		t.Fatal(err)
	}
	guest := start(t, PostgresOptions{Dir: dir})
	if err := owner.Process.Signal(syscall.SIGTERM); err != nil { // the helper has no handler: it just dies
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" {
		awaitDone(t, guest.Done())
		await(t, "the server to go", func() bool { return !serves(pid, dir+"/data") })
	}
}

func TestKilledServerIsNoticedAndRecovers(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := start(t, PostgresOptions{Dir: dir, Durable: true})
	execute(t, p.URL("postgres"), "CREATE TABLE kept AS SELECT 13 AS n")
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p.Done())
	if err := p.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the end is described as %v", err)
	}
	stop(t, p)
	if _, ok := readPidFile(filepath.Join(dir, "data")); !ok {
		t.Fatal("no stale pid file, so nothing is tested")
	}
	p = start(t, PostgresOptions{Dir: dir, Durable: true})
	if n := query[int](t, p.URL("postgres"), "SELECT n FROM kept"); n != 13 {
		t.Fatalf("read %d, want 13", n)
	}
}

// A backend in the middle of a statement outlives a killed server for a while, and the next server
// must not work beside it.
func TestRestartWaitsForSurvivingBackends(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := start(t, PostgresOptions{Dir: dir})
	conn := connect(t, p.URL("postgres"))
	var backend int
	if err := conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&backend); err != nil {
		t.Fatal(err)
	}
	// A stopped process stands for a busy one.
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDone(t, p.Done())
	stop(t, p)

	var log record
	type outcome struct {
		p   *Postgres
		err error
	}
	started := make(chan outcome, 1)
	go func() {
		p, err := begin(t.Context(), PostgresOptions{Dir: dir, Log: log.logger()})
		started <- outcome{p, err}
	}()
	await(t, "the new server to be refused", func() bool {
		return strings.Contains(log.String(), "pre-existing shared memory block")
	})
	if err := syscall.Kill(backend, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	o := <-started
	if o.err != nil {
		t.Fatal(o.err)
	}
	t.Cleanup(func() { stop(t, o.p) })
	if n := query[int](t, o.p.URL("postgres"), "SELECT 1"); n != 1 {
		t.Fatalf("read %d, want 1", n)
	}
}

// writeStale leaves a pid file behind as a crash does, naming a process.
func writeStale(t *testing.T, dir string, pid int) {
	t.Helper()
	data := filepath.Join(dir, "data")
	text := fmt.Sprintf("%d\n%s\n1700000000\n5432\n%s\n\n  1234567         0\nready\n", pid, data, filepath.Join(dir, "sock"))
	path := filepath.Join(data, "postmaster.pid")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	who, err := postgresAccount(data)
	if err != nil {
		t.Fatal(err)
	}
	if who != nil {
		if err := os.Chown(path, int(who.uid), int(who.gid)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestStalePidFileOfALiveStranger(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	stop(t, start(t, PostgresOptions{Dir: dir}))
	who, err := postgresAccount(filepath.Join(dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	// Of the same user, or Postgres would see by itself that it is not its own.
	stranger, err := startChild(childSpec{path: "/bin/sleep", args: []string{"600"}, account: who, onParentDeath: syscall.SIGKILL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stranger.kill)
	writeStale(t, dir, stranger.pid())

	p := start(t, PostgresOptions{Dir: dir})
	if p.Guest() || p.PID() == stranger.pid() {
		t.Fatal("took the stranger for a server")
	}
	if stranger.exited() {
		t.Fatal("the stranger was harmed")
	}
}

func TestStalePidFileOfAnotherServer(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("a server's directory cannot be seen here")
	}
	other := start(t, PostgresOptions{Dir: workDir(t)})
	dir := workDir(t)
	stop(t, start(t, PostgresOptions{Dir: dir}))
	writeStale(t, dir, other.PID())
	p := start(t, PostgresOptions{Dir: dir})
	if p.Guest() || p.PID() == other.PID() {
		t.Fatal("took another directory's server for its own")
	}
	if n := query[int](t, other.URL("postgres"), "SELECT 1"); n != 1 {
		t.Fatal("the other server was harmed")
	}
}

func TestStalePidFileOfAGoneProcess(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	stop(t, start(t, PostgresOptions{Dir: dir}))
	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	writeStale(t, dir, gone.Process.Pid)
	start(t, PostgresOptions{Dir: dir})
}

func TestPidFileBeingWritten(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	for text, want := range map[string]bool{"": false, "\n": false, "-5\n": false, "x\n": false, "12": true, "12\n/d\n1\n5432\n": true} {
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if file, ok := readPidFile(dir); ok != want || file.ready() {
			t.Errorf("%q: read %v, ready %v", text, ok, file.ready())
		}
	}
}

func TestDataOfAnotherMajorIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	p := start(t, PostgresOptions{Dir: dir})
	major, _, _ := strings.Cut(p.Version(), ".")
	stop(t, p)
	path := filepath.Join(dir, "data", "PG_VERSION")
	if err := os.WriteFile(path, []byte("99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := listing(t, filepath.Join(dir, "data"))
	_, err := begin(t.Context(), PostgresOptions{Dir: dir})
	if !errors.Is(err, ErrOtherMajor) || !strings.Contains(err.Error(), "99") || !strings.Contains(err.Error(), "Postgres "+major) {
		t.Fatalf("error %v does not name both versions", err)
	}
	if after := listing(t, filepath.Join(dir, "data")); after != before {
		t.Fatalf("the directory changed:\n%s\nwas\n%s", after, before)
	}
}

func TestFilesThatAreNoClusterAreLeftAlone(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data", "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := begin(t.Context(), PostgresOptions{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "left as it is") {
		t.Fatalf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "thesis.txt")); err != nil {
		t.Fatal(err)
	}
}

// listing names every file with its size and time.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil {
			lines = append(lines, fmt.Sprint(path, info.Mode(), info.Size(), info.ModTime()))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}
