package store

import (
	"context"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// What cannot be sent again, and why.
var (
	errMissingPayload error = &webhook.Error{
		Kind: webhook.KindBadRequest, Code: "missing_payload", Detail: "The message's payload is no longer kept, so it cannot be sent again",
	}
	errEndpointDisabled error = &webhook.Error{
		Kind: webhook.KindBadRequest, Code: "endpoint_disabled", Detail: "The endpoint is disabled; enable it first",
	}
)

// Resend owes a message to an endpoint once more, in one attempt, whatever became of it so far and
// whatever the endpoint's filters say. made is false if such a send is under way already, which is as
// good. The errors are, besides a view's usual ones: KindBadRequest "missing_payload" and
// "endpoint_disabled".
func (v View) Resend(ctx context.Context, appRef, msgRef, endpointRef string, r Release) (d webhook.Delivery, made bool, err error) {
	err = v.transaction(ctx, "resend message", func(tx *gorm.DB) error {
		app, msg, err := v.messageID(tx, appRef, msgRef)
		if err != nil {
			return err
		}
		kept, err := v.payloadKept(tx, app, msg)
		if err != nil {
			return err
		}
		e, err := v.enabledEndpoint(tx, app, endpointRef)
		if err != nil {
			return err
		}
		if !kept {
			return errMissingPayload
		}
		d, made, err = v.owe(tx, msg, e.ID, r)
		return err
	})
	if err != nil {
		return webhook.Delivery{}, false, err
	}
	return d, made, nil
}

// SendExample stores a message that is owed to one endpoint, in one attempt, whatever the filters say.
// m has its id, event type, payload and expiry; KindBadRequest "endpoint_disabled" is an error besides
// a view's usual ones.
func (v View) SendExample(ctx context.Context, appRef, endpointRef string, m webhook.Message, r Release) (made webhook.Message, d webhook.Delivery, err error) {
	err = v.transaction(ctx, "send example", func(tx *gorm.DB) error {
		app, err := v.applicationID(tx, appRef)
		if err != nil {
			return err
		}
		e, err := v.enabledEndpoint(tx, app, endpointRef)
		if err != nil {
			return err
		}
		m.TenantID, m.ApplicationID = v.scope.Tenant, app
		err = tx.Exec(`INSERT INTO message (tenant_id, app_id, id, event_type, payload, expires_at) VALUES (?, ?, ?, ?, ?, ?)`,
			m.TenantID, m.ApplicationID, m.ID, m.EventType, m.Payload, m.ExpiresAt).Error
		if err != nil {
			return err
		}
		d, _, err = v.owe(tx, m.ID, e.ID, r)
		return err
	})
	if err != nil {
		return webhook.Message{}, webhook.Delivery{}, err
	}
	return m, d, nil
}

// payloadKept reports whether a message can still be sent; webhook.ErrNotFound if there is none.
func (v View) payloadKept(q *gorm.DB, app webhook.ApplicationID, msg webhook.MessageID) (kept bool, err error) {
	var found []bool
	err = q.Raw(`SELECT m.payload IS NOT NULL AND m.expires_at > now() FROM message m
		WHERE m.tenant_id = ? AND m.app_id = ? AND m.id = ?`, v.scope.Tenant, app, msg).Scan(&found).Error
	if err == nil && len(found) == 0 {
		err = webhook.ErrNotFound
	}
	return err == nil && found[0], err
}

// enabledEndpoint is an endpoint that may be sent to. It may be disabled a moment later: the worker
// looks again.
func (v View) enabledEndpoint(q *gorm.DB, app webhook.ApplicationID, ref string) (e webhook.Endpoint, err error) {
	if err = v.endpointCalled(q, app, ref).Take(&e).Error; err == nil && e.Disabled {
		err = errEndpointDisabled
	}
	return e, err
}

// oweSQL adds a manual delivery unless there is one. Parking it makes sure of the endpoint's wake in
// the same transaction, as accepting does.
const oweSQL = `
WITH d AS (
	INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, feed, state, due_at)
	SELECT @tenant, @message, @endpoint, @trigger, CASE WHEN @released THEN 1 ELSE 0 END, CASE WHEN @released THEN 1 ELSE 3 END,
		CASE WHEN @released THEN now() + make_interval(secs => @lease) END
	ON CONFLICT DO NOTHING
	RETURNING tenant_id, endpoint_id
), w AS (
	INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at)
	SELECT d.tenant_id, d.endpoint_id, now() FROM d
	WHERE NOT @released AND COALESCE((
		SELECT w.resting_since IS NOT NULL FROM endpoint_wake w WHERE w.tenant_id = d.tenant_id AND w.endpoint_id = d.endpoint_id), true)
	ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET due_at = excluded.due_at, resting_since = NULL
)
SELECT count(*) FROM d`

// owe adds a manual delivery; made is false if there was one.
func (v View) owe(tx *gorm.DB, msg webhook.MessageID, endpoint webhook.EndpointID, r Release) (d webhook.Delivery, made bool, err error) {
	d = webhook.Delivery{DeliveryKey: webhook.DeliveryKey{
		Tenant: v.scope.Tenant, Message: msg, Endpoint: endpoint, Trigger: webhook.TriggerManual,
	}}
	if r.Released {
		d.Feed = 1
	}
	var rows int
	// The types are said because Postgres cannot guess them from a list of values.
	err = tx.Raw(oweSQL, map[string]any{
		"tenant": gorm.Expr("?::uuid", v.scope.Tenant), "message": gorm.Expr("?::uuid", msg), "endpoint": gorm.Expr("?::uuid", endpoint),
		"trigger": gorm.Expr("?::smallint", int16(d.Trigger)), "released": gorm.Expr("?::boolean", r.Released),
		"lease": gorm.Expr("?::float8", r.Lease.Seconds()),
	}).Scan(&rows).Error
	return d, rows == 1, err
}
