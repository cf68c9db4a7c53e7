package reference

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxDepth bounds how deep fields within fields are shown; what the document describes ends before.
const maxDepth = 6

// field is one row of a table of fields or parameters.
type field struct {
	Name        string
	Type        string
	Null        bool
	Required    bool
	Absent      bool // in an answer: it may be
	Deprecated  bool
	Rules       []string // each a phrase
	Values      []string // all it may be
	Default     string
	Description []token
	Fields      []field // within it
	Within      string  // what Fields are of, such as "items"
}

func (d *document) field(name string, s *schema, depth int) field {
	f := field{Name: name, Description: inline(s.Description), Deprecated: s.Deprecated}
	target, _ := d.resolve(s)
	if s.Description == "" {
		f.Description = inline(target.Description)
	}
	f.Type, f.Null = d.typeOf(target)
	f.Rules, f.Values = rules(target), values(target.Enum)
	if len(target.Default) > 0 {
		f.Default = string(target.Default)
	}
	of := target
	for item := target.Items; item != nil; item = of.Items {
		if of, _ = d.resolve(item); of.Items == nil {
			f.Within = "each item"
			if len(of.Properties) == 0 {
				each := rules(of)
				if len(each) > 0 {
					each[0] = "each " + each[0]
				}
				f.Rules = append(f.Rules, each...)
				f.Values = append(f.Values, values(of.Enum)...)
			}
		}
	}
	if target.Additional.schema != nil {
		of, _ = d.resolve(target.Additional.schema)
		f.Within = "each value"
	}
	if depth < maxDepth {
		f.Fields = d.fields(of, depth+1)
	}
	return f
}

// fields are the properties of an object: the required ones in the order of the document, then the
// others, and last what is deprecated.
func (d *document) fields(s *schema, depth int) (out []field) {
	s, _ = d.resolve(s)
	names := slices.Sorted(maps.Keys(s.Properties))
	place := func(name string) int {
		if i := slices.Index(s.Required, name); i >= 0 {
			return i
		}
		return len(s.Required)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		if old := s.Properties[a].Deprecated; old != s.Properties[b].Deprecated {
			if old {
				return 1
			}
			return -1
		}
		return place(a) - place(b)
	})
	for _, name := range names {
		f := d.field(name, s.Properties[name], depth)
		f.Required = slices.Contains(s.Required, name)
		out = append(out, f)
	}
	return out
}

// answered are the fields of an answer, where it is the absent ones that are worth a word.
func answered(fields []field) []field {
	for i := range fields {
		fields[i].Required, fields[i].Absent = false, !fields[i].Required
		answered(fields[i].Fields)
	}
	return fields
}

// typeOf says in words what a value is, and whether it may be null.
func (d *document) typeOf(s *schema) (text string, null bool) {
	s, name := d.resolve(s)
	var words []string
	for _, t := range s.Type {
		switch {
		case t == "null":
			null = true
		case t == "array" && s.Items != nil:
			of, _ := d.typeOf(s.Items)
			words = append(words, "list of "+plural(of))
		case t == "object" && s.Additional.schema != nil:
			of, _ := d.typeOf(s.Additional.schema)
			words = append(words, "map of "+plural(of))
		case t == "string" && s.Format == "date-time":
			words = append(words, "date and time")
		default:
			words = append(words, t)
		}
	}
	if len(words) == 0 {
		if name != "" {
			return name, null
		}
		return "any", null
	}
	return strings.Join(words, " or "), null
}

func plural(word string) string {
	switch {
	case strings.HasPrefix(word, "list of "), strings.HasPrefix(word, "map of "), word == "any":
		return word
	case word == "date and time":
		return "dates and times"
	}
	return word + "s"
}

// rules are the limits of a value, in words.
func rules(s *schema) (out []string) {
	span := func(least, most, unit string) {
		switch {
		case least != "" && most != "" && least != most:
			out = append(out, least+" to "+most+unit)
		case most != "" && least == most:
			out = append(out, "exactly "+most+unit)
		case most != "":
			out = append(out, "at most "+most+unit)
		case least != "" && least != "0":
			out = append(out, "at least "+least+unit)
		}
	}
	number := func(n *json.Number) string {
		if n == nil {
			return ""
		}
		return thousands(n.String())
	}
	count := func(n *int) string {
		if n == nil {
			return ""
		}
		return thousands(strconv.Itoa(*n))
	}
	span(number(s.Minimum), number(s.Maximum), "")
	span(count(s.MinLength), count(s.MaxLength), " characters")
	span(count(s.MinItems), count(s.MaxItems), " items")
	switch {
	case s.PatternDescription != "":
		out = append(out, s.PatternDescription)
	case s.Pattern != "":
		out = append(out, "matches "+s.Pattern)
	}
	return out
}

// thousands writes 65536 as 65,536.
func thousands(n string) string {
	whole, rest, _ := strings.Cut(n, ".")
	for at := len(whole) - 3; at > 0 && whole[at-1] != '-'; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	if rest != "" {
		return whole + "." + rest
	}
	return whole
}

func values(enum []json.RawMessage) (out []string) {
	for _, one := range enum {
		out = append(out, string(one))
	}
	return out
}

// example is a value that fits a schema: what the document gives as one, or else what can be made of its
// parts. It has what is required, and in an
// answer also what the document has an example of.
func (d *document) example(s *schema, answer bool, depth int) any {
	target, _ := d.resolve(s)
	for _, given := range [][]json.RawMessage{s.Examples, target.Examples, target.Enum} {
		if len(given) > 0 {
			return given[0]
		}
	}
	if len(target.Default) > 0 {
		return target.Default
	}
	if depth > maxDepth {
		return nil
	}
	text, null := d.typeOf(target)
	switch {
	case len(target.AnyOf) > 0:
		return d.example(target.AnyOf[0], answer, depth+1)
	case target.Items != nil && answer:
		return []any{d.example(target.Items, answer, depth+1)}
	case target.Items != nil:
		if target.MinItems != nil && *target.MinItems > 0 {
			return []any{d.example(target.Items, answer, depth+1)}
		}
		return []any{}
	case len(target.Properties) > 0:
		object := object{}
		for _, f := range d.fields(target, maxDepth) {
			property := target.Properties[f.Name]
			if !f.Deprecated && (f.Required || answer && len(property.Examples) > 0) {
				object = append(object, member{f.Name, d.example(property, answer, depth+1)})
			}
		}
		return object
	case null:
		return nil
	}
	switch text {
	case "string":
		return "…"
	case "date and time":
		return "2026-03-02T09:26:53.117Z"
	case "integer", "number":
		return json.RawMessage("0")
	case "boolean":
		return false
	}
	return json.RawMessage("{}")
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON writes the members in their order.
func (o object) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", m.name, value)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}
