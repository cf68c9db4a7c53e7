package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/webhook"
)

// errorOut is the body of every error but a validation error.
type errorOut struct {
	Code      string `json:"code" doc:"A machine's word for what is wrong."`
	Detail    string `json:"detail" doc:"One sentence for a person."`
	RequestID string `json:"requestId" doc:"Names this request in the server's log."`
}

// validationOut is the body of a 422 that is about fields.
type validationOut struct {
	Detail    []fieldOut `json:"detail"`
	RequestID string     `json:"requestId"`
}

type fieldOut struct {
	Loc  []string `json:"loc" doc:"Where: body, query, path or header, then the names on the way to the field."`
	Msg  string   `json:"msg" doc:"The rule that is broken."`
	Type string   `json:"type" doc:"A machine's word for the rule."`
}

// Types of a field's error.
const (
	typeValue      = "value_error"            // a rule is broken
	typeJSON       = "value_error.jsondecode" // not JSON, or not of the shape
	typeUIDMissing = "application_uid_missing"
	typeUIDOther   = "application_uid_mismatch"
)

// retryAfter is what a caller that was turned away for now is told to wait, unless the error knows better.
const retryAfter = time.Second

// retryAfterOf is after how many whole seconds the same may succeed; sooner, it would not.
func retryAfterOf(err error) int {
	after := retryAfter
	if e, ok := errors.AsType[*webhook.Error](err); ok && e.After > 0 {
		after = e.After
	}
	return int((after + time.Second - 1) / time.Second)
}

var (
	errNoRoute    error = &webhook.Error{Kind: webhook.KindNotFound, Code: "not_found", Detail: "There is nothing at this path; what there is stands at " + docsPath}
	errNoMethod   error = &methodError{}
	errTooLarge   error = &webhook.Error{Kind: webhook.KindTooLarge, Detail: "The body is larger than " + strconv.Itoa(webhook.MaxBody) + " bytes"}
	errPayload    error = &webhook.Error{Kind: webhook.KindTooLarge, Detail: "The payload is larger than " + strconv.Itoa(webhook.MaxPayload) + " bytes"}
	errToken      error = &webhook.Error{Kind: webhook.KindUnauthorized, Detail: "Invalid token"}
	errSecret     error = &webhook.Error{Kind: webhook.KindUnauthorized, Detail: "Invalid token: this is an endpoint's signing secret, not an API key"}
	errScope      error = &webhook.Error{Kind: webhook.KindForbidden, Detail: "The API key's scopes do not allow this"}
	errCapability error = &webhook.Error{Kind: webhook.KindForbidden, Detail: "The application token's capabilities do not allow this"}
	errNoSession  error = &webhook.Error{Kind: webhook.KindForbidden, Detail: "Only an application token may do this"}
	errGuesses    error = &webhook.Error{Kind: webhook.KindRateLimited, Detail: "Too many requests with invalid tokens from this address"}
)

// methodError is a 405: known to HTTP, but not to the domain's kinds.
type methodError struct{}

func (*methodError) Error() string { return "method not allowed" }

// kinds says how each kind of error is answered: status and usual code. This is the only place that
// turns one into the other.
var kinds = map[webhook.Kind]struct {
	status int
	code   string
}{
	webhook.KindInternal:     {http.StatusInternalServerError, "server_error"},
	webhook.KindBadRequest:   {http.StatusBadRequest, "generic_error"},
	webhook.KindInvalid:      {http.StatusUnprocessableEntity, "validation_error"},
	webhook.KindUnauthorized: {http.StatusUnauthorized, "authentication_failed"},
	webhook.KindForbidden:    {http.StatusForbidden, "insufficient access"},
	webhook.KindNotFound:     {http.StatusNotFound, "not_found"},
	webhook.KindConflict:     {http.StatusConflict, "conflict"},
	webhook.KindTooLarge:     {http.StatusRequestEntityTooLarge, "payload_too_large"},
	webhook.KindRateLimited:  {http.StatusTooManyRequests, "rate_limited"},
	webhook.KindUnavailable:  {http.StatusServiceUnavailable, "unavailable"},
}

// errorAnswer is the status and body of an error. What is behind an internal error is not in it.
func errorAnswer(err error, requestID string) (int, any) {
	var method *methodError
	if errors.As(err, &method) {
		return http.StatusMethodNotAllowed, errorOut{"method_not_allowed", "This path does not know this method", requestID}
	}
	var e *webhook.Error
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			e = &webhook.Error{Kind: webhook.KindUnavailable, Detail: "The request could not be finished in time; try again"}
		} else {
			e = &webhook.Error{Kind: webhook.KindInternal}
		}
	}
	kind, known := kinds[e.Kind]
	if !known || e.Kind == webhook.KindInternal {
		return http.StatusInternalServerError, errorOut{"server_error", "Something went wrong on our side", requestID}
	}
	if e.Kind == webhook.KindInvalid && len(e.Fields) > 0 {
		out := validationOut{Detail: make([]fieldOut, len(e.Fields)), RequestID: requestID}
		for i, f := range e.Fields {
			out.Detail[i] = fieldOut{Loc: f.Loc, Msg: f.Msg, Type: f.Type}
			if out.Detail[i].Loc == nil {
				out.Detail[i].Loc = []string{"body"}
			}
			if f.Type == "" {
				out.Detail[i].Type = typeValue
			}
		}
		return kind.status, out
	}
	code := e.Code
	if code == "" {
		code = kind.code
	}
	return kind.status, errorOut{code, e.Detail, requestID}
}

// fail answers with an error, and logs it when it is ours.
func (s *server) fail(c *gin.Context, err error) {
	id := requestID(c)
	status, body := errorAnswer(err, id)
	switch {
	case c.Request.Context().Err() != nil:
		// The caller has gone; whatever failed, failed because of that.
		s.log.DebugContext(c.Request.Context(), "request abandoned", "request_id", id, "route", s.route(c), "error", err)
	case status == http.StatusServiceUnavailable:
		s.log.WarnContext(c.Request.Context(), "request refused for now", "request_id", id, "route", s.route(c), "error", err)
	case status >= http.StatusInternalServerError:
		s.log.ErrorContext(c.Request.Context(), "request failed", "request_id", id, "route", s.route(c),
			"status", status, "error", err)
	}
	switch status {
	case http.StatusUnauthorized:
		c.Header("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if c.Writer.Header().Get("Retry-After") == "" {
			c.Header("Retry-After", strconv.Itoa(retryAfterOf(err)))
		}
	}
	text, encodeErr := encode(body)
	if encodeErr != nil { // it is made of strings
		panic(encodeErr)
	}
	answer(c, status, text)
	c.Abort()
}

// invalidAt says which part of the request breaks which rule.
func invalidAt(typ string, loc []string, msg string) error {
	return &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error", Fields: []webhook.Field{{Loc: loc, Msg: msg, Type: typ}}}
}

// badQuery says that a query parameter cannot be understood at all.
func badQuery(name, rule string) error {
	return &webhook.Error{Kind: webhook.KindBadRequest, Detail: "Invalid query parameter " + name + ": " + rule}
}
