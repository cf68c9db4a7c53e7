package docs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/signature/signaturetest"
)

var dialer = net.Dialer{Timeout: time.Second}

// captured is a delivery as a receiver got it.
type captured struct {
	head   string // request line and headers, sorted as they are on the page
	header http.Header
	body   []byte
	secret string // of the endpoint it was sent to
}

func (c captured) forLibraries() signaturetest.Captured {
	return signaturetest.Captured{Secret: c.secret, Header: c.header, Body: c.body}
}

// call asks the API.
func (p product) call(t *testing.T, method, path, body string) map[string]any {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(p.dir, ".posthaste", "api-key"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.api+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(key)))
	status, answer := send(t, req)
	if status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	var object map[string]any
	if len(answer) > 0 {
		if err := json.Unmarshal(answer, &object); err != nil {
			t.Fatal(err)
		}
	}
	return object
}

func send(t *testing.T, req *http.Request) (status int, body []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// capture makes an endpoint here, sends it a message, rotates its secret and sends another: one
// delivery with one signature, and one with two, both to be verified with the first secret.
func capture(t *testing.T, p product) (before, during captured) {
	t.Helper()
	arrived := make(chan captured, 2)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		c := captured{header: r.Header, body: body}
		c.head = fmt.Sprintf("%s %s %s\nHost: %s\nUser-Agent: %s\nContent-Length: %d\nAccept: %s\nAccept-Encoding: %s\nContent-Type: %s\nWebhook-Id: %s\nWebhook-Signature: %s\nWebhook-Timestamp: %s\n\n",
			r.Method, r.RequestURI, r.Proto, "127.0.0.1:9000", r.UserAgent(), r.ContentLength, r.Header.Get("Accept"), r.Header.Get("Accept-Encoding"),
			r.Header.Get("Content-Type"), r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Signature"), r.Header.Get("Webhook-Timestamp"))
		arrived <- c
	}))
	defer server.Close()
	p.call(t, "PUT", "/app/samples", `{"name":"Samples","uid":"samples"}`)
	p.call(t, "PUT", "/app/samples/endpoint/captured", `{"url":"`+server.URL+`/hooks"}`)
	secret, _ := p.call(t, "GET", "/app/samples/endpoint/captured/secret", "")["key"].(string)
	one := func() captured {
		p.call(t, "POST", "/app/samples/msg", `{"eventType":"order.shipped","payload":{"type":"order.shipped","order":"A-1"}}`)
		select {
		case c := <-arrived:
			c.secret = secret
			return c
		case <-time.After(patience):
			t.Fatal("nothing arrived")
			panic("unreachable")
		}
	}
	before = one()
	p.call(t, "POST", "/app/samples/endpoint/captured/secret/rotate", "")
	during = one()
	if n := len(strings.Fields(during.header.Get("webhook-signature"))); n != 2 {
		t.Errorf("%d signatures during the rotation, want 2", n)
	}
	return before, during
}

// sample writes a sample of receiving.md to a directory, with its own address in place of the page's.
func sample(t *testing.T, dir, name, address string) string {
	t.Helper()
	for _, b := range blocks(readPage(t, "receiving.md")) {
		if b.mark == "file" && b.is(name) {
			_, port, _ := strings.Cut(address, ":")
			text := regexp.MustCompile(`\b9000\b`).ReplaceAllString(b.text, port)
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			return path
		}
	}
	t.Fatalf("receiving.md has no sample %s", name)
	return ""
}

