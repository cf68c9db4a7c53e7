package signature

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"strings"
	"sync"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Limits of an HMAC key, in bytes before base64.
const (
	MinHMACKey = 24
	MaxHMACKey = 75
)

// generatedHMACKey is the size of a key we make: as strong as the hash it feeds.
const generatedHMACKey = 32

// Prefixes of the text forms.
const (
	prefixHMAC    = "whsec_"
	prefixPrivate = "whsk_"
	prefixPublic  = "whpk_"
)

// maxKeyText is above every valid text; longer ones are refused before they are decoded.
const maxKeyText = 256

// encoding refuses stray trailing bits, so that every key has exactly one text.
var encoding = base64.StdEncoding.Strict()

// Errors of Parse and ParseVerifier. Their texts state the rule, for the person who typed the key, and
// never contain any of it.
var (
	ErrKeyFormat = errors.New("a signing key is whsec_ and standard base64 with padding (HMAC), or whsk_ and standard base64 with padding (Ed25519)")
	ErrKeyLength = fmt.Errorf("an HMAC signing key (whsec_) must be %d to %d bytes before base64", MinHMACKey, MaxHMACKey)
	ErrKeyPair   = errors.New("an Ed25519 signing key (whsk_) must be 64 bytes before base64: the 32-byte seed and the public key that belongs to it")
	ErrPublicKey = errors.New("a public key (whpk_) cannot sign; give the secret key (whsk_)")
	ErrVerifier  = errors.New("a public key (whpk_) must be 32 bytes before base64")
)

// Kind is the algorithm of a key.
type Kind string

// The kinds.
const (
	HMAC    Kind = "hmac"    // symmetric; signatures are v1
	Ed25519 Kind = "ed25519" // asymmetric; signatures are v1a
)

// Key is one signing key, ready to sign. It may be copied and used by many goroutines at once, and
// keeps precomputed state, so it is worth caching. It never prints itself. The zero Key cannot sign.
type Key struct{ k *key }

type key struct {
	kind    Kind
	secret  []byte             // HMAC
	private ed25519.PrivateKey // Ed25519
	states  sync.Pool          // of *state
}

// state is what one signature needs besides the key. An hmac remembers its hashed pads over Reset,
// which halves the cost of signing a small body.
type state struct {
	mac     hash.Hash // HMAC only
	content []byte    // HMAC: id and time; Ed25519: everything signed
	sum     [sha256.Size]byte
}

// maxKeptContent bounds the buffer an idle state holds on to.
const maxKeptContent = 64 << 10

func newKey(k *key) Key {
	k.states.New = func() any {
		s := &state{content: make([]byte, 0, 128)}
		if k.kind == HMAC {
			s.mac = hmac.New(sha256.New, k.secret)
		}
		return s
	}
	return Key{k}
}

// Generate makes a random key. It panics on a kind that is not one of the constants.
func Generate(kind Kind) Key {
	switch kind {
	case HMAC:
		secret := make([]byte, generatedHMACKey)
		_, _ = rand.Read(secret) // never fails: the runtime ends the process instead
		return newKey(&key{kind: HMAC, secret: secret})
	case Ed25519:
		seed := make([]byte, ed25519.SeedSize)
		_, _ = rand.Read(seed)
		return newKey(&key{kind: Ed25519, private: ed25519.NewKeyFromSeed(seed)})
	}
	panic(fmt.Sprintf("signature: no such kind of key: %q", string(kind)))
}

// Parse reads the text of a signing key: whsec_… or whsk_…; base64 without a prefix is an HMAC key.
func Parse(text string) (Key, error) {
	if len(text) > maxKeyText {
		return Key{}, ErrKeyLength
	}
	if strings.HasPrefix(text, prefixPublic) {
		return Key{}, ErrPublicKey
	}
	if digits, ok := strings.CutPrefix(text, prefixPrivate); ok {
		raw, err := decode(digits)
		if err != nil {
			return Key{}, err
		}
		if len(raw) != ed25519.PrivateKeySize {
			return Key{}, ErrKeyPair
		}
		// Signing with a public half that is not the seed's gives the seed away to whoever sees two
		// signatures of one content, so the pair is checked here and never trusted.
		private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
		if subtle.ConstantTimeCompare(private, raw) != 1 {
			return Key{}, ErrKeyPair
		}
		return newKey(&key{kind: Ed25519, private: private}), nil
	}
	raw, err := decode(strings.TrimPrefix(text, prefixHMAC))
	if err != nil {
		return Key{}, err
	}
	if len(raw) < MinHMACKey || len(raw) > MaxHMACKey {
		return Key{}, ErrKeyLength
	}
	return newKey(&key{kind: HMAC, secret: raw}), nil
}

// decode is base64 without the line breaks that the standard decoder skips.
func decode(digits string) ([]byte, error) {
	if strings.ContainsAny(digits, "\r\n") {
		return nil, ErrKeyFormat
	}
	raw, err := encoding.DecodeString(digits)
	if err != nil {
		return nil, ErrKeyFormat // the decoder's own error would point into the key
	}
	return raw, nil
}

// Kind is the key's algorithm; "" of the zero Key.
func (k Key) Kind() Kind {
	if k.k == nil {
		return ""
	}
	return k.k.kind
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.k == nil }

// Secret is the text to store, sealed; Parse reads it back.
func (k Key) Secret() webhook.Secret {
	switch k.Kind() {
	case HMAC:
		return webhook.NewSecret(prefixHMAC + encoding.EncodeToString(k.k.secret))
	case Ed25519:
		return webhook.NewSecret(prefixPrivate + encoding.EncodeToString(k.k.private))
	}
	return webhook.Secret{}
}

// Shown is what the endpoint's owner verifies with: the secret itself of an HMAC key (whsec_…), the
// public key of an Ed25519 key (whpk_…). It is for the answer that was asked for it, not for logs.
func (k Key) Shown() string {
	switch k.Kind() {
	case HMAC:
		return k.Secret().Reveal()
	case Ed25519:
		return prefixPublic + encoding.EncodeToString(k.public())
	}
	return ""
}

func (k Key) public() ed25519.PublicKey { return ed25519.PublicKey(k.k.private[ed25519.SeedSize:]) }

const redacted = "***"

// String hides the key.
func (Key) String() string { return redacted }

// GoString hides the key.
func (Key) GoString() string { return redacted }

// Format hides the key from every verb.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText hides the key from JSON and friends.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue hides the key from slog.
func (Key) LogValue() slog.Value { return slog.StringValue(redacted) }
