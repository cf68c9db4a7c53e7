package store

import (
	"context"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Expunged stands for the answer's body of an attempt that was removed on demand.
const Expunged = "EXPUNGED"

// ExpungeMessage removes a message's payload for good, which is in no other place. What is still owed
// ends as expired, unless it is being sent at this moment. Doing it again changes nothing.
func (v View) ExpungeMessage(ctx context.Context, appRef, ref string) error {
	q := v.db.WithContext(ctx)
	app, id, err := v.messageID(q, appRef, ref)
	if err != nil {
		return failure("expunge message", err)
	}
	done := q.Exec(`UPDATE message m SET payload = NULL WHERE m.tenant_id = ? AND m.app_id = ? AND m.id = ?`, v.scope.Tenant, app, id)
	if err = done.Error; err == nil && done.RowsAffected == 0 {
		err = webhook.ErrNotFound
	}
	return failure("expunge message", err)
}

// ExpungeAttempt removes the body of an attempt's answer for good and puts Expunged in its place. Doing
// it again changes nothing.
func (v View) ExpungeAttempt(ctx context.Context, appRef, msgRef string, id webhook.AttemptID) error {
	q := v.db.WithContext(ctx)
	app, msg, err := v.messageID(q, appRef, msgRef)
	if err != nil {
		return failure("expunge attempt", err)
	}
	done := q.Exec(`UPDATE attempt a SET response = convert_to(?::text, 'UTF8')
		WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id = ?`, Expunged, v.scope.Tenant, app, msg, id)
	if err = done.Error; err == nil && done.RowsAffected == 0 {
		err = webhook.ErrNotFound
	}
	return failure("expunge attempt", err)
}
