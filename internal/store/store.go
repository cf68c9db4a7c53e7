// Package store keeps Posthaste's data in Postgres and is the only importer of gorm. What a tenant
// configures is read and written through gorm by a View, which adds the tenant to every query; the
// hot paths (accept, job, record, feed) are SQL through pgx on the same pool.
package store

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/schema"

	"github.com/posthaste/posthaste/internal/seal"
)

// Options say how to reach Postgres and how to behave there.
type Options struct {
	URL              string
	MaxConns         int           // of the whole process; 0 = DefaultMaxConns
	StatementTimeout time.Duration // of any statement; 0 = DefaultStatementTimeout
	Keyset           *seal.Keyset  // seals secrets
	Logger           *slog.Logger
	Now              func() time.Time // nil = time.Now
	// RequireTenant panics on a gorm statement over tenant data that names no tenant. It is for tests:
	// a forgotten condition shows in the first test that comes by, not as somebody else's data.
	RequireTenant bool
}

// Defaults of Options.
const (
	DefaultMaxConns         = 12
	DefaultStatementTimeout = 10 * time.Second
	connectTimeout          = 3 * time.Second
	lockTimeout             = 5 * time.Second
	// idleTimeout ends a transaction whose process says nothing, so that a process that is frozen or cut off
	// while it holds a lock, say on an ordered endpoint's stream, delays others and fails nobody. It has to
	// be well below lockTimeout; transactions here do nothing else between their statements.
	idleTimeout = 2 * time.Second
	// resultConns are set apart for recording results, which commit without waiting for the disk: a
	// crash of Postgres then sends again what it forgot, and loses nothing.
	resultConns = 2
	// commitMargin is what a commit may take after its statement.
	commitMargin = 5 * time.Second
)

// Store is the database. Its own methods span tenants and are for operators and agents; tenant data
// is reached through View.
type Store struct {
	pool    *pgxpool.Pool // synchronous_commit = on: what it commits is on disk
	results *pgxpool.Pool // synchronous_commit = off
	db      *gorm.DB      // a view of pool
	keys    *seal.Keyset
	log     *slog.Logger
	now     func() time.Time // UTC, in whole microseconds: what Postgres can keep

	longestWrite time.Duration // from the start of a statement to its commit
	ordered      orderedHint
}

// Open connects and checks that the database can be used. It does not migrate.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.MaxConns == 0 {
		o.MaxConns = DefaultMaxConns
	}
	if o.StatementTimeout == 0 {
		o.StatementTimeout = DefaultStatementTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	clock := o.Now
	if clock == nil {
		clock = time.Now
	}
	now := func() time.Time { return clock().UTC().Truncate(time.Microsecond) }
	pool, err := openPool(ctx, o, o.MaxConns, "on")
	if err != nil {
		return nil, err
	}
	results, err := openPool(ctx, o, resultConns, "off")
	if err != nil {
		pool.Close()
		return nil, err
	}
	sqlDB := stdlib.OpenDBFromPool(pool)
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: sqlDB}), &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		NamingStrategy:         schema.NamingStrategy{SingularTable: true},
		Logger:                 gormLogger{o.Logger},
		NowFunc:                now,
	})
	if err == nil && o.RequireTenant {
		err = requireTenant(db)
	}
	if err != nil {
		_ = sqlDB.Close()
		pool.Close()
		results.Close()
		return nil, fmt.Errorf("open gorm: %w", err)
	}
	return &Store{
		pool: pool, results: results, db: db, keys: o.Keyset, log: o.Logger, now: now,
		longestWrite: o.StatementTimeout + commitMargin,
	}, nil
}

func openPool(ctx context.Context, o Options, conns int, synchronousCommit string) (*pgxpool.Pool, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		// The parser's own text may quote the URL, and with it a password.
		return nil, fmt.Errorf("database URL cannot be parsed")
	}
	cfg.MaxConns = int32(conns)
	cfg.ConnConfig.ConnectTimeout = connectTimeout
	cfg.AfterConnect = timesInUTC
	params := cfg.ConnConfig.RuntimeParams
	params["application_name"] = "posthaste"
	params["timezone"] = "UTC"
	params["synchronous_commit"] = synchronousCommit
	// Compiling a statement takes longer than running any of ours, and Postgres compiles whenever it
	// overestimates one, which with ever-changing tables it does.
	params["jit"] = "off"
	// Nor is planning anew worth it: our statements have one good plan each, whatever their parameters,
	// and partitions are pruned when a plan starts.
	params["plan_cache_mode"] = "force_generic_plan"
	// Postgres keeps the plan it made when the delivery table was nearly empty, which it is whenever
	// all is well, and a scan of nothing costs nothing: then a backlog comes, and every look at one row
	// reads all of it. Every query here has an index, so scans are priced out.
	params["enable_seqscan"] = "off"
	params["statement_timeout"] = fmt.Sprint(o.StatementTimeout.Milliseconds())
	params["lock_timeout"] = fmt.Sprint(lockTimeout.Milliseconds())
	params["idle_in_transaction_session_timeout"] = fmt.Sprint(idleTimeout.Milliseconds())
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("open database pool: %w", err)
	}
	return pool, nil
}

// timesInUTC makes times read from Postgres print the same on every machine.
func timesInUTC(_ context.Context, conn *pgx.Conn) error {
	conn.TypeMap().RegisterType(&pgtype.Type{
		Name: "timestamptz", OID: pgtype.TimestamptzOID, Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
	})
	return nil
}

// Close returns every connection; what is under way must have ended.
func (s *Store) Close() {
	if db, err := s.db.DB(); err == nil {
		_ = db.Close() // holds no connections of its own, but a goroutine
	}
	s.pool.Close()
	s.results.Close()
}

// Ping asks Postgres for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("ping database: %w", err)
	}
	return nil
}
