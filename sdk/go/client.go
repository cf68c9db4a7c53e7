package posthaste

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// DefaultURL is where `make run` serves; every other installation is named by [WithURL].
const DefaultURL = "http://127.0.0.1:8071"

// Defaults of a client.
const (
	DefaultTimeout     = 30 * time.Second
	DefaultMaxResponse = 64 << 20 // a page of 50 messages of the largest size fits
)

// maxIdleConns is how many connections a client keeps when they are not used.
const maxIdleConns = 64

// conn is how requests go out.
type conn struct {
	base          string
	authorization *string // behind a pointer, so that printing a client shows an address
	userAgent     string
	http          *http.Client
	timeout       time.Duration
	maxResponse   int64
	retries       int
	sleep         func(context.Context, time.Duration) error
}

// Option changes what [New] makes.
type Option func(*conn) error

// New makes a client. The key is an API key of a tenant, an application token, or the operator's token.
func New(key string, options ...Option) (*Client, error) {
	if key == "" {
		return nil, errors.New("posthaste: there is no key")
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("posthaste: the key has characters that no key has, perhaps a line break")
	}
	authorization := "Bearer " + key
	c := &conn{
		base: DefaultURL, authorization: &authorization, userAgent: userAgent(), timeout: DefaultTimeout,
		maxResponse: DefaultMaxResponse, retries: defaultRetries, sleep: sleep,
	}
	for _, option := range options {
		if err := option(c); err != nil {
			return nil, fmt.Errorf("posthaste: %w", err)
		}
	}
	if c.http == nil {
		c.http = &http.Client{Transport: transport()}
	}
	own := *c.http
	// The API never redirects. Whoever does is not the API, and is not to get the request.
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &own
	return newClient(c), nil
}

// transport is the usual one, but keeps more than two connections to its one host.
func transport() http.RoundTripper {
	usual, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t := usual.Clone()
	t.MaxIdleConnsPerHost = maxIdleConns
	return t
}

// WithURL says where Posthaste is: scheme and host, for instance https://webhooks.example.com.
func WithURL(text string) Option {
	return func(c *conn) error {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return errors.New("the URL has to be http:// or https:// and a host")
		}
		c.base = strings.TrimRight(u.String(), "/")
		return nil
	}
}

// WithTimeout bounds every try of a call, the answer's body included; the context bounds the whole call.
func WithTimeout(d time.Duration) Option {
	return func(c *conn) error {
		if d <= 0 {
			return errors.New("the timeout has to be longer than nothing")
		}
		c.timeout = d
		return nil
	}
}

// WithRetries says how often a call is repeated at most; 3 if it is not said, 0 = never.
func WithRetries(n int) Option {
	return func(c *conn) error {
		if n < 0 {
			return errors.New("retries cannot be fewer than none")
		}
		c.retries = n
		return nil
	}
}

// WithMaxResponse is how many bytes of an answer are read; a longer one is [ErrResponseTooLarge].
func WithMaxResponse(bytes int64) Option {
	return func(c *conn) error {
		if bytes <= 0 {
			return errors.New("an answer needs room")
		}
		c.maxResponse = bytes
		return nil
	}
}

// WithHTTPClient is what requests are made with, for proxies, certificates or tracing of your own.
// Redirects are not followed, whatever it says.
func WithHTTPClient(client *http.Client) Option {
	return func(c *conn) error {
		if client == nil {
			return errors.New("the HTTP client is nil")
		}
		c.http = client
		return nil
	}
}

// WithUserAgent names your program in front of the client's own name, for instance billing/1.4.
func WithUserAgent(name string) Option {
	return func(c *conn) error {
		if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			return errors.New("the name of the program has characters that a header may not have")
		}
		c.userAgent = name + " " + userAgent()
		return nil
	}
}

// CloseIdleConnections closes connections that are kept and not used. A program that makes one client
// and ends with it need not call it.
func (c *Client) CloseIdleConnections() { c.c.http.CloseIdleConnections() }

// String names the server, and hides the key.
func (c *Client) String() string { return "posthaste.Client(" + c.c.base + ")" }

const modulePath = "github.com/posthaste/posthaste/sdk/go"

// userAgent names this client in the version that is built in.
func userAgent() string {
	version := "devel"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == modulePath && m.Version != "" {
				version = m.Version
			}
		}
	}
	return "posthaste-go/" + version + " (" + runtime.Version() + "; " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}
