package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Recorded is what happened to a delivery and what follows from it.
type Recorded struct {
	Delivery webhook.Delivery // as it was handed out; a result that comes late changes nothing but by success
	Attempt  webhook.Attempt  // its id minted before sending, so that writing it twice writes it once
	Outcome  webhook.Outcome
	Last     bool // of a task that is sent in order: nothing follows, what was not sent has been put back
	Probe    bool // it was the probe of an open breaker
}

// maxRecordTries bounds how often a batch is written again after Postgres rolled it back.
const maxRecordTries = 5

// detailSize is what the detail of an ordinary attempt takes, in bytes.
const detailSize = 1024

// recordSQL writes a batch of attempts and ends the deliveries that are over. A success ends its
// delivery even if it has been handed out anew meanwhile; a success of a manual send ends the
// scheduled one too; a failure counts only under its own fence. An attempt is final if the delivery
// ended with it. The rows are locked in the order of their keys and deleted by address: a join would
// let the planner scan the table whenever vacuum has last seen it empty.
const (
	recordSQL = recordEndSQL + recordAttemptSQL

	// recordTaskSQL is the same for batches in which a task's delivery may end.
	recordTaskSQL = recordEndSQL + `, ended AS (
	SELECT g.tenant_id, g.task_id, bool_or(t.status = 0) AS ok, max(t.id::text) AS at
	FROM gone g JOIN t USING (tenant_id, message_id, endpoint_id, trigger)
	WHERE g.task_id IS NOT NULL AND t.final GROUP BY g.tenant_id, g.task_id, g.message_id, g.endpoint_id
), counted AS (` + countEndedSQL + `)` + recordAttemptSQL

	recordEndSQL = `
WITH t AS MATERIALIZED (
	SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::smallint[], $6::smallint[],
		$7::uuid[], $8::uuid[], $9::smallint[], $10::boolean[], $11::boolean[], $12::smallint[], $13::smallint[], $14::text[],
		$15::integer[], $16::text[], $17::bytea[], $18::bytea[])
		AS t(tenant_id, message_id, endpoint_id, trigger, attempt, feed,
			app_id, id, number, sent, final, status, http_status, error_class, duration_ms, url, response, detail)
), gone AS (
	DELETE FROM delivery WHERE ctid = ANY (ARRAY (
		SELECT d.ctid FROM t CROSS JOIN LATERAL (
			SELECT d.ctid FROM delivery d
			WHERE d.tenant_id = t.tenant_id AND d.message_id = t.message_id AND d.endpoint_id = t.endpoint_id
			AND (d.trigger = t.trigger AND (t.status = 0 OR d.attempt = t.attempt AND d.feed = t.feed)
				OR t.status = 0 AND t.trigger = 1)
			FOR UPDATE OFFSET 0
		) d WHERE t.final
	)) RETURNING tenant_id, message_id, endpoint_id, trigger, task_id
)`
	recordAttemptSQL = `
INSERT INTO attempt (tenant_id, app_id, message_id, endpoint_id, id, trigger, number, sent, final, status,
	http_status, error_class, duration_ms, url, response, detail)
SELECT t.tenant_id, t.app_id, t.message_id, t.endpoint_id, t.id, t.trigger, t.number, t.sent,
	t.final AND (t.status = 0 OR EXISTS (
		SELECT FROM gone g WHERE g.message_id = t.message_id AND g.endpoint_id = t.endpoint_id AND g.trigger = t.trigger
		AND g.tenant_id = t.tenant_id)),
	t.status, t.http_status, t.error_class, t.duration_ms, t.url, t.response, t.detail
FROM t ON CONFLICT DO NOTHING`
)

// retrySQL sends failed deliveries into their wait, each under its own fence. An attempt that is not
// counted leaves the number of handings-out as it is, for its fence must not come again; where that
// number would leave its column, what once had the first ones is long over.
const retrySQL = `
WITH x AS MATERIALIZED (
	SELECT d.ctid AS at, t.wait, t.free
	FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::smallint[], $6::smallint[], $7::float8[], $8::boolean[])
		AS t(tenant_id, message_id, endpoint_id, trigger, attempt, feed, wait, free)
	CROSS JOIN LATERAL (
		SELECT d.ctid FROM delivery d
		WHERE d.tenant_id = t.tenant_id AND d.message_id = t.message_id AND d.endpoint_id = t.endpoint_id AND d.trigger = t.trigger
		AND d.attempt = t.attempt AND d.feed = t.feed
		FOR UPDATE OFFSET 0
	) d
), waits AS MATERIALIZED (SELECT jsonb_object_agg(at::text, wait) AS of, COALESCE(array_agg(at) FILTER (WHERE free), '{}') AS free FROM x)
UPDATE delivery SET lost = 0, state = 2,
	attempt = CASE WHEN ctid = ANY ((SELECT free FROM waits)::tid[]) THEN attempt ELSE attempt + 1 END,
	feed = CASE WHEN ctid = ANY ((SELECT free FROM waits)::tid[]) AND feed < 32000 THEN feed ELSE 0 END,
	due_at = now() + make_interval(secs => ((SELECT of FROM waits) ->> ctid::text)::float8)
WHERE ctid = ANY (ARRAY (SELECT at FROM x))`

