package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// Own names the doors of this installation. A delivery through one of them could post a message that
// makes the next delivery, for ever.
type Own struct {
	Origins   []string         // host:port of the public URLs, as Origin writes them
	Listeners []netip.AddrPort // where we listen; an unspecified address stands for every address of the machine
	OpenPath  string           // path under Origins that may be called all the same, "/like/this/"; "" = none
}

// check refuses our own public URLs and reports whether u is the open path under one of them.
func (o Own) check(u *url.URL, port uint16) (open bool, err error) {
	if len(o.Origins) == 0 {
		return false, nil
	}
	origin := net.JoinHostPort(u.Hostname(), strconv.Itoa(int(port)))
	for _, own := range o.Origins {
		if own != origin {
			continue
		}
		if o.opens(u.EscapedPath()) {
			return true, nil
		}
		return false, breaks("url must not lead back to this service")
	}
	return false, nil
}

// opens reports whether a path lies under OpenPath, however a router may read it: nothing encoded, no
// dots, no empty segments.
func (o Own) opens(requested string) bool {
	if o.OpenPath == "" || strings.Contains(requested, "%") {
		return false
	}
	under := strings.TrimSuffix(o.OpenPath, "/") + "/"
	clean := path.Clean(requested)
	return strings.HasPrefix(requested, under) && (clean == requested || clean+"/" == requested)
}

// Origin is the host:port of an http or https URL, for Own.Origins.
func Origin(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", errors.New("read origin: not an absolute http or https URL")
	}
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		host = plain(addr).String()
	} else if host, err = asciiHost(host); err != nil {
		return "", fmt.Errorf("read origin: %w", err)
	}
	port := u.Port()
	switch {
	case port == "" && u.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	return net.JoinHostPort(host, port), nil
}

// listens reports whether one of our listeners is at a (plain) address. machine gives the machine's
// own addresses; it is asked only if a listener is on all of them.
func (o Own) listens(target netip.AddrPort, machine func() []netip.Addr) bool {
	for _, listener := range o.Listeners {
		if listener.Port() != target.Port() {
			continue
		}
		at := plain(listener.Addr())
		if at == target.Addr() {
			return true
		}
		if at.IsUnspecified() {
			if target.Addr().IsLoopback() || target.Addr().IsUnspecified() {
				return true
			}
			for _, addr := range machine() {
				if addr == target.Addr() {
					return true
				}
			}
		}
	}
	return false
}

// interfaceAddrs is asked at every dial to a port of ours, since addresses come and go.
func interfaceAddrs() []netip.Addr {
	var out []netip.Addr
	addrs, _ := net.InterfaceAddrs() // without a list, listeners on named addresses are still refused
	for _, addr := range addrs {
		if block, ok := addr.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(block.IP); ok {
				out = append(out, plain(ip))
			}
		}
	}
	return out
}
