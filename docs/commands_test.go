package docs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
)

const (
	// patience is above what anything on the pages takes on a busy machine.
	patience = 30 * time.Second
	// again lies between two looks at something that takes its time.
	again = 50 * time.Millisecond
	// operatorToken is the one that the pages' product is started with.
	operatorToken = "operator-token-of-the-pages-tests-0123456789"
)

// product is a running `posthaste dev`, with the data directory where the pages say it is.
type product struct {
	dir         string // the current directory of the pages' commands; holds .posthaste
	api         string // host:port
	receiver    string // host:port
	databaseURL string
}

// need skips a test where a program is missing.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s on this machine", program)
		}
	}
}

// binary builds posthaste into a new directory and returns the directory, to be put on the PATH.
func binary(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(dir, "posthaste"), "../cmd/posthaste")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build posthaste: %v\n%s", err, out)
	}
	return dir
}

func migrated(t testing.TB) string {
	t.Helper()
	return storetest.Database(t, func(ctx context.Context, url string) error {
		return store.Migrate(ctx, url, slog.New(slog.DiscardHandler))
	}, store.Fingerprint())
}

// startProduct runs `posthaste dev` until the test ends.
func startProduct(t *testing.T, bin string) product {
	t.Helper()
	p := product{dir: t.TempDir(), databaseURL: migrated(t)}
	cmd := exec.Command(filepath.Join(bin, "posthaste"), "dev", "--data", ".posthaste", "--addr", "127.0.0.1:0", "--receiver", "127.0.0.1:0")
	cmd.Dir = p.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), "DATABASE_URL=" + p.databaseURL, "POSTHASTE_OPERATOR_TOKEN=" + operatorToken}
	lines, log := start(t, cmd)
	p.api = after(t, lines, log, "API", "http://")
	p.receiver = after(t, lines, log, "Receiver", "http://")
	after(t, lines, log, "verified", "msg_") // all of it is up
	return p
}

// start runs a program until the test ends, and returns the lines it prints.
func start(t *testing.T, cmd *exec.Cmd) (lines <-chan string, log *transcript) {
	t.Helper()
	log = &transcript{}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := make(chan string, 1000)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(out)
		for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
			_, _ = log.Write(append(scanner.Bytes(), '\n'))
			select {
			case out <- scanner.Text():
			default: // nobody reads any more
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, log)
		}
	})
	return out, log
}

// after reads lines up to one with both texts, and returns the word that follows the second.
func after(t *testing.T, lines <-chan string, log *transcript, first, second string) string {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("ended before it said %s … %s:\n%s", first, second, log)
			}
			_, rest, _ := strings.Cut(line, first)
			if _, rest, ok = strings.Cut(rest, second); ok {
				word, _, _ := strings.Cut(rest, " ")
				word, _, _ = strings.Cut(word, "/")
				return word
			}
		case <-late:
			t.Fatalf("did not say %s … %s:\n%s", first, second, log)
		}
	}
}

// transcript is what programs said; it may be read while they speak.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *transcript) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// freeAddress is an address of this machine on which nothing listens now.
func freeAddress(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// session is one shell in which the blocks of a page run one after the other, as a reader would type
// them.
type session struct {
	t          *testing.T
	dir        string
	replace    *strings.Replacer // addresses of the pages by those of the test
	in         io.WriteCloser
	out        *bufio.Reader
	background []string // files with what background blocks print
	n          int
}

// ended stands in the output of the shell behind each block.
const ended = "\x01ended\n"

func newSession(t *testing.T, dir string, environ []string, replace *strings.Replacer) *session {
	t.Helper()
	cmd := exec.Command("bash", "-eu", "-o", "pipefail")
	cmd.Dir, cmd.Env = dir, environ
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that what it leaves running can be found
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = write.Close()
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // it has its own say in each block
		// The group is ours: the shell made it. What it left running are the pages' background blocks.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
		_, _ = io.Copy(io.Discard, read) // until all of them are gone
		_ = read.Close()
	})
	return &session{t: t, dir: dir, replace: replace, in: in, out: bufio.NewReader(read)}
}

