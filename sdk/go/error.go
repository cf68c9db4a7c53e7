package posthaste

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kinds of an [Error], for errors.Is.
var (
	ErrBadRequest   = errors.New("posthaste: the request cannot be understood")        // 400
	ErrUnauthorized = errors.New("posthaste: the key is not valid")                    // 401
	ErrForbidden    = errors.New("posthaste: the key may not do this")                 // 403
	ErrNotFound     = errors.New("posthaste: not found")                               // 404
	ErrConflict     = errors.New("posthaste: there is one already")                    // 409
	ErrTooLarge     = errors.New("posthaste: the request is too large")                // 413
	ErrInvalid      = errors.New("posthaste: a field breaks a rule")                   // 422
	ErrRateLimited  = errors.New("posthaste: too many requests")                       // 429
	ErrUnavailable  = errors.New("posthaste: the server cannot answer for the moment") // 5xx
)

// ErrResponseTooLarge says that an answer is longer than the client reads; WithMaxResponse sets how long
// that is, and a list's Limit how long its pages get.
var ErrResponseTooLarge = errors.New("posthaste: the answer is too large")

// Error is an answer that is no success.
type Error struct {
	Status     int           // of the answer, for instance 422
	Code       string        // a machine's word for what is wrong; "" if the answer is not from the API
	Detail     string        // one sentence for a person
	Fields     []FieldError  // which fields break which rules
	RequestID  string        // names the request in the server's log
	RetryAfter time.Duration // how long the server asks to be left alone; 0 = it does not say

	request string // method and path pattern; no ids, which may be secret
}

// Error says what was asked and why it was refused.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "posthaste: %s: %d", e.request, e.Status)
	if e.Code != "" {
		b.WriteString(" " + e.Code)
	}
	if e.Detail != "" {
		b.WriteString(": " + e.Detail)
	}
	for i, f := range e.Fields {
		separator := ": "
		if i > 0 {
			separator = "; "
		}
		b.WriteString(separator + strings.Join(f.Loc, ".") + " " + f.Msg)
	}
	if e.RequestID != "" {
		b.WriteString(" (" + e.RequestID + ")")
	}
	return b.String()
}

// Is reports whether the error is of a kind.
func (e *Error) Is(kind error) bool {
	switch e.Status {
	case http.StatusBadRequest:
		return kind == ErrBadRequest
	case http.StatusUnauthorized:
		return kind == ErrUnauthorized
	case http.StatusForbidden:
		return kind == ErrForbidden
	case http.StatusNotFound:
		return kind == ErrNotFound
	case http.StatusConflict:
		return kind == ErrConflict
	case http.StatusRequestEntityTooLarge:
		return kind == ErrTooLarge
	case http.StatusUnprocessableEntity:
		return kind == ErrInvalid
	case http.StatusTooManyRequests:
		return kind == ErrRateLimited
	}
	return e.Status >= 500 && kind == ErrUnavailable
}

// refusal makes an error of an answer, whoever gave it: a proxy's is not JSON.
func refusal(request string, status int, header http.Header, body []byte, now time.Time) *Error {
	e := &Error{Status: status, RequestID: header.Get("X-Request-Id"), RetryAfter: retryAfter(header, now), request: request}
	var said struct {
		Code      string
		Detail    json.RawMessage
		RequestID string
	}
	if json.Unmarshal(body, &said) != nil {
		e.Detail = http.StatusText(status)
		return e
	}
	e.Code = said.Code
	if e.RequestID == "" {
		e.RequestID = said.RequestID
	}
	if json.Unmarshal(said.Detail, &e.Detail) != nil && json.Unmarshal(said.Detail, &e.Fields) == nil && e.Code == "" {
		e.Code = "validation_error"
	}
	if e.Detail == "" && len(e.Fields) == 0 {
		e.Detail = http.StatusText(status)
	}
	return e
}
