package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/webhook"
)

// maxDepth is how deeply a body's arrays and objects may nest. Deeper ones cost every later reader of
// the payload a stack.
const maxDepth = 512

// maxKeptBuffer is the largest buffer that is kept for the next request.
const maxKeptBuffer = 64 << 10

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// readBody reads the whole body into a buffer from the pool; give it back with release when nothing
// points into it any more.
func readBody(c *gin.Context) (*bytes.Buffer, error) {
	if c.Request.ContentLength > webhook.MaxBody {
		return nil, errTooLarge
	}
	buf := buffers.Get().(*bytes.Buffer)
	if _, err := buf.ReadFrom(http.MaxBytesReader(c.Writer, c.Request.Body, webhook.MaxBody)); err != nil {
		release(buf)
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return nil, errTooLarge
		}
		return nil, &webhook.Error{Kind: webhook.KindBadRequest, Detail: "The body did not arrive whole", Err: err}
	}
	return buf, nil
}

func release(buf *bytes.Buffer) {
	if buf.Cap() <= maxKeptBuffer {
		buf.Reset()
		buffers.Put(buf)
	}
}

// encode writes a value as JSON, without making markup of < and >.
func encode(v any) ([]byte, error) {
	buf := buffers.Get().(*bytes.Buffer)
	defer release(buf)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode response: %w", err)
	}
	return bytes.Clone(bytes.TrimRight(buf.Bytes(), "\n")), nil
}

// answer sends a status and a body of JSON; nil sends no body.
func answer(c *gin.Context, status int, body []byte) {
	if body == nil {
		c.Writer.WriteHeader(status)
		c.Writer.WriteHeaderNow()
		return
	}
	h := c.Writer.Header()
	h["Content-Type"] = jsonType
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	c.Writer.WriteHeader(status)
	_, _ = c.Writer.Write(body) // the caller has gone; nobody is left to tell
}

var jsonType = []string{"application/json"}

// checkText refuses a text that later readers might understand differently or not at all.
func checkText(body []byte) error { return walkText(body, nil) }

// walkText is checkText; member, if set, is shown the names of the members of the object that the text
// is, as they are written between their quotes. That it is one is for the decoder to say, later.
func walkText(body []byte, member func(name []byte) error) error {
	if !utf8.Valid(body) {
		return notJSON("is not valid UTF-8")
	}
	depth, inString, start := 0, false, 0
	object, name := false, false // the outermost is one; a name of its members comes next
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case b == '"':
			if name && depth == 1 {
				if !inString {
					start = i + 1
				} else if name = false; member != nil {
					if err := member(body[start:i]); err != nil {
						return err
					}
				}
			}
			inString = !inString
		case inString && b == '\\':
			i++
		case inString:
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return notJSON(fmt.Sprintf("must not nest deeper than %d levels", maxDepth))
			}
			if depth == 1 {
				object = b == '{'
			}
			name = object && depth == 1
		case b == ',':
			name = object && depth == 1
		case b == '}' || b == ']':
			depth--
		}
	}
	return nil
}

func notJSON(msg string) error { return invalidAt(typeJSON, []string{"body"}, msg) }

// shapeError says which part of a body is not JSON or not of the type it should be.
func shapeError(err error, loc ...string) error {
	var told *webhook.Error
	if errors.As(err, &told) {
		return err // a type's own, which knows better
	}
	var typed *json.UnmarshalTypeError
	if errors.As(err, &typed) {
		if typed.Field != "" {
			loc = append(loc, strings.Split(typed.Field, ".")...)
		}
		return invalidAt(typeJSON, loc, "must not be "+withArticle(typed.Value))
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return invalidAt(typeJSON, loc, "is not valid JSON: "+syntax.Error())
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalidAt(typeJSON, loc, "is not valid JSON: it ends too early")
	}
	return invalidAt(typeJSON, loc, "is not of the expected type")
}

func withArticle(value string) string {
	kind, _, _ := strings.Cut(value, " ") // "number 1e400" holds the caller's text
	switch kind {
	case "array", "object":
		return "an " + kind
	case "bool":
		return "a boolean"
	case "":
		return "of this type"
	}
	return "a " + kind
}

// bodyPlan is how a type is read from a body: which members it has and the schema they are checked
// against, which is the one in the document.
type bodyPlan struct {
	typ      reflect.Type
	registry huma.Registry
	schema   *huma.Schema
	fields   []bodyField
	required []string
	optional bool // nothing at all is as good as {}
}

