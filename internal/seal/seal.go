package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
)

// Why something does not open.
var (
	ErrMalformed  = errors.New("not a sealed value")
	ErrUnknownKey = errors.New("sealed under a master key that is not in the keyset")
	ErrRefused    = errors.New("sealed for another place, or changed since it was sealed")
	ErrPlace      = errors.New("a sealed value needs a table, a column, a row and a tenant")
)

// AD says where a sealed value belongs. It opens nowhere else: a ciphertext copied to another row,
// column or tenant is refused. Every field is required, because an empty one is usually a forgotten
// one, and would tie the value to nothing.
type AD struct {
	Table, Column string
	Tenant, Row   [16]byte
}

func (ad AD) complete() bool {
	return ad.Table != "" && ad.Column != "" && ad.Tenant != [16]byte{} && ad.Row != [16]byte{}
}

// appendTo writes the place unambiguously: lengths go before the names, so that no two places have
// the same bytes.
func (ad AD) appendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(ad.Table)))
	b = append(b, ad.Table...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(ad.Column)))
	b = append(b, ad.Column...)
	b = append(b, ad.Row[:]...)
	return append(b, ad.Tenant[:]...)
}

// A sealed value is "v1.<key id>.<nonce>.<ciphertext>", the last two in unpadded URL-safe base64:
// AES-256-GCM with a random nonce under the tenant's data key, tag included. The version and key id
// are authenticated with the place.
const version = "v1."

const (
	nonceSize = 12
	tagSize   = 16
)

var encoding = base64.RawURLEncoding.Strict()

var encodedNonce = encoding.EncodedLen(nonceSize)

// Seal encrypts plain for one place under the primary key. Sealing the same twice gives different
// bytes, all ASCII.
func (s *Keyset) Seal(plain []byte, ad AD) ([]byte, error) {
	if !ad.complete() {
		return nil, fmt.Errorf("seal: %w", ErrPlace)
	}
	primary := s.keys[0]
	aead, err := s.cache.find(cacheKey{0, ad.Tenant}, func() (cipher.AEAD, error) { return primary.dataKey(ad.Tenant) })
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails: the runtime ends the process instead
	head := version + primary.id + "."
	ciphertext := aead.Seal(nil, nonce[:], plain, ad.appendTo([]byte(head)))
	out := make([]byte, 0, len(head)+encodedNonce+1+encoding.EncodedLen(len(ciphertext)))
	out = append(out, head...)
	out = encoding.AppendEncode(out, nonce[:])
	out = append(out, '.')
	return encoding.AppendEncode(out, ciphertext), nil
}

// Open decrypts what Seal made for the same place. Its errors are ErrMalformed, ErrUnknownKey,
// ErrRefused and ErrPlace; they contain nothing of the value.
func (s *Keyset) Open(sealed []byte, ad AD) ([]byte, error) {
	if !ad.complete() {
		return nil, fmt.Errorf("open: %w", ErrPlace)
	}
	id, rest, ok := split(sealed)
	if !ok {
		return nil, fmt.Errorf("open: %w", ErrMalformed)
	}
	index := s.indexOf(id)
	if index < 0 {
		return nil, fmt.Errorf("open: %w (key id %s)", ErrUnknownKey, id)
	}
	if len(rest) < encodedNonce+1 || rest[encodedNonce] != '.' {
		return nil, fmt.Errorf("open: %w", ErrMalformed)
	}
	var nonce [nonceSize]byte
	if !decode(nonce[:], rest[:encodedNonce]) {
		return nil, fmt.Errorf("open: %w", ErrMalformed)
	}
	ciphertext := make([]byte, encoding.DecodedLen(len(rest)-encodedNonce-1))
	if len(ciphertext) < tagSize || !decode(ciphertext, rest[encodedNonce+1:]) {
		return nil, fmt.Errorf("open: %w", ErrMalformed)
	}
	aead, err := s.cache.find(cacheKey{index, ad.Tenant}, func() (cipher.AEAD, error) { return s.keys[index].dataKey(ad.Tenant) })
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	head := sealed[:len(version)+len(id)+1]
	var scratch [192]byte
	plain, err := aead.Open(ciphertext[:0], nonce[:], ciphertext, ad.appendTo(append(scratch[:0], head...)))
	if err != nil {
		return nil, fmt.Errorf("open: %w", ErrRefused)
	}
	return plain, nil
}

// decode fills dst exactly. Line breaks, which the decoder skips, are refused: a value has one text.
func decode(dst, digits []byte) bool {
	n, err := encoding.Decode(dst, digits)
	return err == nil && n == len(dst) && encoding.EncodedLen(n) == len(digits)
}

// NeedsRewrap reports whether a value is not sealed under the primary key, and so should be opened
// and sealed again. It is true of a malformed value too, so that rewrapping meets and reports it.
func (s *Keyset) NeedsRewrap(sealed []byte) bool {
	id, _, ok := split(sealed)
	return !ok || string(id) != s.keys[0].id
}

// KeyID is the id of the master key that a value is sealed under; "" if it is malformed.
func KeyID(sealed []byte) string {
	id, _, ok := split(sealed)
	if !ok {
		return ""
	}
	return string(id)
}

func split(sealed []byte) (id, rest []byte, ok bool) {
	text, ok := bytes.CutPrefix(sealed, []byte(version))
	if !ok {
		return nil, nil, false
	}
	id, rest, ok = bytes.Cut(text, []byte{'.'})
	return id, rest, ok && validKeyID(string(id))
}

func (s *Keyset) indexOf(id []byte) int {
	for i, m := range s.keys {
		if m.id == string(id) {
			return i
		}
	}
	return -1
}
