package signature

import (
	"crypto/ed25519"
	"encoding/base64"
	"strconv"
	"time"
)

// Versions of a signature, as they stand in the header.
const (
	versionHMAC    = "v1,"
	versionEd25519 = "v1a,"
)

// Sign is the value of the signature header for one attempt: one signature per key, in the order of
// the keys (the current one first), separated by spaces. at is the attempt's own time and counts in
// whole seconds; it must be sent as Timestamp(at). Every byte of body is signed as it is.
func Sign(keys []Key, id string, at time.Time, body []byte) string {
	// Two HMAC signatures fit; longer lists grow once.
	out := make([]byte, 0, 2*(len(versionHMAC)+44)+1)
	for i, k := range keys {
		if i > 0 {
			out = append(out, ' ')
		}
		out = k.appendSignature(out, id, at.Unix(), body)
	}
	return string(out)
}

// Timestamp is the value of the timestamp header: whole seconds since 1970.
func Timestamp(at time.Time) string { return strconv.FormatInt(at.Unix(), 10) }

func (k Key) appendSignature(out []byte, id string, seconds int64, body []byte) []byte {
	s := k.k.states.Get().(*state)
	defer func() {
		if cap(s.content) <= maxKeptContent {
			k.k.states.Put(s)
		}
	}()
	s.content = append(s.content[:0], id...)
	s.content = append(s.content, '.')
	s.content = strconv.AppendInt(s.content, seconds, 10)
	s.content = append(s.content, '.')
	if k.k.kind == Ed25519 {
		s.content = append(s.content, body...)
		out = append(out, versionEd25519...)
		return base64.StdEncoding.AppendEncode(out, ed25519.Sign(k.k.private, s.content))
	}
	s.mac.Reset()
	s.mac.Write(s.content)
	s.mac.Write(body)
	out = append(out, versionHMAC...)
	return base64.StdEncoding.AppendEncode(out, s.mac.Sum(s.sum[:0]))
}
