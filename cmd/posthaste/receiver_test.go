package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/webhook"
)

var at = time.Date(2026, 11, 23, 14, 2, 33, 120e6, time.UTC)

// receive gives a receiver one request and returns its answer and the line it printed.
func receive(t *testing.T, r *receiver, out *bytes.Buffer, req *http.Request) (status int, line string) {
	t.Helper()
	out.Reset()
	answer := httptest.NewRecorder()
	r.ServeHTTP(answer, req)
	return answer.Code, out.String()
}

func testReceiver(keys ...signature.Verifier) (*receiver, *bytes.Buffer) {
	out := new(bytes.Buffer)
	r := newReceiver(&printer{&lockedWriter{out: out}, false}, keys...)
	r.now = func() time.Time { return at }
	r.random = func() float64 { return 0.5 }
	return r, out
}

func signed(key signature.Key, id string, at time.Time, body string) *http.Request {
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", signature.Timestamp(at))
	req.Header.Set("webhook-signature", signature.Sign([]signature.Key{key}, id, at, []byte(body)))
	return req
}

func messageIDAt(at time.Time) webhook.MessageID {
	return webhook.MessageID(webhook.NewAttemptIDAt(at))
}

func TestReceiverPrintsOneReadableLine(t *testing.T) {
	for _, kind := range []signature.Kind{signature.HMAC, signature.Ed25519} {
		key := signature.Generate(kind)
		r, out := testReceiver(key.Verifier())
		id := messageIDAt(at.Add(-7 * time.Millisecond)).String()
		status, line := receive(t, r, out, signed(key, id, at, `{"type":"invoice.paid"}`))
		want := "14:02:33.120  ✓ verified    invoice.paid      " + id + "  23 B  7 ms\n"
		if status != 200 || line != want {
			t.Errorf("%s: answered %d and printed\n%q, want\n%q", kind, status, line, want)
		}
	}
}

func TestReceiverSaysWhyItRefuses(t *testing.T) {
	key, other := signature.Generate(signature.HMAC), signature.Generate(signature.HMAC)
	for name, c := range map[string]struct {
		req  *http.Request
		want error
	}{
		"other key": {signed(other, "m", at, "{}"), signature.ErrNoMatch},
		"old":       {signed(key, "m", at.Add(-6*time.Minute), "{}"), signature.ErrTooOld},
		"new":       {signed(key, "m", at.Add(6*time.Minute), "{}"), signature.ErrTooNew},
		"unsigned":  {httptest.NewRequest(http.MethodPost, "/", strings.NewReader("{}")), signature.ErrMissingHeader},
	} {
		r, out := testReceiver(key.Verifier())
		var seen []receivedAt
		r.seen = func(d receivedAt) { seen = append(seen, d) }
		status, line := receive(t, r, out, c.req)
		if status != http.StatusUnauthorized || !strings.Contains(line, "✗ refused") || !strings.Contains(line, c.want.Error()) {
			t.Errorf("%s: answered %d, printed %q", name, status, line)
		}
		if len(seen) != 1 || seen[0].verified || !errors.Is(seen[0].problem, c.want) {
			t.Errorf("%s: told of %+v", name, seen)
		}
	}
}

func TestReceiverWithoutKeySaysSo(t *testing.T) {
	r, out := testReceiver()
	status, line := receive(t, r, out, signed(signature.Generate(signature.HMAC), "m", at, "not json"))
	if status != 200 || !strings.Contains(line, "? unverified") {
		t.Errorf("answered %d, printed %q", status, line)
	}
}

