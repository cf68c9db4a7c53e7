package egress

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Limits of headers.
const (
	MaxCustomHeaders   = webhook.MaxHeaders // of an endpoint
	MaxHeaderName      = 4096               // bytes of a custom header's name
	MaxHeaderValue     = 4096               // bytes of a custom header's value
	MaxReceivedHeaders = 100                // values of an answer's headers that are kept
	MaxReceivedBytes   = 16 << 10           // bytes of their names and values together
)

// framingHeaders decide where a request ends, how it is read or where it goes; the client writes them
// itself. A second copy of one is how requests are smuggled.
var framingHeaders = set(
	"connection", "content-length", "expect", "host", "http2-settings", "keep-alive", "te", "trailer", "trailers",
	"transfer-encoding", "upgrade",
)

// reservedHeaders are ours to set, or mean something to what stands in front of a receiver.
var reservedHeaders = set(
	"accept-encoding", "age", "cache-control", "clear-site-data", "expires", "pragma", "user-agent", "warning",
)

var reservedPrefixes = []string{
	"content-", "proxy-", "svix-", "webhook-", "x-amz-", "x-amzn-", "x-azure-", "x-fd-", "x-gfe", "x-goog-",
	"x-google", "x-svix-",
}

func set(names ...string) map[string]bool {
	out := make(map[string]bool, len(names))
	for _, name := range names {
		out[name] = true
	}
	return out
}

// ValidCustomHeader checks a header that an endpoint's owner wants sent along. Its error names the
// rule and never the value, which is often a credential. Headers that the receiver authenticates us
// by (Authorization, X-Api-Key) are allowed.
func ValidCustomHeader(name, value string) error {
	switch lower := strings.ToLower(name); {
	case len(name) > MaxHeaderName:
		return fmt.Errorf("header name must be at most %d bytes", MaxHeaderName)
	case !httpguts.ValidHeaderFieldName(name):
		return errors.New("header name must be letters, digits and !#$%&'*+-.^_`|~")
	case len(value) > MaxHeaderValue:
		return fmt.Errorf("header %s: value must be at most %d bytes", name, MaxHeaderValue)
	case !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("header %s: value must not contain control characters", name)
	case framingHeaders[lower], reservedHeaders[lower], slices.ContainsFunc(reservedPrefixes, func(prefix string) bool {
		return strings.HasPrefix(lower, prefix)
	}):
		return fmt.Errorf("header %s is reserved", name)
	}
	return nil
}

// receivedHeader caps an answer's header and makes it printable. Over a cap, the names that come
// first in the alphabet are kept, so that equal answers keep equal headers.
func receivedHeader(header http.Header) (kept http.Header, truncated bool) {
	count, size, printable := 0, 0, true
	for name, values := range header {
		for _, value := range values {
			count++
			size += len(name) + len(value)
			printable = printable && isPrintable(value)
		}
	}
	if count <= MaxReceivedHeaders && size <= MaxReceivedBytes && printable {
		return header, false
	}
	names := make([]string, 0, len(header))
	for name := range header {
		names = append(names, name)
	}
	slices.Sort(names)
	kept = make(http.Header)
	count, size = 0, 0
	for _, name := range names {
		for _, value := range header[name] {
			value = shown(value, MaxReceivedBytes)
			if count++; count > MaxReceivedHeaders || size+len(name)+len(value) > MaxReceivedBytes {
				return kept, true
			}
			size += len(name) + len(value)
			kept[name] = append(kept[name], value)
		}
	}
	return kept, false
}

func isPrintable(text string) bool {
	for i := range len(text) {
		if b := text[i]; b < ' ' && b != '\t' || b >= 0x7f {
			return false
		}
	}
	return true
}

// shown is text of a stranger as it may be stored and shown: valid UTF-8 without control characters
// (Postgres takes no NUL, a terminal acts on ESC), at most limit bytes.
func shown(text string, limit int) string {
	if !isPrintable(text) {
		text = strings.Map(func(r rune) rune {
			if r < ' ' && r != '\t' || 0x7f <= r && r < 0xa0 || !strconv.IsPrint(r) && r != '\t' {
				return utf8.RuneError
			}
			return r
		}, text)
	}
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
