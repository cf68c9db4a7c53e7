package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// groups are the Go names of what an operation belongs to: v1.operator.api-key.list → Operator, APIKeys.
func (op operation) groups() (names []string) {
	parts := strings.Split(op.ID, ".")
	for _, noun := range parts[1 : len(parts)-1] {
		names = append(names, groupName(noun))
	}
	return names
}

// name is the Go name of an operation within its group.
func (op operation) name() string {
	return exported(op.ID[strings.LastIndex(op.ID, ".")+1:])
}

// full is the Go name of an operation as it is called.
func (op operation) full() string { return strings.Join(append(op.groups(), op.name()), ".") }

// options is the name of the struct with what a call may have besides what it must.
func (op operation) options() string {
	return op.singular() + op.name() + "Options"
}

func (op operation) singular() string {
	parts := strings.Split(op.ID, ".")
	noun := parts[len(parts)-2]
	if name, ok := groups[noun]; ok {
		return strings.TrimSuffix(name, "s")
	}
	return exported(noun)
}

// repeats reports whether a POST may be sent again: its key makes that do nothing twice.
func (op operation) repeats() bool {
	return slices.ContainsFunc(op.parametersIn("header"), func(p parameter) bool { return p.Name == "idempotency-key" })
}

func (op operation) hasQuery(name string) bool {
	return slices.ContainsFunc(op.parametersIn("query"), func(p parameter) bool { return p.Name == name })
}

func (op operation) hasOptions() bool { return op.repeats() || len(op.parametersIn("query")) > 0 }

// check refuses what there is no place for in the SDK.
func (op operation) check() error {
	if parts := strings.Split(op.ID, "."); len(parts) < 3 || parts[0] != "v1" {
		return fmt.Errorf("%s %s: operation id %q, want v1.noun.verb", op.method, op.path, op.ID)
	}
	if op.Summary == "" {
		return fmt.Errorf("%s has no summary", op.ID)
	}
	for _, p := range op.parametersIn("header") {
		if p.Name != "idempotency-key" {
			return fmt.Errorf("%s: there is no place for header %s", op.ID, p.Name)
		}
	}
	in, takes := op.input()
	out, answers := op.output()
	if takes && in.Ref == "" || answers && out.Ref == "" {
		return fmt.Errorf("%s: a body without a name", op.ID)
	}
	return nil
}

// group is a noun with its operations, and nouns in it.
type group struct {
	name string
	own  bool // it has operations itself
	in   map[string]*group
}

// tree is the client with all groups in it.
func tree(operations []operation) *group {
	root := &group{name: "Client", own: true, in: map[string]*group{}}
	for _, op := range operations {
		at := root
		for _, name := range op.groups() {
			if at.in[name] == nil {
				at.in[name] = &group{name: name, in: map[string]*group{}}
			}
			at = at.in[name]
		}
		at.own = true
	}
	return root
}

func (t *group) inner() (list []*group) {
	for _, name := range slices.Sorted(maps.Keys(t.in)) {
		list = append(list, t.in[name])
	}
	return list
}

// all are a group and those below it.
func (t *group) all() []*group {
	list := []*group{t}
	for _, in := range t.inner() {
		list = append(list, in.all()...)
	}
	return list
}

// value is the Go expression of a group.
func (t *group) value() string {
	text := t.name + "{"
	for _, in := range t.inner() {
		text += "\n" + in.name + ": " + in.value() + ","
	}
	switch {
	case t.own && len(t.in) > 0:
		return text + "\nc: c,\n}"
	case t.own:
		return text + "c: c}"
	}
	return text + "\n}"
}

// client writes the client with its groups, and the operations.
func (g *generator) client(operations []operation) error {
	root := tree(operations)
	groups := root.all()
	slices.SortFunc(groups, func(a, b *group) int { return strings.Compare(a.name, b.name) })
	for _, t := range groups {
		doc := groupDocs[t.name]
		if doc == "" {
			doc = t.name + " are operations of the API."
		}
		g.line("")
		g.comment(doc)
		g.line("type %s struct {", t.name)
		for _, in := range t.inner() {
			g.line("%s %s", in.name, in.name)
		}
		if t.own {
			g.line("\nc *conn")
		}
		g.line("}")
	}
	g.line("\nfunc newClient(c *conn) *Client {\nreturn &%s\n}", root.value())
	for _, op := range operations {
		if err := g.operation(op); err != nil {
			return err
		}
	}
	return nil
}

// method is what of an operation's Go method is the same whatever it answers.
type method struct {
	receiver, name string
	parameters     string // as they are declared
	arguments      string // as they are passed on, each with a comma before it
	prepare        string // statements that make the query
	request        string // the expression
}

