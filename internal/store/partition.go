package store

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	day = 24 * time.Hour
	// partitionsAhead is how far ahead partitions are made, and partitionsNeeded how far ahead they must
	// be for the process to call itself ready: whoever makes them may fail for a day unnoticed.
	partitionsAhead  = 8 * day
	partitionsNeeded = 7 * day
	// partitionLock serialises whoever makes or drops partitions.
	partitionLock = 0x706f7374_70617274
)

// partitionedTables are cut into days of their id's time, UTC.
var partitionedTables = []string{"message", "attempt"}

// partition is one day of a table.
type partition struct {
	table string
	day   time.Time // its first moment
}

func (p partition) name() string { return p.table + "_p" + p.day.Format("20060102") }

// bounds are the ids it holds: from ≤ id < to.
func (p partition) bounds() (from, to webhook.MessageID) {
	return messageIDAt(p.day), messageIDAt(p.day.Add(day))
}

var partitionName = regexp.MustCompile(`^(message|attempt)_p([0-9]{8})$`)

// partitionCalled reads a name that name wrote.
func partitionCalled(name string) (p partition, ok bool) {
	m := partitionName.FindStringSubmatch(name)
	if m == nil {
		return p, false
	}
	at, err := time.Parse("20060102", m[2])
	return partition{m[1], at}, err == nil
}

// partitionsBetween are those holding ids of from to until.
func partitionsBetween(from, until time.Time) (list []partition) {
	for at := from.UTC().Truncate(day); !at.After(until); at = at.Add(day) {
		for _, table := range partitionedTables {
			list = append(list, partition{table, at})
		}
	}
	return list
}

// querier is a pool, a connection or a transaction.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	Begin(ctx context.Context) (pgx.Tx, error)
}

// attachment is how a partition stands to its table, in the order of how far it is from it.
type attachment int

const (
	attached  attachment = iota
	detaching            // a concurrent detach was begun and not finished
	loose                // detached and not dropped
)

// existing are the partitions there are, attached or not.
func existing(ctx context.Context, q querier) (map[partition]attachment, error) {
	rows, err := q.Query(ctx, `SELECT c.relname, i.inhrelid IS NULL, COALESCE(i.inhdetachpending, false)
		FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname ~ $1`, partitionName.String())
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	found := map[partition]attachment{}
	var name string
	var isLoose, isDetaching bool
	_, err = pgx.ForEachRow(rows, []any{&name, &isLoose, &isDetaching}, func() error {
		p, ok := partitionCalled(name)
		switch {
		case !ok:
		case isLoose:
			found[p] = loose
		case isDetaching:
			found[p] = detaching
		default:
			found[p] = attached
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return found, nil
}

// EnsurePartitions makes the daily partitions of messages and attempts from the day before now to
// eight days after it, and returns how many it made. It may be called by several processes at once.
func (s *Store) EnsurePartitions(ctx context.Context, now time.Time) (created int, err error) {
	created, err = ensurePartitions(ctx, s.pool, now)
	return created, failure("make partitions", err)
}

func ensurePartitions(ctx context.Context, q querier, now time.Time) (created int, err error) {
	wanted := partitionsBetween(now.Add(-day), now.Add(partitionsAhead))
	// Most calls find nothing to do, and then need no lock.
	if missing, err := missingOf(ctx, q, wanted); err != nil || len(missing) == 0 {
		return 0, err
	}
	err = pgx.BeginFunc(ctx, q, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(partitionLock)); err != nil {
			return fmt.Errorf("lock partitions: %w", err)
		}
		missing, err := missingOf(ctx, tx, wanted)
		if err != nil {
			return err
		}
		for _, p := range missing {
			from, to := p.bounds()
			// Made apart and attached: creating it in place would lock the table against every accept.
			_, err := tx.Exec(ctx, fmt.Sprintf(`CREATE TABLE %[1]s (LIKE %[2]s INCLUDING ALL);
				ALTER TABLE %[2]s ATTACH PARTITION %[1]s FOR VALUES FROM ('%[3]x') TO ('%[4]x')`, p.name(), p.table, from.UUID(), to.UUID()))
			if err != nil {
				return fmt.Errorf("make partition %s: %w", p.name(), err)
			}
		}
		created = len(missing)
		return nil
	})
	return created, err
}

func missingOf(ctx context.Context, q querier, wanted []partition) ([]partition, error) {
	have, err := existing(ctx, q)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(wanted), func(p partition) bool {
		state, ok := have[p]
		return ok && state == attached
	}), nil
}

// PartitionsReady reports whether there are partitions for everything accepted or attempted from now
// to seven days on.
func (s *Store) PartitionsReady(ctx context.Context, now time.Time) (bool, error) {
	missing, err := missingOf(ctx, s.pool, partitionsBetween(now, now.Add(partitionsNeeded)))
	return err == nil && len(missing) == 0, failure("check partitions", err)
}
