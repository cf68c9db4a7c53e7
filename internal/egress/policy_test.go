package egress

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestURLsThatMayBeStored(t *testing.T) {
	open := Policy{AllowNetworks: prefixes("127.0.0.0/8"), AllowHTTP: true}
	for _, row := range []struct {
		policy    Policy
		raw, want string
	}{
		{Policy{}, "https://example.com", "https://example.com"},
		{Policy{}, "https://example.com/", "https://example.com/"},
		{Policy{}, "HTTPS://Hooks.Example.COM/Path?Q=1", "https://hooks.example.com/Path?Q=1"},
		{Policy{}, "https://example.com:8443/a", "https://example.com:8443/a"},
		{Policy{}, "https://example.com:443/a", "https://example.com:443/a"},
		{Policy{}, "https://example.com./a", "https://example.com/a"},
		{Policy{}, "https://example.com/a%2Fb?x=%20&y=a+b", "https://example.com/a%2Fb?x=%20&y=a+b"},
		{Policy{}, "https://example.com/a#part", "https://example.com/a"},
		{Policy{}, "https://example.com?x=http://10.0.0.1@y", "https://example.com?x=http://10.0.0.1@y"},
		{Policy{}, "https://my_sink.example.com/", "https://my_sink.example.com/"},
		{Policy{}, "https://a--b.example.com/", "https://a--b.example.com/"},
		{Policy{}, "https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"},
		{Policy{}, "https://example.com/?q=ü&r=%C3%BC#ü", "https://example.com/?q=%C3%BC&r=%C3%BC"},
		{Policy{}, "https://BÜCHER.example", "https://xn--bcher-kva.example"},
		{Policy{}, "https://xn--bcher-kva.example", "https://xn--bcher-kva.example"},
		{Policy{}, "https://日本語。example.com", "https://xn--wgv71a119e.example.com"},
		{Policy{}, "https://8.8.8.8/x", "https://8.8.8.8/x"},
		{Policy{}, "https://[2606:4700:4700:0::1111]:8443/x", "https://[2606:4700:4700::1111]:8443/x"},
		{Policy{}, "https://3com.com", "https://3com.com"},
		{Policy{}, "https://0x7f.com", "https://0x7f.com"},
		{Policy{AllowHTTP: true}, "http://example.com", "http://example.com"},
		{Policy{AllowPorts: []uint16{6379}}, "https://example.com:6379", "https://example.com:6379"},
		{open, "http://127.0.0.1:8072", "http://127.0.0.1:8072"},
		{open, "http://localhost:8072", "http://localhost:8072"},
		{open, "http://sink:8080/x", "http://sink:8080/x"},
		{open, "http://sink.default.svc.cluster.local/x", "http://sink.default.svc.cluster.local/x"},
	} {
		got, err := row.policy.CheckURL(row.raw)
		if err != nil || got.URL != row.want || !got.Authorization.IsZero() {
			t.Errorf("CheckURL(%q) = %q, %v, want %q", row.raw, got.URL, err, row.want)
			continue
		}
		if again, err := row.policy.CheckURL(got.URL); err != nil || again.URL != got.URL {
			t.Errorf("CheckURL(%q) = %q, %v, not itself", got.URL, again.URL, err)
		}
	}
}

func TestURLsThatMayNotBeStored(t *testing.T) {
	const (
		chars, scheme, percent = "spaces, control", "must start with https://", "% in its host"
		host, v4, v6           = "host", "four decimal", "[address]"
		private, full, special = "private or reserved", "full host name", "public host name"
		port, service          = "port from 1 to 65535", "belongs to another service"
	)
	for _, row := range []struct{ raw, rule string }{
		{"", "must not be empty"},
		{"https://example.com/" + strings.Repeat("a", webhook.MaxURLLength-len("https://example.com/")+1), "at most 65536 bytes"},
		{"https://example.com/\xff", "UTF-8"},
		{" https://example.com", chars},
		{"https://example.com/a b", chars},
		{"https://example.com/\r\nX: y", chars},
		{"https://example.com\x00.evil.com", chars},
		{"https://example.com\\@10.0.0.1", chars},
		{"https:\\\\example.com", chars},
		{"https://example.com/\x7f", chars},
		{"example.com", scheme},
		{"//example.com", scheme},
		{"https:example.com", scheme},
		{"https:/example.com", scheme},
		{"http://example.com", "plain http"},
		{"ftp://example.com", scheme},
		{"file:///etc/passwd", scheme},
		{"gopher://example.com:70/_x", scheme},
		{"javascript://example.com/%0aalert(1)", scheme},
		{"https://", host},
		{"https:///path", host},
		{"https://:443/", host},
		{"https://user@/", host},
		{"https://?x", host},
		{"https://.example.com", "1 to 63"},
		{"https://example..com", "1 to 63"},
		{"https://example.com../", "1 to 63"},
		{"https://" + strings.Repeat("a", 64) + ".com", "1 to 63"},
		{"https://" + strings.Repeat("a.", 126) + "aa", "253"},
		{"https://exam%70le.com", percent},
		{"https://127.0.0.1%2f.example.com", percent},
		{"https://[fe80::1%25eth0]/", percent},
		{"https://example.com:/", "empty port"},
		{"https://[2606:4700::1]:/", "empty port"},
		{"https://example.com:0/", port},
		{"https://example.com:65536/", port},
		{"https://example.com:99999999999/", port},
		{"https://example.com:0443/", port},
		{"https://example.com:+443/", port},
		{"https://example.com:-1/", port},
		{"https://example.com:443:443/", "one port"},
		{"https://example.com:http/", port},
		{"https://example.com:25/", service},
		{"https://example.com:6379/", service},
		{"https://example.com:10250/", service},
		{"https://a@b@example.com/", "%40"},
		{"https://example.com/100%", "starts an escape"},
		{"https://example.com/%zz", "starts an escape"},
		{"https://us%er@example.com/", "starts an escape"},
		{"https://exa mple.com", chars},
		{"https://exam!ple.com", "letters, digits"},
		{"https://ex*mple.com", "letters, digits"},
		{"https://example.com,evil.com/", "letters, digits"},
		{"https://xn--a.example.com", "valid host name"},
		// Addresses in any spelling but the strict one, which resolvers and parsers read differently.
		{"https://127.1/", v4},
		{"https://2130706433/", v4},
		{"https://0x7f000001/", v4},
		{"https://0x7f.0.0.1/", v4},
		{"https://0177.0.0.1/", v4},
		{"https://127.0.0.0x1/", v4},
		{"https://127.0.0.1./", v4},
		{"https://1.2.3.4.5/", v4},
		{"https://256.256.256.256/", v4},
		{"https://foo.0x/", v4},
		{"https://foo.123/", v4},
		{"https://１２７.0.0.1/", v4},
		{"https://①②⑦.⓪.⓪.①/", v4},
		{"https://127。0。0。1/", v4},
		{"https://::1/", v6},
		{"https://[::1", v6},
		{"https://[127.0.0.1]/", v6},
		{"https://[example.com]/", v6},
		{"https://[::1]example.com/", v6},
		{"https://[]/", v6},
		{"https://127.0.0.1/", private},
		{"https://0.0.0.0/", private},
		{"https://10.0.0.1/", private},
		{"https://169.254.169.254/latest/meta-data/", private},
		{"https://168.63.129.16/", private},
		{"https://[::]/", private},
		{"https://[::1]/", private},
		{"https://[::ffff:127.0.0.1]/", private},
		{"https://[::ffff:7f00:1]/", private},
		{"https://[64:ff9b::10.0.0.1]/", private},
		{"https://[fd00:ec2::254]/", private},
		{"https://user:pass@127.0.0.1/", private},
		// Names that lead inside.
		{"https://localhost/", full},
		{"https://backend/", full},
		{"https://ＬＯＣＡＬＨＯＳＴ/", full},
		{"https://localhost./", full},
		{"https://foo.localhost/", special},
		{"https://FOO.LocalHost./", special},
		{"https://printer.local/", special},
		{"https://metadata.google.internal/", special},
		{"https://kubernetes.default.svc/", special},
		{"https://kubernetes.default.svc.cluster.local/", special},
		{"https://nas.home.arpa/", special},
		{"https://1.0.0.127.in-addr.arpa/", special},
		{"https://router.lan/", special},
		{"https://x.onion/", special},
		{"https://x.invalid/", special},
	} {
		got, err := Policy{}.CheckURL(row.raw)
		var broken *URLError
		if !errors.As(err, &broken) || !strings.Contains(err.Error(), row.rule) {
			t.Errorf("CheckURL(%.80q) = %q, %v; want the rule %q", row.raw, got.URL, err, row.rule)
			continue
		}
		if broken.Blocked != (row.rule == private) {
			t.Errorf("CheckURL(%.80q): Blocked is %v", row.raw, broken.Blocked)
		}
		if strings.Contains(err.Error(), "pass") && strings.Contains(row.raw, "pass@") {
			t.Errorf("CheckURL(%q) repeats the password: %v", row.raw, err)
		}
	}
}

