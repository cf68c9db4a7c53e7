package egress

import (
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

// Limits of host names (RFC 1035).
const (
	maxHostLength  = 253
	maxLabelLength = 63
)

// specialNames end the names that have no owner in the public DNS. Inside a network they lead to
// machines of that network, so they are refused unless the operator opened networks.
var specialNames = []string{
	"alt", "arpa", "cluster.local", "corp", "home", "home.arpa", "internal", "intranet", "invalid", "lan", "local",
	"localdomain", "localhost", "onion", "private", "svc", "test",
}

// hostProfile maps names the way browsers do before they look them up. Its own check of characters is
// off because it refuses underscores, which real receivers have in their names; checkName does it.
var hostProfile = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false), idna.Transitional(false))

// checkHost checks a host as it stands in a URL and gives the form to store: an address in its strict
// form, in brackets if IPv6; a name in lower-case ASCII without a final dot.
func (p Policy) checkHost(host string) (string, error) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return "", breaks("url must write an IPv6 address as [address], without a zone")
		}
		return "[" + addr.String() + "]", p.checkLiteral(addr)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if !addr.Is4() {
			return "", breaks("url must write an IPv6 address as [address]")
		}
		return addr.String(), p.checkLiteral(addr)
	}
	name, err := asciiHost(host)
	if err != nil {
		return "", err
	}
	if len(p.AllowNetworks) > 0 {
		return name, nil
	}
	if !strings.Contains(name, ".") {
		return "", breaks("url must have a full host name, such as hooks.example.com")
	}
	for _, special := range specialNames {
		if rest, ok := strings.CutSuffix(name, special); ok && strings.HasSuffix(rest, ".") {
			return "", breaks("url must have a public host name; ." + special + " is not")
		}
	}
	return name, nil
}

func (p Policy) checkLiteral(addr netip.Addr) error {
	if !p.AllowsAddr(addr) {
		return &URLError{Rule: "url must not lead to a private or reserved address", Blocked: true}
	}
	return nil
}

// asciiHost is a host name in lower-case ASCII, checked: labels of letters, digits, - and _, of which
// the last is no number (127.1 and 0x7f000001 are addresses to some resolvers).
func asciiHost(host string) (string, error) {
	name := strings.TrimSuffix(host, ".")
	if !isPlainName(name) {
		var err error
		if name, err = hostProfile.ToASCII(name); err != nil {
			return "", breaks("url must have a valid host name")
		}
		name = strings.TrimSuffix(strings.ToLower(name), ".") // other dots were mapped to this one
	}
	return name, checkName(name)
}

// isPlainName reports whether a name needs no mapping: lower-case ASCII without punycode, which is
// what nearly all are, and every send asks.
func isPlainName(name string) bool {
	for i := range len(name) {
		if b := name[i]; b >= 0x80 || 'A' <= b && b <= 'Z' {
			return false
		}
	}
	return !strings.Contains(name, "xn--")
}

func checkName(name string) error {
	if len(name) > maxHostLength {
		return breaks("url must have a host name of at most 253 characters")
	}
	last := name
	for rest, more := name, true; more; {
		last, rest, more = strings.Cut(rest, ".")
		if last == "" || len(last) > maxLabelLength {
			return breaks("url must have a host name whose parts are 1 to 63 characters")
		}
		for i := range len(last) {
			if b := last[i]; !isLower(b) && !isDigit(b) && b != '-' && b != '_' {
				return breaks("url must have a host name of letters, digits, dots, - and _")
			}
		}
	}
	if isNumeric(last) {
		return breaks("url must write an IPv4 address as four decimal numbers")
	}
	return nil
}

func isLower(b byte) bool { return 'a' <= b && b <= 'z' }
func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// isNumeric reports whether some resolver would take a name with this last label for a number.
func isNumeric(label string) bool {
	if strings.HasPrefix(label, "0x") {
		return true
	}
	for i := range len(label) {
		if !isDigit(label[i]) {
			return false
		}
	}
	return true
}
