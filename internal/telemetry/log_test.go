package telemetry_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

var formats = []telemetry.Format{telemetry.JSON, telemetry.Text}

func TestParse(t *testing.T) {
	for text, want := range map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError} {
		if got, err := telemetry.ParseLevel(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "INFO", "trace", "info ", "0"} {
		if _, err := telemetry.ParseLevel(text); err == nil || !strings.Contains(err.Error(), "debug, info, warn or error") {
			t.Errorf("level %q: %v", text, err)
		}
		if _, err := telemetry.ParseFormat(text); err == nil || !strings.Contains(err.Error(), "json or text") {
			t.Errorf("format %q: %v", text, err)
		}
	}
	for _, f := range formats {
		if got, err := telemetry.ParseFormat(string(f)); err != nil || got != f {
			t.Errorf("%s: %v, %v", f, got, err)
		}
	}
}

func TestLevel(t *testing.T) {
	for _, f := range formats {
		var out bytes.Buffer
		log := telemetry.NewLogger(&out, slog.LevelWarn, f)
		log.Info("quiet")
		log.Warn("loud")
		if strings.Contains(out.String(), "quiet") || !strings.Contains(out.String(), "loud") {
			t.Errorf("%s: %s", f, out.String())
		}
	}
}

const canary = "canary-7f3a91c2"

type nested struct {
	Secret webhook.Secret
	URL    string
}

type lazyGroup struct{}

func (lazyGroup) LogValue() slog.Value {
	return slog.GroupValue(slog.String("authorization", canary), slog.Group("headers", slog.String("x-a", canary)))
}

// TestCanaryNeverShows logs a canary, at debug level, in every way that a careless line might.
func TestCanaryNeverShows(t *testing.T) {
	header := http.Header{"Authorization": {"Bearer " + canary}, "X-Custom": {canary}}
	raw := "https://user:" + canary + "@example.com/" + canary + "?token=" + canary + "#" + canary
	parsed, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	urlError := &url.Error{Op: "Post", URL: raw, Err: errors.New("connection refused")}
	key := base64.StdEncoding.EncodeToString([]byte(canary + canary))
	attrs := []any{
		"secret", canary, "signing_secret", canary, "SigningSecret", canary, "authorization", canary, "Authorization", canary,
		"token", canary, "access_token", canary, "operatorToken", canary, "password", canary, "key", canary, "api_key", canary, "api-key", canary,
		"payload", canary, "body", canary, "response_body", []byte(canary), "cookie", canary, "webhook-signature", canary,
		"database_url", canary, "dsn", canary, "headers", header, "request_headers", map[string]string{"a": canary},
		"h", header, "query", url.Values{"a": {canary}}, "c", &http.Cookie{Name: "a", Value: canary}, "r", &http.Request{URL: parsed, Header: header},
		"bytes", []byte(canary), "raw", json.RawMessage(`"` + canary + `"`),
		"wrapped", webhook.NewSecret(canary), "n", nested{webhook.NewSecret(canary), ""}, "np", &nested{webhook.NewSecret(canary), ""},
		"u", parsed, "u2", *parsed, "u3", telemetry.URL(raw), "endpoint_url", raw, "URL", raw,
		"err", urlError, "err2", fmt.Errorf("send: %w", urlError), "error", fmt.Errorf("dial postgres://posthaste:%s@db/x", canary),
		"text", "Authorization: Bearer " + canary, "shape", "whsec_" + key, "shape2", "whsk_" + key, "shape3", "phk_" + strings.ReplaceAll(canary, "-", ""),
		"n2", nested{URL: "https://u:" + canary + "@h/"}, "list", []string{"Bearer " + canary, "whsec_" + key},
		slog.Group("headers", slog.String("x-a", canary)),
		slog.Group("g", slog.Group("payload", slog.String("a", canary)), slog.String("secret", canary)),
		"lazy", lazyGroup{},
	}
	leaks := []string{
		canary, strings.ReplaceAll(canary, "-", ""), key, strings.TrimRight(key, "="),
		base64.StdEncoding.EncodeToString([]byte(canary)), base64.RawURLEncoding.EncodeToString([]byte(canary))[:18], hex.EncodeToString([]byte(canary)),
	}
	for _, f := range formats {
		var out bytes.Buffer
		log := telemetry.NewLogger(&out, slog.LevelDebug, f)
		log.Debug("all", attrs...)
		for i := 0; i < len(attrs); {
			if a, ok := attrs[i].(slog.Attr); ok {
				log.Debug("one", a)
				log.With(a).Debug("with")
				i++
				continue
			}
			log.Debug("one", attrs[i], attrs[i+1])
			log.With(attrs[i], attrs[i+1]).Debug("with")
			log.WithGroup("g").Debug("group", attrs[i], attrs[i+1])
			i += 2
		}
		log.WithGroup("headers").With("x-a", canary).Debug("grouped", "x-b", canary)
		log.WithGroup("headers").WithGroup("in").Debug("grouped", "x-b", canary)
		log.Debug("sent with Bearer " + canary + " and whsec_" + key + " to https://u:" + canary + "@example.com/")
		for _, line := range strings.Split(out.String(), "\n") {
			for _, leak := range leaks {
				if strings.Contains(line, leak) {
					t.Errorf("%s: %q shows in %s", f, leak, line)
				}
			}
			if f == telemetry.JSON && line != "" && !json.Valid([]byte(line)) {
				t.Errorf("not JSON: %s", line)
			}
		}
	}
}

