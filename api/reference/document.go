package reference

import (
	"encoding/json"
	"strings"
)

// document is what of an OpenAPI document the page shows.
type document struct {
	Info struct {
		Title, Version, Description string
	}
	Servers []struct{ URL string }
	Tags    []struct{ Name, Description string }
	Paths   map[string]map[string]operation

	Components struct {
		Schemas         map[string]*schema
		Responses       map[string]response
		SecuritySchemes map[string]struct{ Description string }
	}
}

type operation struct {
	OperationID, Summary, Description string

	Tags        []string
	Deprecated  bool
	Parameters  []parameter
	RequestBody *struct {
		Required bool
		Content  map[string]media
	}
	Responses  map[string]response
	Security   []map[string][]string
	Scope      string `json:"x-scope"`
	Capability string `json:"x-capability"`
}

type parameter struct {
	Name, In, Description string

	Required, Deprecated bool
	Schema               *schema
	Example              json.RawMessage
}

type response struct {
	Ref         string `json:"$ref"`
	Description string
	Content     map[string]media
}

type media struct{ Schema *schema }

type schema struct {
	Ref                string `json:"$ref"`
	Type               types
	Format             string
	Description        string
	Pattern            string
	PatternDescription string
	Deprecated         bool
	Default            json.RawMessage
	Enum, Examples     []json.RawMessage
	Minimum, Maximum   *json.Number
	MinLength          *int
	MaxLength          *int
	MinItems, MaxItems *int
	Required           []string
	Properties         map[string]*schema
	Items              *schema
	AnyOf              []*schema
	Additional         additional `json:"additionalProperties"`
}

// types are a schema's types, which the document gives as one or as a list.
type types []string

// UnmarshalJSON reads either form.
func (t *types) UnmarshalJSON(text []byte) error {
	if strings.HasPrefix(string(text), "[") {
		return json.Unmarshal(text, (*[]string)(t))
	}
	var one string
	if err := json.Unmarshal(text, &one); err != nil {
		return err
	}
	*t = types{one}
	return nil
}

// additional is the schema of an object's other members; nil if they may be anything, or nothing.
type additional struct{ *schema }

// UnmarshalJSON reads a schema or a yes or no.
func (a *additional) UnmarshalJSON(text []byte) error {
	if !strings.HasPrefix(string(text), "{") {
		return nil
	}
	a.schema = new(schema)
	return json.Unmarshal(text, a.schema)
}

// resolve follows a reference to a schema of the document. name is that of the schema it led to.
func (d *document) resolve(s *schema) (_ *schema, name string) {
	name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/")
	if !ok {
		return s, ""
	}
	if found := d.Components.Schemas[name]; found != nil {
		return found, name
	}
	return &schema{}, name
}
