package api

import (
	"encoding/json"
	"mime"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/posthaste/posthaste/internal/webhook"
)

// transformationsRaw may hold a payload that is delivered in place of the object. Everything else in it
// is ignored: it addresses transformations, of which there are none.
type transformationsRaw struct {
	rawPayload  *string
	contentType *string
}

// UnmarshalJSON looks for the members that count. Names of headers are the same in any case.
func (t *transformationsRaw) UnmarshalJSON(text []byte) error {
	var in struct {
		RawPayload *string         `json:"rawPayload"`
		Headers    json.RawMessage `json:"headers"`
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*t = transformationsRaw{rawPayload: in.RawPayload}
	var headers map[string]*string
	if in.RawPayload == nil || len(in.Headers) == 0 {
		return nil
	}
	if err := json.Unmarshal(in.Headers, &headers); err != nil {
		return err
	}
	for name, value := range headers {
		if strings.EqualFold(name, "content-type") {
			t.contentType = value
		}
	}
	return nil
}

// Schema is any object.
func (transformationsRaw) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeObject, AdditionalProperties: true,
		Description: "rawPayload, a text, is delivered as it is in place of the payload; headers may name its content-type, application/json if not.",
	}
}

// plainJSON is what a raw payload is said to be unless its sender says otherwise.
const plainJSON = "application/json"

// raw puts a raw payload, if there is one, into a message.
func (t transformationsRaw) raw(m *webhook.Message) error {
	if t.rawPayload == nil {
		return nil
	}
	at := func(member, rule string) error {
		return invalidAt(typeValue, []string{"body", "transformationsParams", member}, rule)
	}
	m.Payload, m.ContentType = []byte(*t.rawPayload), plainJSON
	switch {
	case len(m.Payload) == 0:
		return at("rawPayload", "must not be empty")
	case len(m.Payload) > webhook.MaxPayload:
		return errPayload
	case t.contentType == nil:
		return nil
	}
	m.ContentType = *t.contentType
	if _, _, err := mime.ParseMediaType(m.ContentType); err != nil || len(m.ContentType) > webhook.MaxContentType || !isPrintable(m.ContentType) {
		return at("headers", "content-type must be a media type of at most "+strconv.Itoa(webhook.MaxContentType)+" bytes")
	}
	return nil
}

// isPrintable reports whether a text is ASCII that a header may hold.
func isPrintable(text string) bool {
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return true
}
