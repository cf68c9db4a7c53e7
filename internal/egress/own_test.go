package egress

import (
	"net/netip"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestOwnDoorsAreRefused(t *testing.T) {
	origin, err := Origin("https://Hooks.Example.com/")
	if err != nil || origin != "hooks.example.com:443" {
		t.Fatalf("Origin = %q, %v", origin, err)
	}
	local, err := Origin("http://127.0.0.1:8071")
	if err != nil || local != "127.0.0.1:8071" {
		t.Fatalf("Origin = %q, %v", local, err)
	}
	for _, bad := range []string{"", "hooks.example.com", "ftp://x.example.com", "https://"} {
		if _, err := Origin(bad); err == nil {
			t.Errorf("Origin(%q) passes", bad)
		}
	}
	p := loopback()
	p.Own = Own{Origins: []string{origin, local}, OpenPath: "/inspect/in/"}
	for raw, allowed := range map[string]bool{
		"https://hooks.example.com/api/v1/app":             false,
		"https://hooks.example.com:443/":                   false,
		"https://HOOKS.example.com./":                      false,
		"http://127.0.0.1:8071/x":                          false,
		"http://[::ffff:127.0.0.1]:8071/x":                 true, // refused by the dialer, as any name for it
		"https://hooks.example.com":                        false,
		"https://hooks.example.com/inspect/in/abc":         true,
		"https://hooks.example.com/inspect/in/abc/":        true,
		"https://hooks.example.com/inspect/in/abc?x=../..": true,
		"https://hooks.example.com/inspect/in":             false,
		"https://hooks.example.com/inspect/info":           false,
		"https://hooks.example.com/inspect/in/../../api":   false,
		"https://hooks.example.com/inspect/in/%2e%2e/api":  false,
		"https://hooks.example.com/inspect/in//api":        false,
		"https://hooks.example.com/inspect/in/./api":       false,
		"https://hooks.example.com/inspect/in/a%2f..%2fb":  false,
		"https://hooks.example.com:8443/":                  true,
		"http://127.0.0.1:8072/x":                          true,
		"https://other.example.com/":                       true,
	} {
		if _, err := p.CheckURL(raw); (err == nil) != allowed {
			t.Errorf("CheckURL(%q): %v, want allowed=%v", raw, err, allowed)
		}
	}
	p.Own.OpenPath = ""
	if _, err := p.CheckURL("https://hooks.example.com/inspect/in/abc"); err == nil {
		t.Error("without an open path a path is open")
	}
}

func TestOwnListeners(t *testing.T) {
	machine := func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("192.0.1.9")} }
	never := func() []netip.Addr { t.Error("asked for the machine's addresses"); return nil }
	for _, row := range []struct {
		listener, target string
		machine          func() []netip.Addr
		want             bool
	}{
		{"127.0.0.1:8071", "127.0.0.1:8071", never, true},
		{"[::ffff:127.0.0.1]:8071", "127.0.0.1:8071", never, true},
		{"127.0.0.1:8071", "127.0.0.1:8072", never, false},
		{"127.0.0.1:8071", "127.0.0.2:8071", never, false},
		{"0.0.0.0:8071", "192.0.1.9:8072", never, false},
		{"0.0.0.0:8071", "192.0.1.9:8071", machine, true},
		{"[::]:8071", "192.0.1.9:8071", machine, true},
		{"[::]:8071", "127.9.9.9:8071", machine, true},
		{"[::]:8071", "[::1]:8071", machine, true},
		{"[::]:8071", "192.0.1.8:8071", machine, false},
	} {
		own := Own{Listeners: []netip.AddrPort{netip.MustParseAddrPort(row.listener)}}
		if got := own.listens(netip.MustParseAddrPort(row.target), row.machine); got != row.want {
			t.Errorf("listener %s, target %s: %v, want %v", row.listener, row.target, got, row.want)
		}
	}
}

func TestOwnListenerIsNotDialled(t *testing.T) {
	t.Parallel()
	canary := newSink(t, answering(okAnswer))
	p := loopback()
	p.Own.Listeners = []netip.AddrPort{netip.AddrPortFrom(netip.IPv4Unspecified(), canary.Addr.Port())}
	p.Own.Origins, p.Own.OpenPath = []string{"self.example.com:" + canary.Port}, "/in/"
	c := newClient(t, Options{Policy: p, Resolver: nameServer(t, everyNameIs("127.0.0.1"))})
	for _, url := range []string{canary.URL, "http://localhost:" + canary.Port, "http://alias.example.com:" + canary.Port + "/in/x"} {
		if res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")}); res.Class != webhook.ClassBlockedAddress {
			t.Errorf("%s: %s (%s)", url, res.Class, res.Error)
		}
	}
	if n := canary.connections(); n != 0 {
		t.Fatalf("%d connections to our own listener", n)
	}
	// The open path goes through, and what it leaves in the pool opens nothing else.
	own := "http://self.example.com:" + canary.Port
	if res := c.Send(t.Context(), Request{URL: own + "/in/x", Body: []byte("{}")}); !res.OK() {
		t.Errorf("open path: %s (%s)", res.Class, res.Error)
	}
	for _, url := range []string{own + "/api", own + "/in/../api"} {
		if res := c.Send(t.Context(), Request{URL: url, Body: []byte("{}")}); res.Class != webhook.ClassInvalidURL {
			t.Errorf("%s: %s (%s)", url, res.Class, res.Error)
		}
	}
}
