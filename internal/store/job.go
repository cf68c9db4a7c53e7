package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Job is a delivery with everything it takes to send it, as it is now.
type Job struct {
	Delivery webhook.Delivery // with the fence of the row
	Known    bool             // the row exists; otherwise the delivery has ended and nothing else is set
	State    webhook.State
	Lost     int16         // leases that ended without a word since the last attempt
	Lease    time.Duration // left when the row was read, by the clock of Postgres

	Endpoint      webhook.Endpoint // ID, ApplicationID, URL and OnExhausted
	Deliverable   bool             // the endpoint exists and is enabled
	Gate          webhook.GateState
	GateAge       time.Duration   // how long the gate has been there
	Concurrency   int             // requests that may be under way to the endpoint at once in one worker; 0 = as many as it can take
	Message       webhook.Message // Payload is nil once it has expired or was expunged
	MessageExists bool
	Secrets       []EndpointKey     // the current one first
	Headers       map[string]string // custom headers
	Err           error             // a secret or a header could not be opened
}

// EndpointKey is one opened signing secret.
type EndpointKey struct {
	ID     webhook.SecretID
	Secret webhook.Secret // its text: whsec_… or whsk_…
}

// The three reads of Jobs travel together in one round trip. LATERAL with OFFSET 0 makes Postgres look
// each key up, whatever it believes the size of the table to be; the bounds on the message's id let it
// prune partitions before it runs, which a join does too late.
const (
	jobDeliverySQL = `
SELECT t.ord - 1, d.attempt, d.feed, d.lost, d.state, COALESCE(extract(epoch FROM d.due_at - clock_timestamp()), 0)::float8
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[]) WITH ORDINALITY
	AS t(tenant_id, message_id, endpoint_id, trigger, ord)
CROSS JOIN LATERAL (
	SELECT * FROM delivery d
	WHERE d.tenant_id = t.tenant_id AND d.message_id = t.message_id AND d.endpoint_id = t.endpoint_id AND d.trigger = t.trigger
	OFFSET 0
) d`

	jobEndpointSQL = `
SELECT t.ord - 1, e.app_id, e.url, e.on_exhausted, e.headers, NOT e.disabled AND e.deleted_at IS NULL, COALESCE(e.concurrency, 0),
	COALESCE(g.state, 0), COALESCE(extract(epoch FROM now() - g.since), 0)::float8, s.ids, s.sealed
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS t(tenant_id, endpoint_id, ord)
CROSS JOIN LATERAL (SELECT * FROM endpoint e WHERE e.tenant_id = t.tenant_id AND e.id = t.endpoint_id OFFSET 0) e
LEFT JOIN LATERAL (SELECT g.state, g.since FROM endpoint_gate g WHERE g.tenant_id = t.tenant_id AND g.endpoint_id = t.endpoint_id OFFSET 0) g ON true
CROSS JOIN LATERAL (
	SELECT array_agg(s.id ORDER BY s.expires_at DESC NULLS FIRST) AS ids,
		array_agg(s.sealed ORDER BY s.expires_at DESC NULLS FIRST) AS sealed
	FROM endpoint_secret s
	WHERE s.tenant_id = t.tenant_id AND s.endpoint_id = t.endpoint_id AND (s.expires_at IS NULL OR s.expires_at > now())
) s`

	jobMessageSQL = `
SELECT t.ord - 1, m.event_type, CASE WHEN m.expires_at > now() THEN m.payload END, COALESCE(m.content_type, ''), m.deliver_at
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS t(tenant_id, message_id, endpoint_id, ord)
CROSS JOIN LATERAL (SELECT e.app_id FROM endpoint e WHERE e.tenant_id = t.tenant_id AND e.id = t.endpoint_id OFFSET 0) e
CROSS JOIN LATERAL (
	SELECT * FROM message m
	WHERE m.tenant_id = t.tenant_id AND m.app_id = e.app_id AND m.id = t.message_id AND m.id BETWEEN $4 AND $5
	OFFSET 0
) m`
)

type endpointKey struct {
	tenant   webhook.TenantID
	endpoint webhook.EndpointID
}

type messageKey struct {
	tenant  webhook.TenantID
	message webhook.MessageID
}

