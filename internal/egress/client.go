package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"hash/maphash"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Limits and defaults of a send.
const (
	DefaultTimeout   = 15 * time.Second
	DefaultMaxBody   = webhook.MaxKeptResponse // bytes
	DefaultIdleConns = 256                     // kept per host
	DefaultUserAgent = "Posthaste-Webhooks/1"

	maxDrain       = 64 << 10 // bytes read past MaxBody to keep a connection, which is cheaper than a handshake
	maxContentType = 256      // bytes
	maxRetryAfter  = 128      // bytes
)

// Options of a Client. The zero Options are fit for production.
type Options struct {
	Policy              Policy
	Timeout             time.Duration // of a send unless its context ends sooner; 0 = DefaultTimeout
	MaxBody             int           // bytes of an answer that are kept; 0 = DefaultMaxBody
	MaxConnsPerHost     int           // connections to one host; 0 = no limit
	MaxIdleConnsPerHost int           // kept connections to one host; 0 = DefaultIdleConns
	UserAgent           string        // sent unless a request brings its own; "" = DefaultUserAgent
	Resolver            *net.Resolver // how to reach name servers; nil = as the machine is configured
	RootCAs             *x509.CertPool
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxBody <= 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxIdleConnsPerHost <= 0 {
		o.MaxIdleConnsPerHost = DefaultIdleConns
	}
	if o.UserAgent == "" {
		o.UserAgent = DefaultUserAgent
	}
	return o
}

// Client sends requests to strangers. It is safe for concurrent use; Close ends it.
type Client struct {
	policy    Policy
	timeout   time.Duration
	maxBody   int
	userAgent []string
	dialer    *dialer
	fresh     func() *http.Transport
	seed      maphash.Seed
	lanes     [lanes]lane
	scratch   sync.Pool // *[]byte of maxBody+1, so that a short answer costs no long buffer

	mu     sync.Mutex
	closed bool
	sends  sync.WaitGroup
}

// New makes a client.
func New(o Options) *Client {
	o = o.withDefaults()
	c := &Client{
		policy:    o.Policy,
		timeout:   o.Timeout,
		maxBody:   o.MaxBody,
		userAgent: []string{o.UserAgent},
		dialer:    newDialer(o),
		seed:      maphash.MakeSeed(),
	}
	c.fresh = func() *http.Transport { return newTransport(o, c.dialer) }
	c.scratch.New = func() any { b := make([]byte, o.MaxBody+1); return &b }
	now := time.Now()
	for i := range c.lanes {
		c.lanes[i].transport = c.fresh()
		c.lanes[i].born = now.Add(-maxTransportAge * time.Duration(i) / lanes) // so that they do not age together
	}
	return c
}

// Close waits for the sends under way (their contexts end them), then ends the dials that have nobody
// waiting any more and closes every connection. A Send after it fails.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.sends.Wait()
	c.dialer.close()
	c.CloseIdle()
}

// CloseIdle closes all kept connections; those in use are closed when their request ends.
func (c *Client) CloseIdle() {
	now := time.Now()
	for i := range c.lanes {
		c.lanes[i].renew(now, c.fresh)
	}
}

func (c *Client) lane(host string) *lane {
	return &c.lanes[maphash.String(c.seed, host)%lanes]
}

// Request is one request to send.
type Request struct {
	Method string // POST, PUT or PATCH; "" = POST
	URL    string // as Target.URL; userinfo is refused, its header belongs into Header
	// Header goes out as it is, spelling included; only Accept-Encoding is replaced. It is not changed.
	Header http.Header
	// Body must not be changed any more, not even after Send: a receiver may answer before it is all read.
	Body []byte
}

// Result is what came of a send. It says everything that is known, also after a failure.
type Result struct {
	Start  time.Time
	Status int // 0 = no answer
	Class  webhook.ErrorClass
	Error  string // for the endpoint's owner; "" on success

	SentHeader      http.Header // as sent, values in clear; nil if the request was refused before sending
	Header          http.Header // received, at most MaxReceivedHeaders and MaxReceivedBytes, printable
	HeaderTruncated bool
	ContentType     string // of the answer
	RetryAfter      string // as the receiver wrote it
	Body            []byte // the answer's, undecoded, at most Options.MaxBody bytes
	BodyTruncated   bool

	Timings    Timings
	Reused     bool           // the connection was kept from an earlier send
	RemoteAddr netip.AddrPort // that was connected to; invalid if none was
	TLSVersion uint16         // as in crypto/tls; 0 = no TLS
	CertExpiry time.Time      // of the receiver's certificate, also if it was refused; zero = none seen
}

// OK reports whether the receiver took it: a whole answer with a status from 200 to 299.
func (r Result) OK() bool { return r.Class == webhook.ClassNone }

func (r Result) failed(class webhook.ErrorClass, text string) Result {
	r.Class, r.Error = class, text
	return r
}

