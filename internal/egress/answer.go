package egress

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"net/http"
	"strings"

	"github.com/posthaste/posthaste/internal/webhook"
)

var errMalformed = errors.New("egress: malformed answer")

// head is an answer's status and headers.
type head struct {
	status int
	kept   bool  // the connection stays open behind the answer
	frame  frame // how the body ends
	length int64 // of the body, if it is framed by it
	header []webhook.Header

	contentType, retryAfter, location string // the first of each that says something
}

// frame is how a body ends.
type frame uint8

const (
	frameNone    frame = iota // there is none
	frameLength               // after so many bytes
	frameChunked              // with the last chunk
	frameEnd                  // with the connection
)

// field is a header as positions in the bytes it was read from.
type field struct{ name, nameEnd, value, valueEnd int }

// version is the two digits of an HTTP version.
type version [2]byte

// headReader reads heads. Lines are looked at as they come in, so that what is not HTTP is found out by
// its first line. The lengths of everything are bounded by the one limit of heads.
type headReader struct {
	in     *inbound
	fields []field
	odd    bool // a header's name has a space, which others may read as a header that we do not see
	left   int  // bytes that heads may still have
}

// read reads the head of the final answer; informational ones before it are skipped.
func (h *headReader) read() (head, error) {
	h.left = maxHeaderBytes
	for {
		size, status, spoken, err := h.next()
		if err != nil {
			return head{}, err
		}
		if status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
			got, err := h.interpret(size, status, spoken)
			h.in.r += size
			return got, err
		}
		h.left -= size
		h.in.r += size
	}
}

// next finds the next head, which begins at in.r: its size, and in h.fields its headers.
func (h *headReader) next() (size, status int, spoken version, err error) {
	in := h.in
	h.fields, h.odd = h.fields[:0], false
	for line := 0; ; line++ {
		start := size
		for {
			if at := bytes.IndexByte(in.buf[in.r+size:in.w], '\n'); at >= 0 {
				size += at + 1
				break
			}
			if size = in.w - in.r; size >= h.left {
				return 0, 0, spoken, errHeadTooLarge
			}
			if err := in.more(); err != nil {
				if size == 0 {
					return 0, 0, spoken, err
				}
				return 0, 0, spoken, midway(err)
			}
		}
		if size > h.left {
			return 0, 0, spoken, errHeadTooLarge
		}
		text := in.buf[in.r+start : in.r+size-1]
		if n := len(text); n > 0 && text[n-1] == '\r' {
			text = text[:n-1]
		}
		switch {
		case line == 0:
			if spoken, status, err = statusLine(text); err != nil {
				return 0, 0, spoken, err
			}
		case len(text) == 0:
			return size, status, spoken, nil
		case text[0] == ' ' || text[0] == '\t':
			if err := h.fold(start, text); err != nil {
				return 0, 0, spoken, err
			}
		default:
			if err := h.add(start, text); err != nil {
				return 0, 0, spoken, err
			}
		}
	}
}

// statusLine reads "HTTP/1.1 200 OK"; the reason may be missing.
func statusLine(line []byte) (spoken version, status int, err error) {
	const prefix = "HTTP/"
	if len(line) < len("HTTP/1.1 200") || string(line[:len(prefix)]) != prefix || !isDigit(line[5]) || line[6] != '.' || !isDigit(line[7]) || line[8] != ' ' {
		return spoken, 0, errMalformed
	}
	if line[5] == '0' { // HTTP/0.9 has no status line, so this is something else
		return spoken, 0, errMalformed
	}
	rest := bytes.TrimLeft(line[9:], " ")
	if len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return spoken, 0, errMalformed
	}
	for _, b := range rest[:3] {
		if !isDigit(b) {
			return spoken, 0, errMalformed
		}
		status = status*10 + int(b-'0')
	}
	return version{line[5] - '0', line[7] - '0'}, status, nil
}

// add notes a header line, and puts its name into the usual spelling.
func (h *headReader) add(start int, line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !isFieldText(line[colon+1:]) {
		return errMalformed
	}
	ok, odd := canonical(line[:colon])
	if !ok {
		return errMalformed
	}
	h.odd = h.odd || odd
	from, to := trimmed(line, colon+1)
	h.fields = append(h.fields, field{start, start + colon, start + from, start + to})
	return nil
}

