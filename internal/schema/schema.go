// Package schema checks payloads against the JSON Schemas that tenants write, within bounds: a schema
// is a stranger's program that runs in our process.
//
//   - Nothing is fetched: a reference leads into the schema itself or to the drafts of JSON Schema.
//   - Patterns are RE2, and small, so that matching takes time proportional to the text.
//   - A check counts its time while it runs and gives up; what it does between two looks at the clock is
//     bounded by the sizes of the schema and of the payload.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Limits of a schema besides webhook.MaxSchema and webhook.MaxSchemaDepth, and of a check. A payload
// over them is not refused as such: it cannot be checked.
const (
	maxNodes    = 2000     // objects, arrays and booleans of a schema, each of which may be a schema
	maxPattern  = 1000     // instructions of a compiled pattern
	maxMatch    = 1 << 20  // characters × instructions of one match
	maxValues   = 10_000   // values of a payload
	maxCompares = 500_000  // values of a payload × the longest list of a schema
	maxText     = 64 << 10 // bytes of one text of a payload
	maxNumber   = 40       // characters of a number
	maxExponent = 400      // of a number: 1e1000000 is three hundred kilobytes once it is compared
	// maxTime is how long one check may take.
	maxTime = 50 * time.Millisecond
	// restAfter is for how long a schema is not tried again once a check took too long, so that a stream
	// of such payloads costs a fraction of a core.
	restAfter = time.Second
)

// ErrCost says that a payload could not be checked within the limits.
var ErrCost = errors.New("the check takes too much")

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	compiled *jsonschema.Schema
	longest  int // list in the schema
	clock    *clock

	mu    sync.Mutex // the library gives a running check no place of its own, so there is one at a time
	tired time.Time  // when a check last took too long
}

// clock is looked at while a check runs; over its end, the check panics with ErrCost, which Check catches.
type clock struct{ end time.Time }

func (c *clock) look() {
	if !c.end.IsZero() && time.Now().After(c.end) {
		panic(ErrCost)
	}
}

// noLoader refuses whatever a schema refers to outside of itself, be it on the network or on our disk.
type noLoader struct{}

// Load refuses.
func (noLoader) Load(string) (any, error) {
	return nil, errors.New("a reference may only lead into the schema itself")
}

// Compile checks a schema as a schema. Its error is one sentence for the schema's author.
func Compile(text []byte) (*Schema, error) {
	if len(text) > webhook.MaxSchema {
		return nil, fmt.Errorf("must be at most %d bytes as JSON", webhook.MaxSchema)
	}
	doc, err := decode(text)
	if err != nil {
		return nil, errors.New("is not valid JSON")
	}
	size, err := measure(doc)
	switch {
	case err != nil:
		return nil, err
	case size.depth > webhook.MaxSchemaDepth:
		return nil, fmt.Errorf("must not nest deeper than %d levels", webhook.MaxSchemaDepth)
	case size.nodes > maxNodes:
		return nil, fmt.Errorf("must not have more than %d objects, lists and booleans", maxNodes)
	}
	forgetRegexFormat(doc)
	s := &Schema{longest: size.longest, clock: &clock{}}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.UseLoader(noLoader{})
	c.UseRegexpEngine(s.clock.pattern)
	c.RegisterVocabulary(s.clock.vocabulary())
	c.AssertVocabs()
	const place = "schema:///this"
	if err := c.AddResource(place, doc); err != nil {
		return nil, errors.New("is not a JSON Schema")
	}
	if s.compiled, err = c.Compile(place); err != nil {
		return nil, complaint(err)
	}
	if s.compiled.DraftVersion < 7 {
		return nil, errors.New("must be of draft 7 or newer")
	}
	return s, nil
}

// complaint says what is wrong with a schema, of which the library quotes as much as it likes.
func complaint(err error) error {
	var invalid *jsonschema.ValidationError
	if e := (*jsonschema.SchemaValidationError)(nil); errors.As(err, &e) {
		errors.As(e.Err, &invalid)
	}
	if invalid != nil {
		if found := mismatches(invalid); len(found) > 0 {
			return fmt.Errorf("is not a JSON Schema: at /%s it %s", strings.Join(found[0].Path, "/"), found[0].Rule)
		}
	}
	if e := (*jsonschema.LoadURLError)(nil); errors.As(err, &e) {
		return fmt.Errorf("refers to %.200q: a reference may only lead into the schema itself", e.URL)
	}
	return fmt.Errorf("cannot be compiled: %.200s", err.Error())
}

