package store

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// What holds an endpoint back is a row of endpoint_gate, and what makes it so is the endpoint's wake,
// which is set for later: accept parks what it owes to such an endpoint, and the feeder, when the wake is
// due, asks the gate what may go. Whoever changes a gate locks the endpoint (if it needs it at all), then
// the gate, then the wake, each in the order of their keys. Nobody who holds a wake asks for a gate.

// wakeGateSQL sets the wake of the endpoints of the relation "g" (tenant_id, endpoint_id) for a time, and
// how many may go then. It makes the wake if there is none: nothing that is parked may be forgotten.
const wakeGateSQL = `, s AS (
	UPDATE stream s SET due_at = g.wake_at FROM g WHERE s.tenant_id = g.tenant_id AND s.endpoint_id = g.endpoint_id
)
INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at, take)
SELECT g.tenant_id, g.endpoint_id, g.wake_at, g.take FROM g ORDER BY 1, 2
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET due_at = excluded.due_at, resting_since = NULL, take = excluded.take`

const (
	// The lock on the endpoint keeps it from being disabled or deleted between the look and the commit:
	// whoever does that removes the gate.
	openBreakerSQL = `
WITH e AS MATERIALIZED (
	SELECT e.tenant_id, e.id FROM endpoint e
	WHERE e.tenant_id = $1 AND e.id = $2 AND e.url = $3 AND e.deleted_at IS NULL AND NOT e.disabled FOR SHARE
), g AS (
	INSERT INTO endpoint_gate (tenant_id, endpoint_id, state, since, reason, failures, next_at)
	SELECT e.tenant_id, e.id, 2, now(), $4, $5, now() + make_interval(secs => $6) FROM e
	ON CONFLICT (tenant_id, endpoint_id) DO NOTHING
	RETURNING tenant_id, endpoint_id, next_at AS wake_at, NULL::integer AS take
)` + wakeGateSQL

	probeFailedSQL = `
WITH g AS (
	UPDATE endpoint_gate SET state = 2, failures = failures + 1, reason = $3, next_at = now() + make_interval(secs => $4)
	WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 3
	RETURNING tenant_id, endpoint_id, next_at AS wake_at, NULL::integer AS take
)` + wakeGateSQL

	probeAgainSQL = `
WITH g AS (
	UPDATE endpoint_gate SET state = 2, next_at = now()
	WHERE tenant_id = $1 AND endpoint_id = $2 AND state = 3
	RETURNING tenant_id, endpoint_id, next_at AS wake_at, NULL::integer AS take
)` + wakeGateSQL

	closeBreakerSQL = `
WITH g AS (
	DELETE FROM endpoint_gate WHERE tenant_id = $1 AND endpoint_id = $2 AND state IN (2, 3)
	RETURNING tenant_id, endpoint_id, now() AS wake_at, $3::integer AS take
)` + wakeGateSQL
)

// gateChanged runs a statement about one endpoint's gate and reports whether it changed anything.
func (s *Store) gateChanged(ctx context.Context, doing, sql string, args ...any) (bool, error) {
	tag, err := s.pool.Exec(ctx, sql, args...)
	if err != nil {
		return false, fmt.Errorf("%s: %w", doing, err)
	}
	return tag.RowsAffected() > 0, nil
}

// OpenBreaker opens the breaker of an endpoint after a streak of failures; the first probe is due after
// wait. It changes nothing, and reports so, if the endpoint is paused or open already, or is no longer
// what failed: deleted, disabled or given another URL.
func (s *Store) OpenBreaker(ctx context.Context, tenant webhook.TenantID, endpoint webhook.EndpointID, streak webhook.Streak, wait time.Duration) (bool, error) {
	return s.gateChanged(ctx, "open breaker", openBreakerSQL, tenant.UUID(), endpoint.UUID(), streak.URL,
		string(streak.Reason()), streak.Failures, wait.Seconds())
}

// ProbeFailed puts off the next probe of an endpoint for wait; class says why this one failed. Of several
// probes under way the first counts.
func (s *Store) ProbeFailed(ctx context.Context, tenant webhook.TenantID, endpoint webhook.EndpointID, class webhook.ErrorClass, wait time.Duration) (bool, error) {
	return s.gateChanged(ctx, "put off probe", probeFailedSQL, tenant.UUID(), endpoint.UUID(), string(class), wait.Seconds())
}

// ProbeAgain has an endpoint probed anew at once, because what was to be its probe ended unsent.
func (s *Store) ProbeAgain(ctx context.Context, tenant webhook.TenantID, endpoint webhook.EndpointID) (bool, error) {
	return s.gateChanged(ctx, "probe again", probeAgainSQL, tenant.UUID(), endpoint.UUID())
}

// CloseBreaker lets an endpoint's deliveries go again, few at first. It leaves a paused one alone.
func (s *Store) CloseBreaker(ctx context.Context, tenant webhook.TenantID, endpoint webhook.EndpointID) (bool, error) {
	return s.gateChanged(ctx, "close breaker", closeBreakerSQL, tenant.UUID(), endpoint.UUID(), webhook.RampStart)
}

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
