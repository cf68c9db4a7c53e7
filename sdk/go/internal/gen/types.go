package main

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// use is what a schema is used for, which decides how what may be absent is written.
type use int

const (
	sent     use = iota // absent is the zero value, where that means the same
	patched             // absent, null and a value are three things
	answered            // null is the zero value
)

// generator writes Go for a document.
type generator struct {
	doc document
	bytes.Buffer
	enums map[string]enum // by the key of their values
}

func (g *generator) line(format string, args ...any) { fmt.Fprintf(g, format+"\n", args...) }

// comment writes one, wrapped, at any indentation; gofmt sets it right.
func (g *generator) comment(text string) {
	const width = 110
	line := "//"
	for _, word := range strings.Fields(text) {
		if len(line)+len(word) >= width {
			g.line("%s", line)
			line = "//"
		}
		line += " " + word
	}
	if line != "//" {
		g.line("%s", line)
	}
}

// used is a schema as operations use it.
type used struct {
	use      use
	by       []string // operations that take it
	answerOf []string // operations that answer it
}

// uses are all schemas that operations take or answer, with what these are made of.
func (g *generator) uses(operations []operation) (map[string]*used, error) {
	all := map[string]*used{}
	for _, op := range operations {
		s, ok := op.input()
		if !ok {
			continue
		}
		for name := range g.doc.refs(s) {
			if all[name] == nil {
				all[name] = &used{use: sent}
			}
		}
		body := all[s.refName()]
		body.by = append(body.by, op.full())
		if op.method == "patch" && !plain[s.refName()] {
			body.use = patched
		}
	}
	for _, op := range operations {
		s, ok := op.output()
		if !ok {
			continue
		}
		for name := range g.doc.refs(s) {
			switch {
			case all[name] == nil:
				all[name] = &used{use: answered}
			case all[name].use != answered:
				// What may be absent is written otherwise in the two directions.
				return nil, fmt.Errorf("schema %s is sent and answered: use two", name)
			}
		}
		all[s.refName()].answerOf = append(all[s.refName()].answerOf, op.full())
	}
	return all, nil
}

// types writes every type that operations take or answer.
func (g *generator) types(operations []operation) error {
	uses, err := g.uses(operations)
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, schema := range slices.Sorted(maps.Keys(uses)) {
		s, name := g.doc.Components.Schemas[schema], typeName(schema)
		if _, isPage := g.doc.pageOf(s); isPage || len(s.fields()) == 0 {
			continue // pages are one type, and an operation that answers {} answers nothing
		}
		if was, taken := names[name]; taken {
			return fmt.Errorf("schemas %s and %s are both called %s", was, schema, name)
		}
		names[name] = schema
		g.line("")
		g.comment(name + " " + uses[schema].doc(name))
		g.line("type %s struct {", name)
		for _, field := range s.fields() {
			if err := g.field(name, field, s, uses[schema].use); err != nil {
				return err
			}
		}
		g.line("}")
	}
	return nil
}

// doc says what a type is, as the end of a sentence about it.
func (u *used) doc(name string) string {
	switch doc := typeDocs[name]; {
	case doc != "":
		return doc
	case len(u.by) > 0:
		return "is for " + list(u.by) + "."
	case len(u.answerOf) > 0:
		return "is the answer of " + list(u.answerOf) + "."
	case u.use == answered:
		return "is a part of what the API answers."
	}
	return "is a part of what is sent."
}

// list is a list in a sentence.
func list(items []string) string {
	if n := len(items) - 1; n > 0 {
		return strings.Join(items[:n], ", ") + " and " + items[n]
	}
	return items[0]
}

func (g *generator) field(owner, name string, s schema, u use) error {
	p, required := s.Properties[name], slices.Contains(s.Required, name)
	typ, err := g.goType(owner, name, p, u)
	if err != nil {
		return fmt.Errorf("%s.%s: %w", owner, name, err)
	}
	tag := name
	if u != answered && !required {
		tag += ",omitzero"
		switch {
		case u == patched && p.Type.nullable:
			typ = "Nullable[" + typ + "]"
		case u == patched, p.zeroMatters():
			typ = "Optional[" + typ + "]"
		}
	}
	if u == answered && !required && p.Ref != "" {
		typ = "*" + typ
	}
	g.comment(p.Description)
	g.line("%s %s `json:%q`", exported(name), typ, tag)
	return nil
}

