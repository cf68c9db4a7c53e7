package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestStatementsMustNameTheirTenant(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]bool{
		`SELECT * FROM "application" WHERE tenant_id = $1 AND id = $2`:                           true,
		`SELECT * FROM "application" WHERE id = $1`:                                              false,
		`SELECT tenant_id FROM "application" WHERE id = $1`:                                      false,
		`UPDATE "endpoint" SET "url"=$1 WHERE id = $2`:                                           false,
		`UPDATE "endpoint" SET "url"=$1 WHERE tenant_id = $2`:                                    true,
		`DELETE FROM "endpoint_secret" WHERE endpoint_id = $1`:                                   false,
		`INSERT INTO "event_type" ("tenant_id","name") VALUES ($1,$2)`:                           true,
		`INSERT INTO "event_type" ("name") VALUES ($1)`:                                          false,
		`SELECT m.id FROM message m WHERE m.tenant_id = $1`:                                      true,
		`SELECT m.id FROM message m JOIN attempt a ON a.tenant_id = m.tenant_id WHERE m.id > $1`: false,
		`SELECT * FROM "tenant" WHERE uid = $1`:                                                  true,
		`SELECT 1 FROM "applications_of_nobody"`:                                                 true,
	} {
		if got := !tenantTables.MatchString(sql) || namesTenant.MatchString(sql); got != want {
			t.Errorf("%s: allowed %v, want %v", sql, got, want)
		}
	}
}

func TestSlowStatementsAreLoggedWithoutValues(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	l := gormLogger{slog.New(slog.NewTextHandler(&out, nil))}
	statement := func() (string, int64) { return "SELECT $1", 1 }
	l.Trace(t.Context(), time.Now(), statement, gorm.ErrRecordNotFound)
	if out.Len() > 0 {
		t.Errorf("logged an expected outcome: %s", &out)
	}
	l.Trace(t.Context(), time.Now().Add(-slowStatement), statement, nil)
	if !strings.Contains(out.String(), "SELECT $1") {
		t.Errorf("did not log a slow statement: %s", &out)
	}
	l.Warn(t.Context(), "something %s", "canary")
	l.Error(t.Context(), "something %s", "canary")
	if sql, values := l.ParamsFilter(t.Context(), "SELECT $1", "canary"); sql != "SELECT $1" || values != nil || strings.Contains(out.String(), "canary") {
		t.Errorf("values are logged: %s", &out)
	}
}

func TestFailure(t *testing.T) {
	t.Parallel()
	state := func(code string) error { return fmt.Errorf("do: %w", &pgconn.PgError{Code: code}) }
	own := webhook.Conflict("conflict", "taken")
	for _, c := range []struct {
		err  error
		want webhook.Kind
	}{
		{gorm.ErrRecordNotFound, webhook.KindNotFound},
		{fmt.Errorf("x: %w", pgx.ErrNoRows), webhook.KindNotFound},
		{own, webhook.KindConflict},
		{context.DeadlineExceeded, webhook.KindUnavailable},
		{context.Canceled, webhook.KindInternal},
		{state("57014"), webhook.KindUnavailable}, // statement timeout
		{state("55P03"), webhook.KindUnavailable}, // lock timeout
		{state("57P01"), webhook.KindUnavailable}, // shutting down
		{state("57P03"), webhook.KindUnavailable}, // starting up
		{state("53300"), webhook.KindUnavailable}, // too many connections
		{state("40P01"), webhook.KindUnavailable}, // deadlock
		{state("40001"), webhook.KindUnavailable},
		{state("08006"), webhook.KindUnavailable},
		{state("25006"), webhook.KindUnavailable}, // read only: no longer the primary
		{state("22021"), webhook.KindInvalid},
		{state("22P05"), webhook.KindInvalid},
		{state("23505"), webhook.KindInternal}, // one nobody expected
		{state("42P01"), webhook.KindInternal},
		{io.ErrUnexpectedEOF, webhook.KindUnavailable},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, webhook.KindUnavailable},
		{errors.New("bug"), webhook.KindInternal},
	} {
		got := failure("do it", c.err)
		if webhook.KindOf(got) != c.want {
			t.Errorf("%v became %v, want kind %d", c.err, got, c.want)
		}
		if c.want == webhook.KindInternal || c.want == webhook.KindUnavailable {
			if !errors.Is(got, c.err) || !strings.Contains(got.Error(), "do it") {
				t.Errorf("%v became %v, without cause or deed", c.err, got)
			}
		}
	}
	if failure("do it", nil) != nil {
		t.Error("nothing became an error")
	}
}
