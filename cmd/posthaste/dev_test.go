package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
)

// process is a running posthaste.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	lines  chan string // of standard output; closed at its end
	stderr *bytes.Buffer
	all    []string // lines read so far
}

func startProcess(t *testing.T, environ []string, args ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(self, args...), lines: make(chan string, 1000), stderr: new(bytes.Buffer)}
	p.cmd.Env = append([]string{runMain + "=1", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, environ...)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
	go p.read(stdout)
	return p
}

func (p *process) read(stdout io.Reader) {
	defer close(p.lines)
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		p.lines <- scanner.Text()
	}
}

// patience is above what any start takes on a busy machine.
const patience = 2 * time.Minute

// until reads lines up to the first that holds all parts.
func (p *process) until(parts ...string) string {
	p.t.Helper()
	late := time.After(patience)
next:
	for {
		select {
		case <-late:
			p.t.Fatalf("no line with %q:\n%s\n%s", parts, strings.Join(p.all, "\n"), p.stderr)
		case line, ok := <-p.lines:
			if !ok {
				_ = p.cmd.Wait()
				p.t.Fatalf("ended before a line with %q:\n%s\n%s", parts, strings.Join(p.all, "\n"), p.stderr)
			}
			p.all = append(p.all, line)
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue next
				}
			}
			return line
		}
	}
}

// stop sends a signal and waits for an orderly end.
func (p *process) stop(signal syscall.Signal) {
	p.t.Helper()
	begin := time.Now()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	for line := range p.lines {
		p.all = append(p.all, line)
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("after %v: %v\n%s\n%s", signal, err, strings.Join(p.all, "\n"), p.stderr)
	}
	p.t.Logf("stopped in %s", time.Since(begin).Round(time.Millisecond))
}

// openDirectory is a new directory that every user may enter: as root, Postgres is another one.
func openDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "posthaste-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "data")
}

// curl runs the command that dev printed, as its reader would.
func (p *process) curl() (messageID string) {
	p.t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		p.t.Skip("there is no curl here")
	}
	text := strings.Join(p.all, "\n")
	script := regexp.MustCompile(`(?m)^  curl (.*\\\n)+.*$`).FindString(text)
	answer, err := exec.Command("sh", "-c", script).Output()
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	id := regexp.MustCompile(`"id":"(msg_[0-9A-Za-z]{27})"`).FindSubmatch(answer)
	if id == nil {
		p.t.Fatalf("answered %s", answer)
	}
	return string(id[1])
}

// What a newcomer does: start it, see a verified delivery, paste the curl, stop it, start it again.
func TestDevShowsAVerifiedDelivery(t *testing.T) {
	data := openDirectory(t)
	args := []string{"dev", "--addr", "127.0.0.1:0", "--receiver", "127.0.0.1:0", "--data", data}

	begin := time.Now()
	first := startProcess(t, nil, args...)
	first.until("is running.")
	first.until("✓ verified", "invoice.paid", "msg_")
	t.Logf("first start to the delivery: %s", time.Since(begin).Round(time.Millisecond))
	id := first.curl()
	first.until("✓ verified", id)
	first.stop(syscall.SIGINT)
	if first.stderr.Len() > 0 {
		t.Errorf("said %s", first.stderr)
	}
	key := regexp.MustCompile(`phk_[0-9A-Za-z_]+`).FindString(strings.Join(first.all, "\n"))
	for _, name := range []string{masterFile, keyFile} {
		info, err := os.Stat(filepath.Join(data, name))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if kept, err := os.ReadFile(filepath.Join(data, keyFile)); err != nil || strings.TrimSpace(string(kept)) != key || key == "" {
		t.Errorf("printed %q, kept %q, %v", key, kept, err)
	}

	begin = time.Now()
	second := startProcess(t, nil, args...)
	second.until("is running.")
	second.until("Deliveries appear here")
	t.Logf("second start: %s", time.Since(begin).Round(time.Millisecond))
	// Nothing is sent by itself again: the first delivery is the one asked for.
	id = second.curl()
	if line := second.until("✓ verified"); !strings.Contains(line, id) {
		t.Errorf("delivered %s, want %s", line, id)
	}
	second.stop(syscall.SIGTERM)
	if !strings.Contains(strings.Join(second.all, "\n"), key) {
		t.Error("the second start has another key")
	}
	if second.stderr.Len() > 0 {
		t.Errorf("said %s", second.stderr)
	}
}

func TestDevUsesTheServersItIsGiven(t *testing.T) {
	environ, _ := database(t)
	p := startProcess(t, environ, "dev", "--addr", "127.0.0.1:0", "--receiver", "127.0.0.1:0", "--data", openDirectory(t))
	id := regexp.MustCompile(`msg_[0-9A-Za-z]{27}`).FindString(p.until("✓ verified", "invoice.paid"))
	p.stop(syscall.SIGINT)
	if strings.Contains(strings.Join(p.all, "\n"), "making a database") {
		t.Error("it made a database of its own")
	}

	// What it delivered is recorded once it has stopped, and can be traced.
	code, stdout, stderr := command(t, environ, "admin", "trace", id)
	var trace store.Trace
	if err := json.Unmarshal([]byte(stdout), &trace); err != nil || code != 0 || stderr != "" {
		t.Fatalf("exit %d, %v, printed %q, said %q", code, err, stdout, stderr)
	}
	if trace.Message.String() != id || trace.EventType != "invoice.paid" || len(trace.Owed) != 0 || len(trace.Attempts) != 1 ||
		trace.Attempts[0].HTTPStatus != 200 || !trace.Attempts[0].Final {
		t.Errorf("traced %s", stdout)
	}
	if strings.Contains(stdout, "in_1042") {
		t.Errorf("the payload is shown: %s", stdout)
	}
}

func TestDevWithoutReceiverLeavesItToListen(t *testing.T) {
	environ, _ := database(t)
	listen := startProcess(t, nil, "listen", "--addr", "127.0.0.1:0")
	line := listen.until("Listening on http://")
	at := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	p := startProcess(t, environ, "dev", "--addr", "127.0.0.1:0", "--receiver", at, "--no-receiver", "--data", openDirectory(t))
	line = p.until("A first message is on its way: msg_")
	listen.until("? unverified", line[strings.Index(line, "msg_"):])
	if !regexp.MustCompile(`posthaste listen --addr ` + regexp.QuoteMeta(at) + ` --secret whsec_`).MatchString(strings.Join(p.all, "\n")) {
		t.Error("it does not say how to verify")
	}
	p.stop(syscall.SIGINT)
	listen.stop(syscall.SIGINT)
}

// The first signal waits for what is under way, the second does not.
func TestSecondSignalEndsAtOnce(t *testing.T) {
	arrived, release := make(chan struct{}, 10), make(chan struct{})
	sink := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}))
	defer sink.Close()
	defer close(release)
	environ, _ := database(t)
	p := startProcess(t, environ, "dev", "--addr", "127.0.0.1:0", "--no-receiver", "--receiver", sink.Listener.Addr().String(), "--data", openDirectory(t))
	<-arrived
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.until("Stopping.")
	// Again and again, since one sent at this very moment may still count as the first.
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for open := true; open; {
		select {
		case _, open = <-p.lines:
		case <-again.C:
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		}
	}
	_ = p.cmd.Wait()
	if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("it ended as %v", p.cmd.ProcessState)
	}
}