// fold joins a line to the header before it, which is an obsolete way to write one.
func (h *headReader) fold(start int, line []byte) error {
	if len(h.fields) == 0 || !isFieldText(line) {
		return errMalformed
	}
	last := &h.fields[len(h.fields)-1]
	from, to := trimmed(line, 0)
	if from == to {
		return nil
	}
	buf := h.in.buf[h.in.r:]
	if last.valueEnd > last.value {
		buf[last.valueEnd] = ' ' // there is room: it ended in a line feed, and this line begins with a space
		last.valueEnd++
	}
	last.valueEnd += copy(buf[last.valueEnd:], line[from:to])
	return nil
}

// trimmed is where the text of a line from a position on begins and ends without the space around it.
func trimmed(line []byte, from int) (begin, end int) {
	end = len(line)
	for from < end && isBlank(line[from]) {
		from++
	}
	for from < end && isBlank(line[end-1]) {
		end--
	}
	return from, end
}

func isBlank(b byte) bool { return b == ' ' || b == '\t' }

// canonical puts a header's name into the usual spelling and reports whether it is one. An odd one, with
// a space, stays as it is: some receivers write one before the colon. It means nothing to us.
func canonical(name []byte) (ok, odd bool) {
	for _, b := range name {
		if b == ' ' {
			odd = true
		} else if b >= 0x80 || !isToken[b] {
			return false, false
		}
	}
	if odd {
		return true, true
	}
	upper := true
	for i, b := range name {
		if upper && isLower(b) {
			name[i] = b - ('a' - 'A')
		} else if !upper && 'A' <= b && b <= 'Z' {
			name[i] = b + ('a' - 'A')
		}
		upper = b == '-'
	}
	return true, false
}

// isToken says which bytes a header's name may have.
var isToken = func() (set [0x80]bool) {
	for b := range byte(0x80) {
		set[b] = isDigit(b) || isLower(b|0x20) && b >= 'A' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
	}
	return set
}()

func isFieldText(value []byte) bool {
	for _, b := range value {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// interpret makes a head of the fields that next found.
func (h *headReader) interpret(size, status int, spoken version) (head, error) {
	text := string(h.in.buf[h.in.r : h.in.r+size])
	got := head{status: status, header: make([]webhook.Header, len(h.fields))}
	length, said, codings, chunked := int64(-1), "", 0, false
	closes, stays := false, false
	for i, f := range h.fields {
		name, value := text[f.name:f.nameEnd], text[f.value:f.valueEnd]
		switch name {
		case "Content-Length":
			n, ok := contentLength(value)
			if !ok || length >= 0 && value != said {
				return head{}, errMalformed
			}
			length, said = n, value
		case "Transfer-Encoding":
			codings++
			chunked = strings.EqualFold(value, "chunked")
		case "Connection":
			closes = closes || hasToken(value, "close")
			stays = stays || hasToken(value, "keep-alive")
		case "Content-Type":
			got.contentType = cmp.Or(got.contentType, value)
		case "Retry-After":
			got.retryAfter = cmp.Or(got.retryAfter, value)
		case "Location":
			got.location = cmp.Or(got.location, value)
		}
		got.header[i] = webhook.Header{Name: name, Value: value}
	}
	switch {
	case spoken == version{1, 0}: // it knows no codings
		chunked = false
	case codings > 1 || codings == 1 && !chunked:
		// One coding, once. Anything else is how two readers come to see two different answers.
		return head{}, errMalformed
	}
	switch {
	case status == http.StatusSwitchingProtocols, status == http.StatusNoContent, status == http.StatusNotModified:
		got.frame = frameNone
	case chunked:
		got.frame = frameChunked
	case length >= 0:
		got.frame, got.length = frameLength, length
	default:
		got.frame = frameEnd
	}
	got.kept = (spoken == version{1, 1} || spoken == version{1, 0} && stays) && !closes && !h.odd &&
		status != http.StatusSwitchingProtocols && // what follows is not HTTP
		(codings == 0 || length < 0 && chunked) // who knows where another reader sees the end of both
	return got, nil
}

// contentLength reads a length: digits only.
func contentLength(text string) (n int64, ok bool) {
	for i := range len(text) {
		digit := int64(text[i]) - '0'
		if digit < 0 || digit > 9 || n > (math.MaxInt64-digit)/10 {
			return 0, false
		}
		n = n*10 + digit
	}
	return n, text != ""
}

// hasToken reports whether a list such as "keep-alive, Upgrade" has a token.
func hasToken(list, token string) bool {
	for more := true; more; {
		var item string
		item, list, more = strings.Cut(list, ",")
		if strings.EqualFold(strings.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}
