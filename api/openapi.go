package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/posthaste/posthaste/internal/webhook"
)

// maxYAMLMarks bounds what can open a level of nesting in YAML, which is read by recursion and takes time
// by the square of the depth.
const maxYAMLMarks = 5_000

// maxImported bounds the schemas of one import together, in bytes: each takes along what it refers to, so
// that many webhooks of a small document can refer to its one large schema.
const maxImported = 4 << 20

// importedVersion is the version under which an imported schema is kept.
const importedVersion = "1"

// dialect2020 is the JSON Schema that OpenAPI 3.1 writes.
const dialect2020 = "https://json-schema.org/draft/2020-12/schema"

// specJSON is the text of a specification as JSON.
func specJSON(raw string) (text json.RawMessage, err error) {
	if strings.HasPrefix(strings.TrimSpace(raw), "{") && json.Valid([]byte(raw)) {
		return json.RawMessage(raw), checkText([]byte(raw))
	}
	if strings.Count(raw, "[")+strings.Count(raw, "{")+strings.Count(raw, "- ")+strings.Count(raw, "? ") > maxYAMLMarks {
		return nil, errors.New("has too many lists and objects")
	}
	defer func() {
		if recover() != nil { // the parser's, on text that is no YAML
			text, err = nil, errors.New("is neither JSON nor YAML")
		}
	}()
	file, err := parser.ParseBytes([]byte(raw), 0)
	if err != nil || len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, errors.New("is neither JSON nor one document of YAML")
	}
	var found aliases
	ast.Walk(&found, file.Docs[0].Body)
	if found {
		return nil, errors.New("must not use aliases: they make large documents of small ones")
	}
	var v any
	if err := yaml.NodeToValue(file.Docs[0].Body, &v); err != nil {
		return nil, errors.New("is neither JSON nor YAML")
	}
	if text, err = json.Marshal(v); err != nil {
		return nil, errors.New("has something that JSON has not")
	}
	return text, checkText(text)
}

type aliases bool

// Visit looks for an alias.
func (a *aliases) Visit(n ast.Node) ast.Visitor {
	if n.Type() == ast.AliasType {
		*a = true
	}
	return a
}

// specification is what of an OpenAPI document is about webhooks.
type specification struct {
	OpenAPI    string              `json:"openapi"`
	Webhooks   map[string]pathItem `json:"webhooks"`
	XWebhooks  map[string]pathItem `json:"x-webhooks"` // before 3.1
	Components struct {
		Schemas   map[string]json.RawMessage `json:"schemas"`
		PathItems map[string]pathItem        `json:"pathItems"`
		Bodies    map[string]requestBody     `json:"requestBodies"`
	} `json:"components"`
}

type pathItem struct {
	Ref  string         `json:"$ref"`
	Post *specOperation `json:"post"`
	Put  *specOperation `json:"put"`
	Get  *specOperation `json:"get"`
}

type specOperation struct {
	Summary     string      `json:"summary"`
	Description string      `json:"description"`
	Deprecated  bool        `json:"deprecated"`
	RequestBody requestBody `json:"requestBody"`
}

type requestBody struct {
	Ref     string `json:"$ref"`
	Content map[string]struct {
		Schema json.RawMessage `json:"schema"`
	} `json:"content"`
}

