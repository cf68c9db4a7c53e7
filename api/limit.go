package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/webhook"
)

// limitsIn are limits as the operator says them; what is absent or null is unsaid.
type limitsIn struct {
	DeliverRate    *int `json:"deliverRate,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"Deliveries per second, over all applications."`
	DeliverBurst   *int `json:"deliverBurst,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"How many may go at once after a pause; null: a tenth of a second's worth, at least one."`
	PublishRate    *int `json:"publishRate,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"Messages per second that are accepted."`
	PublishBurst   *int `json:"publishBurst,omitempty" nullable:"true" minimum:"1" maximum:"1000000"`
	KeyRate        *int `json:"keyRate,omitempty" nullable:"true" minimum:"1" maximum:"1000000" doc:"Messages per second that are accepted of one API key."`
	KeyBurst       *int `json:"keyBurst,omitempty" nullable:"true" minimum:"1" maximum:"1000000"`
	MessagesPerDay *int `json:"messagesPerDay,omitempty" nullable:"true" minimum:"1" maximum:"1000000000000" doc:"Messages that are accepted from midnight to midnight in UTC."`
	MaxEndpoints   *int `json:"maxEndpoints,omitempty" nullable:"true" minimum:"1" maximum:"100000000" doc:"Endpoints, over all applications."`
	MaxPayload     *int `json:"maxPayload,omitempty" nullable:"true" minimum:"1" maximum:"1048576" doc:"Bytes of one message's payload."`
	Weight         *int `json:"weight,omitempty" nullable:"true" minimum:"1" maximum:"100" doc:"The share of what is free, against other tenants'; null: 1."`
}

// LimitsOut are limits; null is none. It is exported for huma, which documents the fields of embedded
// types only then.
type LimitsOut struct {
	DeliverRate    *int   `json:"deliverRate" doc:"Deliveries per second, over all applications."`
	DeliverBurst   *int   `json:"deliverBurst" doc:"How many may go at once after a pause; null: a tenth of a second's worth, at least one."`
	PublishRate    *int   `json:"publishRate" doc:"Messages per second that are accepted."`
	PublishBurst   *int   `json:"publishBurst"`
	KeyRate        *int   `json:"keyRate" doc:"Messages per second that are accepted of one API key."`
	KeyBurst       *int   `json:"keyBurst"`
	MessagesPerDay *int64 `json:"messagesPerDay" doc:"Messages that are accepted from midnight to midnight in UTC."`
	MaxEndpoints   *int   `json:"maxEndpoints" doc:"Endpoints, over all applications."`
	MaxPayload     *int   `json:"maxPayload" doc:"Bytes of one message's payload."`
}

// operatorLimitsOut also has what is between the operator and the others.
type operatorLimitsOut struct {
	LimitsOut
	Weight *int `json:"weight" doc:"The share of what is free, against other tenants'; null: 1."`
}

func limitsJSON(l webhook.Limits) LimitsOut {
	return LimitsOut{
		DeliverRate: orNull(l.DeliverRate), DeliverBurst: orNull(l.DeliverBurst), PublishRate: orNull(l.PublishRate), PublishBurst: orNull(l.PublishBurst),
		KeyRate: orNull(l.KeyRate), KeyBurst: orNull(l.KeyBurst), MessagesPerDay: orNull(l.MessagesPerDay),
		MaxEndpoints: orNull(l.MaxEndpoints), MaxPayload: orNull(l.MaxPayload),
	}
}

func operatorLimitsJSON(l webhook.Limits) operatorLimitsOut {
	return operatorLimitsOut{LimitsOut: limitsJSON(l), Weight: orNull(l.Weight)}
}

