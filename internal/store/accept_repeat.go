package store

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// firstPublish is what is kept of a publish with an idempotency key.
type firstPublish struct {
	Message, KeyApp *[16]byte // none = the key is of another kind of request
	BodyHash        []byte    // none = there was no such publish
	Note            []byte    // sealed
	Expired         *bool
}

// Repeated answers a publish that an earlier one with its key has answered; known is false if none has
// in the last webhook.IdempotencyRetention.
func (s *Store) Repeated(ctx context.Context, a Accept) (answer Accepted, known bool, err error) {
	if a.Idempotency == nil {
		return answer, false, nil
	}
	var f firstPublish
	err = s.pool.QueryRow(ctx, `SELECT message_id, app_id, body_hash, response, created_at < now() - make_interval(secs => $3)
		FROM idempotency WHERE tenant_id = $1 AND key = $2`, a.Message.TenantID.UUID(), a.Idempotency.Key[:], webhook.IdempotencyRetention.Seconds()).
		Scan(&f.Message, &f.KeyApp, &f.BodyHash, &f.Note, &f.Expired)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && *f.Expired:
		return answer, false, nil
	case err != nil:
		return answer, false, webhook.Unavailable(err, "The first response could not be read; try again")
	}
	return s.replay(ctx, &a, f), true, nil
}

// sealNote keeps a publish's note as the answers of other requests are kept.
func (s *Store) sealNote(a *Accept) ([]byte, error) {
	if a.Idempotency.Note == nil {
		return nil, nil
	}
	return s.View(webhook.Scope{Tenant: a.Message.TenantID}).sealResponse(a.Idempotency.Key, Response{Body: a.Idempotency.Note})
}

// replay answers a repeated publish with the message of the first, and with what was said of it.
func (s *Store) replay(ctx context.Context, a *Accept, f firstPublish) Accepted {
	if a.Idempotency.CheckBody && !bytes.Equal(f.BodyHash, a.Idempotency.BodyHash[:]) || f.Message == nil || f.KeyApp == nil {
		return Accepted{Err: errKeyReused}
	}
	m := webhook.Message{TenantID: a.Message.TenantID, ApplicationID: *f.KeyApp, ID: *f.Message}
	var eventID, contentType *string
	var deliverAt *time.Time
	err := s.pool.QueryRow(ctx, `SELECT event_type, event_id, channels, tags, payload, content_type, expires_at, deliver_at FROM message
		WHERE tenant_id = $1 AND app_id = $2 AND id = $3`, m.TenantID.UUID(), m.ApplicationID.UUID(), m.ID.UUID()).
		Scan(&m.EventType, &eventID, &m.Channels, &m.Tags, &m.Payload, &contentType, &m.ExpiresAt, &deliverAt)
	if err != nil {
		return Accepted{Err: webhook.Unavailable(err, "The first response could not be read; try again")}
	}
	if eventID != nil {
		m.EventID = *eventID
	}
	if contentType != nil {
		m.ContentType = *contentType
	}
	if deliverAt != nil {
		m.DeliverAt = *deliverAt
	}
	answer := Accepted{Message: m, Replayed: true}
	if f.Note != nil {
		note, err := s.View(webhook.Scope{Tenant: m.TenantID}).openResponse(a.Idempotency.Key, f.Note)
		if err != nil {
			return Accepted{Err: err}
		}
		answer.Note = note.Body
	}
	return answer
}
