package soak

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/traffic"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// overdue is how long ago the oldest delivery of a backlog was due.
	overdue = time.Hour
	// keptFor is how long the messages of a backlog are kept.
	keptFor = 24 * time.Hour
)

func endpointID(text string) ([16]byte, error) {
	id, err := webhook.ParseID[webhook.EndpointID](text)
	if err != nil {
		return [16]byte{}, fmt.Errorf("endpoint %s: %w", text, err)
	}
	return id.UUID(), nil
}

// rows are the keys of a backlog.
type rows struct {
	tenant, application [16]byte
	endpoints           [][16]byte
	messages            [][16]byte
	now                 time.Time
}

// newRows makes the keys of so many messages, each for one of a place's endpoints in turn. Their ids are of
// this moment, as those of messages posted now: so they lie in the partition of today, which is there. Only
// their due times are in the past.
func newRows(tenant rig.Tenant, at place, count int, now time.Time) (*rows, error) {
	t, err := webhook.ParseID[webhook.TenantID](tenant.ID)
	if err != nil {
		return nil, fmt.Errorf("tenant %s: %w", tenant.ID, err)
	}
	a, err := webhook.ParseID[webhook.ApplicationID](at.application)
	if err != nil {
		return nil, fmt.Errorf("application %s: %w", at.application, err)
	}
	r := &rows{tenant: t.UUID(), application: a.UUID(), messages: make([][16]byte, count), now: now}
	for _, text := range at.endpoints {
		id, err := endpointID(text)
		if err != nil {
			return nil, err
		}
		r.endpoints = append(r.endpoints, id)
	}
	for i := range r.messages {
		r.messages[i] = webhook.NewMessageID().UUID()
	}
	return r, nil
}

func (r *rows) endpoint(i int) [16]byte { return r.endpoints[i%len(r.endpoints)] }

// due spreads the due times evenly over the past, the first message first.
func (r *rows) due(i int) time.Time {
	return r.now.Add(-overdue + time.Duration(float64(overdue)*float64(i)/float64(len(r.messages))))
}

// load writes the backlog with COPY: all of it becomes visible at one moment, that of the commit, which is
// returned.
func (r *rows) load(ctx context.Context, conn *pgx.Conn) (time.Time, error) {
	fail := func(err error) (time.Time, error) { return time.Time{}, fmt.Errorf("load a backlog: %w", err) }
	var payload []byte
	messages := pgx.CopyFromSlice(len(r.messages), func(i int) ([]any, error) {
		payload = traffic.AppendPayload(payload[:0], uint32(i), r.now)
		return []any{r.tenant, r.application, r.messages[i], "lab.soak", payload, r.now.Add(keptFor)}, nil
	})
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"message"},
		[]string{"tenant_id", "app_id", "id", "event_type", "payload", "expires_at"}, messages); err != nil {
		return fail(err)
	}
	deliveries := pgx.CopyFromSlice(len(r.messages), func(i int) ([]any, error) {
		return []any{r.tenant, r.messages[i], r.endpoint(i), int16(webhook.TriggerScheduled), int16(webhook.StateWaiting), r.due(i)}, nil
	})
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{"delivery"},
		[]string{"tenant_id", "message_id", "endpoint_id", "trigger", "state", "due_at"}, deliveries); err != nil {
		return fail(err)
	}
	return time.Now(), nil
}