// limits checks limits. That each is within its bounds is checked here as well as by the schema, since
// members of an object within a body are read under any spelling of their names.
func (in limitsIn) limits() (l webhook.Limits, err error) {
	days := 0
	for _, f := range []struct {
		name string
		said *int
		to   *int
		most int
	}{
		{"deliverRate", in.DeliverRate, &l.DeliverRate, webhook.MaxRate}, {"deliverBurst", in.DeliverBurst, &l.DeliverBurst, webhook.MaxRate},
		{"publishRate", in.PublishRate, &l.PublishRate, webhook.MaxRate}, {"publishBurst", in.PublishBurst, &l.PublishBurst, webhook.MaxRate},
		{"keyRate", in.KeyRate, &l.KeyRate, webhook.MaxRate}, {"keyBurst", in.KeyBurst, &l.KeyBurst, webhook.MaxRate},
		{"messagesPerDay", in.MessagesPerDay, &days, webhook.MaxMessagesPerDay},
		{"maxEndpoints", in.MaxEndpoints, &l.MaxEndpoints, webhook.MaxTenantEndpoints},
		{"maxPayload", in.MaxPayload, &l.MaxPayload, webhook.MaxPayload}, {"weight", in.Weight, &l.Weight, webhook.MaxWeight},
	} {
		if f.said == nil {
			continue
		}
		if *f.said < 1 || *f.said > f.most {
			return l, invalidAt(typeValue, []string{"body", "limits", f.name}, "must be 1 to "+strconv.Itoa(f.most))
		}
		*f.to = *f.said
	}
	l.MessagesPerDay = int64(days)
	return l, nil
}

type tenantUsageOut struct {
	MessagesToday int64     `json:"messagesToday" doc:"Accepted since midnight in UTC. Without a limit of messages a day, counted up to 100,000."`
	ResetsAt      time.Time `json:"resetsAt" doc:"The next midnight in UTC."`
	Endpoints     int       `json:"endpoints"`
}

type tenantLimitsOut struct {
	Plan   *string        `json:"plan" doc:"The name of the plan that the limits come from; null: none."`
	Limits LimitsOut      `json:"limits"`
	Usage  tenantUsageOut `json:"usage"`
}

func (s *server) limitsGet(ctx context.Context, who call, _ struct{}) (int, tenantLimitsOut, error) {
	t, u, err := who.view.Usage(ctx)
	_, midnight := webhook.Day(s.now())
	return http.StatusOK, tenantLimitsOut{
		Plan: orNull(t.Plan), Limits: limitsJSON(t.Effective),
		Usage: tenantUsageOut{MessagesToday: u.MessagesToday, ResetsAt: midnight, Endpoints: u.Endpoints},
	}, err
}

// mayPublish takes n messages out of the rates of a tenant and of the key that is used. A call is let in
// as soon as one message would be, and what it has too many is waited for by the next: a batch may be
// larger than any burst. When Redis does not answer, everything passes, since accepting does not depend
// on it.
func (s *server) mayPublish(ctx context.Context, who call, n int) error {
	whole, key := who.limits.Publish(), who.limits.Key()
	if s.limiter == nil || whole.PerSecond == 0 && key.PerSecond == 0 {
		return nil
	}
	grants, err := s.limiter.Take(ctx, []ratelimit.Want{{Tenant: who.view.Scope().Tenant, N: n, Whole: true, Limits: []ratelimit.Limit{
		{On: ratelimit.Publishes(), Rate: ratelimit.Rate(whole)}, {On: ratelimit.APIKey(who.key), Rate: ratelimit.Rate(key)},
	}}})
	switch {
	case err != nil:
		s.log.DebugContext(ctx, "publish rate not checked", "error", err)
		return nil
	case grants[0].N == n:
		return nil
	}
	wait := grants[0].Wait
	switch {
	case key.PerSecond == 0:
		return webhook.TooMany(wait, "rate_limited", "The tenant's limit is %d messages per second", whole.PerSecond)
	case whole.PerSecond == 0:
		return webhook.TooMany(wait, "rate_limited", "The limit is %d messages per second of one API key", key.PerSecond)
	}
	return webhook.TooMany(wait, "rate_limited", "The tenant's limit is %d messages per second, and %d of one API key", whole.PerSecond, key.PerSecond)
}

// checkSize holds a payload to its tenant's limit, which may be lower than everybody's.
func checkSize(who call, m webhook.Message) error {
	if most := who.limits.MaxPayload; most > 0 && len(m.Payload) > most {
		return &webhook.Error{Kind: webhook.KindTooLarge, Detail: "The payload is larger than the tenant's limit of " + strconv.Itoa(most) + " bytes"}
	}
	return nil
}
