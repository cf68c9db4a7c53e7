package egress

import (
	"net/netip"
	"testing"
)

// TestAddressGuardTable walks both ends of every special range: the addresses just outside are public
// (unless the neighbour is special too, which is marked), those just inside are not.
func TestAddressGuardTable(t *testing.T) {
	for _, row := range []struct {
		below, first, last, above string // "" = no such address, or it lies in another special range
	}{
		{"", "0.0.0.0", "0.255.255.255", "1.0.0.0"},
		{"9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"},
		{"100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"},
		{"126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"},
		{"168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17"},
		{"169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"},
		{"172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"},
		{"191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"},
		{"192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"},
		{"192.31.195.255", "192.31.196.0", "192.31.196.255", "192.31.197.0"},
		{"192.52.192.255", "192.52.193.0", "192.52.193.255", "192.52.194.0"},
		{"192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"},
		{"192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"},
		{"192.175.47.255", "192.175.48.0", "192.175.48.255", "192.175.49.0"},
		{"198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"},
		{"198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"},
		{"203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"},
		{"223.255.255.255", "224.0.0.0", "239.255.255.255", ""},
		{"", "240.0.0.0", "255.255.255.255", ""},

		{"", "::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2000::"},
		{"2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"},
		{"2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"},
		{"2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"},
		{"2620:4f:7fff:ffff:ffff:ffff:ffff:ffff", "2620:4f:8000::", "2620:4f:8000:ffff:ffff:ffff:ffff:ffff", "2620:4f:8001::"},
		{"3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"},
		{"3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""},
	} {
		check := func(text string, want bool) {
			if text == "" {
				return
			}
			addr := netip.MustParseAddr(text)
			if got := (Policy{}).AllowsAddr(addr); got != want {
				t.Errorf("AllowsAddr(%s) = %v, want %v", addr, got, want)
			}
			if !addr.Is4() {
				return
			}
			// The same address in its disguises is judged the same.
			mapped := netip.AddrFrom16(addr.As16())
			if got := (Policy{}).AllowsAddr(mapped); got != want {
				t.Errorf("AllowsAddr(%s) = %v, want %v", mapped, got, want)
			}
			for _, prefix := range []string{"64:ff9b::", "64:ff9b:1::"} {
				b, v4 := netip.MustParseAddr(prefix).As16(), addr.As4()
				copy(b[12:], v4[:])
				translated := netip.AddrFrom16(b)
				if got := (Policy{}).AllowsAddr(translated); got != want {
					t.Errorf("AllowsAddr(%s) = %v, want %v as %s", translated, got, want, addr)
				}
			}
		}
		check(row.below, true)
		check(row.first, false)
		check(row.last, false)
		check(row.above, true)
	}
}

func TestAddressesRefusedByName(t *testing.T) {
	for what, text := range map[string]string{
		"unspecified IPv4":                   "0.0.0.0",
		"unspecified IPv6":                   "::",
		"loopback IPv6":                      "::1",
		"IPv4-compatible loopback":           "::7f00:1",
		"IPv4-compatible public":             "::8.8.8.8",
		"IPv4-mapped loopback":               "::ffff:127.0.0.1",
		"IPv4-translated (SIIT)":             "::ffff:0:127.0.0.1",
		"broadcast":                          "255.255.255.255",
		"AWS metadata":                       "169.254.169.254",
		"AWS metadata IPv6":                  "fd00:ec2::254",
		"AWS container credentials":          "169.254.170.2",
		"Google metadata IPv6":               "fd20:ce::254",
		"Azure wire server":                  "168.63.129.16",
		"Alibaba metadata":                   "100.100.100.200",
		"Oracle metadata":                    "192.0.0.192",
		"link-local":                         "fe80::1",
		"link-local with zone":               "fe80::1%eth0",
		"public with zone of no use":         "::1%lo",
		"site-local":                         "fec0::1",
		"unique local":                       "fc00::1",
		"multicast":                          "ff02::1",
		"Teredo":                             "2001:0:4136:e378:8000:63bf:3fff:fdd2",
		"6to4 of 127.0.0.1":                  "2002:7f00:1::",
		"6to4 of a public address":           "2002:808:808::",
		"NAT64 of loopback":                  "64:ff9b::7f00:1",
		"NAT64 of metadata":                  "64:ff9b::a9fe:a9fe",
		"local NAT64, /48 form of 10.0.0.1":  "64:ff9b:1:a00:0:100::",
		"local NAT64, /48 form, public tail": "64:ff9b:1:a00:0:100:808:808",
		"local NAT64, /64 form, public tail": "64:ff9b:1:0:7f:0:808:808",
		"NAT64 with bytes where none belong": "64:ff9b:0:0:0:1:808:808",
		"segment routing":                    "5f00::1",
		"discard only":                       "100::1",
		"discard only, dummy":                "100:0:0:1::1",
	} {
		if addr := netip.MustParseAddr(text); (Policy{}).AllowsAddr(addr) {
			t.Errorf("%s (%s) is allowed", what, text)
		}
	}
	if (Policy{}).AllowsAddr(netip.Addr{}) || (Policy{AllowNetworks: prefixes("0.0.0.0/0", "::/0")}).AllowsAddr(netip.Addr{}) {
		t.Error("the invalid address is allowed")
	}
}

func TestPublicAddressesAreNotOverblocked(t *testing.T) {
	for _, text := range []string{
		"1.1.1.1", "8.8.8.8", "93.184.216.34", "100.0.0.1", "151.101.1.69", "168.63.129.15", "172.217.0.1", "192.0.1.1",
		"198.17.0.1", "216.58.0.1", "223.255.255.254", "2001:4860:4860::8888", "2606:4700:4700::1111", "2620:fe::fe",
		"2a00:1450:4001:81b::200e", "2400:cb00:2048:1::c629:d7a2", "2600::", "3ffe::1", "2001:4860:4860::8888%eth0",
	} {
		if !(Policy{}).AllowsAddr(netip.MustParseAddr(text)) {
			t.Errorf("%s is refused", text)
		}
	}
}

func TestOpenedAndClosedNetworks(t *testing.T) {
	for _, row := range []struct {
		allow, deny string
		addr        string
		want        bool
	}{
		{"10.0.0.0/8", "", "10.1.2.3", true},
		{"10.0.0.0/8", "", "11.0.0.0", true},
		{"10.0.0.0/8", "", "172.16.0.1", false},
		{"10.0.0.0/8", "", "::ffff:10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "", "10.1.2.3", true},
		{"::ffff:10.0.0.0/104", "", "192.168.0.1", false},
		{"10.0.0.0/8", "", "64:ff9b::a01:203", false}, // opened here is not opened behind the gateway
		{"64:ff9b::/96", "", "64:ff9b::a01:203", true},
		{"fe80::/10", "", "fe80::1%eth0", true},
		{"10.0.0.0/8", "10.9.0.0/16", "10.9.0.1", false},
		{"10.0.0.0/8", "10.9.0.0/16", "10.8.0.1", true},
		{"", "8.8.8.0/24", "8.8.8.8", false},
		{"", "8.8.8.0/24", "::ffff:8.8.8.8", false},
		{"", "8.8.8.0/24", "64:ff9b::808:808", false},
		{"", "8.8.8.0/24", "8.8.9.8", true},
		// A range does not open the credential service inside it; the address itself does.
		{"169.254.0.0/16", "", "169.254.1.1", true},
		{"169.254.0.0/16", "", "169.254.169.254", false},
		{"0.0.0.0/0", "", "168.63.129.16", false},
		{"100.64.0.0/10", "", "100.100.100.200", false},
		{"fd00::/8", "", "fd00:ec2::254", false},
		{"fd00::/8", "", "fd00:ec2::253", true},
		{"169.254.169.254/32", "", "169.254.169.254", true},
	} {
		p := Policy{}
		if row.allow != "" {
			p.AllowNetworks = prefixes(row.allow)
		}
		if row.deny != "" {
			p.DenyNetworks = prefixes(row.deny)
		}
		if got := p.AllowsAddr(netip.MustParseAddr(row.addr)); got != row.want {
			t.Errorf("allow %q deny %q: AllowsAddr(%s) = %v, want %v", row.allow, row.deny, row.addr, got, row.want)
		}
	}
}

func TestRefusedPorts(t *testing.T) {
	for _, port := range []uint16{0, 1, 22, 25, 53, 2375, 2379, 3306, 5432, 6000, 6379, 6667, 9200, 10080, 10250, 11211, 27017} {
		if (Policy{}).AllowsPort(port) {
			t.Errorf("port %d is allowed", port)
		}
		if opened := (Policy{AllowPorts: []uint16{port}}); opened.AllowsPort(port) != (port != 0) {
			t.Errorf("AllowPorts does not decide about port %d", port)
		}
	}
	for _, port := range []uint16{80, 443, 3000, 5000, 8000, 8072, 8080, 8443, 9000, 49152, 65535} {
		if !(Policy{}).AllowsPort(port) {
			t.Errorf("port %d is refused", port)
		}
	}
}
