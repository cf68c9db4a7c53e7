package reference

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// view is what the template shows.
type view struct {
	Base, Document string
	Title, Version string
	Description    string
	Server         string
	Schemes        []scheme
	Errors         []errorRow
	ErrorExamples  []sample
	Groups         []group
}

type scheme struct{ Name, Description string }

type errorRow struct{ Status, Description string }

type group struct {
	ID, Name    string
	Description []token
	Operations  []operationView
}

type operationView struct {
	ID, Method, Summary string
	Path                []token
	Description         []token
	Deprecated          bool
	Access              []access
	Parameters          []parameters
	Body                []field
	BodyRequired        bool
	Answers             []answer
	Curl                []token
	Examples            []sample
}

// access is one way of being allowed to call an operation.
type access struct{ Credential, With, Name string }

type parameters struct {
	Where  string
	Fields []field
}

type answer struct {
	Status, Description string
	Fields              []field
	Empty               bool
}

// sample is an example with its heading.
type sample struct {
	Title string
	Text  []token
}

func (d *document) view(base, documentURL string) (view, error) {
	v := view{
		Base: base, Document: documentURL, Title: d.Info.Title, Version: d.Info.Version, Description: d.Info.Description,
	}
	if len(d.Servers) > 0 {
		v.Server = strings.TrimSuffix(d.Servers[0].URL, "/")
	}
	for _, name := range []string{"apiKey", "applicationToken", "operatorToken"} {
		if s, ok := d.Components.SecuritySchemes[name]; ok {
			v.Schemes = append(v.Schemes, scheme{credentials[name].name, s.Description})
		}
	}
	if err := d.errors(&v); err != nil {
		return view{}, err
	}
	rank := map[string]int{}
	for i, t := range d.Tags {
		rank[t.Name] = i + 1
		v.Groups = append(v.Groups, group{ID: slug(t.Name), Name: t.Name, Description: inline(t.Description)})
	}
	for _, at := range d.operations() {
		shown, err := d.operation(at, v.Server)
		if err != nil {
			return view{}, fmt.Errorf("%s: %w", at.operation.OperationID, err)
		}
		tag := "Other"
		if len(at.Tags) > 0 {
			tag = at.Tags[0]
		}
		if rank[tag] == 0 {
			v.Groups = append(v.Groups, group{ID: slug(tag), Name: tag})
			rank[tag] = len(v.Groups)
		}
		g := &v.Groups[rank[tag]-1]
		g.Operations = append(g.Operations, shown)
	}
	return v, nil
}

// errors shows the errors that operations share.
func (d *document) errors(v *view) error {
	for name, r := range d.Components.Responses {
		v.Errors = append(v.Errors, errorRow{strings.TrimPrefix(name, "Error"), r.Description})
	}
	slices.SortFunc(v.Errors, func(a, b errorRow) int { return cmp.Compare(a.Status, b.Status) })
	for _, e := range []struct{ schema, title string }{{"ErrorOut", "An error"}, {"ValidationOut", "422 for fields"}} {
		s, ok := d.Components.Schemas[e.schema]
		if !ok {
			continue
		}
		text, err := pretty(d.example(s, true, 0))
		if err != nil {
			return err
		}
		v.ErrorExamples = append(v.ErrorExamples, sample{e.title, highlight(text)})
	}
	return nil
}

// located is an operation and where it is.
type located struct {
	operation
	method, path string
}

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE"}

// operations are those of the document, by path and, within one, in the order of methods.
func (d *document) operations() (all []located) {
	for path, item := range d.Paths {
		for method, op := range item {
			all = append(all, located{op, strings.ToUpper(method), path})
		}
	}
	slices.SortFunc(all, func(a, b located) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(slices.Index(methods, a.method), slices.Index(methods, b.method)))
	})
	return all
}

// credentials are what calls one by one the names of the document's security schemes, and the shell
// variable that stands for it in examples.
var credentials = map[string]struct{ name, variable string }{
	"apiKey":           {"API key", "API_KEY"},
	"applicationToken": {"application token", "APP_TOKEN"},
	"operatorToken":    {"operator's token", "OPERATOR_TOKEN"},
}

