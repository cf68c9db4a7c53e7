package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthaste/posthaste/internal/webhook"
)

// acceptOrderedTold gives what is owed to ordered endpoints its numbers. The streams are locked, in the
// order of their keys, until the commit: whoever accepts for the same endpoint gets higher numbers and
// commits later. Messages of one batch are numbered by id, which is the order in which they came.
//
// What is to be delivered later gets no number, and so cannot be written.
const acceptOrderedTold = `
), wanted AS MATERIALIZED (
	SELECT tenant_id, endpoint_id, count(*) AS n FROM o WHERE state = 4 AND deliver_at IS NULL
	GROUP BY tenant_id, endpoint_id ORDER BY tenant_id, endpoint_id
), locked AS MATERIALIZED (
	SELECT w.tenant_id, w.endpoint_id, w.n FROM wanted w CROSS JOIN LATERAL (
		SELECT FROM stream s WHERE s.tenant_id = w.tenant_id AND s.endpoint_id = w.endpoint_id FOR UPDATE OFFSET 0
	) s
), numbered AS (
	UPDATE stream s SET next_seq = s.next_seq + l.n, due_at = COALESCE(s.due_at, now())
	FROM locked l WHERE s.tenant_id = l.tenant_id AND s.endpoint_id = l.endpoint_id
	RETURNING s.tenant_id, s.endpoint_id, s.next_seq - l.n AS first, s.due_at <= clock_timestamp() AS due
), d AS (
	INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, feed, state, due_at, seq)
	SELECT o.tenant_id, o.message_id, o.endpoint_id, 0, CASE WHEN o.state = 1 THEN 1 ELSE 0 END, o.state,
		CASE WHEN o.state = 2 THEN o.deliver_at WHEN o.state = 1 THEN now() + make_interval(secs => $14) END,
		s.first - 1 + row_number() OVER (PARTITION BY s.tenant_id, s.endpoint_id ORDER BY o.message_id)
	FROM o LEFT JOIN numbered s ON s.tenant_id = o.tenant_id AND s.endpoint_id = o.endpoint_id AND o.state = 4 AND o.deliver_at IS NULL
), parked AS (
	SELECT tenant_id, endpoint_id FROM o WHERE state = 3
), w AS (` + wakeParkedSQL + `)
SELECT t.id, t.app_id, o.endpoint_id, COALESCE(o.state, 0), o.rates, s.due
FROM t LEFT JOIN o ON o.message_id = t.id LEFT JOIN numbered s ON s.tenant_id = o.tenant_id AND s.endpoint_id = o.endpoint_id`

// isUnnumbered reports that something would have been written for an ordered endpoint without a place in
// its stream. Nothing was: the batch has to be written as one that may meet such endpoints.
func isUnnumbered(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.ConstraintName == "delivery_in_stream"
}

// delayedSQL finds those of the messages to be delivered later that an ordered endpoint would be owed. A
// publish that repeats an earlier one is answered as that was.
const delayedSQL = `
SELECT u.ord - 1, (array_agg(e.id ORDER BY e.id))[1]
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[]) WITH ORDINALITY
	AS u(tenant_id, app_id, app_uid, event_type, channels, key, ord)
CROSS JOIN LATERAL (
	SELECT a.id FROM application a WHERE a.tenant_id = u.tenant_id AND a.id = u.app_id AND a.deleted_at IS NULL
	UNION ALL
	SELECT a.id FROM application a WHERE a.tenant_id = u.tenant_id AND a.uid = u.app_uid AND a.deleted_at IS NULL
	LIMIT 1
) a
CROSS JOIN LATERAL (
	SELECT e.id FROM endpoint e
	WHERE e.tenant_id = u.tenant_id AND e.app_id = a.id AND e.deleted_at IS NULL AND NOT e.disabled AND e.ordering = 'fifo'
	AND (e.event_types IS NULL OR u.event_type = ANY (e.event_types))
	AND (e.channels IS NULL OR e.channels && u.channels::text[])
	OFFSET 0
) e
WHERE u.key IS NULL OR NOT EXISTS (SELECT FROM idempotency i WHERE i.tenant_id = u.tenant_id AND i.key = u.key)
GROUP BY u.ord`

