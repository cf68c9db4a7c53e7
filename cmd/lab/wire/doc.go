// Package wire is the part of HTTP/1.1 that a test rig needs, written by hand over TCP: a server for
// the receiving end and a client for the sending end. It exists for two reasons. It costs a fraction
// of net/http, so that on a small machine the measuring takes little from what is measured. And it
// never repeats a request by itself, as net/http's client does for requests with an Idempotency-Key,
// so that a ledger holds every request that was really made.
package wire

import (
	"bytes"
	"errors"
)

const (
	// maxLine is the longest request, status or header line accepted, in bytes.
	maxLine = 16 << 10
	// maxHeaders is the number of header lines accepted in one message.
	maxHeaders = 100
	// maxBody is the largest body accepted, in bytes.
	maxBody = 4 << 20
)

// Errors of a peer that speaks something else than the HTTP/1.1 understood here.
var (
	ErrTooLarge  = errors.New("message exceeds the limits of the test rig")
	ErrMalformed = errors.New("message is not the HTTP/1.1 the test rig understands")
)

// headerValue returns the value of a header line if it is the header named; name is in lower case.
func headerValue(line []byte, name string) ([]byte, bool) {
	if len(line) <= len(name) || line[len(name)] != ':' || line[0]|0x20 != name[0] {
		return nil, false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != name[i] {
			return nil, false
		}
	}
	return bytes.TrimSpace(line[len(name)+1:]), true
}

// decimal reads a non-negative number of at most nine digits.
func decimal(text []byte) (int, bool) {
	if len(text) == 0 || len(text) > 9 {
		return 0, false
	}
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// trimEOL cuts the line end.
func trimEOL(line []byte) []byte {
	line = line[:len(line)-1]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}
