package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// messageBatchIn documents the body of a batch.
type messageBatchIn struct {
	Messages    []messageIn       `json:"messages" minItems:"1" maxItems:"1000"`
	Application applicationInline `json:"application,omitempty" nullable:"true" doc:"Creates the application if it does not exist; its uid must be the one in the path."`
}

type messageBatch struct {
	applicationPath
	Body messageBatchIn
}

type messageBatchOut struct {
	Data []messageBatchResult `json:"data" doc:"One result per message, in their order."`
}

// messageBatchResult says what became of one message of a batch. It leaves out what the caller has, so
// that the answer stays small and can be kept whole for a repeat.
type messageBatchResult struct {
	ID        *string            `json:"id" doc:"Of the message that was stored; null if it was refused."`
	EventID   *string            `json:"eventId"`
	Timestamp *time.Time         `json:"timestamp" doc:"When it was accepted; null if it was refused."`
	Error     *messageBatchError `json:"error,omitempty" doc:"Why it was refused; absent if it was stored."`
	Warnings  []string           `json:"warnings,omitempty" doc:"Where the payload does not fit its event type's schema, if the tenant wants to be warned."`
}

type messageBatchError struct {
	Code   string     `json:"code" doc:"A machine's word for what is wrong."`
	Detail string     `json:"detail" doc:"One sentence for a person."`
	Fields []fieldOut `json:"fields" doc:"Which fields break which rules, as in a validation error."`
}

// refuse answers for one message as fail does for a request, with its place in the batch.
func (r *messageBatchResult) refuse(err error, i int) {
	_, body := errorAnswer(err, "")
	e := &messageBatchError{Fields: []fieldOut{}}
	r.Error = e
	switch body := body.(type) {
	case errorOut:
		e.Code, e.Detail = body.Code, body.Detail
	case validationOut:
		e.Code, e.Detail = "validation_error", "Validation error"
		for _, f := range body.Detail {
			f.Loc = slices.Concat([]string{"body", "messages", "[" + strconv.Itoa(i) + "]"}, f.Loc[1:])
			e.Fields = append(e.Fields, f)
		}
	}
}

// batchItem is one message of a batch as it was read, or why it cannot be.
type batchItem struct {
	in  messageIn
	err error
}

// batchItems are read one by one: a message of the wrong shape is its own failure.
type batchItems struct {
	list []batchItem
	many bool // more than are allowed; none is read then
}

// UnmarshalJSON takes the list apart without decoding it as a whole, which for a million empty items
// would take a hundred times their size.
func (b *batchItems) UnmarshalJSON(text []byte) error {
	*b = batchItems{}
	if string(text) == "null" {
		return nil
	}
	if text[0] != '[' {
		return invalidAt(typeJSON, []string{"body", "messages"}, "must be an array")
	}
	items, ok := elements(text, webhook.MaxBatch)
	if !ok {
		b.many = true
		return nil
	}
	b.list = make([]batchItem, len(items))
	for i, item := range items {
		b.list[i].err = readBatchItem(item, &b.list[i].in)
	}
	return nil
}

// Schema is never asked for: messageBatchIn documents the body.
func (batchItems) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeArray} }

func readBatchItem(text []byte, in *messageIn) error {
	if text[0] != '{' {
		return invalidAt(typeJSON, []string{"body"}, "must be an object")
	}
	if err := checkEnvelope(text, messageMembers); err != nil {
		return err
	}
	if err := json.Unmarshal(text, in); err != nil {
		return shapeError(err, "body")
	}
	if in.Payload == nil {
		in.Payload = in.Data
	}
	if in.Application != nil {
		return webhook.Invalid("application", "belongs beside messages, once for all of them")
	}
	return nil
}

// elements splits the text of an array that is known to be JSON; ok is false if it has more than limit.
func elements(text []byte, limit int) (items [][]byte, ok bool) {
	depth, inString, start := 0, false, 1
	add := func(end int) bool {
		if item := bytes.TrimSpace(text[start:end]); len(item) > 0 { // else the list is empty
			items = append(items, item)
		}
		return len(items) <= limit
	}
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case b == '"':
			inString = !inString
		case inString && b == '\\':
			i++
		case inString:
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			if depth--; depth == 0 {
				return items, add(i)
			}
		case b == ',' && depth == 1:
			if !add(i) {
				return nil, false
			}
			start = i + 1
		}
	}
	return items, true
}

// publishBatch serves a batch: messages that are refused are left out, the others are stored together.
func (s *server) publishBatch(c *gin.Context, who call) {
	r, err := s.publishTogether(c, who)
	if err != nil {
		s.fail(c, err)
		return
	}
	failpoint.Hit(failpoint.APIBeforeAnswer)
	answer(c, r.Status, r.Body)
}

func (s *server) publishTogether(c *gin.Context, who call) (store.Response, error) {
	b, inline, err := s.readBatch(c, who)
	if err != nil {
		return store.Response{}, err
	}
	ctx := c.Request.Context()
	if err := s.mayPublish(ctx, who, len(b.Requests)); err != nil {
		return store.Response{}, err
	}
	r, err := s.publisher.AcceptTogether(ctx, b)
	if inline != nil && errors.Is(err, webhook.ErrNotFound) {
		if err := s.applicationInline(ctx, who, b.Application, inline); err != nil {
			return r, err
		}
		r, err = s.publisher.AcceptTogether(ctx, b)
	}
	if errors.Is(err, webhook.ErrNotFound) {
		err = errNoApplication
	}
	return r, err
}

// readBatch reads and checks all of a batch.
func (s *server) readBatch(c *gin.Context, who call) (b publish.Batch, inline applicationInline, err error) {
	b = publish.Batch{Tenant: who.view.Scope().Tenant, Application: c.Param("app_id"), Quota: who.limits.MessagesPerDay}
	if !isName(b.Application) {
		return b, nil, invalidAt(typeValue, []string{"path", "app_id_or_uid"}, breaksAlphabet(nameAlphabet, webhook.MaxUIDLength))
	}
	key, keyed, err := idempotencyKey(c)
	if err != nil {
		return b, nil, err
	}
	body, err := readBody(c)
	if err != nil {
		return b, nil, err
	}
	defer release(body)
	failpoint.Hit(failpoint.APIBodyRead)
	var in struct {
		Messages    batchItems        `json:"messages"`
		Application applicationInline `json:"application"`
	}
	if err := checkEnvelope(body.Bytes(), batchMembers); err != nil {
		return b, nil, err
	}
	if err := json.Unmarshal(body.Bytes(), &in); err != nil {
		return b, nil, shapeError(err, "body")
	}
	if in.Messages.many || len(in.Messages.list) == 0 {
		return b, nil, webhook.Invalid("messages", "must be 1 to %d messages", webhook.MaxBatch)
	}
	if keyed {
		b.Key = publishKey(c, b.Tenant, key, body.Bytes())
	}
	out := make([]messageBatchResult, len(in.Messages.list))
	var sent []int // which of the call's messages each request is
	rules := s.rulesOf(who)
	for i, item := range in.Messages.list {
		r, err := batchRequest(item, s.now())
		if err == nil {
			err = checkSize(who, r.Message)
		}
		if err == nil && who.rules.AreAny() {
			out[i].Warnings, err = rules.check(c.Request.Context(), r.Message)
			if kind := webhook.KindOf(err); err != nil && kind != webhook.KindInvalid {
				return b, nil, err // nobody knows the rule: not this message's fault
			}
		}
		if err != nil {
			out[i].refuse(err, i)
			continue
		}
		b.Requests = append(b.Requests, r)
		sent = append(sent, i)
	}
	b.Answer = func(accepted []store.Accepted) (store.Response, error) {
		out := slices.Clone(out) // asked again, with other results, when the transaction has to be repeated
		for j, a := range accepted {
			i := sent[j]
			if a.Err != nil {
				out[i].refuse(a.Err, i)
				continue
			}
			id, at := a.Message.ID.String(), a.Message.CreatedAt()
			out[i].ID, out[i].EventID, out[i].Timestamp = &id, orNull(a.Message.EventID), &at
		}
		text, err := encode(messageBatchOut{Data: out})
		return store.Response{Status: http.StatusAccepted, Body: text}, err
	}
	return b, in.Application, nil
}

// batchRequest checks one message.
func batchRequest(item batchItem, now time.Time) (r publish.Request, err error) {
	if item.err != nil {
		return r, item.err
	}
	if r.Message, r.Retention, err = item.in.message(); err != nil {
		return r, err
	}
	return r, checkDelay(r, now)
}
