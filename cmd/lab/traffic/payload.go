package traffic

import (
	"bytes"
	"strconv"
	"time"
)

const (
	// PayloadSize is the size of every payload, in bytes.
	PayloadSize = 500
	// seqBase makes every sequence number ten digits long without leading zeros, which JSON forbids.
	seqBase = 1_000_000_000

	seqPrefix  = `{"seq":`
	sentPrefix = `,"sent":`
	fillPrefix = `,"fill":"`
	seqDigits  = 10
	sentDigits = 19 // nanoseconds since 1970 have 19 digits until 2286
	seqAt      = len(seqPrefix)
	sentAt     = seqAt + seqDigits + len(sentPrefix)
)

// AppendPayload appends a JSON object of PayloadSize bytes that carries its number and the time. The
// fields have fixed places, so that the sink reads them without a JSON parser.
func AppendPayload(out []byte, seq uint32, sent time.Time) []byte {
	from := len(out)
	out = strconv.AppendInt(append(out, seqPrefix...), seqBase+int64(seq), 10)
	out = strconv.AppendInt(append(out, sentPrefix...), sent.UnixNano(), 10)
	out = append(out, fillPrefix...)
	const end = `"}`
	for len(out)-from < PayloadSize-len(end) {
		out = append(out, "abcdefghijklmnopqrstuvwxyz"[(len(out)-from)%26])
	}
	return append(out, end...)
}

// ReadPayload reads what AppendPayload wrote.
func ReadPayload(body []byte) (seq uint32, sent int64, ok bool) {
	if len(body) != PayloadSize || !bytes.HasPrefix(body, []byte(seqPrefix)) {
		return 0, 0, false
	}
	number, err := strconv.ParseInt(string(body[seqAt:seqAt+seqDigits]), 10, 64)
	if err != nil || number < seqBase {
		return 0, 0, false
	}
	sent, err = strconv.ParseInt(string(body[sentAt:sentAt+sentDigits]), 10, 64)
	if err != nil {
		return 0, 0, false
	}
	return uint32(number - seqBase), sent, true
}

// HashID is 64-bit FNV-1a: enough to tell whether two ids are the same, in eight bytes.
func HashID(id []byte) uint64 {
	hash := uint64(14695981039346656037)
	for _, c := range id {
		hash = (hash ^ uint64(c)) * 1099511628211
	}
	return hash
}