// zeroMatters reports whether a value's zero says something else than its absence.
func (s schema) zeroMatters() bool {
	switch s.Type.name {
	case "boolean":
		return s.Default == true
	case "integer", "number":
		allowed := s.Minimum == nil || *s.Minimum <= 0
		if len(s.Enum) > 0 {
			allowed = slices.ContainsFunc(s.Enum, func(v any) bool { return v == 0.0 })
		}
		return allowed && (s.Default == nil || s.Default != 0.0)
	}
	return false
}

// goType is the Go type of a property or parameter.
func (g *generator) goType(owner, name string, s schema, u use) (string, error) {
	if s.Ref != "" {
		return typeName(s.refName()), nil
	}
	if typ, ok := propertyTypes[owner+"."+name]; ok {
		return typ, nil
	}
	if typ, ok := propertyTypes[name]; ok && u != answered && s.Type.name == "object" {
		return typ, nil
	}
	pointer := ""
	if u == answered && s.Type.nullable && !zeroIsNull[name] {
		pointer = "*"
	}
	if len(s.Enum) > 0 {
		if typ, ok := g.enum(owner, name, s); ok {
			return typ, nil
		}
	}
	switch s.Type.name {
	case "string":
		if s.Format == "date-time" {
			return "time.Time", nil
		}
		return "string", nil
	case "boolean":
		return pointer + "bool", nil
	case "integer":
		return pointer + "int", nil
	case "number":
		return pointer + "float64", nil
	case "array":
		of, err := g.itemType(owner, name, *s.Items, u)
		return "[]" + of, err
	case "object":
		if of := s.AdditionalProperties.of; of != nil {
			item, err := g.itemType(owner, "", *of, u)
			if of.Type.nullable {
				item = "*" + item
			}
			return "map[string]" + item, err
		}
		if u == answered {
			return "json.RawMessage", nil
		}
		return "any", nil
	}
	return "", fmt.Errorf("there is no Go type for %q", s.Type.name)
}

func (g *generator) itemType(owner, name string, s schema, u use) (string, error) {
	s.Type.nullable = false
	return g.goType(owner, name, s, u)
}

// enum is the type of a value that is one of a few. Values that are not known to the SDK are kept as
// they come, since the server may be younger.
func (g *generator) enum(owner, name string, s schema) (string, bool) {
	key := exported(name)
	for _, v := range s.Enum {
		key += fmt.Sprint(" ", v)
	}
	e, known := enums[key]
	if !known {
		if s.Type.name != "string" {
			return "", false // there are no words for its values
		}
		e = enum{name: owner + exported(name), doc: "is one of a few words"}
	}
	if _, written := g.enums[key]; !written {
		e.goType, e.of = "string", s.Enum
		if s.Type.name == "integer" {
			e.goType = "int"
		}
		g.enums[key] = e
	}
	return g.enums[key].name, true
}

// enumTypes writes the enums that were met.
func (g *generator) enumTypes() {
	for _, key := range slices.SortedFunc(maps.Keys(g.enums), func(a, b string) int { return strings.Compare(g.enums[a].name, g.enums[b].name) }) {
		e := g.enums[key]
		g.line("")
		g.comment(e.name + " is " + strings.TrimPrefix(e.doc, "is ") + ".")
		g.line("type %s %s", e.name, e.goType)
		g.line("")
		g.comment("The known values of " + e.name + "; a younger server may have more.")
		g.line("const (")
		for i, v := range e.of {
			word := fmt.Sprint(v)
			if len(e.values) > 0 {
				word = e.values[i]
			}
			g.line("%s%s %s = %s", e.name, exported(word), e.name, literal(v))
		}
		g.line(")")
	}
}

func literal(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(v)
}
