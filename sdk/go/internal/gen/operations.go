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

// client writes the client with its groups, and the groups.
func (g *generator) client(operations []operation) error {
	inner := map[string]map[string]bool{} // group → groups in it
	has := map[string]bool{}              // groups with operations of their own
	for _, op := range operations {
		path := append([]string{"Client"}, op.groups()...)
		for i, name := range path[1:] {
			if inner[path[i]] == nil {
				inner[path[i]] = map[string]bool{}
			}
			inner[path[i]][name] = true
		}
		has[path[len(path)-1]] = true
	}
	names := slices.Sorted(maps.Keys(inner))
	for name := range has {
		if inner[name] == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		g.line("")
		if name == "Client" {
			g.comment("Client calls one Posthaste with one key; make it with New. It may be used by many goroutines at once, and is best shared: it keeps connections.")
		} else if doc := groupDocs[name]; doc != "" {
			g.comment(doc)
		} else {
			g.comment(name + " are operations of the API.")
		}
		g.line("type %s struct {", name)
		for _, in := range slices.Sorted(maps.Keys(inner[name])) {
			g.line("%s %s", in, in)
		}
		if has[name] || name == "Client" {
			g.line("\nc *conn")
		}
		g.line("}")
	}
	var build func(name string) string
	build = func(name string) string {
		var parts []string
		for _, in := range slices.Sorted(maps.Keys(inner[name])) {
			parts = append(parts, in+": "+build(in)+",\n")
		}
		if has[name] || name == "Client" {
			end := ""
			if len(inner[name]) > 0 {
				end = ",\n"
			}
			parts = append(parts, "c: c"+end)
		}
		if len(inner[name]) > 0 {
			return name + "{\n" + strings.Join(parts, "") + "}"
		}
		return name + "{" + strings.Join(parts, "") + "}"
	}
	g.line("\nfunc newClient(c *conn) *Client {\nreturn &%s\n}", build("Client"))
	for _, op := range operations {
		if err := g.operation(op); err != nil {
			return err
		}
	}
	return nil
}

func (g *generator) operation(op operation) error {
	groups := op.groups()
	receiver := groups[len(groups)-1]
	args, values := "ctx context.Context", ""
	for _, p := range op.parametersIn("path") {
		values += ", " + argument(p.Name)
	}
	if values != "" {
		args += values + " string"
	}
	path := op.path
	for _, p := range op.parametersIn("path") {
		path = strings.Replace(path, "{"+p.Name+"}", "{"+argument(p.Name)+"}", 1)
	}
	request := fmt.Sprintf("request{method: %q, path: %q", strings.ToUpper(op.method), path)
	if values != "" {
		request += ", args: []string{" + values[2:] + "}"
	}
	input, takes := op.input()
	if takes {
		args += ", in " + typeName(input.refName())
		request += ", body: in"
	}
	query := op.parametersIn("query")
	if len(query) > 0 || op.repeats() {
		if err := g.optionsOf(op, query); err != nil {
			return err
		}
	}
	prepare, pass := "", ""
	if len(query) > 0 || op.repeats() {
		args += ", opts ..." + op.options()
		prepare, pass = "o := last(opts)\n", ", o"
	}
	if len(query) > 0 {
		prepare += "q := query{}\n"
		for _, p := range query {
			prepare += fmt.Sprintf("q.add(%q, o.%s)\n", p.Name, exported(p.Name))
		}
		request += ", query: q"
	}
	if op.repeats() {
		request += ", repeats: true, key: o.IdempotencyKey"
	}
	request += "}"

	output, answers := op.output()
	if item, isPage := g.doc.pageOf(output); answers && isPage {
		of := typeName(item.refName())
		if takes {
			return fmt.Errorf("%s: a list that takes a body", op.ID)
		}
		g.about(op)
		g.line("func (g %s) %s(%s) iter.Seq2[%s, error] {", receiver, op.name(), args, of)
		g.line("o := last(opts)")
		if has := func(name string) bool {
			return slices.ContainsFunc(query, func(p parameter) bool { return p.Name == name })
		}; has("before") && has("after") {
			g.line("o.Before = end(o.Before, o.After, o.Iterator)")
		}
		g.line("return walk(o.Iterator, func(iterator string) (Page[%s], error) {\no := o\no.Iterator = iterator\nreturn g.%sPage(ctx%s%s)\n})\n}", of, op.name(), values, pass)
		g.line("")
		g.comment(op.name() + "Page is one page of " + op.name() + ".")
		g.line("func (g %s) %sPage(%s) (Page[%s], error) {", receiver, op.name(), args, of)
		g.line("%sreturn call[Page[%s]](ctx, g.c, %s)\n}", prepare, of, request)
		return nil
	}
	g.about(op)
	if answers && len(g.doc.Components.Schemas[output.refName()].fields()) > 0 {
		of := typeName(output.refName())
		g.line("func (g %s) %s(%s) (%s, error) {", receiver, op.name(), args, of)
		g.line("%sreturn call[%s](ctx, g.c, %s)\n}", prepare, of, request)
		return nil
	}
	g.line("func (g %s) %s(%s) error {", receiver, op.name(), args)
	g.line("%sreturn g.c.do(ctx, %s, nil)\n}", prepare, request)
	return nil
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

func (g *generator) optionsOf(op operation, query []parameter) error {
	g.line("")
	g.comment(op.options() + " are what " + op.full() + " may be given; the zero value of each field leaves it to the server.")
	g.line("type %s struct {", op.options())
	for _, p := range query {
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
