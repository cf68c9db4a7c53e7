package webhook

import (
	"encoding/json"
	"strconv"
	"time"
)

// AppendJSON appends the detail as encoding/json would write it. It is written by hand because every
// attempt is encoded once, and reflection took 4 % of a busy worker's time.
func (d *AttemptDetail) AppendJSON(dst []byte) []byte {
	o := jsonObject{append(dst, '{')}
	o.text("error", d.Error)
	if t := d.Timings; t != nil {
		o.key("timings")
		in := jsonObject{append(o.dst, '{')}
		in.number("dns", t.DNS)
		in.number("connect", t.Connect)
		in.number("tls", t.TLS)
		in.number("firstByte", t.FirstByte)
		in.number("read", t.Read)
		in.number("total", t.Total)
		o.dst = append(in.dst, '}')
	}
	o.text("remoteIp", d.RemoteIP)
	o.truth("reused", d.Reused)
	o.text("tlsVersion", d.TLSVersion)
	o.time("certExpiry", d.CertExpiry)
	o.headers("requestHeaders", d.RequestHeaders)
	o.headers("responseHeaders", d.ResponseHeaders)
	o.truth("responseTruncated", d.ResponseTruncated)
	o.text("retryAfter", d.RetryAfter)
	if len(d.SignedWith) > 0 {
		o.key("signedWith")
		for i, id := range d.SignedWith {
			o.item(i)
			o.dst = append(append(append(o.dst, '"'), id.String()...), '"')
		}
		o.dst = append(o.dst, ']')
	}
	o.time("nextAttempt", d.NextAttempt)
	o.text("contentType", d.ContentType)
	return append(o.dst, '}')
}

// jsonObject appends the members of an object; those that are empty are left out, but for numbers.
type jsonObject struct{ dst []byte }

func (o *jsonObject) key(name string) {
	if o.dst[len(o.dst)-1] != '{' {
		o.dst = append(o.dst, ',')
	}
	o.dst = append(append(append(o.dst, '"'), name...), '"', ':')
}

// item opens a list before its first item and separates the others.
func (o *jsonObject) item(i int) {
	if i == 0 {
		o.dst = append(o.dst, '[')
	} else {
		o.dst = append(o.dst, ',')
	}
}

func (o *jsonObject) text(name, value string) {
	if value != "" {
		o.key(name)
		o.dst = appendJSONString(o.dst, value)
	}
}

func (o *jsonObject) truth(name string, value bool) {
	if value {
		o.key(name)
		o.dst = append(o.dst, "true"...)
	}
}

func (o *jsonObject) number(name string, value int64) {
	o.key(name)
	o.dst = strconv.AppendInt(o.dst, value, 10)
}

func (o *jsonObject) time(name string, value *time.Time) {
	if value != nil {
		o.key(name)
		o.dst = append(value.AppendFormat(append(o.dst, '"'), time.RFC3339Nano), '"')
	}
}

func (o *jsonObject) headers(name string, headers []Header) {
	if len(headers) == 0 {
		return
	}
	o.key(name)
	for i, h := range headers {
		o.item(i)
		o.dst = appendJSONString(append(o.dst, `{"name":`...), h.Name)
		o.dst = appendJSONString(append(o.dst, `,"value":`...), h.Value)
		o.dst = append(o.dst, '}')
	}
	o.dst = append(o.dst, ']')
}

// appendJSONString leaves what needs escaping to encoding/json.
func appendJSONString(dst []byte, s string) []byte {
	for i := range len(s) {
		if b := s[i]; b < ' ' || b > '~' || b == '"' || b == '\\' || b == '<' || b == '>' || b == '&' {
			text, _ := json.Marshal(s) // cannot fail on a string
			return append(dst, text...)
		}
	}
	return append(append(append(dst, '"'), s...), '"')
}
