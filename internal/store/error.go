package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// SQLSTATEs that callers are told about.
const (
	stateDuplicate      = "23505"
	stateBadCharacter   = "22021" // a NUL or broken UTF-8 in a text
	stateBadUnicode     = "22P05" // a NUL escape in a jsonb
	stateCanceled       = "57014" // statement_timeout, or the caller went away
	stateLockTimeout    = "55P03"
	stateReadOnly       = "25006" // a former primary
	stateIdleTimeout    = "25P03"
	classConnection     = "08"
	classConflict       = "40" // serialisation, deadlock
	classResources      = "53"
	classOperator       = "57" // shutting down, starting up
	constraintUIDSuffix = "_uid"
)

// failure turns an error of the database into one of the domain; doing says what was tried. What is
// already an error for the caller stays as it is.
func failure(doing string, err error) error {
	var told *webhook.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &told):
		return err
	case errors.Is(err, gorm.ErrRecordNotFound), errors.Is(err, pgx.ErrNoRows), errors.Is(err, sql.ErrNoRows):
		return webhook.ErrNotFound
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, err)
	case temporary(err):
		return webhook.Unavailable(fmt.Errorf("%s: %w", doing, err), "The database cannot answer at the moment")
	}
	if state := sqlState(err); state == stateBadCharacter || state == stateBadUnicode {
		return &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error", Err: err, Fields: []webhook.Field{{
			Loc: []string{"body"}, Msg: "texts may not contain the NUL character or broken UTF-8", Type: "value_error",
		}}}
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// temporary reports whether the same statement may succeed later: Postgres is away, busy or gave up
// on a lock.
func temporary(err error) bool {
	switch state := sqlState(err); state {
	case "":
	case stateCanceled, stateLockTimeout, stateReadOnly, stateIdleTimeout:
		return true
	default:
		switch state[:2] {
		case classConnection, classConflict, classResources, classOperator:
			return true
		}
		return false
	}
	var connect *pgconn.ConnectError
	var network net.Error
	return errors.As(err, &connect) || errors.As(err, &network) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, pgx.ErrTxCommitRollback)
}

func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && len(pg.Code) == 5 {
		return pg.Code
	}
	return ""
}

// uidTaken reports whether a write failed because of another object's uid.
func uidTaken(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == stateDuplicate && strings.HasSuffix(pg.ConstraintName, constraintUIDSuffix)
}
