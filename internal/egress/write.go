package egress

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// sendable is the method to send.
func sendable(method string) (string, error) {
	switch method {
	case "":
		return http.MethodPost, nil
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		return method, nil
	}
	return "", errors.New("method must be POST, PUT or PATCH")
}

// sentHeader is the header to send: the caller's, checked, and our own. The caller's map is left alone.
func (c *Client) sentHeader(given http.Header) (http.Header, error) {
	sent := make(http.Header, len(given)+3)
	for name, values := range given {
		key := http.CanonicalHeaderKey(name)
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, errors.New("a header's name cannot be sent")
		}
		if framingHeaders[strings.ToLower(name)] || strings.HasPrefix(key, "Proxy-") {
			return nil, fmt.Errorf("header %s cannot be sent", name)
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("the value of header %s cannot be sent", name)
			}
		}
		switch key {
		case "Accept-Encoding": // ours: an answer we would have to unpack is how 50 KB become 50 MB
			continue
		case "Accept", "User-Agent": // one key each, or our own would stand beside it
			name = key
		}
		if earlier := sent[name]; earlier != nil { // another spelling
			values = slices.Concat(earlier, values)
		}
		sent[name] = values
	}
	if len(sent["User-Agent"]) == 0 {
		sent["User-Agent"] = c.userAgent
	}
	if len(sent["Accept"]) == 0 {
		sent["Accept"] = acceptAny
	}
	sent["Accept-Encoding"] = acceptIdentity
	return sent, nil
}

// Shared values of headers that are the same in every request; never written to.
var (
	acceptAny      = []string{"*/*"}
	acceptIdentity = []string{"identity"}
)

// appendHead writes a request up to its body: the headers in the order of their names behind those
// that every request begins with.
func appendHead(out []byte, method string, to target, header http.Header, body int) []byte {
	out = append(out, method...)
	out = append(out, ' ')
	out = append(out, to.url.RequestURI()...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, to.url.Host...)
	out = append(out, "\r\n"...)
	for _, value := range header["User-Agent"] {
		out = appendField(out, "User-Agent", value)
	}
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(body), 10)
	out = append(out, "\r\n"...)
	names := make([]string, 0, 24)
	for name := range header {
		if name != "User-Agent" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range header[name] {
			out = appendField(out, name, value)
		}
	}
	return append(out, "\r\n"...)
}

func appendField(out []byte, name, value string) []byte {
	out = append(out, name...)
	out = append(out, ": "...)
	out = append(out, strings.Trim(value, " \t")...)
	return append(out, "\r\n"...)
}
