package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/posthaste/posthaste/internal/failpoint"
	"github.com/posthaste/posthaste/migrations"
)

// Migration is one numbered change of the database's shape.
type Migration struct {
	Version   int64     `json:"version"`
	Name      string    `json:"name"`
	Applied   bool      `json:"applied"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
}

const (
	// Another process's migration is waited for this long, asking every second: a wait inside Postgres
	// would hold a snapshot, which an online index build in turn waits for.
	migrationWaitSeconds = 600
	// A change that needs a table for itself gives up rather than let everybody queue behind it.
	migrationLockTimeout = 10 * time.Second
)

// Migrate brings the database at url to the shape this release needs, and makes the partitions of the
// next days. Concurrent calls are safe; a second call changes nothing.
func Migrate(ctx context.Context, url string, log *slog.Logger) (err error) {
	return migrating(url, func(db *sql.DB, p *goose.Provider) error {
		results, err := p.Up(ctx)
		for _, r := range results {
			log.InfoContext(ctx, "migrated", "version", r.Source.Version, "name", r.Source.Path, "took", r.Duration)
		}
		if err != nil {
			return fmt.Errorf("migrate database: %w", err)
		}
		failpoint.Hit(failpoint.MigrateMid)
		conn, err := db.Conn(ctx)
		if err != nil {
			return fmt.Errorf("migrate database: %w", err)
		}
		defer func() { _ = conn.Close() }()
		return conn.Raw(func(c any) error {
			_, err := ensurePartitions(ctx, c.(*stdlib.Conn).Conn(), time.Now())
			return err
		})
	})
}

// MigrationStatus lists the migrations this release knows and whether the database at url has them.
func MigrationStatus(ctx context.Context, url string) (list []Migration, err error) {
	err = migrating(url, func(_ *sql.DB, p *goose.Provider) error {
		status, err := p.Status(ctx)
		if err != nil {
			return fmt.Errorf("read migrations: %w", err)
		}
		for _, m := range status {
			list = append(list, Migration{
				Version: m.Source.Version, Name: m.Source.Path,
				Applied: m.State == goose.StateApplied, AppliedAt: m.AppliedAt.UTC(),
			})
		}
		return nil
	})
	return list, err
}

// migrating runs do with connections of its own: migrations take longer than a request's statement may.
func migrating(url string, do func(*sql.DB, *goose.Provider) error) (err error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return errors.New("database URL cannot be parsed") // the parser's text may quote a password
	}
	cfg.ConnectTimeout = connectTimeout
	cfg.RuntimeParams["application_name"] = "posthaste migrate"
	cfg.RuntimeParams["timezone"] = "UTC"
	cfg.RuntimeParams["lock_timeout"] = fmt.Sprint(migrationLockTimeout.Milliseconds())
	db := stdlib.OpenDB(*cfg)
	defer func() { err = errors.Join(err, db.Close()) }()
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, migrationWaitSeconds))
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	return do(db, provider)
}

// Fingerprint names the database's shape: it differs whenever a migration does.
func Fingerprint() string {
	h := sha256.New()
	err := fs.WalkDir(migrations.FS, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := migrations.FS.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(text), text)
		return err
	})
	if err != nil {
		panic("embedded migrations cannot be read: " + err.Error())
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
