package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Together is what one call publishes: those of its messages that can be stored are stored in one
// transaction, with every delivery they owe and with the answer that a repeated call gets.
type Together struct {
	Tenant      webhook.TenantID
	Application string            // id or uid
	Messages    []webhook.Message // IDs minted by the caller
	Idempotency *Idempotency      // nil = none
	Release     Release
	Answer      func([]Accepted) (Response, error) // to the call, one Accepted per message in order
}

// errTooOwing is counted from rows that were written and are taken back.
var errTooOwing error = &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error", Fields: []webhook.Field{{
	Loc: []string{"body", "messages"}, Type: "value_error",
	Msg: "must not owe more than " + strconv.Itoa(webhook.MaxBatchDeliveries) + " deliveries together",
}}}

// AcceptTogether stores a call's messages and returns its answer; accepted is nil if an earlier call
// with the same key was answered so. A message whose event id is taken, in the application or by an
// earlier message of the call, is refused alone, as KindConflict; a missing application, more than
// webhook.MaxBatchDeliveries and a reused key refuse the call.
func (s *Store) AcceptTogether(ctx context.Context, t Together) (answer Response, accepted []Accepted, err error) {
	ordered := s.ordered.expects(t.Tenant, t.Application)
	for range maxAcceptRounds {
		answer, accepted, err = s.acceptTogether(ctx, t, ordered)
		if isUnnumbered(err) {
			ordered = true
			continue
		}
		// A concurrent call took a key or an event id while this one was under way: the next round
		// finds it taken. Nothing of this round was written.
		if !errors.Is(err, errRaced) && !isUnique(err) && !isRolledBack(err) {
			break
		}
	}
	var told *webhook.Error
	if err != nil && !errors.As(err, &told) {
		err = webhook.Unavailable(err, "The messages could not be stored; try again")
	}
	if err != nil {
		return Response{}, nil, err
	}
	return answer, accepted, nil
}

func (s *Store) acceptTogether(ctx context.Context, t Together, ordered bool) (answer Response, accepted []Accepted, err error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return answer, nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback(ctx) }() // nothing, after a commit
	if t.Idempotency != nil {
		first, repeated, err := s.claimKey(ctx, tx, t)
		if err != nil || repeated {
			return first, nil, err
		}
	}
	if err := findApplication(ctx, tx, t); err != nil {
		return answer, nil, err
	}
	if accepted, err = s.writeTogether(ctx, tx, t, ordered); err != nil {
		return answer, nil, err
	}
	if answer, err = t.Answer(accepted); err != nil {
		return answer, nil, err
	}
	if t.Idempotency != nil {
		sealed, err := s.View(webhook.Scope{Tenant: t.Tenant}).sealResponse(t.Idempotency.Key, answer)
		if err != nil {
			return answer, nil, err
		}
		if _, err := tx.Exec(ctx, `UPDATE idempotency SET response = $1 WHERE tenant_id = $2 AND key = $3`,
			sealed, t.Tenant.UUID(), t.Idempotency.Key[:]); err != nil {
			return answer, nil, fmt.Errorf("keep the answer: %w", err)
		}
	}
	failpoint.Hit(failpoint.APIBeforeCommit)
	if err := tx.Commit(ctx); err != nil {
		return answer, nil, fmt.Errorf("commit %d messages: %w", len(t.Messages), err)
	}
	failpoint.Hit(failpoint.APIAfterCommit)
	return answer, accepted, nil
}

