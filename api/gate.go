package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Who may have paused an endpoint.
const (
	pausedByKey      = "key"
	pausedByCustomer = "customer"
)

// reasons say to a customer why an endpoint is in its state.
var reasons = map[webhook.EndpointState]string{
	webhook.EndpointDisabled:  "The endpoint is disabled: it gets nothing, and what it is owed ends as canceled",
	webhook.EndpointDraining:  "What gathered while the endpoint was away is being sent, more and more at once",
	webhook.EndpointThrottled: "The endpoint has had as many requests as it may have, or can take, for now",
}

// pauses say who paused an endpoint.
var pauses = map[string]string{
	pausedByKey:      "Paused with an API key",
	pausedByCustomer: "Paused by the endpoint's owner",
}

// failures say to a customer what their receiver did wrong, by the class of what failed. A class that
// has none says nothing about a receiver.
var failures = map[webhook.ErrorClass]string{
	webhook.ClassDNS:              "The host name in the endpoint's URL does not resolve",
	webhook.ClassRefused:          "Nothing listens at the endpoint's address",
	webhook.ClassConnect:          "No connection to the endpoint can be made",
	webhook.ClassReset:            "The endpoint breaks connections off before it has answered",
	webhook.ClassTLSExpired:       "The endpoint's certificate has expired or is not valid yet",
	webhook.ClassTLSName:          "The endpoint's certificate is for another host name",
	webhook.ClassTLSUntrusted:     "The endpoint's certificate is not signed by a known authority",
	webhook.ClassTLS:              "No TLS connection to the endpoint can be made",
	webhook.ClassTimeoutDNS:       "The host name in the endpoint's URL takes too long to resolve",
	webhook.ClassTimeoutConnect:   "The endpoint does not accept connections in time",
	webhook.ClassTimeoutTLS:       "The endpoint does not finish the TLS handshake in time",
	webhook.ClassTimeoutHeaders:   "The endpoint does not answer in time",
	webhook.ClassTimeoutBody:      "The endpoint does not finish its answers in time",
	webhook.ClassHeaderTooLarge:   "The endpoint answers with headers that are too large",
	webhook.ClassProtocol:         "What the endpoint answers is not HTTP",
	webhook.ClassRedirect:         "The endpoint answers with redirects, which are not followed",
	webhook.ClassUnauthorized:     "The endpoint answers that we are not allowed (401 or 403)",
	webhook.ClassNotFound:         "The endpoint answers that there is nothing at its URL (404)",
	webhook.ClassGone:             "The endpoint answers that it is gone (410)",
	webhook.ClassPayloadTooLarge:  "The endpoint answers that the payloads are too large (413)",
	webhook.ClassRateLimited:      "The endpoint answers that it gets too many requests (429)",
	webhook.ClassClientError:      "The endpoint answers that the requests are wrong (4xx)",
	webhook.ClassServerError:      "The endpoint answers with server errors (5xx)",
	webhook.ClassUnexpectedStatus: "The endpoint answers with a status that means nothing to us",
}

// endpointStatusOut is how an endpoint's deliveries go.
type endpointStatusOut struct {
	State       string     `json:"state" enum:"active,paused,open,probing,draining,throttled,disabled" doc:"open: it failed so often that it is left alone, but for one delivery at a time that is tried; probing: one is being tried now. draining: it takes up what gathered."`
	Since       *time.Time `json:"since" doc:"Since when it has been paused, or failing; else null."`
	Reason      *string    `json:"reason" doc:"Why, in words for its owner; null: there is nothing to explain."`
	ErrorClass  *string    `json:"errorClass" doc:"Of an open one: the class of what fails. Else null."`
	Failures    int        `json:"failures" doc:"Of an open one: how many attempts have failed in a row."`
	NextProbeAt *time.Time `json:"nextProbeAt" doc:"Of an open one: when the next delivery is tried. Else null."`
	NextWakeAt  *time.Time `json:"nextWakeAt" doc:"When what waits is looked at; null: nothing waits, or not before the endpoint is resumed."`
	Waiting     int        `json:"waiting" doc:"Deliveries that go as soon as they may. 10,001 means more than 10,000."`
	Retrying    int        `json:"retrying" doc:"Deliveries that go at a known time: their next attempt, or the time they are to be delivered at. 10,001 means more than 10,000."`
	OldestAt    *time.Time `json:"oldestAt" doc:"When the oldest message of those was accepted; null: there is none."`
	OldestAge   int64      `json:"oldestAgeSeconds" doc:"How long ago that was."`
}

// ageOf is when the oldest message of a backlog was accepted, and how long ago that was.
func ageOf(b store.Backlog, now time.Time) (at *time.Time, seconds int64) {
	if b.Oldest == nil {
		return nil, 0
	}
	accepted := b.Oldest.Time().UTC()
	return &accepted, max(0, int64(now.Sub(accepted)/time.Second))
}

// waiting is how many deliveries of a backlog go as soon as they may.
func waiting(b store.Backlog) int { return min(b.Parked+b.Ordered, store.MaxCounted+1) }

func endpointStatusJSON(s store.EndpointStatus) endpointStatusOut {
	out := endpointStatusOut{State: string(s.State), Waiting: waiting(s.Backlog), Retrying: s.Backlog.Waiting, Reason: orNull(reasons[s.State])}
	out.OldestAt, out.OldestAge = ageOf(s.Backlog, s.At)
	switch s.Gate.State {
	case webhook.GatePaused:
		out.Since, out.Reason = &s.Gate.Since, orNull(pauses[s.Gate.Reason])
	case webhook.GateOpen, webhook.GateProbing:
		out.Since, out.Reason = &s.Gate.Since, orNull(failures[webhook.ErrorClass(s.Gate.Reason)])
		out.ErrorClass, out.Failures, out.NextProbeAt = &s.Gate.Reason, s.Gate.Failures, &s.Gate.NextAt
	}
	if s.Wake != nil && !s.Wake.Resting && !s.Wake.DueAt.IsZero() {
		out.NextWakeAt = &s.Wake.DueAt
	}
	return out
}

func (s *server) endpointStatus(ctx context.Context, who call, in endpointPath) (int, endpointStatusOut, error) {
	status, err := who.view.EndpointStatus(ctx, in.App, in.Endpoint)
	return http.StatusOK, endpointStatusJSON(status), err
}

func (s *server) endpointPause(ctx context.Context, who call, in endpointPath) (int, endpointStatusOut, error) {
	by := pausedByKey
	if who.app != nil {
		by = pausedByCustomer
	}
	if err := who.view.PauseEndpoint(ctx, in.App, in.Endpoint, by); err != nil {
		return 0, endpointStatusOut{}, err
	}
	return s.endpointStatus(ctx, who, in)
}

func (s *server) endpointResume(ctx context.Context, who call, in endpointPath) (int, endpointStatusOut, error) {
	if err := who.view.ResumeEndpoint(ctx, in.App, in.Endpoint); err != nil {
		return 0, endpointStatusOut{}, err
	}
	return s.endpointStatus(ctx, who, in)
}

// cancelPendingOut is what came of canceling.
type cancelPendingOut struct {
	Canceled int  `json:"canceled" doc:"Deliveries that this call has ended."`
	More     bool `json:"more" doc:"There may be more of them: call again."`
}

func (s *server) endpointCancelPending(ctx context.Context, who call, in endpointPath) (int, cancelPendingOut, error) {
	canceled, more, err := who.view.CancelPending(ctx, in.App, in.Endpoint)
	return http.StatusOK, cancelPendingOut{Canceled: canceled, More: more}, err
}

// backlogOut is what waits for all of a tenant's endpoints.
type backlogOut struct {
	Waiting   int        `json:"waiting" doc:"Deliveries that go as soon as they may. 10,001 means more than 10,000."`
	Retrying  int        `json:"retrying" doc:"Deliveries that go at a known time: their next attempt, or the time they are to be delivered at. 10,001 means more than 10,000."`
	UnderWay  int        `json:"underWay" doc:"Deliveries that are being sent or about to be, of the newest 10,000 that are owed."`
	OldestAt  *time.Time `json:"oldestAt" doc:"When the oldest message of those that were counted was accepted; null: there is none."`
	OldestAge int64      `json:"oldestAgeSeconds" doc:"How long ago that was."`
	Paused    int        `json:"pausedEndpoints" doc:"Endpoints that are paused."`
	Open      int        `json:"openEndpoints" doc:"Endpoints that fail and are left alone."`
}

func (s *server) backlog(ctx context.Context, who call, _ struct{}) (int, backlogOut, error) {
	b, err := who.view.TenantBacklog(ctx)
	out := backlogOut{
		Waiting: waiting(b.Backlog), Retrying: b.Waiting, UnderWay: b.Released,
		Paused: b.Held[webhook.GatePaused], Open: b.Held[webhook.GateOpen] + b.Held[webhook.GateProbing],
	}
	out.OldestAt, out.OldestAge = ageOf(b.Backlog, b.At)
	return http.StatusOK, out, err
}