// pattern compiles a pattern of a schema.
func (c *clock) pattern(text string) (jsonschema.Regexp, error) {
	parsed, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, errors.New("is not a pattern of RE2")
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxPattern {
		return nil, errors.New("is too large a pattern")
	}
	compiled, err := regexp.Compile(text)
	if err != nil {
		return nil, errors.New("is not a pattern of RE2")
	}
	return &pattern{compiled, len(program.Inst), c}, nil
}

type pattern struct {
	*regexp.Regexp
	size  int
	clock *clock
}

// MatchString matches what can be matched in a bounded time.
func (p *pattern) MatchString(text string) bool {
	if p.clock.look(); len(text)*p.size > maxMatch {
		panic(ErrCost)
	}
	return p.Regexp.MatchString(text)
}

// vocabulary has no words of its own. It is how the clock is looked at after every schema within the
// schema, however many ways a check takes through them.
func (c *clock) vocabulary() *jsonschema.Vocabulary {
	return &jsonschema.Vocabulary{
		URL: "schema:/clock",
		Compile: func(*jsonschema.CompilerContext, map[string]any) (jsonschema.SchemaExt, error) {
			return c, nil
		},
	}
}

// Validate looks at the clock.
func (c *clock) Validate(*jsonschema.ValidatorContext, any) { c.look() }

// Check returns where a payload does not fit, nothing if it does. ErrCost says that nobody knows.
func (s *Schema) Check(payload []byte) (found []Mismatch, err error) {
	doc, err := decode(payload)
	if err != nil {
		return nil, ErrCost // numbers or nesting that only we cannot hold: it was valid JSON when it came in
	}
	size, err := measure(doc)
	if err != nil || size.values > maxValues || size.text > maxText || size.values*s.longest > maxCompares {
		return nil, ErrCost
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	start := time.Now()
	if !s.tired.IsZero() && start.Sub(s.tired) < restAfter {
		return nil, ErrCost
	}
	defer func() {
		s.clock.end = time.Time{}
		if caught := recover(); caught != nil {
			if caught != any(ErrCost) {
				panic(caught)
			}
			s.tired = time.Now()
			found, err = nil, ErrCost
		}
	}()
	s.clock.end = start.Add(maxTime)
	var invalid *jsonschema.ValidationError
	if errors.As(s.compiled.Validate(doc), &invalid) {
		found = mismatches(invalid)
		for i := range found {
			found[i].Path = marked(doc, found[i].Path)
		}
	}
	return found, nil
}

// marked is a path whose steps into lists are written [n], which tells them from members called n.
func marked(v any, path []string) []string {
	out := make([]string, len(path))
	for i, step := range path {
		switch at := v.(type) {
		case map[string]any:
			out[i], v = step, at[step]
		case []any:
			out[i], v = "["+step+"]", nil
			if n, err := strconv.Atoi(step); err == nil && n < len(at) {
				v = at[n]
			}
		}
	}
	return out
}

func decode(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

// extent is how large a JSON value is, in what makes a check expensive.
type extent struct {
	depth, values, nodes int
	longest              int // list
	text                 int // bytes of the longest text
}

// measure refuses numbers that cannot be compared cheaply.
func measure(v any) (e extent, err error) {
	err = e.add(v, 1)
	return e, err
}

func (e *extent) add(v any, depth int) error {
	e.values++
	switch v := v.(type) {
	case bool:
		e.nodes++
	case string:
		e.text = max(e.text, len(v))
	case json.Number:
		if !isModest(v) {
			return errors.New("must not have numbers of more than " + strconv.Itoa(maxNumber) + " digits")
		}
	case []any:
		e.nodes++
		e.depth, e.longest = max(e.depth, depth), max(e.longest, len(v))
		for _, item := range v {
			if err := e.add(item, depth+1); err != nil {
				return err
			}
		}
	case map[string]any:
		e.nodes++
		e.depth = max(e.depth, depth)
		for name, item := range v {
			e.text = max(e.text, len(name))
			if err := e.add(item, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func isModest(n json.Number) bool {
	if len(n) > maxNumber {
		return false
	}
	at := strings.IndexAny(string(n), "eE")
	if at < 0 {
		return true
	}
	exponent, err := strconv.Atoi(string(n[at+1:]))
	return err == nil && -maxExponent <= exponent && exponent <= maxExponent
}

// forgetRegexFormat makes "format": "regex" say nothing: it would compile texts of payloads, and
// compiling is where a pattern is expensive.
func forgetRegexFormat(v any) {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			forgetRegexFormat(item)
		}
	case map[string]any:
		if v["format"] == "regex" {
			delete(v, "format")
		}
		for _, item := range v {
			forgetRegexFormat(item)
		}
	}
}
