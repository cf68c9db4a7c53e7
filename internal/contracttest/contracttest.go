// Package contracttest knows what client libraries of this API's dialect demand of every answer, and
// checks answers for it and for the server's own description. For tests only.
//
// facts.json was derived from the two published OpenAPI documents of the dialect, that of the
// open-source server and that of the hosted service. It holds what a strict client of either fails on:
// a field is required if one of them says so, may be null only if both do, and has the narrower set of
// values. To that it adds the fields that only clients before 2.0 read, one of which they require.
package contracttest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed facts.json
var factsText []byte

// schema is what is known of a value.
type schema struct {
	Ref         string            `json:"ref"`
	Type        string            `json:"type"`
	Format      string            `json:"format"`
	Pattern     string            `json:"pattern"`
	Nullable    bool              `json:"nullable"`
	Enum        []any             `json:"enum"`
	Expanded    []any             `json:"expanded"` // instead of Enum, for who asks for expanded_statuses
	MinLength   int               `json:"minLength"`
	MaxLength   int               `json:"maxLength"` // 0 = any
	MinItems    int               `json:"minItems"`
	MaxItems    int               `json:"maxItems"` // 0 = any
	UniqueItems bool              `json:"uniqueItems"`
	Items       *schema           `json:"items"`
	Required    []string          `json:"required"`
	Properties  map[string]schema `json:"properties"`
	Values      *schema           `json:"values"` // of an object's members that are not properties
}

// facts are the schemas by name, and what an operation ("GET /api/v1/app") answers with by status; ""
// stands for no body.
type facts struct {
	Operations map[string]map[string]string `json:"operations"`
	Schemas    map[string]schema            `json:"schemas"`
}

// load reads the table; it is part of the program, so it cannot be wrong for a caller only.
var load = sync.OnceValue(func() facts {
	var f facts
	dec := json.NewDecoder(bytes.NewReader(factsText))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		panic(fmt.Sprintf("contracttest: facts.json: %v", err))
	}
	for name, s := range f.Schemas {
		if s.Properties != nil {
			s.Type = "object"
			f.Schemas[name] = s
		}
	}
	return f
})

// Operations lists the keys of all operations that clients have, sorted.
func Operations() []string { return slices.Sorted(maps.Keys(load().Operations)) }

// Operation is the key under which a request is known, and whether it is: "GET /api/v1/app/{app_id}".
// The path is the one that was asked for, without a query.
func Operation(method, path string) (key string, known bool) {
	path = "/" + strings.Trim(path, "/")
	best := -1
	for candidate := range load().Operations {
		m, template, _ := strings.Cut(candidate, " ")
		if m != method {
			continue
		}
		// Of two that match, the one with more words of its own is meant: /msg/bulk-expunge is no message.
		if literal, ok := matches(template, path); ok && literal > best {
			best, key = literal, candidate
		}
	}
	return key, best >= 0
}

// matches reports whether a path is one of a template, and how many of its parts are literal.
func matches(template, path string) (literal int, ok bool) {
	want, have := strings.Split(template, "/"), strings.Split(path, "/")
	if len(want) != len(have) {
		return 0, false
	}
	for i, part := range want {
		switch {
		case strings.HasPrefix(part, "{"):
			if have[i] == "" {
				return 0, false
			}
		case part != have[i]:
			return 0, false
		default:
			literal++
		}
	}
	return literal, true
}

// Problems lists what a client would stumble over in an answer: its status, its header and its body,
// which was read whole. Answers to requests that no client makes have only their errors checked.
func Problems(req *http.Request, status int, header http.Header, body []byte) []string {
	if !strings.HasPrefix(evened(req.URL.Path), "/api/") || req.Method == http.MethodHead || req.Method == http.MethodOptions {
		return nil
	}
	if status >= 300 && status < 400 {
		return []string{"a redirect, which clients follow without the body or not at all"}
	}
	if status >= 400 {
		return errorProblems(status, header, body)
	}
	operation, known := Operation(req.Method, evened(req.URL.Path))
	if !known {
		return nil
	}
	name, ok := load().Operations[operation][strconv.Itoa(status)]
	if !ok {
		return []string{fmt.Sprintf("%s does not answer with %d", operation, status)}
	}
	if name == "" {
		if len(body) > 0 {
			return []string{"a body, where clients expect none"}
		}
		return nil
	}
	v, err := decode(body)
	if err != nil {
		return []string{err.Error()}
	}
	expanded, _ := strconv.ParseBool(req.URL.Query().Get("expanded_statuses"))
	return checker{load().Schemas, expanded}.check(schema{Ref: name}, v, "body")
}

// evened is a path without the slashes that clients add by accident.
func evened(path string) string { return "/" + strings.Trim(path, "/") }

func decode(body []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber() // a payload may hold numbers beyond float64
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return v, nil
}

// What clients read of an error. They parse the body of every one of them, whatever it is about.
var (
	plainError = schema{Type: "object", Required: []string{"code", "detail"}, Properties: map[string]schema{
		"code": {Type: "string", MinLength: 1}, "detail": {Type: "string", MinLength: 1},
	}}
	fieldError = schema{Type: "object", Required: []string{"detail"}, Properties: map[string]schema{
		"detail": {Type: "array", MinItems: 1, Items: &schema{Type: "object", Required: []string{"loc", "msg", "type"}, Properties: map[string]schema{
			"loc":  {Type: "array", MinItems: 1, Items: &schema{Type: "string"}},
			"msg":  {Type: "string", MinLength: 1},
			"type": {Type: "string", MinLength: 1},
		}}},
	}}
)

