package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

// MaxCensus is how many deliveries a Census counts of each kind, over all tenants: it is taken every few
// seconds, beside whatever backlog.
const MaxCensus = 10_000

// Census is what is open in the whole installation, counted no further than MaxCensus.
type Census struct {
	Gates    map[webhook.GateState]int // endpoints by what holds them
	Parked   int
	Waiting  int
	Ordered  int
	Released int           // of what is due soonest
	Overdue  time.Duration // of what has been due for longest; 0 = nothing is
}

// In a line its stream's time counts, and not that of what waits in it for a pause to end.
const censusSQL = `
SELECT (SELECT count(*) FROM (SELECT FROM delivery WHERE state = 3 ORDER BY tenant_id, endpoint_id, message_id LIMIT $1) d),
	(SELECT count(*) FROM (SELECT FROM delivery WHERE state = 2 ORDER BY tenant_id, endpoint_id, message_id LIMIT $1) d),
	(SELECT count(*) FROM (SELECT FROM delivery WHERE state IN (4, 5) AND seq IS NOT NULL ORDER BY tenant_id, endpoint_id, seq LIMIT $1) d),
	(SELECT count(*) FROM (SELECT state FROM delivery WHERE due_at > now() ORDER BY due_at LIMIT $1) d WHERE d.state = 1),
	COALESCE(extract(epoch FROM now() - LEAST(
		(SELECT due_at FROM delivery WHERE due_at <= now() AND seq IS NULL ORDER BY due_at LIMIT 1),
		(SELECT due_at FROM stream WHERE due_at <= now() ORDER BY due_at LIMIT 1))), 0)::float8`

// Census counts what is open. Its reads end at their limits, in the order of their indexes.
func (s *Store) Census(ctx context.Context) (c Census, err error) {
	c.Gates = make(map[webhook.GateState]int)
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		for _, setting := range countOpenPlan {
			if _, err := tx.Exec(ctx, setting); err != nil {
				return err
			}
		}
		var overdue float64
		if err := tx.QueryRow(ctx, censusSQL, MaxCensus).Scan(&c.Parked, &c.Waiting, &c.Ordered, &c.Released, &overdue); err != nil {
			return err
		}
		c.Overdue = time.Duration(overdue * float64(time.Second))
		rows, err := tx.Query(ctx, `SELECT state, count(*) FROM endpoint_gate GROUP BY state`)
		if err != nil {
			return err
		}
		var state int16
		var n int
		_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
			c.Gates[webhook.GateState(state)] = n
			return nil
		})
		return err
	})
	if err != nil {
		return Census{}, fmt.Errorf("count what is open: %w", err)
	}
	return c, nil
}