func (d *document) operation(op located, server string) (operationView, error) {
	v := operationView{
		ID: op.OperationID, Method: op.method, Summary: op.Summary, Description: inline(op.Description), Path: pathTokens(op.path),
		Deprecated: op.Deprecated || strings.HasSuffix(op.Summary, "(deprecated)"),
	}
	v.Summary = strings.TrimSuffix(v.Summary, " (deprecated)")
	for _, way := range op.Security {
		for name := range way {
			a := access{Credential: credentials[name].name}
			switch {
			case name == "apiKey" && op.Scope != "":
				a.With, a.Name = "scope", op.Scope
			case name == "applicationToken" && op.Capability != "":
				a.With, a.Name = "capability", op.Capability
			}
			v.Access = append(v.Access, a)
		}
	}
	for _, where := range []string{"path", "query", "header"} {
		var fields []field
		for _, p := range op.Parameters {
			if p.In != where {
				continue
			}
			f := d.field(p.Name, p.Schema, 0)
			f.Required, f.Deprecated = p.Required, p.Deprecated
			if p.Description != "" {
				f.Description = inline(p.Description)
			}
			fields = append(fields, f)
		}
		if len(fields) > 0 {
			v.Parameters = append(v.Parameters, parameters{strings.ToUpper(where[:1]) + where[1:], fields})
		}
	}
	var body string
	if op.RequestBody != nil {
		s := op.RequestBody.Content["application/json"].Schema
		v.Body, v.BodyRequired = d.fields(s, 0), op.RequestBody.Required
		text, err := pretty(d.example(s, false, 0))
		if err != nil {
			return v, err
		}
		body = text
	}
	v.Curl = curl(op, server, body)
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		if r.Ref != "" { // an error that every operation shares
			continue
		}
		a := answer{Status: status, Description: r.Description}
		s := r.Content["application/json"].Schema
		if a.Empty = s == nil; !a.Empty {
			a.Fields = answered(d.fields(s, 0))
			text, err := pretty(d.example(s, true, 0))
			if err != nil {
				return v, err
			}
			if len(v.Examples) == 0 {
				v.Examples = append(v.Examples, sample{status + " " + r.Description, highlight(text)})
			}
		}
		v.Answers = append(v.Answers, a)
	}
	if len(v.Examples) == 0 && len(v.Answers) > 0 {
		v.Examples = append(v.Examples, sample{Title: v.Answers[0].Status + " " + v.Answers[0].Description})
	}
	if len(v.Answers) == 2 && len(v.Answers[0].Fields) > 0 && len(v.Answers[1].Fields) > 0 { // the same, once made and once found
		v.Answers = []answer{{
			Status: v.Answers[0].Status + ", " + v.Answers[1].Status, Description: v.Answers[0].Description + ", " + v.Answers[1].Description,
			Fields: v.Answers[0].Fields,
		}}
	}
	return v, nil
}

// pathTokens are a path with its parameters told apart, breakable behind every slash.
func pathTokens(path string) (out []token) {
	for _, part := range strings.SplitAfter(path, "/") {
		name, slash := strings.CutSuffix(part, "/")
		if strings.HasPrefix(name, "{") {
			out = append(out, token{"param", name})
		} else if name != "" {
			out = append(out, token{"", name})
		}
		if slash {
			out = append(out, token{"slash", "/"})
		}
	}
	return out
}

// slashed is an address, breakable behind every slash.
func slashed(address string) (out []token) {
	scheme, rest, found := strings.Cut(address, "://")
	if found {
		out = append(out, token{"", scheme + "://"})
	} else {
		rest = address
	}
	for _, part := range strings.SplitAfter(rest, "/") {
		name, slash := strings.CutSuffix(part, "/")
		out = append(out, token{"", name})
		if slash {
			out = append(out, token{"slash", "/"})
		}
	}
	return out
}

// curl is a command that makes the request in a POSIX shell.
func curl(op located, server, body string) (out []token) {
	path := op.path
	for _, p := range op.Parameters {
		if p.In != "path" {
			continue
		}
		var value string
		if json.Unmarshal(p.Example, &value) != nil || value == "" {
			value = p.Name
		}
		path = strings.ReplaceAll(path, "{"+p.Name+"}", url.PathEscape(value))
	}
	out = append(out, token{"command", "curl"}, token{"", " "})
	if op.method != "GET" && (op.method != "POST" || body == "") {
		out = append(out, token{"", "-X " + op.method + " "})
	}
	out = append(out, slashed(server+path)...)
	if len(op.Security) > 0 {
		for name := range op.Security[0] {
			out = append(out, token{"", " \\\n  -H "}, token{"string", `"Authorization: Bearer $` + credentials[name].variable + `"`})
		}
	}
	if body != "" {
		out = append(out, token{"", " \\\n  -H "}, token{"string", "'Content-Type: application/json'"}, token{"", " \\\n  -d '"})
		out = append(out, highlight(strings.ReplaceAll(body, "'", `'\''`))...)
		out = append(out, token{"", "'"})
	}
	return out
}

// slug is a name as an anchor.
func slug(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }
