package api

import (
	"context"
	"encoding/base64"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

type attemptOut struct {
	ID                 webhook.AttemptID  `json:"id"`
	MsgID              webhook.MessageID  `json:"msgId"`
	EndpointID         webhook.EndpointID `json:"endpointId"`
	Msg                *messageOut        `json:"msg,omitempty" doc:"With with_msg only."`
	URL                string             `json:"url"`
	Response           string             `json:"response" doc:"The beginning of the answer's body, or why there was none; base64 if it is not text; {} when it was not asked for."`
	ResponseStatusCode int16              `json:"responseStatusCode" doc:"0: there was no answer."`
	ResponseDurationMs int64              `json:"responseDurationMs"`
	Status             int                `json:"status" enum:"0,1,2,3,4" doc:"0 success, 1 pending, 2 fail, 3 sending, 4 canceled (as 0 unless expanded_statuses)."`
	StatusText         string             `json:"statusText" enum:"success,pending,fail,sending,canceled"`
	TriggerType        int                `json:"triggerType" enum:"0,1" doc:"0 scheduled, 1 manual."`
	Timestamp          time.Time          `json:"timestamp" doc:"When the attempt started."`
	NextAttempt        *time.Time         `json:"nextAttempt" doc:"When the next one follows, as planned when this one ended."`
	Detail             attemptDetailOut   `json:"detail"`
}

// attemptDetailOut is what is known beyond what clients of this dialect expect.
type attemptDetailOut struct {
	Number            int16              `json:"number" doc:"1 for the first attempt of the delivery."`
	Sent              bool               `json:"sent" doc:"False: the delivery ended without a request."`
	Final             bool               `json:"final" doc:"The delivery ended with it."`
	ErrorClass        webhook.ErrorClass `json:"errorClass" doc:"Why it failed, in one word; empty if it did not."`
	Error             *string            `json:"error"`
	Timings           *timingsOut        `json:"timings,omitempty"`
	RemoteIP          *string            `json:"remoteIp" doc:"The address that was connected to."`
	ReusedConnection  bool               `json:"reusedConnection"`
	TLSVersion        *string            `json:"tlsVersion"`
	CertificateExpiry *time.Time         `json:"certificateExpiry"`
	RequestHeaders    []headerOut        `json:"requestHeaders" doc:"As sent; values of secret headers are masked."`
	ResponseHeaders   []headerOut        `json:"responseHeaders"`
	ResponseTruncated bool               `json:"responseTruncated"`
	ResponseType      *string            `json:"responseContentType"`
	RetryAfter        *string            `json:"retryAfter" doc:"As the receiver wrote it."`
	SignedWith        []webhook.SecretID `json:"signedWith" doc:"The signing keys, the current one first."`
}

// timingsOut are the phases of an attempt in microseconds; 0: it did not take place.
type timingsOut struct {
	DNS       int64 `json:"dnsUs"`
	Connect   int64 `json:"connectUs"`
	TLS       int64 `json:"tlsUs"`
	FirstByte int64 `json:"firstByteUs"`
	Read      int64 `json:"readUs"`
	Total     int64 `json:"totalUs"`
}

type headerOut struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// responseUnasked stands for an answer's body that was not asked for.
const responseUnasked = "{}"

var statusTexts = map[webhook.Status]string{
	webhook.StatusSuccess: "success", webhook.StatusPending: "pending", webhook.StatusFail: "fail",
	webhook.StatusSending: "sending", webhook.StatusCanceled: "canceled",
}

// shownStatus is a status as its asker knows it: clients that do not ask for the expanded set would
// fail on a status they have never heard of.
func shownStatus(s webhook.Status, expanded bool) webhook.Status {
	if s == webhook.StatusCanceled && !expanded {
		return webhook.StatusSuccess
	}
	return s
}

func attemptJSON(a webhook.Attempt, withContent, expanded bool) attemptOut {
	d := a.Detail
	status := shownStatus(a.Status, expanded)
	out := attemptOut{
		ID: a.ID, MsgID: a.MessageID, EndpointID: a.EndpointID, URL: a.URL, Response: responseUnasked,
		ResponseStatusCode: a.HTTPStatus, ResponseDurationMs: a.Duration.Milliseconds(),
		Status: int(status), StatusText: statusTexts[status], TriggerType: int(a.Trigger),
		Timestamp: a.ID.Time(), NextAttempt: d.NextAttempt,
		Detail: attemptDetailOut{
			Number: a.Number, Sent: a.Sent, Final: a.Final, ErrorClass: a.Class, Error: orNull(d.Error),
			RemoteIP: orNull(d.RemoteIP), ReusedConnection: d.Reused, TLSVersion: orNull(d.TLSVersion), CertificateExpiry: d.CertExpiry,
			RequestHeaders: headersJSON(d.RequestHeaders), ResponseHeaders: headersJSON(d.ResponseHeaders),
			ResponseTruncated: d.ResponseTruncated, ResponseType: orNull(d.ContentType), RetryAfter: orNull(d.RetryAfter),
			SignedWith: append([]webhook.SecretID{}, d.SignedWith...),
		},
	}
	if t := d.Timings; t != nil {
		out.Detail.Timings = &timingsOut{DNS: t.DNS, Connect: t.Connect, TLS: t.TLS, FirstByte: t.FirstByte, Read: t.Read, Total: t.Total}
	}
	if withContent {
		out.Response = responseText(a)
	}
	return out
}

// responseText is the answer's body as text or, if there was no answer, why.
func responseText(a webhook.Attempt) string {
	switch {
	case len(a.Response) == 0 && a.HTTPStatus == 0:
		return a.Detail.Error
	case utf8.Valid(a.Response):
		return string(a.Response)
	}
	return base64.StdEncoding.EncodeToString(a.Response)
}

func headersJSON(headers []webhook.Header) []headerOut {
	out := make([]headerOut, len(headers))
	for i, h := range headers {
		out[i] = headerOut(h)
	}
	return out
}

func attemptName(a webhook.Attempt) string { return a.ID.String() }

// attemptQuery narrows a list of attempts and says what to show of them.
type attemptQuery struct {
	pageQuery
	publishedQuery
	contentQuery
	expandedQuery
	Status          *int `query:"status" enum:"0,1,2,3,4"`
	StatusCodeClass *int `query:"status_code_class" enum:"0,100,200,300,400,500" doc:"0: there was no answer."`
	WithMsg         bool `query:"with_msg" default:"false" doc:"Include the messages."`
}

type expandedQuery struct {
	Expanded bool `query:"expanded_statuses" default:"false" doc:"Show status 4, canceled, as such."`
}

func (q attemptQuery) filter() store.AttemptFilter {
	f := store.AttemptFilter{
		StatusCodeClass: q.StatusCodeClass, Channel: string(q.Channel), Tag: string(q.Tag), EventTypes: plain(q.EventTypes),
		Before: q.Before, After: q.After, WithContent: q.WithContent, WithMessages: q.WithMsg,
	}
	if q.Status != nil {
		status := webhook.Status(*q.Status)
		f.Status = &status
	}
	return f
}

func (q attemptQuery) shape(a webhook.Attempt) attemptOut {
	out := attemptJSON(a, q.WithContent, q.Expanded)
	if a.Message != nil {
		m := messageJSON(*a.Message, q.WithContent)
		out.Msg = &m
	}
	return out
}

func (s *server) attemptsByEndpoint(ctx context.Context, who call, in struct {
	endpointPath
	attemptQuery
}) (int, listResponse[attemptOut], error) {
	p, err := in.page(true, isAttemptID)
	if err != nil {
		return 0, listResponse[attemptOut]{}, err
	}
	found, err := who.view.AttemptsByEndpoint(ctx, in.App, in.Endpoint, in.filter(), p)
	return http.StatusOK, listOf(found, in.shape, attemptName), err
}

func (s *server) attemptsByMessage(ctx context.Context, who call, in struct {
	messagePath
	attemptQuery
	Endpoint string `query:"endpoint_id" maxLength:"256" doc:"Only to this endpoint, by id or uid."`
}) (int, listResponse[attemptOut], error) {
	p, err := in.page(true, isAttemptID)
	if err != nil {
		return 0, listResponse[attemptOut]{}, err
	}
	filter := in.filter()
	if filter.EndpointRef = in.Endpoint; in.Endpoint != "" && !isName(in.Endpoint) {
		return 0, listResponse[attemptOut]{}, webhook.ErrNotFound
	}
	found, err := who.view.AttemptsByMessage(ctx, in.App, in.Message, filter, p)
	return http.StatusOK, listOf(found, in.shape, attemptName), err
}

func (s *server) attemptGet(ctx context.Context, who call, in struct {
	messagePath
	expandedQuery
	Attempt string `path:"attempt_id" doc:"The attempt's id."`
}) (int, attemptOut, error) {
	id, err := webhook.ParseID[webhook.AttemptID](in.Attempt)
	if err != nil {
		return 0, attemptOut{}, webhook.ErrNotFound
	}
	a, err := who.view.Attempt(ctx, in.App, in.Message, id)
	return http.StatusOK, attemptJSON(a, true, in.Expanded), err
}
