package egress

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

const inNamespace = "EGRESS_TEST_IN_NAMESPACE"

// TestNamespaceCanary runs TestNamespaceCanaryInside in a network namespace in which every address
// there is leads to this machine, so that a connection to any address at all would arrive.
func TestNamespaceCanary(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs the ip command to route every address to the namespace itself")
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNamespaceCanaryInside$", "-test.v")
	child.Env = append(os.Environ(), inNamespace+"=1")
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Getuid(); uid != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
	}
	out, err := child.CombinedOutput()
	var exited *exec.ExitError
	switch {
	case err != nil && !errors.As(err, &exited):
		t.Skipf("cannot make a network namespace: %v", err)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("the namespace is of no use:\n%s", out)
	case err != nil || !strings.Contains(string(out), "--- PASS: TestNamespaceCanaryInside"):
		t.Errorf("in the namespace: %v\n%s", err, out)
	default:
		t.Logf("%s", out)
	}
}

// TestNamespaceCanaryInside is TestNamespaceCanary's inside: no hostile URL and no hostile answer of a
// name server leads to a connection to an address that is not public, while public ones do arrive.
func TestNamespaceCanaryInside(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		t.Skip("run by TestNamespaceCanary")
	}
	for _, args := range []string{"link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo"} {
		if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", args, err, out)
		}
	}
	var mu sync.Mutex
	arrived := map[netip.Addr]bool{}
	serve := func(c net.Conn) {
		mu.Lock()
		arrived[plain(netip.MustParseAddrPort(c.LocalAddr().String()).Addr())] = true
		mu.Unlock()
		answering(okAnswer)(c)
	}
	const port = "80"
	for _, network := range []string{"tcp4", "tcp6"} {
		listener, err := net.Listen(network, ":"+port)
		if err != nil {
			t.Skipf("listen on %s: %v", network, err)
		}
		serveSink(t, listener, serve)
	}

	// Both ends of every block, the neighbours, and the addresses that matter.
	var probes []netip.Addr
	blocks := slices.Concat(specialIPv4, specialIPv6, credentialServices, prefixes(
		"::1/128", "fc00::/7", "fe80::/10", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "5f00::/16", "::ffff:0:0/96", "2000::/3"))
	for _, block := range blocks {
		first, last := block.Masked().Addr(), lastOf(block)
		probes = append(probes, first, first.Next(), last, last.Prev(), first.Prev(), last.Next())
	}
	for _, text := range []string{"::ffff:127.0.0.1", "::7f00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"} {
		probes = append(probes, netip.MustParseAddr(text))
	}

	// As literals in URLs, in several spellings.
	c := newClient(t, Options{Policy: Policy{AllowHTTP: true}, Timeout: patience, Resolver: nameServer(t, func(name string) ([]netip.Addr, bool) {
		var index int
		if _, err := fmt.Sscanf(name, "probe-%d.example.com", &index); err == nil && index < len(probes) {
			return []netip.Addr{probes[index], netip.MustParseAddr("127.0.0.1")}, true
		}
		// Every other name leads inside, as on a machine with a generous resolver.
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, true
	})})
	send := func(url string) {
		if res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")}); res.Class == "" && !res.RemoteAddr.IsValid() {
			t.Errorf("%s: taken by nobody", url)
		}
	}
	sent := 0
	for i, addr := range probes {
		if !addr.IsValid() {
			continue
		}
		host := addr.String()
		if addr.Is6() {
			host = "[" + host + "]"
		}
		for _, url := range []string{"http://" + host, fmt.Sprintf("http://probe-%d.example.com", i)} {
			send(url)
			sent++
		}
	}
	for _, host := range []string{
		"localhost", "localhost.", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0x0", "127.0.0.1.", "[::]", "[::1%25lo]", "[fe80::1%25lo]",
		"１２７.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1", "user@127.0.0.1", "a:b@[::1]", "127.0.0.1%2f@example.com", "example.com@127.0.0.1", "metadata.google.internal",
		"foo.localhost", "inside.example.com", "127.0.0.1.nip.example", "xn--localhost-.example.com", "kubernetes.default.svc", "sink", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
	} {
		send("http://" + host)
		send("http://" + host + ":80/")
		sent += 2
	}

	mu.Lock()
	defer mu.Unlock()
	for addr := range arrived {
		if !isPublicBySpelling(addr) {
			t.Errorf("a connection arrived at %s", addr)
		}
	}
	for _, text := range []string{"8.8.8.8", "2606:4700:4700::1111", "1.0.0.0", "168.63.129.15", "2003::"} {
		if !arrived[netip.MustParseAddr(text)] {
			t.Errorf("no connection arrived at %s, so the namespace proves nothing", text)
		}
	}
	t.Logf("%d sends, connections at %d addresses, all of them public", sent, len(arrived))
}

// lastOf is the last address of a block.
func lastOf(block netip.Prefix) netip.Addr {
	b := block.Masked().Addr().AsSlice()
	for bit := block.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
