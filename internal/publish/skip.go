package publish

import (
	"context"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Skip ends the message at the head of an ordered endpoint's stream, with the errors of
// store.View.SkipHead. The view may be bound to a transaction: goOn is to be called once that is
// committed. If it never is, the feeder finds what may go next.
func (p *Publisher) Skip(ctx context.Context, view store.View, app, endpoint, message string) (skipped webhook.MessageID, goOn func(), err error) {
	skipped, stream, err := view.SkipHead(ctx, app, endpoint, message)
	return skipped, func() { p.o.Dispatcher.OfferStreams(p.o.Lease, stream) }, err
}
