package egress

import (
	"bytes"
	"errors"
	"io"
	"math"
)

// Limits of a body's framing.
const (
	maxChunkLine = 4 << 10  // bytes of a chunk's size line, extensions included
	maxChunkWork = 16 << 10 // bytes of framing beyond what the data explains
)

var (
	errChunk     = errors.New("egress: malformed chunk")
	errChunkWork = errors.New("egress: more framing than data")
)

// body reads an answer's body out of its framing.
type body struct {
	in     *inbound
	frame  frame
	left   int64 // of the length, or of the chunk under way
	behind bool  // a chunk's data is read and the line end behind it is not
	work   int64 // bytes of framing that data has not paid for yet
}

// read reads into p, which is not empty. io.EOF is the body's proper end.
func (b *body) read(p []byte) (int, error) {
	switch b.frame {
	case frameNone:
		return 0, io.EOF
	case frameChunked:
		if b.left == 0 {
			if err := b.chunk(); err != nil {
				return 0, err
			}
		}
	case frameLength:
		if b.left == 0 {
			return 0, io.EOF
		}
	}
	if b.frame != frameEnd && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.in.read(p)
	if b.frame != frameEnd {
		b.left -= int64(n)
		err = midway(err)
	}
	return n, err
}

// read takes what is there, or waits for some.
func (in *inbound) read(p []byte) (int, error) {
	if in.r == in.w && len(p) < len(in.buf) {
		if err := in.more(); err != nil {
			return 0, err
		}
	}
	if in.r < in.w {
		n := copy(p, in.unread())
		in.r += n
		return n, nil
	}
	n, err := in.from.Read(p)
	if n > 0 {
		err = nil // it comes again
	}
	return n, err
}

// chunk goes to the next chunk's data; io.EOF is behind the last one.
func (b *body) chunk() error {
	if b.behind {
		end, err := b.in.line(2)
		switch {
		case err == errLineTooLong, err == nil && string(end) != "\r\n":
			return errChunk
		case err != nil:
			return err
		}
		b.behind = false
	}
	line, err := b.in.line(maxChunkLine)
	if err == errLineTooLong {
		return errChunk
	}
	if err != nil {
		return err
	}
	size, ok := chunkSize(line)
	if !ok {
		return errChunk
	}
	// A byte of data costs five of framing at worst, and extensions as many as somebody likes.
	if b.work = max(0, b.work+int64(len(line))-16-2*min(size, math.MaxInt64/4)); b.work > maxChunkWork {
		return errChunkWork
	}
	if size == 0 {
		return io.EOF
	}
	b.left, b.behind = size, true
	return nil
}

// chunkSize reads "1f;extension" and its line end, which is CR LF and nothing else.
func chunkSize(line []byte) (size int64, ok bool) {
	text, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || bytes.IndexByte(text, '\r') >= 0 {
		return 0, false
	}
	text = bytes.TrimRight(text, " \t")
	text, _, _ = bytes.Cut(text, []byte(";"))
	if len(text) == 0 || len(text) > 16 {
		return 0, false
	}
	for _, b := range text {
		var digit byte
		switch {
		case isDigit(b):
			digit = b - '0'
		case 'a' <= b|0x20 && b|0x20 <= 'f':
			digit = b | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		if size > math.MaxInt64>>4 {
			return 0, false
		}
		size = size<<4 | int64(digit)
	}
	return size, true
}

// finish reads on to where the next answer would begin, and reports whether it got there. The body was
// read to its end. Trailers mean nothing to us, so a connection that brings some is not kept.
func (b *body) finish() bool {
	if b.frame != frameChunked {
		return b.frame != frameEnd
	}
	end, err := b.in.line(len("\r\n"))
	return err == nil && string(end) == "\r\n"
}

// skip reads n bytes of the body and throws them away.
func (b *body) skip(n int64) bool {
	var waste [1 << 10]byte
	for n > 0 {
		got, err := b.read(waste[:min(n, int64(len(waste)))])
		if n -= int64(got); err != nil {
			return false
		}
	}
	return true
}
