package egress

import "net/netip"

// An address is allowed because it is known to be public, not because nothing speaks against it:
// IPv4 must lie outside every special block, IPv6 inside the one block that is handed out to networks
// (2000::/3) and outside its special parts. New special ranges of IPv6 are therefore refused before
// anyone has heard of them.
var (
	// specialIPv4 is the IANA special-purpose registry whole (its few globally reachable entries are
	// infrastructure, never a receiver), multicast, the reserved top, and 168.63.129.16, with which
	// Azure serves credentials from an address that is in no registry.
	specialIPv4 = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
		"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	)
	globalIPv6 = netip.MustParsePrefix("2000::/3")
	// specialIPv6 is what IANA took out of 2000::/3. 2001::/23 holds Teredo, ORCHID, benchmarking and
	// their like; 2002::/16 (6to4) and Teredo carry an IPv4 address that a relay would go on to.
	specialIPv6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")

	// NAT64: a gateway turns these into the IPv4 address inside, so that address is the one to judge.
	nat64Global = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local  = netip.MustParsePrefix("64:ff9b:1::/48")

	// credentialServices hand out the machine's credentials to whoever can connect. They lie inside
	// ranges that operators open for good reasons, so opening the range is not enough: the address has
	// to be named by itself.
	credentialServices = prefixes(
		"169.254.169.254/32", "169.254.170.2/32", "169.254.170.23/32", "168.63.129.16/32",
		"100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::254/128", "fd00:ec2::23/128", "fd20:ce::254/128",
	)
)

func prefixes(texts ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		out[i] = netip.MustParsePrefix(text)
	}
	return out
}

func within(addr netip.Addr, blocks []netip.Prefix) bool {
	for _, block := range blocks {
		if block.Contains(addr) {
			return true
		}
	}
	return false
}

// plain is the address the kernel would connect to: an IPv4 address written as IPv6 is IPv4, and a
// zone picks an interface but not another address (a prefix never contains an address with a zone).
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// public reports whether an address is on the public internet. The invalid address is not.
func public(addr netip.Addr) bool {
	addr = plain(addr)
	if v4, ok := nat64(addr); ok {
		addr = v4
	}
	switch {
	case addr.Is4():
		return !within(addr, specialIPv4)
	case addr.Is6():
		return globalIPv6.Contains(addr) && !within(addr, specialIPv6)
	}
	return false
}

// nat64 is the IPv4 address inside a NAT64 address. Where in 64:ff9b:1::/48 it lies depends on the
// gateway's prefix length; only the form with the address at the very end and zeros before it is
// decoded, because every other gateway reads that one as 0.0.0.0/24, which leads nowhere. Anything
// else there stays what it is: outside 2000::/3, hence refused.
func nat64(addr netip.Addr) (netip.Addr, bool) {
	if !addr.Is6() || !nat64Global.Contains(addr) && !nat64Local.Contains(addr) {
		return netip.Addr{}, false
	}
	b := addr.As16()
	if [6]byte(b[6:12]) != [6]byte{} {
		return netip.Addr{}, false
	}
	return netip.AddrFrom4([4]byte(b[12:])), true
}

// AllowsAddr reports whether deliveries may connect to an address: public ones, and those of
// AllowNetworks, but none of DenyNetworks. The invalid address is refused.
func (p Policy) AllowsAddr(addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	addr = plain(addr)
	inner, translated := nat64(addr)
	for _, block := range p.DenyNetworks {
		if block = unmapped(block); block.Contains(addr) || translated && block.Contains(inner) {
			return false
		}
	}
	credentials := within(addr, credentialServices)
	for _, block := range p.AllowNetworks {
		if block = unmapped(block); block.Contains(addr) && (!credentials || block.IsSingleIP()) {
			return true
		}
	}
	return public(addr)
}

// unmapped is a prefix in the form that plain addresses are compared with.
func unmapped(block netip.Prefix) netip.Prefix {
	if addr := block.Addr(); addr.Is4In6() && block.Bits() >= 96 {
		return netip.PrefixFrom(addr.Unmap(), block.Bits()-96)
	}
	return block
}
