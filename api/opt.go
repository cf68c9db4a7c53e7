package api

import (
	"encoding/json"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
)

// Opt is a field of a PATCH that tells three things apart: absent (leave it), null (clear it), a value.
type Opt[T any] struct {
	Sent  bool
	Value *T // nil = null
}

// UnmarshalJSON is called for null too, but not for an absent field.
func (o *Opt[T]) UnmarshalJSON(text []byte) error {
	o.Sent = true
	return json.Unmarshal(text, &o.Value)
}

// Schema is the value's, or null.
func (Opt[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	s.Nullable = true
	return &s
}

// Or is what the field becomes: what it was, nothing, or the value.
func (o Opt[T]) Or(was T) T {
	var none T
	switch {
	case !o.Sent:
		return was
	case o.Value == nil:
		return none
	}
	return *o.Value
}

// Set is a field of a PATCH that may be absent (leave it) but not null.
type Set[T any] struct {
	Sent  bool
	Value T
}

// UnmarshalJSON is not called for an absent field.
func (o *Set[T]) UnmarshalJSON(text []byte) error {
	o.Sent = true
	return json.Unmarshal(text, &o.Value)
}

// Schema is the value's.
func (Set[T]) Schema(r huma.Registry) *huma.Schema {
	s := *r.Schema(reflect.TypeFor[T](), true, "")
	return &s
}

// Or is what the field becomes: what it was, or the value.
func (o Set[T]) Or(was T) T {
	if o.Sent {
		return o.Value
	}
	return was
}

func (Set[T]) refusesNull() {}

// nullRefuser is a field that has no null.
type nullRefuser interface{ refusesNull() }

// either is the value under the new name of a field or, if that is absent, under its old one: both
// generations of clients are served.
func either[T any](renamed, old Opt[T]) Opt[T] {
	if renamed.Sent {
		return renamed
	}
	return old
}

// first is the value under the new name of a field or, if there is none, under its old one.
func first[T any](renamed, old *T) *T {
	if renamed != nil {
		return renamed
	}
	return old
}
