package egress

import (
	"bytes"
	"errors"
	"io"
	"time"
)

// Limits of what is read of an answer.
const (
	maxHeaderBytes = 64 << 10 // of status line and headers, all 1xx before it included
	inboundBytes   = 4 << 10  // of room to begin with
)

// Errors of reading an answer that are the receiver's fault.
var (
	errHeadTooLarge = errors.New("egress: headers too large")
	errLineTooLong  = errors.New("egress: line too long")
)

// inbound is what came in over a connection and was not used yet: buf[r:w].
type inbound struct {
	from  io.Reader
	buf   []byte
	r, w  int
	first time.Time // when the first byte came
}

func (in *inbound) reset(from io.Reader) {
	in.from, in.r, in.w, in.first = from, 0, 0, time.Time{}
	if in.buf == nil || len(in.buf) > 4*inboundBytes { // one long answer does not hold room for ever
		in.buf = make([]byte, inboundBytes)
	}
}

// unread is what is there.
func (in *inbound) unread() []byte { return in.buf[in.r:in.w] }

// more waits for at least one byte more. io.EOF is the connection's end, whatever was expected.
func (in *inbound) more() error {
	if in.r > 0 && (in.r == in.w || in.w == len(in.buf)) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	if in.w == len(in.buf) {
		in.buf = append(in.buf, make([]byte, len(in.buf))...)
	}
	for range 100 {
		n, err := in.from.Read(in.buf[in.w:])
		if n > 0 {
			in.w += n
			if in.first.IsZero() {
				in.first = time.Now()
			}
			return nil // an error comes again
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// line takes a line of at most limit bytes with its end, which is a line feed. It is good until the
// next call.
func (in *inbound) line(limit int) ([]byte, error) {
	seen := 0
	for {
		if at := bytes.IndexByte(in.buf[in.r+seen:in.w], '\n'); at >= 0 {
			size := seen + at + 1
			if size > limit {
				return nil, errLineTooLong
			}
			in.r += size
			return in.buf[in.r-size : in.r], nil
		}
		if seen = in.w - in.r; seen >= limit {
			return nil, errLineTooLong
		}
		if err := in.more(); err != nil {
			return nil, midway(err)
		}
	}
}

// midway is an error in the midst of something: then the end comes too early.
func midway(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
