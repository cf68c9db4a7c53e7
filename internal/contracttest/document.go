package contracttest

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Document is an OpenAPI document that a server describes itself with.
type Document struct{ root map[string]any }

// ParseDocument reads a document; only what this server's has is understood.
func ParseDocument(text []byte) (d Document, err error) {
	err = json.Unmarshal(text, &d.root)
	return d, err
}

var requestID = regexp.MustCompile(`^req_[0-9a-f]{32}$`)

// Problems lists where an answer is not as the document says: its status, its body, and what is
// answered that is not written there. It also wants of every answer a request id, and JSON.
func (d Document) Problems(req *http.Request, status int, header http.Header, body []byte) (problems []string) {
	if !requestID.MatchString(header.Get("X-Request-Id")) {
		problems = append(problems, "no request id")
	}
	if status >= 500 && status != http.StatusServiceUnavailable {
		problems = append(problems, "a server error")
	}
	if len(body) > 0 {
		if kind, _, _ := mime.ParseMediaType(header.Get("Content-Type")); kind != "application/json" && !forPeople(req.URL.Path) {
			problems = append(problems, "content type "+kind)
		}
	}
	if status >= 400 && req.Method != http.MethodHead {
		var e struct{ RequestID string }
		if json.Unmarshal(body, &e) != nil || e.RequestID != header.Get("X-Request-Id") {
			problems = append(problems, "an error without its request id")
		}
	}
	operation := d.operation(req)
	if operation == nil {
		return problems
	}
	response, ok := operation["responses"].(map[string]any)[strconv.Itoa(status)].(map[string]any)
	if !ok {
		return append(problems, "the document knows no such status")
	}
	if ref, ok := response["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/responses/")
		response = d.root["components"].(map[string]any)["responses"].(map[string]any)[name].(map[string]any)
	}
	content, ok := response["content"].(map[string]any)
	if !ok {
		if len(body) > 0 {
			problems = append(problems, "a body where the document has none")
		}
		return problems
	}
	v, err := decode(body)
	if err != nil {
		return append(problems, err.Error())
	}
	schema := content["application/json"].(map[string]any)["schema"].(map[string]any)
	return append(problems, d.mismatches(schema, v, "body")...)
}

// forPeople reports whether a path is none of the API's, and need not answer in JSON.
func forPeople(path string) bool {
	return path == "/metrics" || path == "/docs" || strings.HasPrefix(path, "/docs/")
}

// operation is what the document says about a request; nil = nothing.
func (d Document) operation(req *http.Request) (found map[string]any) {
	best := -1
	for template, item := range d.root["paths"].(map[string]any) {
		operation, ok := item.(map[string]any)[strings.ToLower(req.Method)].(map[string]any)
		if !ok {
			continue
		}
		if literal, ok := matches(template, evened(req.URL.EscapedPath())); ok && literal > best {
			best, found = literal, operation
		}
	}
	return found
}

// OperationID names the operation that a request is; "" = none of the document.
func (d Document) OperationID(req *http.Request) string {
	id, _ := d.operation(req)["operationId"].(string)
	return id
}

// OperationIDs are all operations of the document.
func (d Document) OperationIDs() (ids []string) {
	for _, item := range d.root["paths"].(map[string]any) {
		for _, operation := range item.(map[string]any) {
			ids = append(ids, operation.(map[string]any)["operationId"].(string))
		}
	}
	slices.Sort(ids)
	return ids
}

// mismatches checks a value against a schema, more strictly than JSON Schema does: what an object has
// must be in the document.
func (d Document) mismatches(schema map[string]any, v any, at string) (out []string) {
	if ref, ok := schema["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/components/schemas/")
		schema = d.root["components"].(map[string]any)["schemas"].(map[string]any)[name].(map[string]any)
	}
	if choices, ok := schema["anyOf"].([]any); ok {
		for _, one := range choices {
			if out = d.mismatches(one.(map[string]any), v, at); len(out) == 0 {
				return nil
			}
		}
		return out
	}
	types := []string{}
	switch t := schema["type"].(type) {
	case string:
		types = append(types, t)
	case []any:
		for _, one := range t {
			types = append(types, one.(string))
		}
	}
	is := map[string]bool{}
	switch v := v.(type) {
	case nil:
		is["null"] = true
	case bool:
		is["boolean"] = true
	case string:
		is["string"] = true
	case json.Number:
		_, err := v.Int64()
		is["number"], is["integer"] = true, err == nil
	case []any:
		is["array"] = true
	case map[string]any:
		is["object"] = true
	}
	if len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return is[t] }) {
		return []string{fmt.Sprintf("%s is %T, want %v", at, v, types)}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.ContainsFunc(enum, func(one any) bool { return fmt.Sprint(one) == fmt.Sprint(v) }) {
		out = append(out, fmt.Sprintf("%s = %v is not in %v", at, v, enum))
	}
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			out = append(out, d.mismatches(schema["items"].(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))...)
		}
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, ok := v[name.(string)]; !ok {
				out = append(out, at+" lacks "+name.(string))
			}
		}
		for name, member := range v {
			inner, known := properties[name].(map[string]any)
			if additional, ok := schema["additionalProperties"].(map[string]any); !known && ok {
				inner, known = additional, true
			}
			if known {
				out = append(out, d.mismatches(inner, member, at+"."+name)...)
			} else if properties != nil {
				out = append(out, at+" has "+name+", which is not in the document")
			}
		}
	}
	return out
}
