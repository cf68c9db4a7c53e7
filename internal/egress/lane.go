package egress

import (
	"crypto/tls"
	"net/http"
	"sync"
	"time"
)

// Limits of kept connections.
const (
	idleTimeout      = 30 * time.Second
	maxTransportAge  = 5 * time.Minute
	maxHeaderBytes   = 64 << 10 // of an answer, all 1xx before it included
	lanes            = 16
	defaultIdleTotal = 4096 // kept connections in all lanes
)

// lane is a pool of connections for the hosts that hash to it, with a limited life. A busy connection
// is never idle, so without a limit it would go on to an address that the name left long ago. Pools
// are replaced whole, which net/http does without a race (a replaced pool closes each connection as
// its request ends), and by lanes, so that not all hosts have to connect anew at once.
type lane struct {
	mu        sync.Mutex
	transport *http.Transport
	born      time.Time
}

// at is the lane's pool at a time.
func (l *lane) at(now time.Time, fresh func() *http.Transport) *http.Transport {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.born) > maxTransportAge {
		l.replace(now, fresh)
	}
	return l.transport
}

// renew replaces the pool now.
func (l *lane) renew(now time.Time, fresh func() *http.Transport) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replace(now, fresh)
}

func (l *lane) replace(now time.Time, fresh func() *http.Transport) {
	l.transport.CloseIdleConnections()
	l.transport, l.born = fresh(), now
}

// newTransport is net/http's transport with everything off that a receiver could use.
func newTransport(o Options, d *dialer) *http.Transport {
	http1 := new(http.Protocols)
	http1.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil, // a proxy of the environment would dial for us, past every check
		DialContext:            d.dialPlain,
		DialTLSContext:         d.dialTLS,
		Protocols:              http1,
		ForceAttemptHTTP2:      false,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConns:           max(defaultIdleTotal/lanes, o.MaxIdleConnsPerHost),
		MaxIdleConnsPerHost:    o.MaxIdleConnsPerHost,
		MaxConnsPerHost:        o.MaxConnsPerHost,
	}
}
