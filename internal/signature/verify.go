package signature

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far a request's timestamp may lie from the receiver's clock, either way, the bound
// included. It limits for how long a captured request can be replayed.
const Tolerance = 5 * time.Minute

// MaxSignatures is how many signatures of one header are looked at: above what a rotation can bring,
// small enough that a stranger's header cannot buy many public-key operations.
const MaxSignatures = 32

// Why a request is not accepted.
var (
	ErrMissingHeader = errors.New("a signature header is missing: webhook-id, webhook-timestamp and webhook-signature are needed")
	ErrBadTimestamp  = errors.New("the timestamp header is not a number of seconds since 1970")
	ErrTooOld        = errors.New("the timestamp is more than 5 minutes in the past")
	ErrTooNew        = errors.New("the timestamp is more than 5 minutes in the future")
	ErrNoMatch       = errors.New("no signature matches")
)

// Verifier checks the signatures of one key. Like a Key it never prints itself.
type Verifier struct {
	key    Key               // HMAC
	public ed25519.PublicKey // Ed25519
}

// Verifier is the checking half of a key.
func (k Key) Verifier() Verifier {
	switch k.Kind() {
	case HMAC:
		return Verifier{key: k}
	case Ed25519:
		return Verifier{public: k.public()}
	}
	return Verifier{}
}

// Verifiers are the checking halves of keys.
func Verifiers(keys ...Key) []Verifier {
	out := make([]Verifier, len(keys))
	for i, k := range keys {
		out[i] = k.Verifier()
	}
	return out
}

// ParseVerifier reads what a receiver was given: a public key (whpk_…), or any text that Parse reads.
func ParseVerifier(text string) (Verifier, error) {
	digits, ok := strings.CutPrefix(text, prefixPublic)
	if !ok {
		k, err := Parse(text)
		return k.Verifier(), err
	}
	raw, err := decode(digits)
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return Verifier{}, ErrVerifier
	}
	return Verifier{public: raw}, nil
}

// Verify reports why a received request is not to be trusted, or nil if one of its signatures is by
// one of the given keys and its timestamp lies within Tolerance of now. Headers may be named
// webhook-… or svix-…; where any of the first are present the second are ignored, so that the id a
// receiver reads is the one that was signed. body must be the bytes as received.
func Verify(by []Verifier, header http.Header, body []byte, now time.Time) error {
	id, stamp, list := header.Get("webhook-id"), header.Get("webhook-timestamp"), header.Get("webhook-signature")
	if id == "" && stamp == "" && list == "" {
		id, stamp, list = header.Get("svix-id"), header.Get("svix-timestamp"), header.Get("svix-signature")
	}
	if id == "" || stamp == "" || list == "" {
		return ErrMissingHeader
	}
	seconds, err := parseTimestamp(stamp)
	if err != nil {
		return err
	}
	tolerance := int64(Tolerance / time.Second)
	if seconds < now.Unix()-tolerance {
		return ErrTooOld
	}
	if seconds > now.Unix()+tolerance {
		return ErrTooNew
	}
	content := id + "." + stamp + "."
	var expected [][]byte // of the HMAC keys: computed once, whatever the length of the list
	var publics []ed25519.PublicKey
	for _, v := range by {
		switch {
		case !v.key.IsZero():
			mac := hmac.New(sha256.New, v.key.k.secret)
			mac.Write([]byte(content))
			mac.Write(body)
			expected = append(expected, mac.Sum(nil))
		case v.public != nil:
			publics = append(publics, v.public)
		}
	}
	var signed []byte
	if len(publics) > 0 {
		signed = append([]byte(content), body...)
	}
	for n := 0; list != "" && n < MaxSignatures; n++ {
		var entry string
		entry, list, _ = strings.Cut(list, " ")
		if digits, ok := strings.CutPrefix(entry, versionHMAC); ok {
			given, err := decode(digits)
			for _, want := range expected {
				if err == nil && hmac.Equal(given, want) {
					return nil
				}
			}
		} else if digits, ok := strings.CutPrefix(entry, versionEd25519); ok {
			given, err := decode(digits)
			for _, public := range publics {
				if err == nil && ed25519.Verify(public, signed, given) {
					return nil
				}
			}
		}
	}
	return ErrNoMatch
}

// parseTimestamp takes plain digits only: one number must not have several texts, of which a
// receiver's other code might read another.
func parseTimestamp(text string) (int64, error) {
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return 0, ErrBadTimestamp
		}
	}
	if len(text) > 1 && text[0] == '0' {
		return 0, ErrBadTimestamp
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, ErrBadTimestamp
	}
	return seconds, nil
}

// String hides the key.
func (Verifier) String() string { return redacted }

// GoString hides the key.
func (Verifier) GoString() string { return redacted }

// Format hides the key from every verb.
func (Verifier) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the key from JSON and friends.
func (Verifier) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the key from slog.
func (Verifier) LogValue() slog.Value { return slog.StringValue(redacted) }
