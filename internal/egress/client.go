package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
	userAgent string
	targets   targets
	dialer    *dialer
	pool      *pool
	exchanges sync.Pool // *exchange
	long      sync.Pool // *[]byte of maxBody+1, for bodies that are not in one piece

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
		userAgent: o.UserAgent,
		dialer:    newDialer(o),
		pool:      newPool(o.MaxConnsPerHost, o.MaxIdleConnsPerHost),
	}
	c.exchanges.New = func() any { return new(exchange) }
	c.long.New = func() any { b := make([]byte, o.MaxBody+1); return &b }
	return c
}

// Close waits for the sends under way (their contexts end them) and closes every connection. A Send
// after it fails.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.sends.Wait()
	c.pool.close()
	c.dialer.close()
}

// CloseIdle closes all kept connections; those in use are closed when their request ends.
func (c *Client) CloseIdle() { c.pool.closeIdle() }

// Request is one request to send.
type Request struct {
	Method string // POST, PUT or PATCH; "" = POST
	URL    string // as Target.URL; userinfo is refused, its header belongs into Header
	// Header goes out as it is, spelling included; only Accept-Encoding is replaced. It is not changed.
	Header http.Header
	Body   []byte // not changed while it is sent
	// Deadline of the send, beside the context's and the client's timeout; zero = none. It costs less than
	// a context that is made for it.
	Deadline time.Time
}

// Result is what came of a send. It says everything that is known, also after a failure.
type Result struct {
	Start  time.Time
	Status int // 0 = no answer
	Class  webhook.ErrorClass
	Error  string // for the endpoint's owner; "" on success

	SentHeader      []webhook.Header // as sent, by name, values in clear; nil if the request was refused before sending
	Header          []webhook.Header // received, by name, at most MaxReceivedHeaders and MaxReceivedBytes, printable
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
// receiver says. The whole takes no longer than the context, the request's deadline and the client's
// timeout allow.
//
// Nothing is sent twice. If a kept connection turns out to be dead when it is to be used, another one
// is taken; if it dies after that, the send fails as ClassReset, because whether the receiver saw the
// request cannot be known from here; the retry schedule decides.
func (c *Client) Send(ctx context.Context, req Request) Result {
	res := Result{Start: time.Now()}
	if !c.enter() {
		return res.failed(webhook.ClassInternal, "interrupted before it was sent")
	}
	defer c.sends.Done()

	to, err := c.targets.parse(c.policy, req.URL)
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

	deadline := res.Start.Add(c.timeout)
	if at, ok := ctx.Deadline(); ok && at.Before(deadline) {
		deadline = at
	}
	if at := req.Deadline; !at.IsZero() && at.Before(deadline) {
		deadline = at
	}
	cn, took, reused, err := c.connection(ctx, to, deadline, res.Start)
	if err != nil {
		res.Timings = Timings{DNS: took.dns, Connect: took.connect, TLS: took.tls, Total: time.Since(res.Start)}
		res.CertExpiry = refusedCertExpiry(err)
		return res.failed(classify(err, progress{at: phaseWait}))
	}
	res.Reused, res.RemoteAddr = reused, cn.remote
	res.TLSVersion, res.CertExpiry = cn.tlsVersion, cn.certExpiry
	res.Timings = Timings{DNS: took.dns, Connect: took.connect, TLS: took.tls}

	x := c.exchanges.Get().(*exchange)
	x.cn, x.deadline = cn, deadline
	x.out = appendHead(x.out[:0], method, to, header, len(req.Body))
	keep, now := x.run(ctx, c, &res, req.Body)
	x.cn, x.in.from = nil, nil
	if cap(x.out) <= maxKeptOut {
		c.exchanges.Put(x)
	}
	if keep {
		c.pool.put(cn, now)
	} else {
		c.discard(cn)
	}
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

// connection gives a connection that is good as far as can be known, with its deadline set: a kept one,
// or one that is made now; took says how long that took, also if it failed.
func (c *Client) connection(ctx context.Context, to target, deadline, now time.Time) (cn *conn, took setup, reused bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, took, false, err
	}
	if !now.Before(deadline) {
		return nil, took, false, context.DeadlineExceeded
	}
	for {
		cn, err := c.pool.take(ctx, to.origin, deadline, now)
		switch {
		case err != nil:
			return nil, took, false, err
		case cn == nil:
			cn, took, err := c.fresh(ctx, to, deadline)
			return cn, took, false, err
		}
		// Before it is asked, since it may carry the deadline of its last use.
		if cn.SetDeadline(deadline) == nil && cn.alive() {
			return cn, took, true, nil
		}
		c.discard(cn)
	}
}

// fresh makes a connection, for which the pool has counted one.
func (c *Client) fresh(ctx context.Context, to target, deadline time.Time) (*conn, setup, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	cn, took, err := c.dialer.fresh(ctx, to.origin, to.ownOpen)
	if err == nil {
		c.pool.add(cn, to.origin, time.Now())
		if err = cn.SetDeadline(deadline); err != nil { // closed already
			c.discard(cn)
		}
		return cn, took, err
	}
	c.pool.drop(to.origin)
	return nil, took, err
}

// discard closes a connection that is of no more use.
func (c *Client) discard(cn *conn) {
	_ = cn.Close()
	c.pool.drop(cn.host.at)
}

// refusedCertExpiry is when the certificate ends for which a handshake was broken off.
func refusedCertExpiry(err error) time.Time {
	var refused *tls.CertificateVerificationError
	if errors.As(err, &refused) && len(refused.UnverifiedCertificates) > 0 {
		return refused.UnverifiedCertificates[0].NotAfter
	}
	return time.Time{}
}