// refuseDelayed refuses those messages of a round that are to be delivered later and to an ordered endpoint,
// whose order they would break or hold up, and returns the others.
func (s *Store) refuseDelayed(ctx context.Context, q querier, batch []Accept, round []int, out []Accepted) ([]int, error) {
	var (
		delayed         []int
		tenants         [][16]byte
		apps            []*[16]byte
		appUIDs         []*string
		types           []string
		channels        []*string
		keys            [][]byte
		ord             int64
		endpoint        webhook.EndpointID
		refused, rounds = map[int]bool{}, make([]int, 0, len(round))
	)
	for _, i := range round {
		a := &batch[i]
		if a.Message.DeliverAt.IsZero() {
			continue
		}
		app, uid := applicationRef(a.Application)
		var key []byte
		if a.Idempotency != nil {
			key = a.Idempotency.Key[:]
		}
		delayed, tenants, keys = append(delayed, i), append(tenants, a.Message.TenantID), append(keys, key)
		apps, appUIDs = append(apps, app), append(appUIDs, uid)
		types, channels = append(types, a.Message.EventType), append(channels, arrayLiteral(a.Message.Channels))
	}
	if len(delayed) == 0 {
		return round, nil
	}
	rows, err := q.Query(ctx, delayedSQL, tenants, apps, appUIDs, types, channels, keys)
	if err != nil {
		return nil, fmt.Errorf("look for ordered endpoints: %w", err)
	}
	_, err = pgx.ForEachRow(rows, []any{&ord, (*[16]byte)(&endpoint)}, func() error {
		i := delayed[ord]
		refused[i] = true
		out[i] = Accepted{Err: webhook.Invalid("deliverAt",
			"a message that the ordered endpoint %s is to get cannot be delivered later: those behind it would have to wait", endpoint)}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look for ordered endpoints: %w", err)
	}
	for _, i := range round {
		if !refused[i] {
			rounds = append(rounds, i)
		}
	}
	return rounds, nil
}

const (
	// orderedFor is how long an application is expected to have an ordered endpoint after it had one.
	orderedFor = time.Minute
	// maxOrdered is how many such applications are remembered.
	maxOrdered = 4096
)

// orderedHint remembers which applications have ordered endpoints, so that a batch is mostly written with
// the right statement the first time. Nothing depends on its being right: the other one finds out.
type orderedHint struct {
	any  atomic.Bool // so that an installation without any pays nothing
	mu   sync.Mutex
	seen map[orderedApplication]time.Time
}

type orderedApplication struct {
	tenant webhook.TenantID
	ref    string // as it was written: id or uid
}

// saw notes that a message was owed to an ordered endpoint.
func (h *orderedHint) saw(a Accept) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen == nil || len(h.seen) >= maxOrdered {
		h.seen = make(map[orderedApplication]time.Time)
	}
	h.seen[orderedApplication{a.Message.TenantID, a.Application}] = time.Now()
	h.any.Store(true)
}

// expects reports whether an application had an ordered endpoint lately.
func (h *orderedHint) expects(tenant webhook.TenantID, ref string) bool {
	if !h.any.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	k := orderedApplication{tenant, ref}
	at, ok := h.seen[k]
	if ok && time.Since(at) > orderedFor {
		delete(h.seen, k)
		h.any.Store(len(h.seen) > 0)
		return false
	}
	return ok
}

// expected reports whether any message of a round is of such an application.
func (h *orderedHint) expected(batch []Accept, round []int) bool {
	return h.any.Load() && slices.ContainsFunc(round, func(i int) bool {
		return h.expects(batch[i].Message.TenantID, batch[i].Application)
	})
}
