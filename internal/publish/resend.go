package publish

import (
	"context"

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
			p.handOut(release, []webhook.Delivery{d})
		}
	}, nil
}