// Send sends a request, once. All that can happen out there is a Result, and it never panics on what a
// receiver says. The whole takes no longer than the context and the client's timeout allow.
//
// Nothing is sent twice. net/http sends again by itself what it takes to be repeatable, so it is given
// a body it cannot rewind. If a kept connection turns out to be dead, the send fails as ClassReset,
// because whether the receiver saw the request cannot be known from here; the retry schedule decides.
// (Without a body net/http may move to another connection, but only if not one byte was written.)
func (c *Client) Send(ctx context.Context, req Request) Result {
	res := Result{Start: time.Now()}
	if !c.enter() {
		return res.failed(webhook.ClassInternal, "interrupted before it was sent")
	}
	defer c.sends.Done()

	to, err := c.policy.parse(req.URL)
	var broken *URLError
	switch {
	case errors.As(err, &broken) && broken.Blocked:
		return res.failed(webhook.ClassBlockedAddress, errBlocked.Error())
	case err != nil:
		return res.failed(webhook.ClassInvalidURL, err.Error())
	case !to.authorization.IsZero():
		return res.failed(webhook.ClassInvalidURL, "url must not contain user or password")
	}
	method, err := sendable(req.Method)
	if err != nil {
		return res.failed(webhook.ClassInternal, err.Error())
	}
	header, err := c.sentHeader(req.Header)
	if err != nil {
		return res.failed(webhook.ClassInvalidHeader, err.Error())
	}
	res.SentHeader = header

	ctx, cancel := context.WithDeadline(ctx, res.Start.Add(c.timeout))
	defer cancel()
	f := &flight{ownOpen: to.ownOpen}
	f.deadline, _ = ctx.Deadline()

	outgoing := &http.Request{
		Method: method, URL: to.url, Host: to.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: http.NoBody, ContentLength: int64(len(req.Body)),
	}
	if len(req.Body) > 0 {
		// Of this very type, or net/http sends headers and body in two packets.
		outgoing.Body = io.NopCloser(bytes.NewReader(req.Body))
	}
	transport := c.lane(to.url.Host).at(res.Start, c.fresh)
	answer, err := transport.RoundTrip(outgoing.WithContext(f.observed(ctx)))
	if err != nil {
		p := f.report(&res, time.Now())
		res.CertExpiry = refusedCertExpiry(err)
		return res.failed(classify(err, p))
	}
	f.enter(phaseBody)
	f.report(&res, c.receive(&res, answer))
	return res
}

func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.sends.Add(1)
	}
	return !c.closed
}

// sendable is the method to send; others than these net/http may send twice.
func sendable(method string) (string, error) {
	switch method {
	case "":
		return http.MethodPost, nil
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return method, nil
	}
	return "", errors.New("method must be POST, PUT or PATCH")
}

// receive takes in an answer and closes it; end is when the last byte that counts was read.
func (c *Client) receive(res *Result, answer *http.Response) (end time.Time) {
	defer func() { _ = answer.Body.Close() }()
	res.Status = answer.StatusCode
	res.Class, res.Error = judge(answer)
	res.ContentType = shown(answer.Header.Get("Content-Type"), maxContentType)
	res.RetryAfter = shown(answer.Header.Get("Retry-After"), maxRetryAfter)
	res.Header, res.HeaderTruncated = receivedHeader(answer.Header)
	if state := answer.TLS; state != nil {
		res.TLSVersion = state.Version
		if len(state.PeerCertificates) > 0 {
			res.CertExpiry = state.PeerCertificates[0].NotAfter
		}
	}

	var err error
	if answer.StatusCode != http.StatusSwitchingProtocols { // its "body" is the connection, which has no end
		res.Body, res.BodyTruncated, err = c.readBody(answer.Body)
	}
	end = time.Now()
	if err != nil && res.Class == webhook.ClassNone {
		res.Class, res.Error = classify(err, progress{at: phaseBody})
	}
	// Declared to be short, the rest is read to keep the connection; its content and fate are of no
	// interest, and the send's deadline still holds.
	if rest := answer.ContentLength - int64(c.maxBody) - 1; res.BodyTruncated && 0 < rest && rest <= maxDrain {
		_, _ = io.CopyN(io.Discard, answer.Body, rest)
	}
	return end
}

// readBody reads at most one byte more than is kept, by which it knows that there is more.
func (c *Client) readBody(body io.Reader) (kept []byte, truncated bool, err error) {
	scratch := c.scratch.Get().(*[]byte)
	defer c.scratch.Put(scratch)
	n := 0
	for n < len(*scratch) && err == nil {
		var more int
		more, err = body.Read((*scratch)[n:])
		n += more
	}
	if n > c.maxBody {
		n, truncated = c.maxBody, true
	}
	if n > 0 {
		kept = bytes.Clone((*scratch)[:n])
	}
	// Exactly io.EOF: a body that is cut short ends in io.ErrUnexpectedEOF. What fails behind the bytes
	// that are kept, trailers above all, is not ours to judge.
	if err == io.EOF || truncated || afterBody(err) {
		err = nil
	}
	return kept, truncated, err
}

// refusedCertExpiry is when the certificate ends for which a handshake was broken off.
func refusedCertExpiry(err error) time.Time {
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0 {
		return refused.UnverifiedCertificates[0].NotAfter
	}
	return time.Time{}
}
