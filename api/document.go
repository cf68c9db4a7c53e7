package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
)

// Names of the credentials in the document.
const (
	tenantScheme      = "apiKey"
	operatorScheme    = "operatorToken"
	applicationScheme = "applicationToken"
)

const apiVersion = "1"

func init() {
	// Both libraries keep these for the whole process.
	gin.SetMode(gin.ReleaseMode)
	huma.DefaultArrayNullable = false // we never answer null for a list that is not said to be nullable
	huma.ValidateStrictCasing = true
}

// document is the OpenAPI document and the router, filled together from the table of routes. Schemas
// are made from the very types that requests are read into, and bodies are checked against them.
type document struct {
	api      huma.API
	registry huma.Registry
	errors   map[string]*huma.Response
}

func newDocument(engine *gin.Engine, publicURL string) *document {
	config := huma.DefaultConfig("Posthaste", apiVersion)
	config.Info.Description = "Post a message once; it is stored, signed, delivered to every matching endpoint, retried until taken, and shown."
	config.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	config.CreateHooks = nil // no $schema in bodies
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.AllowAdditionalPropertiesByDefault = true // newer clients send more
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		tenantScheme:      {Type: "http", Scheme: "bearer", Description: "An API key of a tenant."},
		applicationScheme: {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "A token for one application, from app-portal-access."},
		operatorScheme:    {Type: "http", Scheme: "bearer", Description: "The token of the installation's operator."},
	}
	if publicURL != "" {
		config.Servers = []*huma.Server{{URL: publicURL}}
	}
	d := &document{api: humagin.New(engine, config)}
	d.registry = d.api.OpenAPI().Components.Schemas
	plainError := d.registry.Schema(reflect.TypeFor[errorOut](), true, "")
	fieldError := d.registry.Schema(reflect.TypeFor[validationOut](), true, "")
	responses := map[string]*huma.Response{"422": jsonResponse("A field breaks a rule, or an idempotency key came back with another body.",
		&huma.Schema{AnyOf: []*huma.Schema{fieldError, plainError}})}
	for status, when := range map[int]string{
		http.StatusBadRequest:            "The request, or a parameter of its query, cannot be understood.",
		http.StatusUnauthorized:          "There is no credential, or it is not valid (any more).",
		http.StatusForbidden:             "The credential's scopes or capabilities do not allow this.",
		http.StatusNotFound:              "There is no such thing, or it is not yours to see.",
		http.StatusConflict:              "It is there already, or the request collides with another.",
		http.StatusRequestEntityTooLarge: "The body or the payload is too large.",
		http.StatusTooManyRequests:       "Too much at once: ask again later.",
		http.StatusInternalServerError:   "Something went wrong on the server's side.",
		http.StatusServiceUnavailable:    "The server cannot answer for the moment: ask again, with the same idempotency key.",
	} {
		responses[strconv.Itoa(status)] = jsonResponse(when, plainError)
	}
	// Every operation may answer each of them, so they are written once and referred to.
	d.api.OpenAPI().Components.Responses = map[string]*huma.Response{}
	d.errors = map[string]*huma.Response{}
	for status, response := range responses {
		name := "Error" + status
		d.api.OpenAPI().Components.Responses[name] = response
		d.errors[status] = &huma.Response{Ref: "#/components/responses/" + name}
	}
	return d
}

func jsonResponse(description string, schema *huma.Schema) *huma.Response {
	r := &huma.Response{Description: description, Headers: map[string]*huma.Param{
		"x-request-id": {Description: "Names this request in the server's log.", Schema: &huma.Schema{Type: huma.TypeString}},
	}}
	if schema != nil {
		r.Content = map[string]*huma.MediaType{"application/json": {Schema: schema}}
	}
	return r
}

// add puts a route into the document and the router.
func (d *document) add(s *server, r route) {
	p := &plan{params: newParamPlan(r.handle.input, d.registry)}
	op := &huma.Operation{
		Method: r.method, Path: r.path, OperationID: r.id, Summary: r.summary, Description: descriptions[r.id], Tags: []string{groupOf(r.id)},
		Parameters: p.params.parameters(),
		Responses:  map[string]*huma.Response{},
	}
	if field, ok := r.handle.input.FieldByName("Body"); ok {
		schema := d.registry.Schema(field.Type, true, "")
		p.bodyIndex = field.Index
		p.body = newBodyPlan(field.Type, schema, d.registry, r.bodyOptional)
		op.RequestBody = &huma.RequestBody{
			Required: !r.bodyOptional, Content: map[string]*huma.MediaType{"application/json": {Schema: schema}},
		}
	}
	switch r.class {
	case classOperator:
		op.Security = []map[string][]string{{operatorScheme: {}}}
	case classApplication:
		op.Security = []map[string][]string{{applicationScheme: {}}}
	default:
		op.Security = []map[string][]string{{tenantScheme: {}}}
		op.Extensions = map[string]any{"x-scope": string(r.scope)}
		if r.capability != "" {
			op.Security = append(op.Security, map[string][]string{applicationScheme: {}})
			op.Extensions["x-capability"] = string(r.capability)
		}
		if r.method == http.MethodPost {
			op.Parameters = append(op.Parameters, &huma.Param{
				Name: "idempotency-key", In: "header", Schema: &huma.Schema{Type: huma.TypeString},
				Description: "Makes repeating the request safe: the first answer is given again for 12 hours.",
			})
		}
	}
	for status, response := range d.errors {
		op.Responses[status] = response
	}
	for _, status := range r.success {
		var schema *huma.Schema
		if r.handle.output != reflect.TypeFor[none]() {
			schema = d.registry.Schema(r.handle.output, true, "")
		}
		op.Responses[strconv.Itoa(status)] = jsonResponse(http.StatusText(status), schema)
	}
	d.api.OpenAPI().AddOperation(op)
	serve := s.handler(r, p)
	d.api.Adapter().Handle(op, func(ctx huma.Context) {
		c := humagin.Unwrap(ctx)
		serve(c)
	})
	s.patterns[pattern{r.method, ginPath(r.path)}] = r.method + " " + r.path
}

// text is the document as it is served, and as the golden copy holds it.
func (d *document) text() ([]byte, error) {
	text, err := json.MarshalIndent(d.api.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the OpenAPI document: %w", err)
	}
	return append(text, '\n'), nil
}
