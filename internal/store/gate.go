package store

import (
	"context"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// What holds an endpoint back is a row of endpoint_gate, and what makes it so is the endpoint's wake,
// which is set for later: accept parks what it owes to such an endpoint, and the feeder, when the wake is
// due, asks the gate what may go. Whoever changes a gate locks the endpoint (if it needs it at all), then
// the gate, then the wake, each in the order of their keys. Nobody who holds a wake asks for a gate.

// wakeGateSQL sets the wake of the endpoints of the relation "g" (tenant_id, endpoint_id) for a time, and
// how many may go then. It makes the wake if there is none: nothing that is parked may be forgotten.
const wakeGateSQL = `, l AS MATERIALIZED (
	SELECT g.tenant_id, g.endpoint_id, g.wake_at FROM (SELECT * FROM g ORDER BY tenant_id, endpoint_id) g CROSS JOIN LATERAL (
		SELECT FROM stream s WHERE s.tenant_id = g.tenant_id AND s.endpoint_id = g.endpoint_id FOR UPDATE OFFSET 0
	) s
), s AS (
	UPDATE stream s SET due_at = l.wake_at FROM l WHERE s.tenant_id = l.tenant_id AND s.endpoint_id = l.endpoint_id
)
INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at, take)
SELECT g.tenant_id, g.endpoint_id, g.wake_at, g.take FROM g ORDER BY 1, 2
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET due_at = excluded.due_at, resting_since = NULL, take = excluded.take`

// PauseEndpoint keeps whatever the endpoint is owed until it is resumed, for as long as messages are
// kept; by says who asked for it. An endpoint that is paused stays as it is; an open breaker is
// forgotten. What is under way already is still sent.
func (v View) PauseEndpoint(ctx context.Context, appRef, ref, by string) error {
	return v.changeEndpoint(ctx, "pause endpoint", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		return tx.Exec(`
WITH g AS (
	INSERT INTO endpoint_gate AS g (tenant_id, endpoint_id, state, since, reason) VALUES (?, ?, 1, ?, ?)
	ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET state = 1, since = excluded.since, reason = excluded.reason, failures = 0, next_at = NULL
	WHERE g.tenant_id = excluded.tenant_id AND g.state <> 1
	RETURNING tenant_id, endpoint_id, 'infinity'::timestamptz AS wake_at, NULL::integer AS take
)`+wakeGateSQL, e.TenantID, e.ID, v.store.now(), by).Error
	})
}

// ResumeEndpoint ends a pause: what has gathered goes, few at first. An endpoint whose breaker is open is
// probed at once. Of any other it changes nothing.
func (v View) ResumeEndpoint(ctx context.Context, appRef, ref string) error {
	return v.changeEndpoint(ctx, "resume endpoint", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		err := tx.Exec(`
WITH g AS (
	DELETE FROM endpoint_gate WHERE tenant_id = ? AND endpoint_id = ? AND state = 1
	RETURNING tenant_id, endpoint_id, now() AS wake_at, ?::integer AS take
)`+wakeGateSQL, e.TenantID, e.ID, webhook.RampStart).Error
		if err != nil {
			return err
		}
		return tx.Exec(`
WITH g AS (
	UPDATE endpoint_gate SET next_at = now() WHERE tenant_id = ? AND endpoint_id = ? AND state = 2
	RETURNING tenant_id, endpoint_id, now() AS wake_at, NULL::integer AS take
)`+wakeGateSQL, e.TenantID, e.ID).Error
	})
}

// dropGates forgets the gates of the tenant's deleted endpoints, so that what they are owed comes to its
// end without delay. It locks them in order, as whoever changes several must.
func (v View) dropGates(tx *gorm.DB) error {
	return tx.Exec(`
WITH g AS (
	DELETE FROM endpoint_gate WHERE ctid = ANY (ARRAY (
		SELECT g.ctid FROM endpoint_gate g WHERE g.tenant_id = ? AND EXISTS (
			SELECT FROM endpoint e WHERE e.tenant_id = g.tenant_id AND e.id = g.endpoint_id AND e.deleted_at IS NOT NULL)
		ORDER BY g.endpoint_id FOR UPDATE))
	RETURNING tenant_id, endpoint_id, now() AS wake_at, NULL::integer AS take
)`+wakeGateSQL, v.scope.Tenant).Error
}

// gateAfterChange is what a change of an endpoint means to its breaker. A disabled one needs none, since
// nothing is sent; with another URL, or enabled again, the receiver is a new one until it shows otherwise.
// A pause is somebody's wish and stays.
func (v View) gateAfterChange(tx *gorm.DB, before, after webhook.Endpoint) error {
	disabled, enabled := after.Disabled && !before.Disabled, before.Disabled && !after.Disabled
	if !disabled && !enabled && before.URL == after.URL {
		return nil
	}
	var take *int // of what only ends, as many as there is room for
	if !after.Disabled {
		start := webhook.RampStart
		take = &start
	}
	return tx.Exec(`
WITH g AS (
	DELETE FROM endpoint_gate WHERE tenant_id = ? AND endpoint_id = ? AND state IN (2, 3)
	RETURNING tenant_id, endpoint_id, now() AS wake_at, ?::integer AS take
)`+wakeGateSQL, after.TenantID, after.ID, take).Error
}
