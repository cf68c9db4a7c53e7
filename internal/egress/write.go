package egress

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/posthaste/posthaste/internal/webhook"
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

// sentHeader is the header to send, in the order of names: the caller's, checked, and our own.
func (c *Client) sentHeader(given http.Header) ([]webhook.Header, error) {
	sent := make([]webhook.Header, 0, len(given)+3)
	accept, agent := false, false
	for name, values := range given {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, errors.New("a header's name cannot be sent")
		}
		key := http.CanonicalHeaderKey(name)
		if isFraming(key) || strings.HasPrefix(key, "Proxy-") {
			return nil, fmt.Errorf("header %s cannot be sent", name)
		}
		switch key {
		case "Accept-Encoding": // ours: an answer we would have to unpack is how 50 KB become 50 MB
			continue
		case "Accept":
			accept, name = accept || len(values) > 0, key
		case headerAgent:
			agent, name = agent || len(values) > 0, key // it has a place of its own in a request
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return nil, fmt.Errorf("the value of header %s cannot be sent", name)
			}
			sent = append(sent, webhook.Header{Name: name, Value: textproto.TrimString(value)})
		}
	}
	sent = append(sent, webhook.Header{Name: "Accept-Encoding", Value: "identity"})
	if !accept {
		sent = append(sent, webhook.Header{Name: "Accept", Value: "*/*"})
	}
	if !agent {
		sent = append(sent, webhook.Header{Name: headerAgent, Value: c.userAgent})
	}
	slices.SortStableFunc(sent, byName)
	return sent, nil
}

const headerAgent = "User-Agent"

// appendHead writes a request up to its body: the headers behind those that every request begins with.
func appendHead(out []byte, method string, to target, header []webhook.Header, body int) []byte {
	out = append(out, method...)
	out = append(out, ' ')
	out = append(out, to.path...)
	out = append(out, " HTTP/1.1\r\nHost: "...)
	out = append(out, to.url.Host...)
	out = append(out, "\r\n"...)
	for _, h := range header {
		if h.Name == headerAgent {
			out = appendHeader(out, h)
		}
	}
	out = append(out, "Content-Length: "...)
	out = strconv.AppendInt(out, int64(body), 10)
	out = append(out, "\r\n"...)
	for _, h := range header {
		if h.Name != headerAgent {
			out = appendHeader(out, h)
		}
	}
	return append(out, "\r\n"...)
}

func appendHeader(out []byte, h webhook.Header) []byte {
	out = append(out, h.Name...)
	out = append(out, ": "...)
	out = append(out, h.Value...)
	return append(out, "\r\n"...)
}
