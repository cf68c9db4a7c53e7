package egress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/posthaste/posthaste/internal/webhook"
)

// readOurs reads an answer as a send does, from a connection that gives at most step bytes at once.
func readOurs(c *Client, raw []byte, step int) (res Result, keep bool, err error) {
	x := new(exchange)
	x.in.reset(&stepped{raw, step})
	x.head.in = &x.in
	answer, err := x.head.read()
	if err == nil {
		_, keep, err = x.receive(c, &res, answer)
	}
	return res, keep, err
}

type stepped struct {
	rest []byte
	step int
}

func (s *stepped) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.rest[:min(s.step, len(s.rest))])
	s.rest = s.rest[n:]
	return n, nil
}

// readTheirs reads an answer with net/http. What comes with an error behind the body was read before it.
func readTheirs(raw []byte) (answer *http.Response, content []byte, err error) {
	in := bufio.NewReader(bytes.NewReader(raw))
	for {
		answer, err = http.ReadResponse(in, &http.Request{Method: http.MethodPost})
		if err != nil {
			return nil, nil, err
		}
		if answer.StatusCode < 100 || answer.StatusCode > 199 || answer.StatusCode == http.StatusSwitchingProtocols {
			break
		}
	}
	content, err = io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	return answer, content, err
}

// compare checks one answer, read by both. We may refuse what net/http takes; the other way round only
// behind the body, which ends there for us.
func compare(t *testing.T, c *Client, raw []byte, step int) (ours, theirs error) {
	t.Helper()
	res, keep, ours := readOurs(c, raw, step)
	answer, content, theirs := readTheirs(raw)
	if len(res.Body) > c.maxBody || len(res.Header) > MaxReceivedHeaders || len(res.ContentType) > maxContentType || len(res.RetryAfter) > maxRetryAfter {
		t.Fatalf("%q: over the limits: %+v", raw, res)
	}
	if keep && ours != nil {
		t.Fatalf("%q: kept after %v", raw, ours)
	}
	if ours != nil {
		return ours, theirs
	}
	if answer == nil {
		t.Fatalf("%q: net/http refuses it: %v", raw, theirs)
	}
	if keep && (answer.Close || theirs != nil || answer.StatusCode == http.StatusSwitchingProtocols) {
		t.Fatalf("%q: kept, and net/http would not (%v)", raw, theirs)
	}
	if theirs != nil && !res.BodyTruncated && !strings.Contains(theirs.Error(), "trailer") && len(answer.TransferEncoding) == 0 {
		t.Fatalf("%q: net/http cannot read its body: %v", raw, theirs)
	}
	if res.Status != answer.StatusCode || !bytes.Equal(res.Body, content[:min(len(content), c.maxBody)]) || res.BodyTruncated != (len(content) > c.maxBody) {
		t.Fatalf("%q: status %d, body %.80q; net/http %d, %.80q", raw, res.Status, res.Body, answer.StatusCode, content)
	}
	if res.HeaderTruncated {
		return ours, theirs
	}
	got := map[string][]string{}
	for _, h := range res.Header {
		got[h.Name] = append(got[h.Name], flat(h.Value))
	}
	// net/http takes these away, or joins them, or (Cache-Control) makes them up.
	for _, name := range []string{"Content-Length", "Transfer-Encoding", "Trailer", "Connection", "Cache-Control"} {
		delete(got, name)
		delete(answer.Header, name)
	}
	for name, values := range answer.Header {
		for i := range values {
			values[i] = flat(shown(values[i], MaxReceivedBytes))
		}
		if !slices.Equal(got[name], values) {
			t.Fatalf("%q: header %q is %q, of net/http %q", raw, name, got[name], values)
		}
	}
	if len(got) != len(answer.Header) {
		t.Fatalf("%q: header %v, of net/http %v", raw, got, answer.Header)
	}
	return ours, theirs
}

// flat has one space where there are some, of which folded lines have more or less.
func flat(value string) string { return strings.Join(strings.Fields(value), " ") }

