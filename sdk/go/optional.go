package posthaste

import (
	"bytes"
	"encoding/json"
)

// Optional is a field that is left to the server, or as it is, unless it is Set: [Set](v). It is nil
// until then.
type Optional[T any] interface {
	value() any
	orNothing(T)
}

// Nullable is an Optional that may also be emptied: [Null][T]().
type Nullable[T any] interface {
	value() any
	orNothing(T)
	orNull(T)
}

// Set makes a field have a value, its zero value too.
func Set[T any](v T) Value[T] { return Value[T]{v} }

// Value is what [Set] makes; it fits an Optional and a Nullable field.
type Value[T any] struct{ v T }

// MarshalJSON is that of the value.
func (s Value[T]) MarshalJSON() ([]byte, error) { return encode(s.v) }

func (s Value[T]) value() any  { return s.v }
func (s Value[T]) orNothing(T) {}
func (s Value[T]) orNull(T)    {}

// Null empties a field.
func Null[T any]() Nullable[T] { return null[T]{} }

type null[T any] struct{}

// MarshalJSON is null.
func (null[T]) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

func (null[T]) value() any  { return nil }
func (null[T]) orNothing(T) {}
func (null[T]) orNull(T)    {}

// Headers are custom headers of an endpoint, by their names.
type Headers map[string]string

// MarshalJSON is an object even if there are none.
func (h Headers) MarshalJSON() ([]byte, error) {
	if h == nil {
		return []byte("{}"), nil
	}
	return encode(map[string]string(h))
}

// TransformationsParams let a message deliver something else than a JSON object.
type TransformationsParams struct {
	// RawPayload is delivered as it is, in place of the payload.
	RawPayload string `json:"rawPayload,omitzero"`
	// Headers may name its content-type, which is application/json if they do not.
	Headers map[string]string `json:"headers,omitzero"`
}

// encode writes a value as JSON, without making markup of < and > in what others are to receive.
func encode(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}
