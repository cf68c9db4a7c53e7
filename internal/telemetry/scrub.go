package telemetry

import (
	"bytes"
	"io"
	"regexp"
	"unicode/utf8"
)

// scrubber is the last gate before the log: it sees whole finished lines, so nothing that any package
// put into a message, an error or a nested value gets round it.
type scrubber struct{ w io.Writer }

// Write writes one line, masked.
func (s *scrubber) Write(line []byte) (int, error) {
	if _, err := s.w.Write(escape(mask(line))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// shapes are what our secrets look like, each with a fixed text that must be there, since looking for
// that is much cheaper than the expression.
var shapes = []struct {
	sign string
	find *regexp.Regexp
	with []byte
}{
	{"whsec_", regexp.MustCompile(`whsec_[A-Za-z0-9+/=_-]+`), []byte("whsec_" + redacted)},
	{"whsk_", regexp.MustCompile(`whsk_[A-Za-z0-9+/=_-]+`), []byte("whsk_" + redacted)},
	{"phk_", regexp.MustCompile(`phk_[A-Za-z0-9]{5,}(_[A-Za-z0-9]*)?`), []byte("phk_" + redacted)},
	{"earer ", regexp.MustCompile(`([Bb]earer )[A-Za-z0-9._~+/=-]+`), []byte("${1}" + redacted)},
	{"asic ", regexp.MustCompile(`(Basic )[A-Za-z0-9+/=]{8,}`), []byte("${1}" + redacted)},
	{"@", regexp.MustCompile(`(://)[^\s"]+@`), []byte("${1}" + redacted + "@")},
}

func mask(line []byte) []byte {
	for _, s := range shapes {
		if bytes.Contains(line, []byte(s.sign)) {
			line = s.find.ReplaceAll(line, s.with)
		}
	}
	return line
}

// escape writes as \uXXXX what the handlers let through and a terminal may obey or a reader may be
// fooled by: DEL, the C1 controls (0x9b alone begins an escape sequence), and the marks that turn the
// direction of text or break lines in Unicode.
func escape(line []byte) []byte {
	clean := true
	for _, b := range line {
		if b >= 0x7f {
			clean = false
			break
		}
	}
	if clean {
		return line
	}
	out := make([]byte, 0, len(line)+16)
	for rest := line; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			out = append(out, `\ufffd`...)
		case obeyed(r):
			const digits = "0123456789abcdef"
			out = append(out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
		default:
			out = append(out, rest[:size]...)
		}
		rest = rest[size:]
	}
	return out
}

func obeyed(r rune) bool {
	switch {
	case r >= 0x7f && r <= 0x9f, // DEL and C1
		r == 0x061c, r == 0x200e, r == 0x200f, // direction marks
		r >= 0x2028 && r <= 0x202e, // line and paragraph separator, embeddings and overrides
		r >= 0x2066 && r <= 0x2069: // isolates
		return true
	}
	return false
}