// TestAnswersAsNetHTTPReadsThem: both take an answer and agree on it, or both refuse it, or we alone.
func TestAnswersAsNetHTTPReadsThem(t *testing.T) {
	t.Parallel()
	const (
		both   = iota // take it
		wesay         // no
		nobody        // takes it
		behind        // what we keep net/http finds fault
	)
	c := newClient(t, Options{MaxBody: 1000})
	for _, row := range []struct {
		raw  string
		want int
	}{
		{okAnswer, both},
		{"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", both},
		{"HTTP/1.1   200   OK\r\nContent-Length: 0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\nX: 1\nContent-Length: 2\n\nok", both},
		{"HTTP/1.1 200 OK\r\n\r\nto the end", both},
		{"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok", both},
		{"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", both},
		{"HTTP/0.9 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", wesay},
		{"HTTP/0.0 200 OK\r\nTransfer-Encoding: x\r\n\r\n", nobody},
		{"HTTP/2.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\nA ; x=y\r\n0123456789\r\n000\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\nA;x=y \t\r\n0123456789\r\n000\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrail: er\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\r\nok\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000002\r\nok\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000002\r\nok\r\n0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok", both},
		{"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length:  2 \r\n\r\nok", both},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\nok", nobody},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", nobody},
		{"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", nobody},
		{"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok", nobody},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n" + strings.Repeat("a", 1001), behind},
		{"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", nobody},
		{"HTTP/1.1 204 No\r\nContent-Length: x\r\n\r\n", nobody},
		{"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\n\tc\r\nContent-Length: 0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nX:\r\n a\r\n \r\n b\r\nContent-Length: 0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok", both},
		{"HTTP/1.1 200 OK\r\n X: a\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nX\r\n : a\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nX: a\r\n b\x00\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nX: a\r\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nx-ab_c: \x80\xff\t|\r\nX-AB_C: 2\r\nx: \r\nContent-Length: 0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nBad Name: x\r\nContent-Length: 0\r\n\r\n", both},
		{"HTTP/1.1 200 OK\r\nB\xc3\xa4d: x\r\nContent-Length: 0\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nB\td: x\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\n: x\r\n\r\n", nobody},
		{"HTTP/1.1 200 OK\r\nx\r\n\r\n", nobody},
		{"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + okAnswer, both},
		{"HTTP/1.1 100 Go on\r\nbad\r\n\r\n" + okAnswer, nobody},
		{"HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\nframes", both},
		{"HTTP/1.1 +20 OK\r\n\r\n", wesay},
		{"HTTP/1.1 20a OK\r\n\r\n", nobody},
		{"HTTP/1.1 2000 OK\r\n\r\n", nobody},
		{"HTTP/1.1 \r\n\r\n", nobody},
		{"HTTP/1.1\r\n\r\n", nobody},
		{"HTTP/1.1\t200 OK\r\n\r\n", nobody},
		{" HTTP/1.1 200 OK\r\n\r\n", nobody},
		{"\r\nHTTP/1.1 200 OK\r\n\r\n", nobody},
		{"http/1.1 200 OK\r\n\r\n", nobody},
		{"HTTP/11 200 OK\r\n\r\n", nobody},
		{"HTTP/1,1 200 OK\r\n\r\n", nobody},
		{"HTTP/a.1 200 OK\r\n\r\n", nobody},
		{"", nobody},
		{"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nshor", nobody},
	} {
		for _, step := range []int{1, 2, 3, 1 << 20} {
			ours, theirs := compare(t, c, []byte(row.raw), step)
			if (ours == nil) != (row.want == both || row.want == behind) || (theirs != nil) != (row.want == nobody || row.want == behind) {
				t.Errorf("%q, %d bytes at once: we say %v, net/http %v", row.raw, step, ours, theirs)
			}
		}
	}
}

