package publish

import (
	"context"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Resend owes a message to an endpoint once more, in one attempt, with the errors of
// store.View.Resend. The view may be bound to a transaction: handOut is to be called once that is
// committed. If it never is, the delivery goes when its lease ends.
func (p *Publisher) Resend(ctx context.Context, view store.View, app, message, endpoint string) (handOut func(), err error) {
	release := p.release()
	d, made, err := view.Resend(ctx, app, message, endpoint, release)
	if err != nil {
		return nil, err
	}
	return func() {
		if made {
			p.handOutManual(release, d)
		}
	}, nil
}

// SendExample stores a message of a type with a payload and owes it to one endpoint, in one attempt,
// with the errors of store.View.SendExample. handOut is as for Resend.
func (p *Publisher) SendExample(ctx context.Context, view store.View, app, endpoint, eventType string, payload []byte) (m webhook.Message, handOut func(), err error) {
	m = webhook.Message{ID: webhook.NewMessageID(), EventType: eventType, Payload: payload}
	m.ExpiresAt = m.CreatedAt().Add(webhook.DefaultRetentionDays * 24 * time.Hour)
	release := p.release()
	m, d, err := view.SendExample(ctx, app, endpoint, m, release)
	if err != nil {
		return webhook.Message{}, nil, err
	}
	return m, func() {
		p.o.Metrics.MessagesAccepted.Inc()
		p.handOutManual(release, d)
	}, nil
}
