package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Trace is everything known about one message, for whoever runs the installation. It holds neither
// the payload nor answers' bodies.
type Trace struct {
	Tenant      webhook.TenantID      `json:"tenant"`
	Application webhook.ApplicationID `json:"application"`
	Message     webhook.MessageID     `json:"message"`
	AcceptedAt  time.Time             `json:"acceptedAt"`
	EventType   string                `json:"eventType"`
	EventID     string                `json:"eventId,omitempty"`
	Channels    []string              `json:"channels,omitempty"`
	Tags        []string              `json:"tags,omitempty"`
	PayloadSize *int                  `json:"payloadSize"` // bytes; null = expired or expunged
	ExpiresAt   time.Time             `json:"expiresAt"`
	DeliverAt   *time.Time            `json:"deliverAt,omitempty"`
	Owed        []TraceDelivery       `json:"owed"`
	Attempts    []TraceAttempt        `json:"attempts"`
}

// TraceDelivery is a delivery that has not ended.
type TraceDelivery struct {
	Endpoint webhook.EndpointID `json:"endpoint"`
	Trigger  webhook.Trigger    `json:"trigger"`
	State    string             `json:"state"`
	Attempt  int16              `json:"attempt"` // made so far
	Feed     int16              `json:"feed"`    // handings-out since the last attempt
	Lost     int16              `json:"lost"`    // of which nothing was heard
	DueAt    *time.Time         `json:"dueAt"`
	WakeAt   *time.Time         `json:"wakeAt"` // when the endpoint's parked deliveries are looked at; null: not before it is resumed
}

// TraceAttempt is an attempt, or the end of a delivery without one.
type TraceAttempt struct {
	Endpoint   webhook.EndpointID    `json:"endpoint"`
	Attempt    webhook.AttemptID     `json:"attempt"`
	At         time.Time             `json:"at"`
	Trigger    webhook.Trigger       `json:"trigger"`
	Number     int16                 `json:"number"`
	Sent       bool                  `json:"sent"`
	Final      bool                  `json:"final"`
	Status     webhook.Status        `json:"status"`
	HTTPStatus int16                 `json:"httpStatus"`
	Class      webhook.ErrorClass    `json:"class,omitempty"`
	Duration   time.Duration         `json:"durationNs"`
	Detail     webhook.AttemptDetail `json:"detail"`
}

var stateWords = map[webhook.State]string{
	webhook.StateReleased: "released", webhook.StateWaiting: "waiting", webhook.StateParked: "parked", webhook.StateFIFO: "fifo",
}

// Trace collects what is known of a message of any tenant. Without the tenant it has to search the
// message's day, so it is not for requests.
func (s *Store) Trace(ctx context.Context, id webhook.MessageID) (Trace, error) {
	t := Trace{Message: id, AcceptedAt: id.Time(), Owed: []TraceDelivery{}, Attempts: []TraceAttempt{}}
	// One snapshot: a delivery that ends in between would be seen in both lists or in none.
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		var eventID *string
		err := tx.QueryRow(ctx, `SELECT tenant_id, app_id, event_type, event_id, channels, tags, octet_length(payload), expires_at, deliver_at
			FROM message WHERE id = $1`, id.UUID()).Scan((*[16]byte)(&t.Tenant), (*[16]byte)(&t.Application), &t.EventType,
			&eventID, &t.Channels, &t.Tags, &t.PayloadSize, &t.ExpiresAt, &t.DeliverAt)
		if errors.Is(err, pgx.ErrNoRows) {
			return webhook.ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("read message: %w", err)
		}
		if eventID != nil {
			t.EventID = *eventID
		}
		if t.Owed, err = traceOwed(ctx, tx, t); err != nil {
			return err
		}
		t.Attempts, err = traceAttempts(ctx, tx, t)
		return err
	})
	if err != nil {
		return Trace{}, failure("trace message", err)
	}
	return t, nil
}

func traceOwed(ctx context.Context, tx pgx.Tx, t Trace) ([]TraceDelivery, error) {
	rows, err := tx.Query(ctx, `SELECT d.endpoint_id, d.trigger, d.state, d.attempt, d.feed, d.lost, d.due_at, CASE WHEN isfinite(w.due_at) THEN w.due_at END
		FROM delivery d LEFT JOIN endpoint_wake w ON w.tenant_id = d.tenant_id AND w.endpoint_id = d.endpoint_id
		WHERE d.tenant_id = $1 AND d.message_id = $2 ORDER BY d.endpoint_id, d.trigger`, t.Tenant.UUID(), t.Message.UUID())
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	owed := []TraceDelivery{}
	var d TraceDelivery
	var trigger, state int16
	into := []any{(*[16]byte)(&d.Endpoint), &trigger, &state, &d.Attempt, &d.Feed, &d.Lost, &d.DueAt, &d.WakeAt}
	_, err = pgx.ForEachRow(rows, into, func() error {
		d.Trigger, d.State = webhook.Trigger(trigger), stateWords[webhook.State(state)]
		owed = append(owed, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	return owed, nil
}

func traceAttempts(ctx context.Context, tx pgx.Tx, t Trace) ([]TraceAttempt, error) {
	rows, err := tx.Query(ctx, `SELECT endpoint_id, id, trigger, number, sent, final, status, http_status, error_class, duration_ms, detail
		FROM attempt WHERE tenant_id = $1 AND message_id = $2 AND id >= $3 ORDER BY id`,
		t.Tenant.UUID(), t.Message.UUID(), attemptIDAt(t.AcceptedAt.Add(-clockAhead)).UUID())
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	attempts := []TraceAttempt{}
	var a TraceAttempt
	var trigger, status int16
	var class string
	var milliseconds int64
	var detail []byte
	into := []any{(*[16]byte)(&a.Endpoint), (*[16]byte)(&a.Attempt), &trigger, &a.Number, &a.Sent, &a.Final, &status,
		&a.HTTPStatus, &class, &milliseconds, &detail}
	_, err = pgx.ForEachRow(rows, into, func() error {
		a.At, a.Trigger, a.Status, a.Class = a.Attempt.Time(), webhook.Trigger(trigger), webhook.Status(status), webhook.ErrorClass(class)
		a.Duration, a.Detail = time.Duration(milliseconds)*time.Millisecond, webhook.AttemptDetail{}
		if len(detail) > 0 {
			if err := json.Unmarshal(detail, &a.Detail); err != nil {
				return fmt.Errorf("decode attempt %s: %w", a.Attempt, err)
			}
		}
		attempts = append(attempts, a)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read attempts: %w", err)
	}
	return attempts, nil
}