// blockSQL leaves failed deliveries at the head of their streams, each under its own fence. One whose
// endpoint is not ordered any more has nobody to wait for.
const blockSQL = `
UPDATE delivery SET attempt = attempt + 1, feed = 0, lost = 0,
	state = CASE WHEN seq IS NULL THEN 2 ELSE 5 END, due_at = CASE WHEN seq IS NULL THEN now() END
WHERE ctid = ANY (ARRAY (` + fencedSQL + `))`

// Record writes a batch of results in one transaction, which may be repeated: after an error nobody
// knows whether it was committed, and writing it again is harmless.
func (s *Store) Record(ctx context.Context, batch []Recorded) error {
	slices.SortFunc(batch, func(a, b Recorded) int { return compareKeys(a.Delivery.DeliveryKey, b.Delivery.DeliveryKey) })
	var err error
	for range maxRecordTries {
		if err = s.recordOnce(ctx, batch); err == nil || !isRolledBack(err) {
			break
		}
	}
	if isBadRow(err) && len(batch) > 1 {
		half := len(batch) / 2
		return errors.Join(s.Record(ctx, batch[:half]), s.Record(ctx, batch[half:]))
	}
	return err
}

func (s *Store) recordOnce(ctx context.Context, batch []Recorded) error {
	if err := failpoint.Error(failpoint.StoreRecord); err != nil {
		return err
	}
	n := len(batch)
	deliveries := make([]webhook.Delivery, n)
	var (
		apps, ids          = make([][16]byte, n), make([][16]byte, n)
		numbers, statuses  = make([]int16, n), make([]int16, n)
		https              = make([]int16, n)
		sent, final        = make([]bool, n), make([]bool, n)
		classes, urls      = make([]string, n), make([]string, n)
		durations          = make([]int32, n)
		responses, details = make([][]byte, n), make([][]byte, n)
		retries            []webhook.Delivery
		waits              []float64
		free               []bool
		manual             []webhook.Delivery
		blocked            []webhook.Delivery
	)
	for i, r := range batch {
		a := &r.Attempt
		deliveries[i] = r.Delivery
		apps[i], ids[i], numbers[i] = a.ApplicationID, a.ID, a.Number
		sent[i], final[i] = a.Sent, r.Outcome.Final
		statuses[i], https[i], classes[i] = int16(a.Status), a.HTTPStatus, string(a.Class)
		durations[i], urls[i] = int32(min(a.Duration.Milliseconds(), 1<<31-1)), a.URL
		responses[i], details[i] = a.Response, a.Detail.AppendJSON(make([]byte, 0, detailSize))
		if r.Delivery.Trigger == webhook.TriggerManual {
			manual = append(manual, r.Delivery)
		}
		switch {
		case r.Outcome.Blocked:
			blocked = append(blocked, r.Delivery)
		case !r.Outcome.Final:
			retries = append(retries, r.Delivery)
			waits, free = append(waits, r.Outcome.Wait.Seconds()), append(free, r.Outcome.Free)
		}
	}
	c := columns(deliveries)
	var b pgx.Batch
	statement := recordSQL
	if len(manual) > 0 {
		m := columns(manual)
		b.Queue(taskOfSQL, m.tenants, m.messages, m.endpoints)
		b.Queue(streamOfSQL, m.tenants, m.endpoints)
		statement = recordTaskSQL
	}
	b.Queue(statement, c.tenants, c.messages, c.endpoints, c.triggers, c.attempts, c.feeds,
		apps, ids, numbers, sent, final, statuses, https, classes, durations, urls, responses, details)
	if len(retries) > 0 {
		c := columns(retries)
		b.Queue(retrySQL, c.tenants, c.messages, c.endpoints, c.triggers, c.attempts, c.feeds, waits, free)
	}
	if len(blocked) > 0 {
		c := columns(blocked)
		b.Queue(blockSQL, c.tenants, c.messages, c.endpoints, c.triggers, c.attempts, c.feeds)
	}
	if err := s.results.SendBatch(ctx, &b).Close(); err != nil {
		return fmt.Errorf("record %d attempts: %w", n, err)
	}
	return nil
}

func compareKeys(a, b webhook.DeliveryKey) int {
	if c := bytes.Compare(a.Tenant[:], b.Tenant[:]); c != 0 {
		return c
	}
	if c := bytes.Compare(a.Message[:], b.Message[:]); c != 0 {
		return c
	}
	if c := bytes.Compare(a.Endpoint[:], b.Endpoint[:]); c != 0 {
		return c
	}
	return int(a.Trigger) - int(b.Trigger)
}

// Permanent reports whether an error of Record will be the same next time: a value that Postgres
// refuses. The other results of the batch have been written.
func Permanent(err error) bool { return isBadRow(err) }