// run runs one block, and fails the test if a command of it fails.
func (s *session) run(b block) (output string) {
	s.t.Helper()
	s.n++
	script := filepath.Join(s.dir, fmt.Sprintf("block-%s-%d.sh", filepath.Base(s.t.Name()), s.n))
	if err := os.WriteFile(script, []byte(s.replace.Replace(b.text)), 0o644); err != nil {
		s.t.Fatal(err)
	}
	line := fmt.Sprintf(". '%s' </dev/null\n", script)
	if b.is("background") {
		said := script + ".out"
		s.background = append(s.background, said)
		line = fmt.Sprintf("{ . '%s'; } </dev/null >'%s' 2>&1 &\n", script, said)
	}
	if _, err := io.WriteString(s.in, line+`printf '\001ended\n'`+"\n"); err != nil {
		s.t.Fatalf("line %d: the shell has ended: %v", b.line, err)
	}
	var text strings.Builder
	for {
		got, err := s.out.ReadString('\n')
		text.WriteString(got)
		if before, ok := strings.CutSuffix(text.String(), ended); ok {
			return before
		}
		if err != nil {
			s.t.Fatalf("line %d: a command failed:\n%s\nprinted\n%s", b.line, b.text, text.String())
		}
	}
}

// eventually looks until something holds.
func eventually(t *testing.T, holds func() bool) bool {
	t.Helper()
	ticker := time.NewTicker(again)
	defer ticker.Stop()
	late := time.After(patience)
	for !holds() {
		select {
		case <-ticker.C:
		case <-late:
			return false
		}
	}
	return true
}

// play runs the blocks of a page that are marked with its name.
func (s *session) play(page, name, databaseURL string) {
	s.t.Helper()
	played := 0
	for _, b := range blocks(readPage(s.t, page)) {
		switch {
		case b.mark == "output" && b.is("background"):
			var text []byte
			if !eventually(s.t, func() bool {
				text, _ = os.ReadFile(s.background[len(s.background)-1])
				return prints(string(text), s.replace.Replace(b.output+b.text))
			}) {
				s.t.Errorf("%s:%d: the background command said\n%s\nwant\n%s", page, b.line, text, b.text)
			}
		case b.mark != "test" || !b.is(name):
		case b.lang == "sql":
			played++
			s.query(page, b, databaseURL)
		case b.lang != "sh":
			s.t.Errorf("%s:%d: a block in %q cannot be run", page, b.line, b.lang)
		default:
			played++
			var got string
			check := func() bool { got = s.run(b); return prints(got, s.replace.Replace(b.output)) }
			if ok := b.is("until") && eventually(s.t, check) || !b.is("until") && check(); !ok {
				s.t.Errorf("%s:%d: printed\n%s\nwant\n%s", page, b.line, got, b.output)
			}
			if b.is("background") {
				said := s.background[len(s.background)-1]
				if !eventually(s.t, func() bool { info, err := os.Stat(said); return err == nil && info.Size() > 0 }) {
					s.t.Errorf("%s:%d: it says nothing", page, b.line)
				}
			}
		}
	}
	if played == 0 {
		s.t.Skipf("%s has no block marked %q", page, "test: "+name)
	}
}

func (s *session) query(page string, b block, databaseURL string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), databaseURL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(s.t.Context())) }()
	rows, err := conn.Query(s.t.Context(), b.text)
	if err == nil {
		rows.Close()
		err = rows.Err()
	}
	if err != nil {
		s.t.Errorf("%s:%d: %v", page, b.line, err)
	}
}

func environ(bin string, more ...string) []string {
	return append([]string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir(), "NO_PROXY=*", "LC_ALL=C.UTF-8",
	}, more...)
}

// A reader who types what the pages say gets what the pages show.
func TestCommands(t *testing.T) {
	need(t, "bash", "curl", "go")
	bin := binary(t)
	t.Run("self-hosting", func(t *testing.T) {
		need(t, "openssl", "sed")
		// A database without tables.
		url := storetest.Database(t, func(context.Context, string) error { return nil }, "empty")
		s := newSession(t, t.TempDir(), environ(bin, "DATABASE_URL="+url, "REDIS_URL="+storetest.Redis(t)),
			strings.NewReplacer("127.0.0.1:8071", freeAddress(t), "127.0.0.1:8070", freeAddress(t)))
		s.play("self-hosting.md", "self-hosting", url)
	})
	p := startProduct(t, bin)
	for _, page := range []struct{ path, name string }{
		{"sending.md", "sending"}, {"receiving.md", "receiving"}, {"operating.md", "operating"}, {"conventions.md", "conventions"}, {"replaying.md", "replaying"}, {"limits-and-fairness.md", "limits"}, {"../README.md", "readme"},
	} {
		t.Run(page.name, func(t *testing.T) {
			s := newSession(t, p.dir, environ(bin, "DATABASE_URL="+p.databaseURL, "POSTHASTE_OPERATOR_TOKEN="+operatorToken),
				strings.NewReplacer("127.0.0.1:8071", p.api, "127.0.0.1:8072", p.receiver, "127.0.0.1:9000", freeAddress(t), "localhost:8071", p.api))
			s.play(page.path, page.name, p.databaseURL)
		})
	}
	t.Run("samples", func(t *testing.T) { verifySamples(t, p) })
}