// verifySamples replays real deliveries, and forged ones, to the samples of receiving.md.
func verifySamples(t *testing.T, p product) {
	before, during := capture(t, p)
	for _, b := range blocks(readPage(t, "receiving.md")) {
		if b.mark == "wire" && !prints(before.head+string(before.body), b.text) {
			t.Errorf("receiving.md:%d: a delivery is\n%s%s", b.line, before.head, before.body)
		}
	}
	t.Run("node", func(t *testing.T) {
		// It installs the package if need be, or skips.
		for i, err := range signaturetest.VerifyWithNode(t, []signaturetest.Captured{before.forLibraries(), during.forLibraries()}) {
			if err != nil {
				t.Errorf("delivery %d: %v", i+1, err)
			}
		}
		modules, err := filepath.Abs("../internal/signature/testdata/node/node_modules")
		if err != nil {
			t.Fatal(err)
		}
		dir, address := t.TempDir(), freeAddress(t)
		if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
		tryReceiver(t, exec.Command("node", sample(t, dir, "receiver.mjs", address)), address, before, during)
	})
	t.Run("python", func(t *testing.T) {
		need(t, "python3")
		address := freeAddress(t)
		tryReceiver(t, exec.Command("python3", sample(t, t.TempDir(), "receiver.py", address)), address, before, during)
	})
	t.Run("go", func(t *testing.T) {
		dir, address := t.TempDir(), freeAddress(t)
		program := filepath.Join(dir, "receiver")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", program, sample(t, dir, "receiver.go", address))
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		tryReceiver(t, exec.Command(program), address, before, during)
	})
	t.Run("shell", func(t *testing.T) {
		need(t, "sh", "openssl", "base64", "od")
		dir := t.TempDir()
		script := sample(t, dir, "verify.sh", "127.0.0.1:9000")
		for _, c := range cases(before, during) {
			if c.stale {
				continue // it does not look at the clock, as the page says
			}
			body := filepath.Join(dir, "body")
			if err := os.WriteFile(body, c.body, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "sh", script, c.header.Get("webhook-id"), c.header.Get("webhook-timestamp"), c.header.Get("webhook-signature"), body)
			cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+before.secret)
			out, err := cmd.CombinedOutput()
			if genuine := err == nil && string(out) == "genuine\n"; genuine != c.genuine {
				t.Errorf("%s: %v, %s", c.name, err, out)
			}
		}
	})
}

// replay is a delivery to show to a receiver, and whether it may believe it.
type replay struct {
	name    string
	header  http.Header
	body    []byte
	genuine bool
	stale   bool // signed with the right key, long ago
}

func cases(before, during captured) []replay {
	forged := before.header.Clone()
	forged.Set("webhook-signature", "v1,"+strings.Repeat("A", 43)+"=")
	stale := before.header.Clone()
	key, err := signature.Parse(before.secret)
	if err != nil {
		panic(err) // the API gave it
	}
	then := time.Now().Add(-signature.Tolerance - time.Minute)
	stale.Set("webhook-timestamp", strconv.FormatInt(then.Unix(), 10))
	stale.Set("webhook-signature", signature.Sign([]signature.Key{key}, before.header.Get("webhook-id"), then, before.body))
	otherID := before.header.Clone()
	otherID.Set("webhook-id", "msg_other")
	return []replay{
		{name: "genuine", header: before.header, body: before.body, genuine: true},
		{name: "genuine, during a rotation", header: during.header, body: during.body, genuine: true},
		{name: "another body", header: before.header, body: bytes.Replace(before.body, []byte("A-1"), []byte("A-2"), 1)},
		{name: "a forged signature", header: forged, body: before.body},
		{name: "another id", header: otherID, body: before.body},
		{name: "long ago", header: stale, body: before.body, stale: true},
	}
}

// tryReceiver starts a receiver and shows it genuine and forged deliveries.
func tryReceiver(t *testing.T, cmd *exec.Cmd, address string, before, during captured) {
	t.Helper()
	cmd.Env = append(os.Environ(), "WEBHOOK_SECRET="+before.secret)
	said := &transcript{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if !eventually(t, func() bool { return listens(t.Context(), address) }) {
		t.Fatalf("it does not listen: %s", said)
	}
	for _, c := range cases(before, during) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/hooks", bytes.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = c.header.Clone()
		want := http.StatusBadRequest
		if c.genuine {
			want = http.StatusNoContent
		}
		if status, _ := send(t, req); status != want {
			t.Errorf("%s: answered %d, want %d; it said %s", c.name, status, want, said)
		}
	}
}

func listens(ctx context.Context, address string) bool {
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}