func errorProblems(status int, header http.Header, body []byte) []string {
	if !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
		return []string{"an error that is not said to be JSON"}
	}
	v, err := decode(body)
	if err != nil {
		return []string{err.Error()}
	}
	var c checker
	problems := c.check(plainError, v, "body")
	if status == http.StatusUnprocessableEntity && len(problems) > 0 {
		problems = c.check(fieldError, v, "body")
	}
	return problems
}

// checker holds a value against a schema.
type checker struct {
	schemas  map[string]schema
	expanded bool // the request asked for expanded_statuses
}

func (c checker) check(s schema, v any, at string) (out []string) {
	if v == nil {
		if !s.Nullable {
			return []string{at + " is null"}
		}
		return nil
	}
	if s.Ref != "" {
		return c.check(c.schemas[s.Ref], v, at)
	}
	enum := s.Enum
	if c.expanded && s.Expanded != nil {
		enum = s.Expanded
	}
	if enum != nil && !slices.ContainsFunc(enum, func(one any) bool { return fmt.Sprint(one) == fmt.Sprint(v) }) {
		out = append(out, fmt.Sprintf("%s = %v is not one of %v", at, v, enum))
	}
	switch v := v.(type) {
	case string:
		if s.Type != "string" {
			return append(out, at+" is a string, not "+s.Type)
		}
		return append(out, text(s, v, at)...)
	case bool:
		if s.Type != "boolean" {
			return append(out, at+" is a boolean, not "+s.Type)
		}
	case json.Number:
		if s.Type != "integer" && s.Type != "number" {
			return append(out, at+" is a number, not "+s.Type)
		}
		if !fits(v, s) {
			return append(out, fmt.Sprintf("%s = %s does not fit %s %s", at, v, s.Type, s.Format))
		}
	case []any:
		if s.Type != "array" {
			return append(out, at+" is an array, not "+s.Type)
		}
		return append(out, c.items(s, v, at)...)
	case map[string]any:
		if s.Type != "object" {
			return append(out, at+" is an object, not "+s.Type)
		}
		return append(out, c.members(s, v, at)...)
	}
	return out
}

func (c checker) items(s schema, items []any, at string) (out []string) {
	if len(items) < s.MinItems || s.MaxItems > 0 && len(items) > s.MaxItems {
		out = append(out, fmt.Sprintf("%s has %d items", at, len(items)))
	}
	seen := map[string]bool{}
	for i, item := range items {
		if text := fmt.Sprint(item); s.UniqueItems && seen[text] {
			out = append(out, fmt.Sprintf("%s has %s twice", at, text))
		} else {
			seen[text] = true
		}
		if s.Items != nil {
			out = append(out, c.check(*s.Items, item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	}
	return out
}

// members checks an object. What else it has is as well: clients overlook what they do not know.
func (c checker) members(s schema, v map[string]any, at string) (out []string) {
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			out = append(out, at+" lacks "+name)
		}
	}
	for name, member := range v {
		if inner, ok := s.Properties[name]; ok {
			out = append(out, c.check(inner, member, at+"."+name)...)
		} else if s.Values != nil {
			out = append(out, c.check(*s.Values, member, at+"."+name)...)
		}
	}
	slices.Sort(out)
	return out
}

func text(s schema, v, at string) (out []string) {
	if len(v) < s.MinLength || s.MaxLength > 0 && len(v) > s.MaxLength {
		out = append(out, fmt.Sprintf("%s has %d bytes", at, len(v)))
	}
	if s.Pattern != "" && !pattern(s.Pattern).MatchString(v) {
		out = append(out, fmt.Sprintf("%s = %.100q does not match %s", at, v, s.Pattern))
	}
	switch s.Format {
	case "date-time":
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			out = append(out, fmt.Sprintf("%s = %.100q is no time", at, v))
		}
	case "uri":
		if u, err := url.Parse(v); err != nil || !u.IsAbs() {
			out = append(out, fmt.Sprintf("%s = %.100q is no absolute URL", at, v))
		}
	}
	return out
}

// patterns are those compiled so far: a long page holds the same few hundreds of times.
var patterns sync.Map

func pattern(text string) *regexp.Regexp {
	if known, ok := patterns.Load(text); ok {
		return known.(*regexp.Regexp)
	}
	compiled := regexp.MustCompile(text)
	patterns.Store(text, compiled)
	return compiled
}

// bits are the widths of the integers that typed clients read into.
var bits = map[string]int{"int16": 16, "int32": 32, "int64": 64, "uint16": 16, "uint32": 32, "uint64": 64}

func fits(v json.Number, s schema) bool {
	if s.Type == "number" {
		return true
	}
	width := bits[s.Format]
	if width == 0 {
		width = 64
	}
	var err error
	if strings.HasPrefix(s.Format, "u") {
		_, err = strconv.ParseUint(v.String(), 10, width)
	} else {
		_, err = strconv.ParseInt(v.String(), 10, width)
	}
	return err == nil
}
