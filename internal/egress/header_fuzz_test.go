package egress

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// FuzzCustomHeader: a header that an endpoint may have arrives as it is, and brings nothing else along:
// no second header, no other host, no other end of the request.
func FuzzCustomHeader(f *testing.F) {
	for _, seed := range [][2]string{
		{"X-A", "b"}, {"authorization", "Bearer x"}, {"X-A", "b\r\nHost: evil"}, {"X-A\r\nX-B", "c"}, {"Content-Length", "0"}, {"content-type", "x"},
		{"X-A", "\t b \t"}, {"X-A", "\xff\x80"}, {"x_a", ""}, {"", "x"}, {"Accept-Encoding", "gzip"}, {"HOST", "evil"}, {"X-A", "b\n c"}, {"Cookie", "a=b; c"},
	} {
		f.Add(seed[0], seed[1])
	}
	c := New(Options{Policy: loopback()})
	f.Cleanup(c.Close)
	const body = `{"a":1}`
	to, err := loopback().parse("http://receiver.example/hook")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		if err := ValidCustomHeader(name, value); err != nil {
			if strings.ContainsAny(err.Error(), "\r\n\x00") || len(err.Error()) > MaxHeaderName+200 {
				t.Fatalf("the error writes what was sent: %q", err)
			}
			return
		}
		sent, err := c.sentHeader(http.Header{name: {value}})
		if err != nil {
			t.Fatalf("%q: %q may be configured and cannot be sent: %v", name, value, err)
		}
		wire := append(appendHead(nil, http.MethodPost, to, sent, len(body)), body...)
		in := bufio.NewReader(bytes.NewReader(wire))
		got, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("%q: %q makes a request that cannot be read: %v", name, value, err)
		}
		text := new(bytes.Buffer)
		if _, err := text.ReadFrom(got.Body); err != nil || text.String() != body || in.Buffered() != 0 {
			t.Fatalf("%q: %q: the body arrives as %q, %d bytes follow, %v", name, value, text, in.Buffered(), err)
		}
		if got.Host != "receiver.example" || got.Method != http.MethodPost || got.URL.Path != "/hook" || len(got.TransferEncoding) > 0 {
			t.Fatalf("%q: %q changed the request: %+v", name, value, got)
		}
		// A name in the map that is not in its usual spelling arrives in that.
		values := got.Header.Values(name)
		if len(values) != 1 || values[0] != strings.Trim(value, " \t") {
			t.Fatalf("%q: %q arrives as %q", name, value, values)
		}
		for other := range got.Header {
			switch {
			case other == http.CanonicalHeaderKey(name), other == "Accept", other == "Accept-Encoding", other == "User-Agent", other == "Content-Length":
			default:
				t.Fatalf("%q: %q brings %q along", name, value, other)
			}
		}
	})
}