// Jobs reads deliveries with their endpoints and messages, in order and one per delivery asked for.
// An endpoint or a message that several deliveries share is read once.
func (s *Store) Jobs(ctx context.Context, deliveries []webhook.Delivery) ([]Job, error) {
	n := len(deliveries)
	if n == 0 {
		return nil, nil
	}
	keys := columns(deliveries)
	var (
		endpointAt   = make(map[endpointKey]int, n)
		messageAt    = make(map[messageKey]int, n)
		eTenants     [][16]byte
		eIDs         [][16]byte
		mTenants     [][16]byte
		mIDs, mEnds  [][16]byte
		first, final = deliveries[0].Message, deliveries[0].Message
	)
	for _, d := range deliveries {
		if k := (endpointKey{d.Tenant, d.Endpoint}); !has(endpointAt, k) {
			endpointAt[k] = len(eIDs)
			eTenants, eIDs = append(eTenants, d.Tenant), append(eIDs, d.Endpoint)
		}
		if k := (messageKey{d.Tenant, d.Message}); !has(messageAt, k) {
			messageAt[k] = len(mIDs)
			mTenants, mIDs, mEnds = append(mTenants, d.Tenant), append(mIDs, d.Message), append(mEnds, d.Endpoint)
		}
		if slices.Compare(d.Message[:], first[:]) < 0 {
			first = d.Message
		}
		if slices.Compare(d.Message[:], final[:]) > 0 {
			final = d.Message
		}
	}

	jobs := make([]Job, n)
	type endpointRow struct {
		Endpoint    webhook.Endpoint
		Deliverable bool
		Gate        webhook.GateState
		GateAge     time.Duration
		Concurrency int
		Secrets     []EndpointKey
		Headers     map[string]string
		Err         error
	}
	endpoints := make([]*endpointRow, len(eIDs))
	messages := make([]*webhook.Message, len(mIDs))

	var b pgx.Batch
	b.Queue(jobDeliverySQL, keys.tenants, keys.messages, keys.endpoints, keys.triggers).Query(func(rows pgx.Rows) error {
		var (
			ord                        int64
			attempt, feed, lost, state int16
			lease                      float64
		)
		_, err := pgx.ForEachRow(rows, []any{&ord, &attempt, &feed, &lost, &state, &lease}, func() error {
			j := &jobs[ord]
			j.Delivery = deliveries[ord]
			j.Delivery.Fence = webhook.Fence{Attempt: attempt, Feed: feed}
			j.Known, j.State, j.Lost = true, webhook.State(state), lost
			j.Lease = time.Duration(lease * float64(time.Second))
			return nil
		})
		return err
	})
	b.Queue(jobEndpointSQL, eTenants, eIDs).Query(func(rows pgx.Rows) error {
		var (
			ord         int64
			app         webhook.ApplicationID
			url         string
			exhausted   string
			headers     []byte
			deliverable bool
			gate, limit int16
			age         float64
			ids         [][16]byte
			sealed      [][]byte
		)
		_, err := pgx.ForEachRow(rows, []any{&ord, (*[16]byte)(&app), &url, &exhausted, &headers, &deliverable, &limit, &gate, &age, &ids, &sealed}, func() error {
			e := &endpointRow{Deliverable: deliverable, Gate: webhook.GateState(gate), Concurrency: int(limit), Endpoint: webhook.Endpoint{
				TenantID: eTenants[ord], ApplicationID: app, ID: eIDs[ord], URL: url, OnExhausted: webhook.OnExhausted(exhausted),
			}}
			e.GateAge = time.Duration(age * float64(time.Second))
			if deliverable {
				e.Headers, e.Err = s.openHeaders(e.Endpoint.TenantID, e.Endpoint.ID, headers)
				for i := range ids {
					text, err := s.openSecret(e.Endpoint.TenantID, ids[i], sealed[i])
					if err != nil {
						e.Err = err
						continue
					}
					e.Secrets = append(e.Secrets, EndpointKey{ID: ids[i], Secret: text})
				}
			}
			endpoints[ord] = e
			return nil
		})
		return err
	})
	b.Queue(jobMessageSQL, mTenants, mIDs, mEnds, first.UUID(), final.UUID()).Query(func(rows pgx.Rows) error {
		var (
			ord         int64
			eventType   string
			payload     []byte
			contentType string
			deliverAt   *time.Time
		)
		_, err := pgx.ForEachRow(rows, []any{&ord, &eventType, &payload, &contentType, &deliverAt}, func() error {
			messages[ord] = &webhook.Message{
				TenantID: mTenants[ord], ID: mIDs[ord], EventType: eventType, Payload: payload, ContentType: contentType,
			}
			if deliverAt != nil {
				messages[ord].DeliverAt = *deliverAt
			}
			payload = nil
			return nil
		})
		return err
	})
	if err := s.pool.SendBatch(ctx, &b).Close(); err != nil {
		return nil, fmt.Errorf("read %d jobs: %w", n, err)
	}

	for i, d := range deliveries {
		j := &jobs[i]
		if !j.Known {
			j.Delivery = d
			continue
		}
		if e := endpoints[endpointAt[endpointKey{d.Tenant, d.Endpoint}]]; e != nil {
			j.Endpoint, j.Deliverable, j.Secrets, j.Headers, j.Err = e.Endpoint, e.Deliverable, e.Secrets, e.Headers, e.Err
			j.Gate, j.GateAge, j.Concurrency = e.Gate, e.GateAge, e.Concurrency
		} else {
			j.Endpoint = webhook.Endpoint{TenantID: d.Tenant, ID: d.Endpoint}
		}
		if m := messages[messageAt[messageKey{d.Tenant, d.Message}]]; m != nil {
			j.Message, j.MessageExists = *m, true
			j.Message.ApplicationID = j.Endpoint.ApplicationID
		}
	}
	return jobs, nil
}

