package reference

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
)

// token is a piece of text and how it is shown; "" is plainly.
type token struct{ Class, Text string }

// inline is prose in which `this` is code.
func inline(text string) (out []token) {
	for i, part := range strings.Split(text, "`") {
		class := ""
		if i%2 == 1 {
			class = "code"
		}
		if part != "" {
			out = append(out, token{class, part})
		}
	}
	return out
}

var jsonParts = regexp.MustCompile(`("(?:[^"\\]|\\.)*")(\s*:)?|(-?\d[\d.eE+-]*|true|false|null)`)

// highlight tells the parts of a JSON text from each other.
func highlight(text string) (out []token) {
	at := 0
	for _, m := range jsonParts.FindAllStringSubmatchIndex(text, -1) {
		if m[0] > at {
			out = append(out, token{"", text[at:m[0]]})
		}
		switch {
		case m[4] >= 0:
			out = append(out, token{"key", text[m[2]:m[3]]}, token{"", text[m[4]:m[5]]})
		case m[2] >= 0:
			out = append(out, token{"string", text[m[2]:m[3]]})
		default:
			out = append(out, token{"number", text[m[6]:m[7]]})
		}
		at = m[1]
	}
	if at < len(text) {
		out = append(out, token{"", text[at:]})
	}
	return out
}

// pretty writes a value as JSON for people: short lists and objects on one line.
func pretty(v any) (string, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return layout(bytes.TrimSpace(text.Bytes()), "")
}

// lineWidth is how long a line of an example may get.
const lineWidth = 56

// layout lays out compact JSON below an indentation.
func layout(compact []byte, indent string) (string, error) {
	spaced := space(compact)
	if len(indent)+len([]rune(spaced)) <= lineWidth || len(compact) == 0 || compact[0] != '{' && compact[0] != '[' {
		return spaced, nil
	}
	dec := json.NewDecoder(bytes.NewReader(compact))
	open, err := dec.Token()
	if err != nil {
		return "", err
	}
	const step = "  "
	var lines []string
	for dec.More() {
		name := ""
		if open == json.Delim('{') {
			key, err := dec.Token()
			if err != nil {
				return "", err
			}
			quoted, err := json.Marshal(key)
			if err != nil {
				return "", err
			}
			name = string(quoted) + ": "
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return "", err
		}
		below, err := layout(value, indent+step)
		if err != nil {
			return "", err
		}
		lines = append(lines, indent+step+name+below)
	}
	closing := "}"
	if open == json.Delim('[') {
		closing = "]"
	}
	return string(compact[0]) + "\n" + strings.Join(lines, ",\n") + "\n" + indent + closing, nil
}

// space puts a space behind every colon and comma of compact JSON, outside of strings.
func space(compact []byte) string {
	var b strings.Builder
	quoted, escaped := false, false
	for _, c := range compact {
		b.WriteByte(c)
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ':' || c == ','):
			b.WriteByte(' ')
		}
	}
	return b.String()
}
