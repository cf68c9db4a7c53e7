package store

import (
	"context"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	"gorm.io/gorm/schema"
)

func init() {
	schema.RegisterSerializer("zeronull", zeroNull{})
	schema.RegisterSerializer("textarray", textArray{})
	schema.RegisterSerializer("rawjson", rawJSON{})
}

// zeroNull keeps the zero string or int as NULL.
type zeroNull struct{}

// Scan reads NULL as the zero value.
func (zeroNull) Scan(ctx context.Context, field *schema.Field, dst reflect.Value, value any) error {
	to := field.ReflectValueOf(ctx, dst)
	switch v := value.(type) {
	case nil:
		to.SetZero()
	case string:
		to.SetString(v)
	case int64:
		to.SetInt(v)
	default:
		return fmt.Errorf("scan %s: unexpected %T", field.DBName, value)
	}
	return nil
}

// Value writes the zero value as NULL.
func (zeroNull) Value(_ context.Context, _ *schema.Field, _ reflect.Value, value any) (any, error) {
	if reflect.ValueOf(value).IsZero() {
		return nil, nil
	}
	return value, nil
}

// textArray keeps a []string as text[]; nil is NULL, an empty one is an empty array.
type textArray struct{}

// Scan reads Postgres's text form of an array.
func (textArray) Scan(ctx context.Context, field *schema.Field, dst reflect.Value, value any) error {
	var list []string
	if err := pgtype.NewMap().SQLScanner(&list).Scan(value); err != nil {
		return fmt.Errorf("scan %s: %w", field.DBName, err)
	}
	field.ReflectValueOf(ctx, dst).Set(reflect.ValueOf(list))
	return nil
}

// Value hands the slice to pgx, which writes it as an array.
func (textArray) Value(_ context.Context, _ *schema.Field, _ reflect.Value, value any) (any, error) {
	if list, _ := value.([]string); list != nil {
		return list, nil
	}
	return nil, nil
}

// array is a list that goes to Postgres as one value; gorm would take a plain slice apart.
type array[T any] []T

// Value hands the slice to pgx, which writes it as an array.
func (a array[T]) Value() (driver.Value, error) { return []T(a), nil }

// rawJSON keeps a json.RawMessage as it is; nil is NULL.
type rawJSON struct{}

// Scan copies the text, since the driver may reuse its buffer.
func (rawJSON) Scan(ctx context.Context, field *schema.Field, dst reflect.Value, value any) error {
	var raw json.RawMessage
	switch v := value.(type) {
	case nil:
	case []byte:
		raw = append(raw, v...)
	case string:
		raw = json.RawMessage(v)
	default:
		return fmt.Errorf("scan %s: unexpected %T", field.DBName, value)
	}
	field.ReflectValueOf(ctx, dst).Set(reflect.ValueOf(raw))
	return nil
}

// Value writes the text unchanged.
func (rawJSON) Value(_ context.Context, _ *schema.Field, _ reflect.Value, value any) (any, error) {
	if raw, _ := value.(json.RawMessage); len(raw) > 0 {
		return string(raw), nil
	}
	return nil, nil
}

// slowStatement is from where on a statement is worth a line in the log.
const slowStatement = time.Second

// gormLogger logs slow statements, without their values. Failed ones are not logged here: most are
// expected (not found, taken), and the others are logged where the error ends.
type gormLogger struct{ log *slog.Logger }

// LogMode is fixed: the process's own log level decides.
func (l gormLogger) LogMode(logger.LogLevel) logger.Interface { return l }

// Info drops gorm's remarks.
func (gormLogger) Info(context.Context, string, ...any) {}

// Warn keeps gorm's message and drops its arguments, which may hold values.
func (l gormLogger) Warn(ctx context.Context, text string, _ ...any) {
	l.log.WarnContext(ctx, "gorm", "message", text)
}

// Error keeps gorm's message and drops its arguments, which may hold values.
func (l gormLogger) Error(ctx context.Context, text string, _ ...any) {
	l.log.ErrorContext(ctx, "gorm", "message", text)
}

// Trace logs a slow statement.
func (l gormLogger) Trace(ctx context.Context, begin time.Time, statement func() (string, int64), _ error) {
	if took := time.Since(begin); took >= slowStatement {
		sql, rows := statement()
		l.log.WarnContext(ctx, "slow statement", "sql", sql, "rows", rows, "took", took)
	}
}

// ParamsFilter keeps values out of the text of a statement.
func (gormLogger) ParamsFilter(_ context.Context, sql string, _ ...any) (string, []any) {
	return sql, nil
}

// acrossTenants marks a statement that is meant to span tenants.
const acrossTenants = "posthaste:across_tenants"

var (
	tenantTables = regexp.MustCompile(`\b(api_key|application|endpoint|endpoint_secret|event_type|message|delivery|endpoint_wake|endpoint_gate|attempt|idempotency|event_id|portal_session|task)\b`)
	namesTenant  = regexp.MustCompile(`(?s)^\s*INSERT\b.*\btenant_id\b|\bWHERE\b.*\btenant_id"? (=|IN)`)
)

// requireTenant makes a statement over tenant data that names no tenant panic. It looks at the
// finished SQL, so that it sees what Postgres saw.
func requireTenant(db *gorm.DB) error {
	check := func(tx *gorm.DB) {
		if _, ok := tx.Get(acrossTenants); ok {
			return
		}
		if sql := tx.Statement.SQL.String(); tenantTables.MatchString(sql) && !namesTenant.MatchString(sql) {
			panic("statement over tenant data names no tenant: " + sql)
		}
	}
	const name = "posthaste:require_tenant"
	for _, err := range []error{
		db.Callback().Create().After("gorm:create").Register(name, check),
		db.Callback().Query().After("gorm:query").Register(name, check),
		db.Callback().Update().After("gorm:update").Register(name, check),
		db.Callback().Delete().After("gorm:delete").Register(name, check),
		db.Callback().Row().After("gorm:row").Register(name, check),
		db.Callback().Raw().After("gorm:raw").Register(name, check),
	} {
		if err != nil {
			return fmt.Errorf("register callback: %w", err)
		}
	}
	return nil
}