func (op operation) asMethod() method {
	groups := op.groups()
	m := method{receiver: groups[len(groups)-1], name: op.name(), parameters: "ctx context.Context"}
	path := op.path
	for _, p := range op.parametersIn("path") {
		m.arguments += ", " + argument(p.Name)
		path = strings.Replace(path, "{"+p.Name+"}", "{"+argument(p.Name)+"}", 1)
	}
	m.request = fmt.Sprintf("request{method: %q, path: %q", strings.ToUpper(op.method), path)
	if m.arguments != "" {
		m.parameters += m.arguments + " string"
		m.request += ", args: []string{" + m.arguments[len(", "):] + "}"
	}
	if input, takes := op.input(); takes {
		m.parameters += ", in " + typeName(input.refName())
		m.arguments += ", in"
		m.request += ", body: in"
	}
	if op.hasOptions() {
		m.parameters += ", opts ..." + op.options()
		m.arguments += ", o"
		m.prepare = "o := last(opts)\n"
	}
	if query := op.parametersIn("query"); len(query) > 0 {
		m.prepare += "q := query{}\n"
		for _, p := range query {
			m.prepare += fmt.Sprintf("q.add(%q, o.%s)\n", p.Name, exported(p.Name))
		}
		m.request += ", query: q"
	}
	if op.repeats() {
		m.request += ", repeats: true, key: o.IdempotencyKey"
	}
	m.request += "}"
	return m
}

// operation writes an operation's options and its methods.
func (g *generator) operation(op operation) error {
	if op.hasOptions() {
		if err := g.optionsOf(op); err != nil {
			return err
		}
	}
	m := op.asMethod()
	output, answers := op.output()
	g.about(op)
	if item, isPage := g.doc.pageOf(output); isPage {
		g.pages(op, m, typeName(item.refName()))
		return nil
	}
	if answers && len(g.doc.Components.Schemas[output.refName()].fields()) > 0 {
		g.line("func (g %s) %s(%s) (%s, error) {", m.receiver, m.name, m.parameters, typeName(output.refName()))
		g.line("%sreturn call[%s](ctx, g.c, %s)\n}", m.prepare, typeName(output.refName()), m.request)
		return nil
	}
	g.line("func (g %s) %s(%s) error {", m.receiver, m.name, m.parameters)
	g.line("%sreturn g.c.do(ctx, %s, nil)\n}", m.prepare, m.request)
	return nil
}

// pages writes the two methods of a list: all its items, and one page.
func (g *generator) pages(op operation, m method, item string) {
	g.line("func (g %s) %s(%s) iter.Seq2[%s, error] {", m.receiver, m.name, m.parameters, item)
	g.line("o := last(opts)")
	if op.hasQuery("before") && op.hasQuery("after") {
		g.line("o.Before = end(o.Before, o.After, o.Iterator)")
	}
	g.line("return walk(o.Iterator, func(iterator string) (Page[%s], error) {\no := o\no.Iterator = iterator", item)
	g.line("return g.%sPage(ctx%s)\n})\n}", m.name, m.arguments)
	g.line("")
	g.comment(m.name + "Page is one page of " + m.name + ".")
	g.line("func (g %s) %sPage(%s) (Page[%s], error) {", m.receiver, m.name, m.parameters, item)
	g.line("%sreturn call[Page[%s]](ctx, g.c, %s)\n}", m.prepare, item, m.request)
}

// about writes the comment of an operation's method.
func (g *generator) about(op operation) {
	const old = " (deprecated)"
	g.line("")
	text := op.name() + " " + does(strings.TrimSuffix(op.Summary, old)) + "."
	if op.Description != "" {
		text += " " + op.Description
	}
	if op.Scope != "" {
		text += " It needs the scope " + op.Scope
		if op.Capability != "" {
			text += ", or an application token with " + op.Capability
		}
		text += "."
	}
	g.comment(text)
	if op.Deprecated || strings.HasSuffix(op.Summary, old) {
		g.line("//\n// Deprecated: it is there for older clients.")
	}
}

// optionsOf writes the struct of what a call may have.
func (g *generator) optionsOf(op operation) error {
	g.line("")
	g.comment(op.options() + " are what " + op.full() + " may be given; the zero value of each field leaves it to the server.")
	g.line("type %s struct {", op.options())
	for _, p := range op.parametersIn("query") {
		s := p.Schema
		typ, err := g.goType(op.singular(), p.Name, s, sent)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", op.ID, p.Name, err)
		}
		doc := p.Description
		if s.zeroMatters() && p.Name != "limit" {
			typ = "Optional[" + typ + "]"
			if s.Default != nil {
				doc += " The default is " + fmt.Sprint(s.Default) + "."
			}
		}
		if n, ok := s.Default.(float64); ok && p.Name == "limit" {
			doc = "Items per page; " + strconv.Itoa(int(n)) + " if it is 0."
		}
		g.comment(doc)
		g.line("%s %s", exported(p.Name), typ)
	}
	if op.repeats() {
		g.comment("Makes repeating the call safe, also in another process: the first answer is given again for 12 hours. Without one, the client makes one for every call and keeps it over its retries.")
		g.line("IdempotencyKey string")
	}
	g.line("}")
	return nil
}