func TestURLLengthLimit(t *testing.T) {
	atLimit := "https://example.com/" + strings.Repeat("a", webhook.MaxURLLength-len("https://example.com/"))
	if _, err := (Policy{}).CheckURL(atLimit); err != nil {
		t.Errorf("%d bytes: %v", len(atLimit), err)
	}
	if _, err := (Policy{}).CheckURL(atLimit + "a"); err == nil {
		t.Errorf("%d bytes pass", len(atLimit)+1)
	}
	if _, err := (Policy{}).CheckURL(atLimit[:len(atLimit)-2] + "ü"); err == nil {
		t.Error("a URL that is longer once it is escaped passes")
	}
	name := strings.Repeat("a.", 125) + "com" // 253 characters
	if _, err := (Policy{}).CheckURL("https://" + name); err != nil {
		t.Errorf("a name of %d characters: %v", len(name), err)
	}
	if _, err := (Policy{}).CheckURL("https://a" + name); err == nil {
		t.Errorf("a name of %d characters passes", len(name)+1)
	}
	label := strings.Repeat("a", maxLabelLength)
	if _, err := (Policy{}).CheckURL("https://" + label + ".com"); err != nil {
		t.Errorf("a label of %d characters: %v", len(label), err)
	}
}

func TestUserinfoBecomesAuthorization(t *testing.T) {
	for raw, want := range map[string]string{
		"https://aladdin:opensesame@example.com/x": "Basic YWxhZGRpbjpvcGVuc2VzYW1l",
		"https://token@example.com/x":              "Basic dG9rZW46",
		"https://:secret@example.com/x":            "Basic OnNlY3JldA==",
		"https://a%40b:p%3Aw%2F@example.com/x":     "Basic YUBiOnA6dy8=",
		"https://a%0d%0aEvil:%20x@example.com/x":   "Basic YQ0KRXZpbDogeA==", // CR LF stay inside base64
		"https://@example.com/x":                   "",
	} {
		got, err := Policy{}.CheckURL(raw)
		if err != nil || got.URL != "https://example.com/x" || got.Authorization.Reveal() != want {
			t.Errorf("CheckURL(%q) = %q %q, %v; want %q", raw, got.URL, got.Authorization.Reveal(), err, want)
		}
	}
}

// FuzzCheckURL: what passes is stable, has no userinfo, and is not an address in disguise.
func FuzzCheckURL(f *testing.F) {
	for _, seed := range []string{
		"https://example.com", "https://u:p@example.com:8443/x?y#z", "https://[2606:4700::1]:444/", "https://8.8.8.8",
		"https://bücher.example", "https://127.0.0.1", "https://[::ffff:127.0.0.1]/", "https://１２７.1/", "https://a%2eb",
		"https://exa\u00admple.com", "https://xn--/", "http://x.com", "https://a_b.c-d.e/", "https://0x7f.1/", "https://x:0/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := Policy{}.CheckURL(raw)
		if err != nil {
			if got.URL != "" || !got.Authorization.IsZero() {
				t.Fatalf("refused, but gave %q", got.URL)
			}
			return
		}
		again, err := Policy{}.CheckURL(got.URL)
		if err != nil || again.URL != got.URL || !again.Authorization.IsZero() {
			t.Fatalf("%q became %q, which becomes %q, %v", raw, got.URL, again.URL, err)
		}
		u, err := url.Parse(got.URL)
		if err != nil || u.Scheme != "https" || u.User != nil || u.Fragment != "" {
			t.Fatalf("%q became %q: %v", raw, got.URL, err)
		}
		host := u.Hostname()
		for _, b := range []byte(host) {
			if b <= ' ' || b >= 0x7f || 'A' <= b && b <= 'Z' || strings.IndexByte("%@\\/?#", b) >= 0 {
				t.Fatalf("%q became host %q", raw, host)
			}
		}
		if addr, err := netip.ParseAddr(host); err == nil {
			if !isPublicBySpelling(addr) {
				t.Fatalf("%q leads to %s", raw, addr)
			}
			return
		}
		last := host[strings.LastIndexByte(host, '.')+1:]
		if !strings.Contains(host, ".") || strings.Trim(last, "0123456789") == "" {
			t.Fatalf("%q became host %q", raw, host)
		}
	})
}