type bodyField struct {
	name    string
	index   []int
	notNull bool
}

func newBodyPlan(t reflect.Type, schema *huma.Schema, registry huma.Registry, optional bool) *bodyPlan {
	p := &bodyPlan{typ: t, registry: registry, schema: schema, optional: optional}
	if resolved := registry.SchemaFromRef(schema.Ref); resolved != nil {
		p.required = resolved.Required
	}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			panic("api: every field of " + t.String() + " needs a name in JSON")
		}
		_, notNull := reflect.Zero(f.Type).Interface().(nullRefuser)
		p.fields = append(p.fields, bodyField{name: name, index: f.Index, notNull: notNull})
	}
	return p
}

// decode reads a body into to, which points to the plan's type. Members are matched by their exact
// names, for the check and for the value alike, so that no other spelling of a name can bring a value
// past the check. Unknown members are ignored: newer clients send more.
func (p *bodyPlan) decode(body []byte, to reflect.Value) error {
	if err := checkEnvelope(body, nil); err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		if p.optional {
			return nil
		}
		return notJSON("must not be empty")
	}
	var sent map[string]json.RawMessage
	if err := json.Unmarshal(body, &sent); err != nil {
		return shapeError(err, "body")
	}
	if sent == nil {
		return notJSON("must not be null")
	}
	checked := make(map[string]any, len(p.fields))
	var fields []webhook.Field
	add := func(typ, msg string, loc ...string) {
		fields = append(fields, webhook.Field{Loc: append([]string{"body"}, loc...), Msg: msg, Type: typ})
	}
	for _, f := range p.fields {
		raw, ok := sent[f.name]
		if !ok {
			continue
		}
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return shapeError(err, "body", f.name) // a number beyond float64
		}
		if v == nil && f.notNull {
			add(typeValue, "must not be null", f.name)
			continue
		}
		if members(v) > maxMembers {
			add(typeValue, fmt.Sprintf("must not have more than %d items", maxMembers), f.name)
			continue
		}
		if hasNUL(v) {
			add(typeValue, "must not contain the character NUL", f.name)
			continue
		}
		checked[f.name] = v
	}
	for _, name := range p.required {
		if _, ok := sent[name]; !ok {
			add(typeValue, "is required", name)
		}
	}
	var result huma.ValidateResult
	huma.Validate(p.registry, p.schema, huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, checked, &result)
	for _, err := range result.Errors {
		var detail *huma.ErrorDetail
		if errors.As(err, &detail) && detail.Location != "" { // at the top only what is required, said above
			add(typeValue, detail.Message, location(detail.Location)...)
		}
	}
	if len(fields) > 0 {
		return &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error", Fields: fields[:min(len(fields), maxFieldErrors)]}
	}
	for _, f := range p.fields {
		if _, ok := checked[f.name]; !ok {
			continue
		}
		if err := json.Unmarshal(sent[f.name], to.Elem().FieldByIndex(f.index).Addr().Interface()); err != nil {
			return shapeError(err, "body", f.name)
		}
	}
	return nil
}

// maxMembers is above every list and map that is allowed. A longer one is refused before it is checked
// item by item, which would answer two megabytes of nonsense with a hundred times as much of errors.
const maxMembers = 1000

func members(v any) int {
	switch v := v.(type) {
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	return 0
}

// maxFieldErrors bounds an answer to a body that is wrong in every place.
const maxFieldErrors = 100

// location turns huma's "channels[0].x" into the wire's ["channels", "[0]", "x"].
func location(path string) []string {
	if path == "" {
		return nil
	}
	var loc []string
	for name := range strings.SplitSeq(path, ".") {
		head, indexes, _ := strings.Cut(name, "[")
		if head != "" {
			loc = append(loc, head)
		}
		if indexes != "" {
			for index := range strings.SplitSeq(strings.TrimSuffix(indexes, "]"), "][") {
				loc = append(loc, "["+index+"]")
			}
		}
	}
	return loc
}

// hasNUL reports whether a decoded value holds a text that Postgres cannot keep.
func hasNUL(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.IndexByte(v, 0) >= 0
	case []any:
		for _, item := range v {
			if hasNUL(item) {
				return true
			}
		}
	case map[string]any:
		for name, item := range v {
			if strings.IndexByte(name, 0) >= 0 || hasNUL(item) {
				return true
			}
		}
	}
	return false
}
