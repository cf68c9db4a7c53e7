package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/posthaste/posthaste/internal/store"
)

const (
	// databaseWait is how long a start waits for a Postgres that is not there yet: after a machine's
	// start nobody orders the two.
	databaseWait = 30 * time.Second
	// databaseAgain lies between two tries.
	databaseAgain = 500 * time.Millisecond
)

// prepareDatabase waits for the database and makes sure that it has the shape this release needs:
// migrated here if that was asked for, else refused.
func prepareDatabase(ctx context.Context, c Config, log *slog.Logger) error {
	url := c.DatabaseURL.Reveal()
	list, err := awaitDatabase(ctx, url, log)
	if err != nil {
		return err
	}
	var pending []string
	for _, m := range list {
		if !m.Applied {
			pending = append(pending, m.Name)
		}
	}
	switch {
	case len(pending) == 0:
		return nil
	case c.AutoMigrate:
		return store.Migrate(ctx, url, log)
	}
	return fmt.Errorf("the database lacks %d migrations (%s): run `posthaste migrate up`, or set POSTHASTE_AUTO_MIGRATE=true",
		len(pending), strings.Join(pending, ", "))
}

func awaitDatabase(ctx context.Context, url string, log *slog.Logger) ([]store.Migration, error) {
	deadline := time.Now().Add(databaseWait)
	for warned := false; ; warned = true {
		list, err := store.MigrationStatus(ctx, url)
		if err == nil || !notYet(err) || time.Now().After(deadline) {
			return list, err
		}
		if !warned {
			log.Warn("the database cannot be reached; waiting for it", "for", databaseWait, "error", err)
		}
		timer := time.NewTimer(databaseAgain)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// notYet reports whether a database may answer later: nothing listens, or it is starting or full. A
// wrong password stays wrong.
func notYet(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return strings.HasPrefix(refused.Code, "57P") || refused.Code == "53300"
	}
	var unreachable *pgconn.ConnectError
	return errors.As(err, &unreachable)
}