// FuzzRead: whatever comes in, in whatever pieces, is read as net/http reads it or refused, within the
// limits.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		okAnswer, "HTTP/1.1 200 OK\nX: a\n b\n\nc", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nA: b\r\n\r\n", "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
		"HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: upgrade, close\r\n\r\nz", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabcd",
	} {
		f.Add([]byte(seed), 1)
		f.Add([]byte(seed), 1000)
	}
	c := New(Options{MaxBody: 50})
	f.Cleanup(c.Close)
	f.Fuzz(func(t *testing.T, raw []byte, step int) {
		step = max(1, step)
		ours, _ := compare(t, c, raw, step)
		if _, _, again := readOurs(c, raw, 1); (again == nil) != (ours == nil) {
			t.Fatalf("%q: %d bytes at once: %v; one at a time: %v", raw, step, ours, again)
		}
	})
}

func TestHeadLimit(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	const early, first, last = "HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", "\r\n\r\n"
	for _, before := range []int{0, 1, 100} {
		room := maxHeaderBytes - len(first) - len(last) - before*len(early)
		for _, row := range []struct {
			size int
			want error
		}{{room, nil}, {room + 1, errHeadTooLarge}} {
			raw := strings.Repeat(early, before) + first + strings.Repeat("a", row.size) + last
			res, _, err := readOurs(c, []byte(raw), 1<<20)
			if !errors.Is(err, row.want) || err == nil && res.Status != 200 {
				t.Errorf("%d bytes behind %d early hints: status %d, %v", len(raw), before, res.Status, err)
			}
		}
	}
}

func TestChunkLimits(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	line := func(size int) string { return "1;" + strings.Repeat("x", size-4) + "\r\na\r\n" }
	paid := maxChunkLine - 16 - 2 // of a longest line, not by its data
	for _, row := range []struct {
		chunks string
		want   error
	}{
		{line(maxChunkLine), nil}, {line(maxChunkLine + 1), errChunk},
		{strings.Repeat(line(maxChunkLine), maxChunkWork/paid), nil}, {strings.Repeat(line(maxChunkLine), maxChunkWork/paid+1), errChunkWork},
		{strings.Repeat("1\r\na\r\n", 10_000), nil},
	} {
		res, keep, err := readOurs(c, []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+row.chunks+"0\r\n\r\n"), 1000)
		if !errors.Is(err, row.want) || keep != (err == nil) {
			t.Errorf("%d bytes of chunks: %d of body, kept %v, %v", len(row.chunks), len(res.Body), keep, err)
		}
	}
	for trailer, want := range map[string]bool{"": true, "A: b\r\n": false, "x\r\n": false, "\n": false} {
		res, keep, err := readOurs(c, []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"+trailer+"\r\n"), 1000)
		if err != nil || string(res.Body) != "ok" || keep != want {
			t.Errorf("trailer %q: %q, kept %v, %v", trailer, res.Body, keep, err)
		}
	}
}

// TestReadErrorsAreNotTheEnd: an error of the connection is never taken for the end of a body.
func TestReadErrorsAreNotTheEnd(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	broken := errors.New("broken")
	for _, raw := range []string{"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nx", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"} {
		var res Result
		x := new(exchange)
		x.in.reset(io.MultiReader(strings.NewReader(raw), iotest.ErrReader(broken)))
		x.head.in = &x.in
		answer, err := x.head.read()
		if err == nil {
			_, _, err = x.receive(c, &res, answer)
		}
		if !errors.Is(err, broken) {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func TestReceivedHeadersAreInOrder(t *testing.T) {
	t.Parallel()
	c := newClient(t, Options{})
	res, _, err := readOurs(c, []byte("HTTP/1.1 200 OK\r\nzz: 1\r\nSet-Cookie: b\r\nset-cookie: a\r\nContent-Length: 0\r\nA: \r\n\r\n"), 7)
	want := []webhook.Header{{Name: "A"}, {Name: "Content-Length", Value: "0"}, {Name: "Set-Cookie", Value: "b"}, {Name: "Set-Cookie", Value: "a"}, {Name: "Zz", Value: "1"}}
	if err != nil || fmt.Sprint(res.Header) != fmt.Sprint(want) {
		t.Errorf("%v, %v; want %v", res.Header, err, want)
	}
}
