package api

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/posthaste/posthaste/internal/schema"
	"github.com/posthaste/posthaste/internal/webhook"
)

// maxChecking bounds what checking the payloads of one request may take together.
const maxChecking = 500 * time.Millisecond

// messageRules are a tenant's rules at work on the messages of one request. The event type is read for
// every request, so that a change of it counts at once; only compiled schemas are kept.
type messageRules struct {
	s     *server
	who   call
	known map[string]webhook.EventType // by name, as read for this request; without a name = there is none
	spent time.Duration
}

func (s *server) rulesOf(who call) *messageRules {
	return &messageRules{s: s, who: who, known: make(map[string]webhook.EventType)}
}

// check refuses a message that breaks a rule, or says what to warn of.
func (r *messageRules) check(ctx context.Context, m webhook.Message) (warnings []string, err error) {
	e, err := r.eventType(ctx, m.EventType)
	if err != nil {
		return nil, err
	}
	rules := r.who.rules
	switch {
	case rules.StrictEventTypes && e.Name == "":
		return nil, webhook.Invalid("eventType", "must be an event type that exists")
	case rules.StrictEventTypes && e.Archived:
		return nil, webhook.Invalid("eventType", "must not be an archived event type")
	case rules.SchemaValidation != webhook.ValidationWarn && rules.SchemaValidation != webhook.ValidationReject:
		return nil, nil
	}
	found, err := r.mismatches(e, m)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	refused := &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error"}
	for _, mismatch := range found {
		path := append([]string{"payload"}, mismatch.Path...)
		warnings = append(warnings, strings.Join(path, ".")+" "+mismatch.Rule)
		refused.Fields = append(refused.Fields, webhook.Field{Loc: append([]string{"body"}, path...), Msg: mismatch.Rule, Type: typeValue})
	}
	if rules.SchemaValidation == webhook.ValidationReject {
		return nil, refused
	}
	return warnings, nil
}

// mismatches are where a payload does not fit. One that cannot be checked within the limits does not,
// else making it expensive would be a way past the rule.
func (r *messageRules) mismatches(e webhook.EventType, m webhook.Message) (found []schema.Mismatch, err error) {
	tooMuch := []schema.Mismatch{{Rule: "cannot be checked against the schema within the limits"}}
	if len(e.Schemas) == 0 {
		return nil, nil
	}
	if r.spent > maxChecking {
		return tooMuch, nil
	}
	start := time.Now()
	found, err = r.s.schemas.CheckPayload(e.Schemas, m.Payload)
	r.spent += time.Since(start)
	if errors.Is(err, schema.ErrCost) {
		return tooMuch, nil
	}
	return found, err
}

func (r *messageRules) eventType(ctx context.Context, name string) (webhook.EventType, error) {
	if e, ok := r.known[name]; ok {
		return e, nil
	}
	e, err := r.who.view.EventType(ctx, name)
	if err != nil {
		if webhook.KindOf(err) != webhook.KindNotFound {
			return e, err
		}
		e = webhook.EventType{}
	}
	r.known[name] = e
	return e, nil
}