// fencedSQL finds and locks the rows that are still handed out under the fences asked for, whatever
// the planner believes about the table; its parameters are those of columns.
const fencedSQL = `
	SELECT d.ctid FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::smallint[], $6::smallint[])
		AS t(tenant_id, message_id, endpoint_id, trigger, attempt, feed)
	CROSS JOIN LATERAL (
		SELECT d.ctid FROM delivery d
		WHERE d.tenant_id = t.tenant_id AND d.message_id = t.message_id AND d.endpoint_id = t.endpoint_id AND d.trigger = t.trigger
		AND d.attempt = t.attempt AND d.feed = t.feed AND d.state = 1
		FOR UPDATE OFFSET 0
	) d`

// renewSQL hands deliveries out anew to the worker that asks, whose lease is about to end. It counts
// the start of a delivery that goes alone, because only those can be held against it.
const renewSQL = `
UPDATE delivery SET feed = feed + 1, due_at = now() + make_interval(secs => $7), lost = lost + CASE WHEN $8 THEN 1 ELSE 0 END
WHERE ctid = ANY (ARRAY (` + fencedSQL + `)) RETURNING tenant_id, message_id, endpoint_id, trigger, attempt, feed, task_id IS NOT NULL, lost, false`

// Renew gives deliveries that are still fenced as they say a new lease, and returns them with their
// new fences; the others are missing from the answer. countStart marks the start of deliveries that go
// alone.
func (s *Store) Renew(ctx context.Context, deliveries []webhook.Delivery, lease time.Duration, countStart bool) ([]webhook.Delivery, error) {
	c := columns(deliveries)
	rows, err := s.pool.Query(ctx, renewSQL, c.tenants, c.messages, c.endpoints, c.triggers, c.attempts, c.feeds,
		lease.Seconds(), countStart)
	if err != nil {
		return nil, fmt.Errorf("renew %d leases: %w", len(deliveries), err)
	}
	fed, err := collectFed(rows)
	if err != nil {
		return nil, fmt.Errorf("renew %d leases: %w", len(deliveries), err)
	}
	out := make([]webhook.Delivery, len(fed))
	for i, f := range fed {
		out[i] = f.Delivery
	}
	return out, nil
}

func (s *Store) openSecret(tenant webhook.TenantID, id webhook.SecretID, sealed []byte) (webhook.Secret, error) {
	plain, err := s.keys.Open(sealed, seal.AD{Table: "endpoint_secret", Column: "sealed", Tenant: tenant, Row: id})
	if err != nil {
		return webhook.Secret{}, fmt.Errorf("open signing secret: %w", err)
	}
	return webhook.NewSecret(string(plain)), nil
}

func (s *Store) openHeaders(tenant webhook.TenantID, id webhook.EndpointID, sealed []byte) (map[string]string, error) {
	if sealed == nil {
		return nil, nil
	}
	plain, err := s.keys.Open(sealed, seal.AD{Table: "endpoint", Column: "headers", Tenant: tenant, Row: id})
	if err != nil {
		return nil, fmt.Errorf("open custom headers: %w", err)
	}
	var headers map[string]string
	if err := json.Unmarshal(plain, &headers); err != nil {
		return nil, fmt.Errorf("decode custom headers: %w", err)
	}
	return headers, nil
}

// deliveryColumns is a list of deliveries as the arrays that SQL takes.
type deliveryColumns struct {
	tenants, messages, endpoints [][16]byte
	triggers, attempts, feeds    []int16
}

func columns(deliveries []webhook.Delivery) (c deliveryColumns) {
	n := len(deliveries)
	ids := make([][16]byte, 3*n)
	numbers := make([]int16, 3*n)
	c.tenants, c.messages, c.endpoints = ids[:n:n], ids[n:2*n:2*n], ids[2*n:]
	c.triggers, c.attempts, c.feeds = numbers[:n:n], numbers[n:2*n:2*n], numbers[2*n:]
	for i, d := range deliveries {
		c.tenants[i], c.messages[i], c.endpoints[i] = d.Tenant, d.Message, d.Endpoint
		c.triggers[i], c.attempts[i], c.feeds[i] = int16(d.Trigger), d.Attempt, d.Feed
	}
	return c
}

func has[K comparable, V any](m map[K]V, k K) bool {
	_, ok := m[k]
	return ok
}