// TestWhatIsNotSecretShows: redaction that hides everything would pass the test above.
func TestWhatIsNotSecretShows(t *testing.T) {
	for _, f := range formats {
		var out bytes.Buffer
		log := telemetry.NewLogger(&out, slog.LevelDebug, f).With("component", "feeder").WithGroup("delivery")
		log.Info("released", "message", "msg_1", "body_bytes", 512, "secret_id", "sec_2", "key_hint", "phk_abcd", "err", errors.New("connection refused"),
			"url", "https://example.com/hook/1", "public_url", "http://127.0.0.1:8071", slog.Group("timing", slog.Int("ms", 3)), "deadline", "soon")
		for _, want := range []string{"released", "feeder", "msg_1", "512", "sec_2", "phk_abcd", "connection refused", "https://example.com#", "http://127.0.0.1:8071", "soon"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is missing from %s", f, want, out.String())
			}
		}
		if strings.Contains(out.String(), "hook") {
			t.Errorf("%s: the path shows in %s", f, out.String())
		}
	}
}

func TestURL(t *testing.T) {
	for raw, want := range map[string]string{
		"https://example.com":               "https://example.com",
		"https://example.com/":              "https://example.com",
		"https://u:p@example.com:8443/":     "https://example.com:8443",
		"https://example.com/a":             "https://example.com#",
		"https://u:p@example.com/a?b=c#d":   "https://example.com#",
		"example.com/a":                     "invalid-url#",
		"https://":                          "invalid-url#",
		"https://exa mple.com/secret":       "invalid-url#",
		"postgres://u:p@/db?host=/var/sock": "invalid-url#",
		"":                                  "invalid-url#",
	} {
		got := telemetry.URL(raw).String()
		if !strings.HasPrefix(got, want) || (strings.HasSuffix(want, "#") && len(got) != len(want)+8) || (!strings.HasSuffix(want, "#") && got != want) {
			t.Errorf("%s: %s", raw, got)
		}
	}
	a, b := telemetry.URL("https://h/a"), telemetry.URL("https://h/b")
	if a.String() == b.String() || a.String() != telemetry.URL("https://u:p@h/a").String() {
		t.Error("the hash does not tell URLs apart by path alone")
	}
}

// TestNothingForgesALine: whatever a stranger puts into names, values, messages and errors, one record
// is one line and holds no byte or character that a terminal obeys.
func TestNothingForgesALine(t *testing.T) {
	hostile := rapid.StringOf(rapid.OneOf(
		rapid.SampledFrom([]rune("\r\n\x1b\x00\x07\x08\x7f\u0085\u009b\u2028\u2029\u202e\u2066\u200f\"\\={} ,:level")),
		rapid.Rune(),
	))
	text := rapid.OneOf(hostile, rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) }))
	rapid.Check(t, func(t *rapid.T) {
		message, name, value := text.Draw(t, "message"), text.Draw(t, "name"), text.Draw(t, "value")
		for _, f := range formats {
			var out bytes.Buffer
			log := telemetry.NewLogger(&out, slog.LevelDebug, f)
			log.With(name, value).WithGroup(name).Info(message, name, value, "err", errors.New(value), "any", nested{URL: value}, slog.Group(name, name, value))
			line, ended := strings.CutSuffix(out.String(), "\n")
			if !ended || !utf8.ValidString(line) {
				t.Fatalf("%s: not one line of UTF-8: %q", f, out.String())
			}
			for _, r := range line {
				if r < 0x20 || (r >= 0x7f && r <= 0x9f) || (r >= 0x2028 && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) || r == 0x200e || r == 0x200f {
					t.Fatalf("%s: %U in %q", f, r, line)
				}
			}
			if f == telemetry.JSON && !json.Valid([]byte(line)) {
				t.Fatalf("not JSON: %q", line)
			}
		}
	})
}

func BenchmarkLog(b *testing.B) {
	log := telemetry.NewLogger(discard{}, slog.LevelInfo, telemetry.JSON)
	b.ReportAllocs()
	for b.Loop() {
		log.Info("attempt", "message", "msg_1srOrx2ZWZBpBUvZwXKQmoEYga2", "status", 200, "took_ms", 12, "url", "https://example.com/hook")
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