// eventTypesOf are the event types that a specification describes, by name.
func eventTypesOf(text json.RawMessage) (out []webhook.EventType, err error) {
	var spec specification
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, shapeError(err, "body", "spec")
	}
	if !strings.HasPrefix(spec.OpenAPI, "3.") {
		return nil, invalidAt(typeValue, []string{"body", "spec", "openapi"}, "must be 3.0 or newer")
	}
	member, hooks := "webhooks", spec.Webhooks
	if len(hooks) == 0 {
		member, hooks = "x-webhooks", spec.XWebhooks
	}
	if len(hooks) == 0 || len(hooks) > maxMembers {
		return nil, invalidAt(typeValue, []string{"body", "spec", "webhooks"}, fmt.Sprintf("must be 1 to %d webhooks", maxMembers))
	}
	imported := 0
	for name, item := range hooks {
		refuse := func(msg string) error { return invalidAt(typeValue, []string{"body", "spec", member, name}, msg) }
		if !isName(name) {
			return nil, refuse(breaksAlphabet(nameAlphabet, webhook.MaxUIDLength))
		}
		if of, ok := strings.CutPrefix(item.Ref, "#/components/pathItems/"); ok {
			item = spec.Components.PathItems[of]
		}
		op := first(first(item.Post, item.Put), item.Get)
		if op == nil {
			return nil, refuse("must have an operation")
		}
		e := webhook.EventType{Name: name, Deprecated: op.Deprecated, Description: op.Description}
		if e.Description == "" {
			e.Description = op.Summary
		}
		if strings.ContainsRune(e.Description, 0) || len(e.Description) > 65536 {
			return nil, refuse("has a description that is too long or contains the character NUL")
		}
		body := op.RequestBody
		if of, ok := strings.CutPrefix(body.Ref, "#/components/requestBodies/"); ok {
			body = spec.Components.Bodies[of]
		}
		if schema := body.Content["application/json"].Schema; len(schema) > 0 {
			if e.Schemas, err = spec.standalone(schema); err != nil {
				return nil, refuse(err.Error())
			}
			if imported += len(e.Schemas); imported > maxImported {
				return nil, invalidAt(typeValue, []string{"body", "spec"}, fmt.Sprintf("must not have schemas of more than %d bytes with all they refer to", maxImported))
			}
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b webhook.EventType) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// schemaPlace is where schemas refer to in a specification.
const schemaPlace = "#/components/schemas/"

// standalone is a schema with all it refers to, as version → schema.
func (s *specification) standalone(schema json.RawMessage) (json.RawMessage, error) {
	definitions := "definitions"
	if !strings.HasPrefix(s.OpenAPI, "3.0") {
		definitions = "$defs"
	}
	needed := map[string]any{}
	size := 0
	var read func(text json.RawMessage) (any, error)
	var rewrite func(v any) error
	rewrite = func(v any) error {
		switch v := v.(type) {
		case []any:
			for _, item := range v {
				if err := rewrite(item); err != nil {
					return err
				}
			}
		case map[string]any:
			if typ, ok := v["type"].(string); ok && definitions == "definitions" && v["nullable"] == true {
				v["type"] = []any{typ, "null"}
			}
			if ref, ok := v["$ref"].(string); ok {
				if rest, ok := strings.CutPrefix(ref, schemaPlace); ok {
					v["$ref"] = "#/" + definitions + "/" + rest
					name, _, _ := strings.Cut(rest, "/")
					name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
					if _, known := needed[name]; !known {
						needed[name] = true // before its own references, which may lead back here
						of, err := read(s.Components.Schemas[name])
						if err != nil {
							return fmt.Errorf("refers to a schema that does not exist: %.100s", name)
						}
						needed[name] = of
					}
				}
			}
			for _, item := range v {
				if err := rewrite(item); err != nil {
					return err
				}
			}
		}
		return nil
	}
	read = func(text json.RawMessage) (any, error) {
		if size += len(text); size > webhook.MaxSchemas {
			return nil, errors.New("is too large with all it refers to")
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		return v, rewrite(v)
	}
	v, err := read(schema)
	if err != nil {
		return nil, err
	}
	if top, ok := v.(map[string]any); ok {
		if _, said := top["$schema"]; !said && definitions == "$defs" {
			top["$schema"] = dialect2020
		}
		if len(needed) > 0 {
			own, _ := top[definitions].(map[string]any)
			for name, of := range own {
				needed[name] = of
			}
			top[definitions] = needed
		}
	}
	return json.Marshal(map[string]any{importedVersion: v})
}
