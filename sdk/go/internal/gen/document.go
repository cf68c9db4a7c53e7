package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// document is what is used of an OpenAPI 3.1 document.
type document struct {
	Paths      map[string]map[string]operation
	Components struct {
		Schemas map[string]schema
	}
}

type operation struct {
	ID          string `json:"operationId"`
	Summary     string
	Description string
	Deprecated  bool
	Scope       string `json:"x-scope"`
	Capability  string `json:"x-capability"`
	Parameters  []parameter
	RequestBody *content
	Responses   map[string]content

	method, path string
}

type parameter struct {
	Name, In    string
	Description string
	Schema      schema
}

type content struct {
	Content map[string]struct{ Schema schema }
}

type schema struct {
	Ref                  string `json:"$ref"`
	Type                 types
	Format               string
	Description          string
	Deprecated           bool
	Enum                 []any
	Default              any
	Minimum              *float64
	Items                *schema
	Properties           map[string]schema
	Required             []string
	AdditionalProperties additional
}

// types is a schema's type: one word or, with null, a list.
type types struct {
	name     string // "" = any
	nullable bool
}

func (t *types) UnmarshalJSON(text []byte) error {
	var list []string
	if json.Unmarshal(text, &list) != nil {
		return json.Unmarshal(text, &t.name)
	}
	for _, name := range list {
		switch {
		case name == "null":
			t.nullable = true
		case t.name != "":
			return fmt.Errorf("a value is of one type or null, not %s", text)
		default:
			t.name = name
		}
	}
	return nil
}

// additional is what an object may have beside its properties.
type additional struct{ of *schema } // nil = anything

func (a *additional) UnmarshalJSON(text []byte) error {
	if text[0] != '{' {
		return nil
	}
	return json.Unmarshal(text, &a.of)
}

// methods in the order in which operations of one path are written.
var methods = []string{"get", "post", "put", "patch", "delete"}

// operations are all of them, in the order of their paths.
func (d document) operations() (all []operation, err error) {
	for path, item := range d.Paths {
		for method, op := range item {
			if !slices.Contains(methods, method) {
				return nil, fmt.Errorf("%s %s: there is no place for this method", method, path)
			}
			op.method, op.path = method, path
			all = append(all, op)
		}
	}
	slices.SortFunc(all, func(a, b operation) int {
		return cmp.Or(strings.Compare(a.path, b.path), slices.Index(methods, a.method)-slices.Index(methods, b.method))
	})
	return all, nil
}

// input is the schema of an operation's body.
func (op operation) input() (s schema, ok bool) {
	if op.RequestBody == nil {
		return s, false
	}
	media, ok := op.RequestBody.Content["application/json"]
	return media.Schema, ok
}

// output is the schema of what an operation answers when all is well; those of several statuses are one.
func (op operation) output() (s schema, ok bool) {
	for status, answer := range op.Responses {
		if media, has := answer.Content["application/json"]; has && status < "3" {
			return media.Schema, true
		}
	}
	return s, false
}

func (op operation) parametersIn(where string) (list []parameter) {
	for _, p := range op.Parameters {
		if p.In == where {
			list = append(list, p)
		}
	}
	return list
}

// refs are the names of the schemas that a schema is made of, itself included.
func (d document) refs(s schema) map[string]bool {
	found := map[string]bool{}
	var walk func(s schema)
	walk = func(s schema) {
		if name := s.refName(); s.Ref != "" {
			if found[name] {
				return
			}
			found[name] = true
			s = d.Components.Schemas[name]
		}
		for _, p := range s.Properties {
			walk(p)
		}
		if s.Items != nil {
			walk(*s.Items)
		}
		if s.AdditionalProperties.of != nil {
			walk(*s.AdditionalProperties.of)
		}
	}
	walk(s)
	return found
}

func (s schema) refName() string { return strings.TrimPrefix(s.Ref, "#/components/schemas/") }

// fields are the names of an object's properties: what is required in the order of the document, then
// the others.
func (s schema) fields() []string {
	names := slices.Clone(s.Required)
	var others []string
	for name := range s.Properties {
		if !slices.Contains(names, name) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	return slices.DeleteFunc(append(names, others...), func(name string) bool { return s.Properties[name].left() })
}

// left reports whether the SDK leaves a property out: older names are there for clients that are older
// than this one.
func (s schema) left() bool { return s.Deprecated || s.Description == "Not supported." }

// pageOf is the schema of a list's items, if the schema is a page of a list.
func (d document) pageOf(page schema) (item schema, ok bool) {
	if page.Ref != "" {
		page = d.Components.Schemas[page.refName()]
	}
	data, ok := page.Properties["data"]
	_, iterates := page.Properties["iterator"]
	if !ok || !iterates || data.Items == nil {
		return schema{}, false
	}
	return *data.Items, true
}