func TestReceiverAnswersAsTold(t *testing.T) {
	r, out := testReceiver()
	r.status = http.StatusTeapot
	if status, line := receive(t, r, out, httptest.NewRequest(http.MethodPost, "/", nil)); status != 418 || !strings.Contains(line, "answered 418") {
		t.Errorf("answered %d, printed %q", status, line)
	}
	r.status, r.failRate = 200, 0.5 // random is 0.5: not below
	if status, _ := receive(t, r, out, httptest.NewRequest(http.MethodPost, "/", nil)); status != 200 {
		t.Errorf("answered %d at the edge of the rate", status)
	}
	r.failRate = 0.51
	if status, _ := receive(t, r, out, httptest.NewRequest(http.MethodPost, "/", nil)); status != 500 {
		t.Errorf("answered %d within the rate", status)
	}
	if status, line := receive(t, r, out, httptest.NewRequest(http.MethodGet, "/", nil)); status != 405 || line != "" {
		t.Errorf("a GET was answered %d, printed %q", status, line)
	}
	big := io.LimitReader(zeros{}, webhook.MaxBody+1)
	if status, _ := receive(t, r, out, httptest.NewRequest(http.MethodPost, "/", big)); status != 413 {
		t.Errorf("a body over the limit was answered %d", status)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestReceiverWaitsButNotForNobody(t *testing.T) {
	r, out := testReceiver()
	r.delay = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, line := receive(t, r, out, httptest.NewRequest(http.MethodPost, "/", nil).WithContext(ctx))
	if line == "" {
		t.Error("nothing printed")
	}
}

// A stranger's text must not reach the terminal as commands or as lines of its own.
func TestReceiverPrintsNoControlCharacters(t *testing.T) {
	r, out := testReceiver()
	req := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"type":"a\u001b[2Jb\nc\u202e`+strings.Repeat("x", 100)+`"}`))
	req.Header["Webhook-Id"] = []string{"m\x1b]0;title\x07" + strings.Repeat("y", 100)}
	_, line := receive(t, r, out, req)
	if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\x07\n\u202e") {
		t.Errorf("printed %q", line)
	}
	if len([]rune(line)) > 220 {
		t.Errorf("printed %d characters", len([]rune(line)))
	}
}

func TestColourOnlyOnATerminal(t *testing.T) {
	key := signature.Generate(signature.HMAC)
	r, out := testReceiver(key.Verifier())
	if _, line := receive(t, r, out, signed(key, "m", at, "{}")); strings.Contains(line, "\x1b") {
		t.Errorf("printed %q", line)
	}
	r.print.colour = true
	if _, line := receive(t, r, out, signed(key, "m", at, "{}")); !strings.Contains(line, green+"✓") {
		t.Errorf("printed %q", line)
	}
	if colourful(out, nil) {
		t.Error("a buffer is no terminal")
	}
}

func TestPayloadType(t *testing.T) {
	for body, want := range map[string]string{
		`{"type":"a"}`: "a", `{"eventType":"b"}`: "b", `{"event":"c"}`: "c", `{"type":1,"event":"d"}`: "d",
		`{"type":{"x":1}}`: "", `[]`: "", `nonsense`: "", ``: "",
	} {
		if got := payloadType([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

func TestServeHTTPEndsWithItsContext(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := testReceiver()
	ctx, cancel := context.WithCancel(t.Context())
	p := startPart(ctx, func(ctx context.Context) error { return serveHTTP(ctx, listener, r) })
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Post("http://"+listener.Addr().String(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	cancel()
	if err := <-p.ended; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", listener.Addr().String()); err == nil {
		t.Error("still listens")
	}
}

func TestTakenPortNamesTheFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, _, stderr := command(t, nil, "listen", "--addr", taken.Addr().String())
	if code != exitFailed || !strings.Contains(stderr, "--addr") || !strings.Contains(stderr, taken.Addr().String()) {
		t.Errorf("exit %d, %q", code, stderr)
	}
	code, _, stderr = command(t, nil, "dev", "--receiver", taken.Addr().String(), "--data", t.TempDir())
	if code != exitFailed || !strings.Contains(stderr, "--receiver") || !strings.Contains(stderr, "--no-receiver") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	code, _, stderr = command(t, nil, "dev", "--addr", taken.Addr().String(), "--receiver", "127.0.0.1:0", "--data", t.TempDir())
	if code != exitFailed || !strings.Contains(stderr, "--addr") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
