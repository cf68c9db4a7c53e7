package egress

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Policy says where deliveries may go. The zero Policy is the strict one: https to public addresses.
type Policy struct {
	AllowNetworks []netip.Prefix // open besides public addresses; a range leaves out clouds' credential services, a single address opens one
	DenyNetworks  []netip.Prefix // closed although public or opened; it wins over AllowNetworks
	AllowHTTP     bool           // http:// besides https://
	AllowPorts    []uint16       // opened although on the list of refused ports
	Own           Own            // our own doors
}

// Target is a URL that may be stored and requested.
type Target struct {
	URL           string         // normalised: host in lower case and punycode, no userinfo, no fragment
	Authorization webhook.Secret // the header value that the URL's userinfo stands for; zero if it had none
}

// URLError says which rule a URL breaks, in words for the person who wrote it. It never repeats the
// URL, which may hold a password.
type URLError struct {
	Rule string
	// Blocked is set if the URL's host is an address that deliveries may not reach.
	Blocked bool
}

// Error is the rule.
func (e *URLError) Error() string { return e.Rule }

var errTooLong = breaks("url must be at most " + strconv.Itoa(webhook.MaxURLLength) + " bytes, escaped")

func breaks(rule string) error { return &URLError{Rule: rule} }

// CheckURL reads the URL of an endpoint. Its error is a *URLError. A name is not resolved: what it
// resolves to is judged when it is dialled.
func (p Policy) CheckURL(raw string) (Target, error) {
	t, err := p.parse(raw)
	if err != nil {
		return Target{}, err
	}
	stored := t.url.String()
	if len(stored) > webhook.MaxURLLength { // escaping made it longer
		return Target{}, errTooLong
	}
	return Target{URL: stored, Authorization: t.authorization}, nil
}

// target is a URL taken apart.
type target struct {
	url           *url.URL // without userinfo and fragment
	path          string   // as a request line has it, with the query
	origin        origin
	authorization webhook.Secret
	ownOpen       bool // one of our own doors, at the path that is open
}

func (p Policy) parse(raw string) (target, error) {
	scheme, authority, err := p.split(raw)
	if err != nil {
		return target{}, err
	}
	_, hostport, credentials := strings.Cut(authority, "@")
	if !credentials {
		hostport = authority
	}
	host, port, err := splitHostPort(hostport)
	if err != nil {
		return target{}, err
	}
	if host, err = p.checkHost(host); err != nil {
		return target{}, err
	}
	number, err := p.checkPort(port, scheme)
	if err != nil {
		return target{}, err
	}

	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.Scheme != scheme {
		return target{}, breaks("url must be a valid URL, in which a % starts an escape such as %20")
	}
	t := target{url: u, origin: origin{secure: scheme == "https", host: strings.Trim(host, "[]"), port: number}}
	if u.User != nil && u.User.String() != "" {
		password, _ := u.User.Password()
		pair := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		t.authorization = webhook.NewSecret("Basic " + pair)
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	u.RawQuery = escapeQuery(u.RawQuery) // the path is escaped by url.URL, the query is not
	if u.Host = host; port != "" {
		u.Host = host + ":" + port
	}
	if t.ownOpen, err = p.Own.check(u, number); err != nil {
		return target{}, err
	}
	t.path = u.RequestURI()
	return t, nil
}

// maxTargets is how many URLs are remembered taken apart.
const maxTargets = 1024

// targets remembers URLs that a policy has let pass, since most sends go where others went.
type targets struct {
	mu   sync.RWMutex
	seen map[string]target
}

func (t *targets) parse(p Policy, raw string) (target, error) {
	t.mu.RLock()
	to, ok := t.seen[raw]
	t.mu.RUnlock()
	if ok {
		return to, nil
	}
	to, err := p.parse(raw)
	if err != nil || !to.authorization.IsZero() {
		return to, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil || len(t.seen) >= maxTargets {
		t.seen = make(map[string]target)
	}
	t.seen[raw] = to
	return to, nil
}

// escapeQuery percent-encodes what may not stand in a request line.
func escapeQuery(query string) string {
	if isPrintable(query) {
		return query
	}
	var out strings.Builder
	for i := range len(query) {
		if b := query[i]; b < 0x80 {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

// split checks the text as such and cuts out scheme and authority. It reads the bytes itself, since
// url.Parse forgives (percent-encoded hosts, an empty port) what another parser on the way would read
// differently.
func (p Policy) split(raw string) (scheme, authority string, err error) {
	switch {
	case raw == "":
		return "", "", breaks("url must not be empty")
	case len(raw) > webhook.MaxURLLength:
		return "", "", errTooLong
	case !utf8.ValidString(raw):
		return "", "", breaks("url must be valid UTF-8")
	}
	for i := range len(raw) {
		if b := raw[i]; b <= ' ' || b == 0x7f || b == '\\' {
			return "", "", breaks("url must not contain spaces, control characters or backslashes")
		}
	}
	scheme, rest, ok := strings.Cut(raw, "://")
	scheme = strings.ToLower(scheme)
	switch {
	case !ok || scheme != "https" && scheme != "http":
		return "", "", breaks("url must start with " + p.schemes())
	case scheme == "http" && !p.AllowHTTP:
		return "", "", breaks("url must start with https:// (plain http is not allowed here)")
	}
	authority = rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	if strings.Count(authority, "@") > 1 {
		return "", "", breaks("url must write an @ in user or password as %40")
	}
	return scheme, authority, nil
}

func (p Policy) schemes() string {
	if p.AllowHTTP {
		return "https:// or http://"
	}
	return "https://"
}

// splitHostPort cuts host (with the brackets of an IPv6 address) and port ("" = none).
func splitHostPort(hostport string) (host, port string, err error) {
	if strings.Contains(hostport, "%") {
		return "", "", breaks("url must not have a % in its host")
	}
	end := strings.LastIndexByte(hostport, ':')
	if strings.HasPrefix(hostport, "[") {
		end = strings.LastIndexByte(hostport, ']') + 1
		if end == 0 || end < len(hostport) && hostport[end] != ':' {
			return "", "", breaks("url must write an IPv6 address as [address]")
		}
	} else if end != strings.IndexByte(hostport, ':') {
		return "", "", breaks("url must have one port, and write an IPv6 address as [address]")
	}
	switch {
	case hostport == "" || end == 0:
		return "", "", breaks("url must have a host")
	case end < 0 || end == len(hostport):
		return hostport, "", nil
	case end == len(hostport)-1:
		return "", "", breaks("url must not have an empty port")
	}
	return hostport[:end], hostport[end+1:], nil
}

// checkPort checks a port and gives its number, the scheme's own if there is none.
func (p Policy) checkPort(port, scheme string) (uint16, error) {
	if port == "" {
		port = "443"
		if scheme == "http" {
			port = "80"
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || number == 0 || port[0] == '0' || port[0] == '+':
		return 0, breaks("url must have a port from 1 to 65535")
	case !p.AllowsPort(uint16(number)):
		return 0, breaks("url must not use port " + port + ", which belongs to another service")
	}
	return uint16(number), nil
}
