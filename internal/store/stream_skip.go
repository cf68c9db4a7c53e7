package store

import (
	"context"
	"errors"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// errNotOrdered says that an endpoint has no line from which something could be taken.
var errNotOrdered error = &webhook.Error{
	Kind: webhook.KindBadRequest, Code: "not_ordered", Detail: "The endpoint does not take its messages in order, so that none waits for another",
}

// SkipHead ends the message at the head of an ordered endpoint's stream as canceled, so that the next may go,
// and returns it. With a wanted message, an id or an event id, it does so only if that is the head. The
// errors are, besides a view's usual ones: KindBadRequest "not_ordered", and KindConflict "nothing_waiting",
// "being_sent" and "not_the_head".
func (v View) SkipHead(ctx context.Context, appRef, ref, wanted string) (head webhook.MessageID, stream StreamKey, err error) {
	err = v.changeEndpoint(ctx, "skip message", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		stream = StreamKey{e.TenantID, e.ID}
		if e.Ordering != webhook.OrderingFIFO {
			return errNotOrdered
		}
		var only webhook.MessageID
		if wanted != "" {
			if _, only, err = v.messageID(tx, appRef, wanted); err != nil {
				return err
			}
		}
		// The stream first, then what is in it: so nothing is released meanwhile.
		err := tx.Exec(lockStreamSQL, e.TenantID, e.ID).Error
		if err != nil {
			return err
		}
		var d struct {
			MessageID webhook.MessageID
			Attempt   int16
			Out       bool
		}
		err = tx.Raw(`SELECT message_id, attempt, state = 1 AND due_at > now() AS out FROM delivery
			WHERE tenant_id = ? AND endpoint_id = ? AND seq > 0 ORDER BY seq LIMIT 1 FOR UPDATE`, e.TenantID, e.ID).Take(&d).Error
		switch {
		case errors.Is(err, gorm.ErrRecordNotFound):
			return webhook.Conflict("nothing_waiting", "Nothing waits for its turn at this endpoint")
		case err != nil:
			return err
		case wanted != "" && only != d.MessageID:
			return webhook.Conflict("not_the_head", "The first message in the endpoint's line is %s", d.MessageID)
		case d.Out:
			return webhook.Conflict("being_sent", "%s is being sent at this moment; if that fails it can be skipped then", d.MessageID)
		}
		head = d.MessageID
		return v.endCanceled(tx, e, d.MessageID, d.Attempt)
	})
	return head, stream, err
}

// endCanceled ends a scheduled delivery without a request.
func (v View) endCanceled(tx *gorm.DB, e webhook.Endpoint, message webhook.MessageID, attempts int16) error {
	err := tx.Exec(`DELETE FROM delivery WHERE tenant_id = ? AND message_id = ? AND endpoint_id = ? AND trigger = 0`,
		e.TenantID, message, e.ID).Error
	if err != nil {
		return err
	}
	detail := webhook.AttemptDetail{Error: "skipped on request"}
	return tx.Exec(`INSERT INTO attempt (tenant_id, app_id, message_id, endpoint_id, id, trigger, number, sent, final, status,
			http_status, error_class, duration_ms, url, response, detail)
		VALUES (?, ?, ?, ?, ?, 0, ?, false, true, ?, 0, ?, 0, ?, NULL, ?)`,
		e.TenantID, e.ApplicationID, message, e.ID, webhook.NewAttemptIDAt(time.Now()), attempts+1,
		int16(webhook.StatusCanceled), string(webhook.ClassCanceled), e.URL, detail.AppendJSON(nil)).Error
}
