package api

import (
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/webhook"
)

// paramPlan is how the path and query of a request are read into a struct: fields with the tag path
// or query, those of embedded structs included. The same fields make the operation's parameters in
// the document.
type paramPlan struct {
	registry huma.Registry
	path     []paramField
	query    []paramField
}

type paramField struct {
	name     string
	index    []int
	typ      reflect.Type
	schema   *huma.Schema
	enum     []string
	fallback string // the default, as text
}

func newParamPlan(t reflect.Type, registry huma.Registry) *paramPlan {
	p := &paramPlan{registry: registry}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		if name := f.Tag.Get("path"); name != "" {
			p.path = append(p.path, newParamField(name, f, registry))
		}
		if name := f.Tag.Get("query"); name != "" {
			p.query = append(p.query, newParamField(name, f, registry))
		}
	}
	return p
}

func newParamField(name string, f reflect.StructField, registry huma.Registry) paramField {
	out := paramField{
		name: name, index: f.Index, typ: f.Type, fallback: f.Tag.Get("default"),
		schema: huma.SchemaFromField(registry, f, ""),
	}
	if enum := f.Tag.Get("enum"); enum != "" {
		out.enum = strings.Split(enum, ",")
	}
	return out
}

// parameters documents what read understands.
func (p *paramPlan) parameters() (out []*huma.Param) {
	for _, f := range p.path {
		out = append(out, f.parameter("path"))
	}
	for _, f := range p.query {
		out = append(out, f.parameter("query"))
	}
	return out
}

func (f paramField) parameter(in string) *huma.Param {
	schema := *f.schema
	schema.Description, schema.Nullable = "", false
	p := &huma.Param{Name: f.name, In: in, Required: in == "path", Schema: &schema, Description: f.schema.Description}
	if f.typ.Kind() == reflect.Slice {
		comma := false
		p.Explode = &comma
	}
	return p
}

// read fills the fields of to. A path segment that cannot name anything is not found; a query that
// cannot be understood is a bad request; one that can but breaks a rule is invalid.
func (p *paramPlan) read(c *gin.Context, to reflect.Value) error {
	for _, f := range p.path {
		segment := c.Param(f.name)
		if !isName(segment) {
			return webhook.ErrNotFound
		}
		to.FieldByIndex(f.index).SetString(segment)
	}
	if len(p.query) == 0 {
		return nil
	}
	query, err := url.ParseQuery(c.Request.URL.RawQuery)
	if err != nil {
		return &webhook.Error{Kind: webhook.KindBadRequest, Detail: "The query cannot be parsed"}
	}
	for _, f := range p.query {
		if err := f.read(query, p.registry, to.FieldByIndex(f.index)); err != nil {
			return err
		}
	}
	return nil
}

var (
	timeType   = reflect.TypeFor[time.Time]()
	intPtrType = reflect.TypeFor[*int]()
)

func (f paramField) read(query url.Values, registry huma.Registry, to reflect.Value) error {
	if f.typ.Kind() == reflect.Slice {
		return f.readList(query, registry, to)
	}
	text := query.Get(f.name)
	if text == "" {
		text = f.fallback
	}
	if text == "" {
		return nil
	}
	if f.enum != nil && !slices.Contains(f.enum, text) {
		return badQuery(f.name, "must be one of "+strings.Join(f.enum, ", "))
	}
	switch {
	case f.typ == timeType:
		t, ok := parseTime(text)
		if !ok {
			return badQuery(f.name, "must be a time as in RFC 3339")
		}
		to.Set(reflect.ValueOf(t))
		return nil
	case f.typ == intPtrType, f.typ.Kind() == reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return badQuery(f.name, "must be a whole number")
		}
		if f.typ == intPtrType {
			to.Set(reflect.ValueOf(&n))
		} else {
			to.SetInt(int64(n))
		}
		return f.check(registry, int64(n))
	case f.typ.Kind() == reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return badQuery(f.name, "must be true or false")
		}
		to.SetBool(b)
		return nil
	}
	to.SetString(text)
	return f.check(registry, text)
}

// maxListItems is how many values one query parameter may have.
const maxListItems = 500

// readList takes every way in which clients send a list: k=a,b and k=a&k=b and k[]=a and k[0]=a.
func (f paramField) readList(query url.Values, registry huma.Registry, to reflect.Value) error {
	var items []string
	take := func(values []string) {
		for _, value := range values {
			for item := range strings.SplitSeq(value, ",") {
				if item != "" {
					items = append(items, item)
				}
			}
		}
	}
	take(query[f.name])
	var indexed []string
	for name := range query {
		if rest, ok := strings.CutPrefix(name, f.name+"["); ok && strings.HasSuffix(rest, "]") {
			if _, err := strconv.ParseUint(rest[:len(rest)-1], 10, 16); err == nil || rest == "]" {
				indexed = append(indexed, name)
			}
		}
	}
	slices.Sort(indexed)
	for _, name := range indexed {
		take(query[name])
	}
	if len(items) == 0 {
		return nil
	}
	if len(items) > maxListItems {
		return invalidAt(typeValue, []string{"query", f.name}, "must not have more than "+strconv.Itoa(maxListItems)+" values")
	}
	list := reflect.MakeSlice(f.typ, len(items), len(items))
	for i, item := range items {
		list.Index(i).SetString(item)
	}
	to.Set(list)
	return f.check(registry, items)
}

func (f paramField) check(registry huma.Registry, v any) error {
	var result huma.ValidateResult
	huma.Validate(registry, f.schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, v, &result)
	if len(result.Errors) == 0 {
		return nil
	}
	return invalidAt(typeValue, []string{"query", f.name}, ruleOf(result.Errors[0]))
}

// ruleOf is what a check says, without the value it says it of.
func ruleOf(err error) string {
	if detail, ok := err.(*huma.ErrorDetail); ok {
		return detail.Message
	}
	return "is not valid"
}

// timeLayouts are the ways in which clients write a time: RFC 3339, the same without seconds when
// they are zero (Java), and a space with UTC spelled out. A fraction is understood behind any seconds.
var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05 UTC"}

// Times outside these years cannot be in an id, nor in every client's language.
const (
	minYear = 1970
	maxYear = 9999
)

func parseTime(text string) (time.Time, bool) {
	text = unplus(text)
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			t = t.UTC()
			return t, t.Year() >= minYear && t.Year() <= maxYear
		}
	}
	return time.Time{}, false
}

// unplus repairs a zone of which a client did not escape the plus, which means a space in a query.
func unplus(text string) string {
	if n := len(text); n > 6 && text[n-6] == ' ' && text[n-3] == ':' {
		return text[:n-6] + "+" + text[n-5:]
	}
	return text
}
