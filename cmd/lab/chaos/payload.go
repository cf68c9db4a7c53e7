package chaos

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
)

// tag is what every payload carries, so that the sink can tell whose message it got.
type tag struct {
	Tenant int `json:"tenant"`
	Seq    int `json:"seq"`
}

// body is the shape of a payload: the tag, and filling of varying size that no two messages share.
type body struct {
	Lab  *tag   `json:"lab"`
	Fill string `json:"fill"`
}

const (
	fillLeast = 100
	fillMost  = 700
)

// payload makes a message's payload. It holds characters that a careless path through JSON would
// rewrite: the bytes that arrive must be these.
func payload(t tag, random *rand.Rand) []byte {
	var fill strings.Builder
	for size := fillLeast + random.IntN(fillMost-fillLeast); fill.Len() < size; {
		fill.WriteString([]string{"a", "Z", " ", "é", "<", "&", "\\/", "\\u0041", "\\u0000", "€"}[random.IntN(10)])
	}
	text, _ := json.Marshal(t) // two numbers
	var out bytes.Buffer
	out.WriteString(`{"lab":`)
	out.Write(text)
	out.WriteString(`, "fill":"` + fill.String() + `","n":1.0e2}`)
	return out.Bytes()
}

// readTag finds out whose payload this is; false means nobody's.
func readTag(text []byte) (tag, bool) {
	var b body
	if err := json.Unmarshal(text, &b); err != nil || b.Lab == nil {
		return tag{Seq: -1}, false
	}
	return *b.Lab, true
}
