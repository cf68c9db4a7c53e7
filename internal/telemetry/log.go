// Package telemetry is what Posthaste tells its operator: structured logs that cannot carry a secret or
// be forged, and the metrics of the pipeline.
package telemetry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"unicode"
)

// Format is how a log line is written.
type Format string

// The formats.
const (
	JSON Format = "json" // one object per line, for machines
	Text Format = "text" // key=value, for people
)

// ParseFormat reads a format; its error states the rule.
func ParseFormat(text string) (Format, error) {
	switch f := Format(text); f {
	case JSON, Text:
		return f, nil
	}
	return "", fmt.Errorf("must be json or text, not %.32q", text)
}

// ParseLevel reads the least level that is logged; its error states the rule.
func ParseLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("must be debug, info, warn or error, not %.32q", text)
}

// NewLogger writes lines of at least the given level to w, one Write per line. Whatever it is given:
// values under a telling name (secret, token, password, body, …), headers, bytes and the tails of URLs
// are left out, text of the shape of our secrets is masked wherever it stands, and no value can begin
// a line of its own or send a command to a terminal.
func NewLogger(w io.Writer, level slog.Leveler, format Format) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	var h slog.Handler
	if format == Text {
		h = slog.NewTextHandler(&scrubber{w}, options)
	} else {
		h = slog.NewJSONHandler(&scrubber{w}, options)
	}
	return slog.New(groupRedactor{h})
}

const redacted = "***"

// telling are parts of names whose values are not logged. Names are compared in lower case without
// punctuation.
var telling = []string{
	"secret", "password", "passwd", "passphrase", "token", "authorization", "cookie", "credential", "apikey",
	"privatekey", "masterkey", "signingkey", "keyset", "payload", "body", "header", "signature", "databaseurl", "redisurl", "dsn",
}

// sensitive reports whether a value of this name is not to be logged. An id of a secret thing is no
// secret.
func sensitive(name string) bool {
	plain := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToLower(r)
		}
		return -1
	}, name)
	if strings.HasSuffix(plain, "id") {
		return false
	}
	if plain == "key" || plain == "keys" || plain == "auth" {
		return true
	}
	for _, part := range telling {
		if strings.Contains(plain, part) {
			return true
		}
	}
	return false
}

func redact(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.SourceKey || a.Key == slog.TimeKey || a.Key == slog.LevelKey {
		return a
	}
	switch a.Value.Kind() {
	case slog.KindBool, slog.KindDuration, slog.KindFloat64, slog.KindInt64, slog.KindTime, slog.KindUint64:
		return a // sizes and counts ("body_bytes") are what logs are for
	}
	if sensitive(a.Key) {
		a.Value = slog.StringValue(redacted)
		return a
	}
	switch v := a.Value.Any().(type) {
	case string:
		if strings.HasSuffix(strings.ToLower(a.Key), "url") {
			a.Value = URL(v)
		}
	case http.Header, url.Values, *http.Request, *http.Response, http.Cookie, *http.Cookie:
		a.Value = slog.StringValue(redacted)
	case []byte:
		a.Value = slog.StringValue(fmt.Sprintf("%d bytes", len(v)))
	case json.RawMessage:
		a.Value = slog.StringValue(fmt.Sprintf("%d bytes", len(v)))
	case url.URL:
		a.Value = URL(v.String())
	case *url.URL:
		if v != nil {
			a.Value = URL(v.String())
		}
	case error:
		a.Value = slog.StringValue(errorText(v))
	}
	return a
}

// errorText is the text of an error with the URLs that net/http puts into it cut as URL cuts them.
func errorText(err error) string {
	text := err.Error()
	var broken *url.Error
	if errors.As(err, &broken) && broken.URL != "" {
		text = strings.ReplaceAll(text, broken.URL, URL(broken.URL).String())
	}
	return text
}

// groupRedactor hides whole groups of a telling name: the handlers ask ReplaceAttr about the members of
// a group only, with their own harmless names.
type groupRedactor struct{ slog.Handler }

func (g groupRedactor) Handle(ctx context.Context, r slog.Record) error {
	hide := false
	r.Attrs(func(a slog.Attr) bool {
		hide = hide || holdsGroup(a)
		return !hide
	})
	if !hide {
		return g.Handler.Handle(ctx, r)
	}
	clean := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(hideGroups(a))
		return true
	})
	return g.Handler.Handle(ctx, clean)
}

func (g groupRedactor) WithAttrs(attrs []slog.Attr) slog.Handler {
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = hideGroups(a)
	}
	return groupRedactor{g.Handler.WithAttrs(clean)}
}

func (g groupRedactor) WithGroup(name string) slog.Handler {
	if sensitive(name) {
		return groupRedactor{silent{g.Handler.WithGroup(name)}}
	}
	return groupRedactor{g.Handler.WithGroup(name)}
}

func holdsGroup(a slog.Attr) bool {
	return a.Value.Resolve().Kind() == slog.KindGroup
}

func hideGroups(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	if a.Value.Kind() != slog.KindGroup {
		return a
	}
	if a.Key != "" && sensitive(a.Key) {
		return slog.String(a.Key, redacted)
	}
	members := a.Value.Group()
	clean := make([]slog.Attr, len(members))
	for i, m := range members {
		clean[i] = hideGroups(m)
	}
	return slog.Attr{Key: a.Key, Value: slog.GroupValue(clean...)}
}

// silent drops every attribute: they would stand in a group of a telling name.
type silent struct{ slog.Handler }

func (s silent) Handle(ctx context.Context, r slog.Record) error {
	return s.Handler.Handle(ctx, slog.NewRecord(r.Time, r.Level, r.Message, r.PC))
}

func (s silent) WithAttrs([]slog.Attr) slog.Handler { return s }
func (s silent) WithGroup(string) slog.Handler      { return s }

// URL is a URL as it may be logged: scheme, host and a short hash of the rest, by which lines about the
// same URL are found. Userinfo, path and query may hold credentials and are left out. Strings under a
// name that ends in "url" are logged like this of themselves.
func URL(raw string) slog.Value {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return slog.AnyValue(cutURL("invalid-url#" + shortHash(raw)))
	}
	u.User = nil
	origin := u.Scheme + "://" + u.Host
	rest := strings.TrimPrefix(u.String(), origin)
	if rest == "" || rest == "/" {
		return slog.AnyValue(cutURL(origin))
	}
	return slog.AnyValue(cutURL(origin + "#" + shortHash(rest)))
}

// cutURL tells a URL that was cut already from one that still must be.
type cutURL string

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:4])
}
