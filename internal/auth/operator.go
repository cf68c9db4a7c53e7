package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

// Length of an operator token in characters. A token is typed by nobody, so a long one costs nothing.
const (
	MinOperatorToken = 32
	MaxOperatorToken = 1024
)

// Errors of ParseOperatorToken; they state the rule and never show the token.
var (
	ErrOperatorTokenLength = fmt.Errorf("an operator token is %d to %d characters; make one with: openssl rand -hex 32", MinOperatorToken, MaxOperatorToken)
	ErrOperatorTokenText   = errors.New("an operator token is printable ASCII without spaces, as it travels in a header; make one with: openssl rand -hex 32")
)

// OperatorToken is the credential of whoever runs the installation. Only its digest is kept, so it
// cannot print itself. The zero value matches nothing: without a token the operator's routes are off.
type OperatorToken struct {
	set    bool
	digest [sha256.Size]byte
}

// ParseOperatorToken reads a token as it was configured. Empty text is an error too: whether there is
// a token at all is for the caller to decide, and must not be mistaken for one that anybody matches.
func ParseOperatorToken(text string) (OperatorToken, error) {
	if len(text) < MinOperatorToken || len(text) > MaxOperatorToken {
		return OperatorToken{}, ErrOperatorTokenLength
	}
	for _, c := range []byte(text) {
		if c <= 0x20 || c >= 0x7f {
			return OperatorToken{}, ErrOperatorTokenText
		}
	}
	return OperatorToken{set: true, digest: sha256.Sum256([]byte(text))}, nil
}

// IsZero reports whether there is no token.
func (t OperatorToken) IsZero() bool { return !t.set }

// Matches compares in constant time; digests are compared, so that not even the length shows.
func (t OperatorToken) Matches(given string) bool {
	digest := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(t.digest[:], digest[:]) == 1 && t.set
}

const redacted = "***"

// String hides the digest too: it would let a guess be tried offline.
func (OperatorToken) String() string { return redacted }

// GoString hides the digest.
func (OperatorToken) GoString() string { return redacted }

// Format hides the digest from every verb.
func (OperatorToken) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the digest from JSON and friends.
func (OperatorToken) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the digest from slog.
func (OperatorToken) LogValue() slog.Value { return slog.StringValue(redacted) }
