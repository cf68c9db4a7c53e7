package webhook

import (
	"errors"
	"fmt"
	"time"
)

// Kind is what a caller may want to tell apart about an error. One place in the API turns it into a
// status code; the text behind an internal error never leaves the process.
type Kind uint8

// The kinds.
const (
	KindInternal     Kind = iota // our fault; details are logged, not shown
	KindBadRequest               // the request cannot be understood
	KindInvalid                  // understood, but a field breaks a rule
	KindUnauthorized             // no or no valid credential
	KindForbidden                // the credential does not allow it
	KindNotFound                 // it does not exist, or not for this caller
	KindConflict                 // it collides with something that exists
	KindTooLarge                 // the body is over the limit
	KindRateLimited              // too many requests
	KindUnavailable              // cannot be done now; the same call may succeed later
)

// Field is one broken rule of one field, in the terms of the request.
type Field struct {
	Loc  []string // where: "body", then the names on the way to the field
	Msg  string   // the rule, for a person
	Type string   // a machine's word for the rule, for instance "value_error"
}

// Error is an error that its caller may be told.
type Error struct {
	Kind   Kind
	Code   string        // the wire's word, for instance "not_found"; empty = the kind's usual one
	Detail string        // one sentence for a person
	Fields []Field       // for KindInvalid
	After  time.Duration // for KindRateLimited: how long until the same may succeed; 0 = unsaid
	Err    error         // the cause, for the log only
}

// Error is the text for logs: detail, fields and cause.
func (e *Error) Error() string {
	text := e.Detail
	for _, f := range e.Fields {
		text = fmt.Sprintf("%s %v: %s", text, f.Loc, f.Msg)
	}
	if e.Err != nil {
		text = fmt.Sprintf("%s: %v", text, e.Err)
	}
	return text
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first Error in the chain, KindInternal if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return KindInternal
}

// ErrNotFound is the one answer for what does not exist and for what belongs to somebody else.
var ErrNotFound error = &Error{Kind: KindNotFound, Code: "not_found", Detail: "Entity not found"}

// Conflict says that a write collides with something that exists.
func Conflict(code, format string, args ...any) error {
	return &Error{Kind: KindConflict, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// TooMany says that the same call may succeed after a while.
func TooMany(after time.Duration, code, format string, args ...any) error {
	return &Error{Kind: KindRateLimited, Code: code, Detail: fmt.Sprintf(format, args...), After: after}
}

// Unavailable says that the same call may succeed later; cause is logged, never shown.
func Unavailable(cause error, format string, args ...any) error {
	return &Error{Kind: KindUnavailable, Code: "unavailable", Detail: fmt.Sprintf(format, args...), Err: cause}
}

// Invalid says which field of the body breaks which rule.
func Invalid(field, format string, args ...any) error {
	return &Error{Kind: KindInvalid, Detail: "Validation error", Fields: []Field{{
		Loc: []string{"body", field}, Msg: fmt.Sprintf(format, args...), Type: "value_error",
	}}}
}
