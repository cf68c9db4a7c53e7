package egress

import (
	"fmt"
	"strings"
	"testing"
)

func TestCustomHeadersThatMayBeSent(t *testing.T) {
	for _, name := range []string{
		"Authorization", "X-Api-Key", "x-auth-token", "Accept", "Accept-Language", "Cookie", "X-Custom", "Idempotency-Key", "X-Forwarded-Note",
		"traceparent", "a", "X_Y", "Contents", "Proxied", "X-Amzing", "Webhooks", "Date", "Referer",
	} {
		if err := ValidCustomHeader(name, "Bearer väl ue\t~"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCustomHeadersThatMayNotBeSent(t *testing.T) {
	for _, name := range []string{
		"Host", "Content-Type", "Content-Length", "Content-Encoding", "Content-Language", "Content-Location", "content-whatever",
		"Transfer-Encoding", "Connection", "TE", "Trailer", "Trailers", "Upgrade", "Expect", "Proxy-Authorization", "Proxy-Connection",
		"Proxy-Authenticate", "Keep-Alive", "webhook-id", "Webhook-Signature", "webhook-anything", "svix-id", "X-Svix-Id", "User-Agent",
		"Age", "Cache-Control", "Clear-Site-Data", "Expires", "Pragma", "Warning", "X-Amz-Date", "X-Amzn-Trace-Id", "X-Google-Foo",
		"X-GoogleApps", "X-Goog-Signature", "X-Gfe-Request", "X-Gfesomething", "X-Azure-Ref", "X-FD-HealthProbe", "Accept-Encoding", "HTTP2-Settings",
	} {
		for _, spelling := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if err := ValidCustomHeader(spelling, "x"); err == nil || !strings.Contains(err.Error(), "reserved") {
				t.Errorf("%s: %v", spelling, err)
			}
		}
	}
	for _, name := range []string{"", " ", "A B", "A:", "A\r\nB: c", "ä", "A\x00", "A\t", "(x)", "a/b"} {
		if err := ValidCustomHeader(name, "x"); err == nil || strings.ContainsAny(err.Error(), "\r\n\x00") {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for _, value := range []string{"a\r\nInjected: 1", "a\n", "\r", "a\x00b", "\x7f", "\x1b[0m"} {
		if err := ValidCustomHeader("X-A", value); err == nil || strings.Contains(err.Error(), "Injected") {
			t.Errorf("value %q: %v", value, err)
		}
	}
}

func TestCustomHeaderLimits(t *testing.T) {
	for _, row := range []struct {
		name, value int
		ok          bool
	}{{MaxHeaderName, 1, true}, {MaxHeaderName + 1, 1, false}, {1, MaxHeaderValue, true}, {1, MaxHeaderValue + 1, false}, {1, 0, true}} {
		if err := ValidCustomHeader(strings.Repeat("a", row.name), strings.Repeat("v", row.value)); (err == nil) != row.ok {
			t.Errorf("%d bytes of name, %d of value: %v", row.name, row.value, err)
		}
	}
	if MaxCustomHeaders != 100 {
		t.Errorf("MaxCustomHeaders is %d", MaxCustomHeaders)
	}
}

func TestShownText(t *testing.T) {
	for _, row := range []struct {
		text  string
		limit int
		want  string
	}{
		{"plain", 10, "plain"}, {"plain", 5, "plain"}, {"plain", 4, "plai"}, {"ü", 2, "ü"}, {"aü", 2, "a"}, {"ü", 1, ""}, {"", 0, ""},
		{"a\x00\x1b\xff\u202eb\tc", 100, "a\ufffd\ufffd\ufffd\ufffdb\tc"}, {"a\r\nb", 100, "a\ufffd\ufffdb"}, {"日本", 100, "日本"},
	} {
		if got := shown(row.text, row.limit); got != row.want {
			t.Errorf("shown(%q, %d) = %q, want %q", row.text, row.limit, got, row.want)
		}
	}
}

func ExampleValidCustomHeader() {
	fmt.Println(ValidCustomHeader("X-Api-Key", "secret"))
	fmt.Println(ValidCustomHeader("Host", "internal"))
	fmt.Println(ValidCustomHeader("X-Note", "two\r\nlines"))
	// Output:
	// <nil>
	// header Host is reserved
	// header X-Note: value must not contain control characters
}

func ExamplePolicy_CheckURL() {
	target, err := Policy{}.CheckURL("https://user:pass@Hooks.Example.com/in#top")
	fmt.Println(target.URL, target.Authorization, err)
	_, err = Policy{}.CheckURL("https://169.254.169.254/latest/meta-data/")
	fmt.Println(err)
	// Output:
	// https://hooks.example.com/in *** <nil>
	// url must not lead to a private or reserved address
}
