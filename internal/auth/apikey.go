// Package auth says who is calling and what they may do: API keys, their scopes, and the operator's
// token. It decides from text and digests alone and asks no database.
package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"hash/crc32"

	"github.com/posthaste/posthaste/internal/webhook"
)

// The text of an API key is "phk_", 43 random base62 characters (256 bits), "_" and 6 characters of
// checksum. The prefix lets secret scanners recognise a leaked key, the checksum refuses mistyped and
// guessed ones without a query. There is no dot in it, since clients read a region from behind one.
const (
	apiKeyPrefix   = "phk_"
	apiKeyRandom   = 43
	apiKeyChecksum = 6
	apiKeyLength   = len(apiKeyPrefix) + apiKeyRandom + 1 + apiKeyChecksum
	apiKeyHint     = len(apiKeyPrefix) + 4
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// ErrBadAPIKey is returned for text that cannot be an API key of ours. It does not say why: whoever
// holds a real key never sees it, and whoever does not should learn nothing.
var ErrBadAPIKey = errors.New("not an API key")

// NewAPIKey makes a key: the text to show once, the digest to store and find it by, and a hint by which
// a person recognises it in a list.
func NewAPIKey() (text webhook.Secret, digest [sha256.Size]byte, hint string) {
	key := make([]byte, 0, apiKeyLength)
	key = append(key, apiKeyPrefix...)
	key = appendRandom(key, apiKeyRandom)
	sum := checksum(key)
	key = append(key, '_')
	key = append(key, sum[:]...)
	return webhook.NewSecret(string(key)), sha256.Sum256(key), string(key[:apiKeyHint])
}

// ParseAPIKey is the digest to look a key up by, or ErrBadAPIKey for text that is no key, which costs
// no query. A plain hash is enough: the key is 256 random bits, so there is nothing to guess slowly.
func ParseAPIKey(text string) (digest [sha256.Size]byte, err error) {
	if len(text) != apiKeyLength || text[:len(apiKeyPrefix)] != apiKeyPrefix {
		return digest, ErrBadAPIKey
	}
	body := text[:len(apiKeyPrefix)+apiKeyRandom]
	for _, c := range []byte(body[len(apiKeyPrefix):]) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return digest, ErrBadAPIKey
		}
	}
	sum := checksum([]byte(body))
	if text[len(body)] != '_' || text[len(body)+1:] != string(sum[:]) {
		return digest, ErrBadAPIKey
	}
	return sha256.Sum256([]byte(text)), nil
}

// Same compares a stored digest with a computed one in constant time, so that the time of an answer
// tells nothing about a stored digest.
func Same(stored []byte, computed [sha256.Size]byte) bool {
	return subtle.ConstantTimeCompare(stored, computed[:]) == 1
}

// appendRandom draws n base62 characters without bias: bytes from the last, incomplete run of 62 are
// thrown away.
func appendRandom(b []byte, n int) []byte {
	const fair = 256 - 256%62
	var pool [64]byte
	for n > 0 {
		_, _ = rand.Read(pool[:]) // never fails: the runtime ends the process instead
		for _, r := range pool {
			if n > 0 && r < fair {
				b = append(b, base62[r%62])
				n--
			}
		}
	}
	return b
}

func checksum(body []byte) (digits [apiKeyChecksum]byte) {
	sum := crc32.ChecksumIEEE(body)
	for i := len(digits) - 1; i >= 0; i-- {
		digits[i] = base62[sum%62]
		sum /= 62
	}
	return digits
}
