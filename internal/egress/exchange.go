package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// maxAtOnce is how large a request is written by who then reads the answer. A socket takes so much
	// without its receiver reading, so even one that answers and never reads is heard.
	maxAtOnce = 16 << 10
	// maxKeptOut is how large a buffer for requests is kept.
	maxKeptOut = 2 * maxAtOnce
	// linger is how long one direction of a connection is waited for when the other has ended.
	linger = 50 * time.Millisecond
)

// phase is how far a send has come.
type phase uint8

const (
	phaseWait    phase = iota // for a connection, before anything is looked up
	phaseDNS                  // name lookup
	phaseConnect              // TCP
	phaseTLS                  // handshake
	phaseAnswer               // request being written, answer awaited
	phaseBody                 // headers are here, the body is not
)

// progress is how far a failed send had come.
type progress struct {
	at     phase
	reused bool // over a kept connection
}

// Timings are the phases of a send. A phase that did not take place, because the connection was kept
// or the send failed before, is 0.
type Timings struct {
	DNS       time.Duration
	Connect   time.Duration
	TLS       time.Duration
	FirstByte time.Duration // from the request written to the first byte of the answer
	Read      time.Duration // from there to the end of what is read
	Total     time.Duration
}

// exchange is a request and its answer. What it holds serves one send after the other.
//
// All of it happens on the caller's goroutine, and ends by the connection's deadline. Only a request
// that a socket might not take whole is written beside: its receiver may answer without reading on.
type exchange struct {
	cn       *conn
	out      []byte // the request's head, and its body if it is short
	sent     upload
	in       inbound
	head     headReader
	deadline time.Time
}

// upload is how the writing of a request went.
type upload struct {
	err     error
	at      time.Time // when it was all written
	beside  sync.WaitGroup
	running bool // beside; owned by who reads
}

// start begins to write the request: x.out and body.
func (x *exchange) start(body []byte) {
	x.sent.err, x.sent.at = nil, time.Time{}
	if len(x.out)+len(body) <= maxAtOnce {
		x.out = append(x.out, body...)
		x.write(x.out, nil)
		return
	}
	x.sent.running = true
	x.sent.beside.Go(func() { x.write(x.out, body) })
}

func (x *exchange) write(parts ...[]byte) {
	for _, part := range parts {
		if len(part) == 0 {
			continue
		}
		if _, err := x.cn.stream.Write(part); err != nil {
			x.sent.err = err
			if !isTimeout(err) {
				// A receiver that has had enough may have answered before it closed; what has come in can
				// still be read.
				_ = x.cn.SetReadDeadline(earlier(x.deadline, time.Now().Add(linger)))
			}
			return
		}
	}
	x.sent.at = time.Now()
}

// finish waits for a request that is being written beside, and reports whether it was all written. Who
// has answered by then need not take the rest.
func (x *exchange) finish(keep bool) bool {
	if x.sent.running {
		if keep {
			_ = x.cn.SetWriteDeadline(earlier(x.deadline, time.Now().Add(linger)))
		} else {
			_ = x.cn.Close()
		}
		x.sent.beside.Wait()
		x.sent.running = false
	}
	return keep && x.sent.err == nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// longAgo is a deadline that ends what is under way.
var longAgo = time.Unix(1, 0)

// run sends what is in x.out, then body, and takes in the answer. It reports whether the connection may
// carry another request, and gives the time.
func (x *exchange) run(ctx context.Context, c *Client, res *Result, body []byte) (keep bool, now time.Time) {
	if ctx.Done() != nil {
		cn := x.cn // by the time it runs, x may serve another send
		stop := context.AfterFunc(ctx, func() { _ = cn.SetDeadline(longAgo) })
		// When it has begun, nobody knows when it is through, so the connection is of no use any more.
		defer func() { keep = stop() && keep }()
	}
	x.in.reset(x.cn.stream)
	x.start(body)
	x.head.in = &x.in
	answer, err := x.head.read()
	at := phaseAnswer
	if err == nil {
		at = phaseBody
		now, keep, err = x.receive(c, res, answer)
	} else {
		now = time.Now()
	}
	keep = x.finish(keep)

	res.Timings.Total = now.Sub(res.Start)
	if first := x.in.first; !first.IsZero() {
		res.Timings.Read = now.Sub(first)
		// A receiver may answer before it has the whole request.
		if at := x.sent.at; !at.IsZero() && first.After(at) {
			res.Timings.FirstByte = first.Sub(at)
		}
	}
	if err == nil || res.Class != webhook.ClassNone {
		return keep, now
	}
	switch {
	case isTimeout(err) && ctx.Err() != nil:
		err = ctx.Err() // which is why the connection's deadline passed
	case isTimeout(err) && x.sent.err != nil && !errors.Is(x.sent.err, net.ErrClosed):
		err = x.sent.err // which is why there was so little time
	}
	res.Class, res.Error = classify(err, progress{at: at, reused: res.Reused})
	return false, now
}

// receive takes in an answer; end is when the last byte that counts was read.
func (x *exchange) receive(c *Client, res *Result, answer head) (end time.Time, keep bool, err error) {
	res.Status = answer.status
	res.Class, res.Error = judge(answer.status, answer.location)
	res.ContentType = shown(answer.contentType, maxContentType)
	res.RetryAfter = shown(answer.retryAfter, maxRetryAfter)
	res.Header, res.HeaderTruncated = receivedHeader(answer.header)
	if answer.status == http.StatusSwitchingProtocols { // its "body" is the connection, which has no end
		return time.Now(), false, nil
	}
	b := body{in: &x.in, frame: answer.frame, left: answer.length}
	whole, err := x.readBody(c, res, &b)
	end = time.Now()
	switch {
	case err != nil:
		return end, false, err
	case !answer.kept:
		return end, false, nil
	case whole:
		keep = b.finish()
	case b.frame == frameLength && b.left <= maxDrain:
		// Declared to be short, the rest is read to keep the connection; its content and fate are of no
		// interest, and the send's deadline still holds.
		keep = b.skip(b.left)
	}
	return end, keep && len(x.in.unread()) == 0, nil // who says more than was asked is not asked again
}

// readBody reads at most one byte more than is kept, by which it knows that there is more. It reports
// whether it came to the body's end.
func (x *exchange) readBody(c *Client, res *Result, b *body) (whole bool, err error) {
	if b.frame == frameLength && b.left <= int64(min(c.maxBody, len(x.in.unread()))) {
		if b.left > 0 { // all of it came with the headers
			res.Body = bytes.Clone(x.in.unread()[:b.left])
			x.in.r += int(b.left)
		}
		return true, nil
	}
	if b.frame == frameNone {
		return true, nil
	}
	long := c.long.Get().(*[]byte)
	defer c.long.Put(long)
	n := 0
	for n < len(*long) && err == nil {
		var more int
		more, err = b.read((*long)[n:])
		n += more
	}
	if n > c.maxBody {
		n, res.BodyTruncated = c.maxBody, true
	}
	if n > 0 {
		res.Body = bytes.Clone((*long)[:n])
	}
	// Exactly io.EOF: a body that is cut short ends in io.ErrUnexpectedEOF. What fails behind the bytes
	// that are kept is not ours to judge.
	if err == io.EOF || res.BodyTruncated {
		return err == io.EOF, nil
	}
	return false, err
}