// claimKey takes the call's key, waiting for whoever is about to; first is the answer of an earlier
// call that has it, if this call repeats one.
func (s *Store) claimKey(ctx context.Context, tx pgx.Tx, t Together) (first Response, repeated bool, err error) {
	key, tenant := t.Idempotency.Key[:], t.Tenant.UUID()
	made, err := tx.Exec(ctx, `INSERT INTO idempotency (tenant_id, key, body_hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		tenant, key, t.Idempotency.BodyHash[:])
	if err != nil || made.RowsAffected() == 1 {
		return first, false, err
	}
	var body, sealed []byte
	var expired bool
	err = tx.QueryRow(ctx, `SELECT body_hash, response, created_at < now() - make_interval(secs => $3) FROM idempotency
		WHERE tenant_id = $1 AND key = $2 FOR UPDATE`, tenant, key, webhook.IdempotencyRetention.Seconds()).Scan(&body, &sealed, &expired)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return first, false, errRaced // expired and removed since it stood in the way
	case err != nil:
		return first, false, fmt.Errorf("read first answer: %w", err)
	case expired:
		_, err = tx.Exec(ctx, `UPDATE idempotency SET body_hash = $3, response = NULL, message_id = NULL, app_id = NULL, created_at = now()
			WHERE tenant_id = $1 AND key = $2`, tenant, key, t.Idempotency.BodyHash[:])
		return first, false, err
	case t.Idempotency.CheckBody && !bytes.Equal(body, t.Idempotency.BodyHash[:]):
		return first, false, errKeyReused
	}
	first, err = s.View(webhook.Scope{Tenant: t.Tenant}).openResponse(t.Idempotency.Key, sealed)
	return first, true, err
}

// RepeatedTogether is what a call with a key is answered that repeats an earlier one; known is false if it
// does not.
func (s *Store) RepeatedTogether(ctx context.Context, tenant webhook.TenantID, i Idempotency) (first Response, known bool, err error) {
	var body, sealed []byte
	err = s.pool.QueryRow(ctx, `SELECT body_hash, response FROM idempotency
		WHERE tenant_id = $1 AND key = $2 AND created_at >= now() - make_interval(secs => $3)`,
		tenant.UUID(), i.Key[:], webhook.IdempotencyRetention.Seconds()).Scan(&body, &sealed)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return first, false, nil
	case err != nil:
		return first, false, webhook.Unavailable(err, "The first response could not be read; try again")
	case i.CheckBody && !bytes.Equal(body, i.BodyHash[:]):
		return first, false, errKeyReused
	}
	first, err = s.View(webhook.Scope{Tenant: tenant}).openResponse(i.Key, sealed)
	return first, err == nil, err
}

// findApplication refuses a call for nobody even if it has no message that could be refused.
func findApplication(ctx context.Context, tx pgx.Tx, t Together) error {
	id, uid := applicationRef(t.Application)
	var found bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM application WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL)
		OR EXISTS (SELECT FROM application WHERE tenant_id = $1 AND uid = $3 AND deleted_at IS NULL)`, t.Tenant.UUID(), id, uid).Scan(&found)
	if err == nil && !found {
		return webhook.ErrNotFound
	}
	return err
}

func (s *Store) writeTogether(ctx context.Context, tx pgx.Tx, t Together, ordered bool) ([]Accepted, error) {
	batch, out := make([]Accept, len(t.Messages)), make([]Accepted, len(t.Messages))
	var round []int
	taken := make(map[string]bool)
	for i, m := range t.Messages {
		batch[i] = Accept{Message: m, Application: t.Application}
		if m.EventID != "" && taken[m.EventID] {
			out[i].Err = errEventTaken
			continue
		}
		taken[m.EventID] = true
		round = append(round, i)
	}
	if ordered {
		var err error
		if round, err = s.refuseDelayed(ctx, tx, batch, round, out); err != nil {
			return nil, err
		}
	}
	if len(round) == 0 {
		return out, nil
	}
	// One more than is allowed, and no more, is written of a call that owes too much: it is undone.
	if err := s.acceptStatement(ctx, tx, webhook.MaxBatchDeliveries+1, ordered, batch, round, t.Release, out); err != nil {
		return nil, err
	}
	owed := 0
	var lost []int
	for _, i := range round {
		owed += len(out[i].Deliveries)
		if out[i].Message.ID.IsZero() {
			lost = append(lost, i)
		}
	}
	if owed > webhook.MaxBatchDeliveries {
		return nil, errTooOwing
	}
	if again := s.resolveLost(ctx, tx, batch, lost, out); len(again) > 0 {
		return nil, errRaced
	}
	for _, i := range lost {
		if kind := webhook.KindOf(out[i].Err); kind != webhook.KindConflict {
			return nil, out[i].Err // of the application, or of the database: not this message's alone
		}
	}
	return out, nil
}
