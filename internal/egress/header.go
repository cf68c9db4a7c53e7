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

// isFraming says of which headers (by their usual spelling) decide where a request ends, how it is read
// or where it goes; the client writes them itself. A second copy of one is how requests are smuggled.
func isFraming(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Te", "Trailer", "Trailers",
		"Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// isReserved says which headers (by their usual spelling) are ours to set, or mean something to what
// stands in front of a receiver.
func isReserved(name string) bool {
	switch name {
	case "Accept-Encoding", "Age", "Cache-Control", "Clear-Site-Data", "Expires", "Pragma", "User-Agent", "Warning":
		return true
	}
	for _, prefix := range reservedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

var reservedPrefixes = []string{
	"Content-", "Proxy-", "Svix-", "Webhook-", "X-Amz-", "X-Amzn-", "X-Azure-", "X-Fd-", "X-Gfe", "X-Goog-",
	"X-Google", "X-Svix-",
}

// ValidCustomHeader checks a header that an endpoint's owner wants sent along. Its error names the
// rule and never the value, which is often a credential. Headers that the receiver authenticates us
// by (Authorization, X-Api-Key) are allowed.
func ValidCustomHeader(name, value string) error {
	switch {
	case len(name) > MaxHeaderName:
		return fmt.Errorf("header name must be at most %d bytes", MaxHeaderName)
	case !httpguts.ValidHeaderFieldName(name):
		return errors.New("header name must be letters, digits and !#$%&'*+-.^_`|~")
	case len(value) > MaxHeaderValue:
		return fmt.Errorf("header %s: value must be at most %d bytes", name, MaxHeaderValue)
	case !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("header %s: value must not contain control characters", name)
	}
	if key := http.CanonicalHeaderKey(name); isFraming(key) || isReserved(key) {
		return fmt.Errorf("header %s is reserved", name)
	}
	return nil
}

// receivedHeader sorts an answer's headers, caps them and makes them printable. Over a cap, the names that
// come first in the alphabet are kept, so that equal answers keep equal headers.
func receivedHeader(list []webhook.Header) (kept []webhook.Header, truncated bool) {
	slices.SortStableFunc(list, byName)
	size, printable := 0, true
	for _, h := range list {
		size += len(h.Name) + len(h.Value)
		printable = printable && isPrintable(h.Value)
	}
	if len(list) <= MaxReceivedHeaders && size <= MaxReceivedBytes && printable {
		return list, false
	}
	size = 0
	for _, h := range list {
		// Cloned, or what is kept would hold all of a long head.
		h = webhook.Header{Name: strings.Clone(h.Name), Value: strings.Clone(shown(h.Value, MaxReceivedBytes))}
		size += len(h.Name) + len(h.Value)
		if len(kept) == MaxReceivedHeaders || size > MaxReceivedBytes {
			return kept, true
		}
		kept = append(kept, h)
	}
	return kept, false
}

func byName(a, b webhook.Header) int { return strings.Compare(a.Name, b.Name) }

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
