package store

import (
	"context"
	"encoding/json"
	"fmt"

	"gorm.io/gorm"

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

// ExpungeAttempt removes the body and the headers of an attempt's answer for good and puts Expunged in
// place of the body. What stays is what happened: status, timings, address, what was sent. Doing it
// again changes nothing.
func (v View) ExpungeAttempt(ctx context.Context, appRef, msgRef string, id webhook.AttemptID) error {
	const doing = "expunge attempt"
	return v.transaction(ctx, doing, func(tx *gorm.DB) error {
		app, msg, err := v.messageID(tx, appRef, msgRef)
		if err != nil {
			return err
		}
		rows, err := tx.Raw(`SELECT `+attemptColumns+`, `+attemptWithoutResponse+` FROM attempt a
			WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id = ? FOR UPDATE`, v.scope.Tenant, app, msg, id).Rows()
		if err != nil {
			return err
		}
		found, err := v.scanAttempts(rows, app)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return webhook.ErrNotFound
		}
		detail, err := json.Marshal(found[0].Detail.WithoutContent())
		if err != nil {
			return fmt.Errorf("encode attempt: %w", err)
		}
		return tx.Exec(`UPDATE attempt a SET response = convert_to(?::text, 'UTF8'), detail = ?
			WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id = ?`, Expunged, detail, v.scope.Tenant, app, msg, id).Error
	})
}
