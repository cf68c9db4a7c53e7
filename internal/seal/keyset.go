// Package seal keeps secrets unreadable at rest: text goes into Postgres only encrypted, bound to the
// row and column it belongs to, under a key that the operator holds and can replace while running.
package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// KeySize is the size of a master key in bytes, before base64.
const KeySize = 32

// MaxKeys is how many master keys a keyset may hold: one primary and those still to be replaced.
const MaxKeys = 16

// MaxKeyID is the longest key id in bytes.
const MaxKeyID = 32

// minDistinctBytes is the least number of different bytes in a master key. A random one has fewer
// than 16 about once in 10^15; a typed or patterned one usually does.
const minDistinctBytes = 16

// Errors of ParseKeyset. They state the rule and the position of the key, never any of its text.
var (
	ErrNoKey        = errors.New("no master key is given; make one with: openssl rand -base64 32")
	ErrKeyFormat    = errors.New("a master key is standard base64 of 32 bytes, alone or after an id and a colon; make one with: openssl rand -base64 32")
	ErrKeyID        = fmt.Errorf("a key id is 1 to %d letters, digits, - or _", MaxKeyID)
	ErrWeakKey      = errors.New("this master key is not random (a sample, a pattern or readable text); make one with: openssl rand -base64 32")
	ErrDuplicateKey = errors.New("this master key or its id is in the list twice")
	ErrTooManyKeys  = fmt.Errorf("a keyset holds at most %d master keys", MaxKeys)
)

// Keyset is the operator's master keys: the first seals, all of them open. It is safe for concurrent
// use and never prints itself. Make one with ParseKeyset.
type Keyset struct {
	keys  []master // primary first
	cache cache
}

type master struct {
	id     string
	secret []byte
}

// ParseKeyset reads a comma-separated list of master keys, the primary first, each base64 of 32 bytes,
// alone or as id:base64. A key given alone is named after its own hash, so it keeps its name wherever
// it stands in a list. Spaces and line breaks around a key are ignored, as files end with them.
func ParseKeyset(text string) (*Keyset, error) {
	if strings.TrimSpace(text) == "" {
		return nil, ErrNoKey
	}
	parts := strings.Split(text, ",")
	if len(parts) > MaxKeys {
		return nil, ErrTooManyKeys
	}
	s := &Keyset{}
	for i, part := range parts {
		m, err := parseMaster(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("master key %d of %d: %w", i+1, len(parts), err)
		}
		for _, other := range s.keys {
			if other.id == m.id || bytes.Equal(other.secret, m.secret) {
				return nil, fmt.Errorf("master key %d of %d: %w", i+1, len(parts), ErrDuplicateKey)
			}
		}
		s.keys = append(s.keys, m)
	}
	return s, nil
}

func parseMaster(text string) (master, error) {
	id, digits, named := strings.Cut(text, ":")
	if !named {
		id, digits = "", text
	}
	if named && !validKeyID(id) {
		return master{}, ErrKeyID
	}
	if strings.ContainsAny(digits, "\r\n") { // which the decoder would skip
		return master{}, ErrKeyFormat
	}
	secret, err := base64.StdEncoding.Strict().DecodeString(digits)
	if err != nil || len(secret) != KeySize {
		return master{}, ErrKeyFormat // the decoder's own error would point into the key
	}
	if weak(secret) {
		return master{}, ErrWeakKey
	}
	if !named {
		id = keyIDOf(secret)
	}
	return master{id: id, secret: secret}, nil
}

// keyIDOf names a key after a hash of it: 32 bits tell the keys of an installation apart and tell
// nothing about a random key.
func keyIDOf(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:4])
}

func validKeyID(id string) bool {
	if id == "" || len(id) > MaxKeyID {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// sampleKeys are the SHA-256 of 32-byte keys that stand in standards and so in many examples.
var sampleKeys = map[string]bool{
	// The AES-256 key of NIST SP 800-38A: 603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4.
	"b93c72b74bc8487d29827005f80d635918f91bc22b14d7ed05714d58f96702dd": true,
}

// weak reports whether a key is one that nobody drew at random: few different bytes (zeros, repeats),
// a constant step (00 01 02 …), readable text, or a published sample.
func weak(secret []byte) bool {
	var seen [256]bool
	distinct, steps, printable := 0, true, true
	for i, b := range secret {
		if !seen[b] {
			seen[b] = true
			distinct++
		}
		if i > 0 && b-secret[i-1] != secret[1]-secret[0] {
			steps = false
		}
		if b < 0x20 || b > 0x7e {
			printable = false
		}
	}
	sum := sha256.Sum256(secret)
	return distinct < minDistinctBytes || steps || printable || sampleKeys[hex.EncodeToString(sum[:])]
}

// PrimaryID is the id of the key that seals; it is not secret.
func (s *Keyset) PrimaryID() string { return s.keys[0].id }

// dataKey is a tenant's own cipher under a master key, so that what leaks with one tenant's key, or
// the number of messages that one key may safely encrypt, concerns that tenant alone.
func (m master) dataKey(tenant [16]byte) (cipher.AEAD, error) {
	secret, err := hkdf.Key(sha256.New, m.secret, nil, "posthaste/seal/v1/tenant/"+string(tenant[:]), KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive a data key: %w", err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("derive a data key: %w", err)
	}
	return cipher.NewGCM(block)
}

// Derive hands use a key of its own for a purpose from every master key, the primary's first, with the
// master key's id. Keys of different purposes, and the keys that seal, tell nothing about each other.
func (s *Keyset) Derive(purpose string, use func(id string, key []byte)) error {
	for _, m := range s.keys {
		key, err := hkdf.Key(sha256.New, m.secret, nil, "posthaste/seal/v1/purpose/"+purpose, KeySize)
		if err != nil {
			return fmt.Errorf("derive key for %s: %w", purpose, err)
		}
		use(m.id, key)
	}
	return nil
}

const redacted = "***"

// String hides the keys.
func (*Keyset) String() string { return redacted }

// GoString hides the keys.
func (*Keyset) GoString() string { return redacted }

// Format hides the keys from every verb.
func (*Keyset) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the keys from JSON and friends.
func (*Keyset) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the keys from slog.
func (*Keyset) LogValue() slog.Value { return slog.StringValue(redacted) }
