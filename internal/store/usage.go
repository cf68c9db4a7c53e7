package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// usageDays is how long a tenant's count of a day's messages is kept.
	usageDays = 31
	// MaxCountedMessages is up to how many of a day's messages are counted of a tenant without a quota,
	// whose messages are not counted as they come.
	MaxCountedMessages = 100_000
)

// MessagesOn is how many messages a tenant has had accepted on the day in UTC that a time is in, as far
// as AddUsage was told. The first question of a day counts what there is, which is all of a tenant
// whose quota is new.
func (s *Store) MessagesOn(ctx context.Context, tenant webhook.TenantID, at time.Time) (n int64, err error) {
	const known = `SELECT messages FROM tenant_usage WHERE tenant_id = $1 AND day = $2`
	begin, end := webhook.Day(at)
	err = s.pool.QueryRow(ctx, known, tenant.UUID(), begin).Scan(&n)
	if !errors.Is(err, pgx.ErrNoRows) {
		return n, failure("read a day's messages", err)
	}
	_, err = s.pool.Exec(ctx, `WITH forget AS (DELETE FROM tenant_usage WHERE tenant_id = $1 AND day < $2::date - $5::int)
		INSERT INTO tenant_usage (tenant_id, day, messages)
		SELECT $1, $2::date, count(*) FROM message WHERE tenant_id = $1 AND id >= $3 AND id < $4
		ON CONFLICT DO NOTHING`, tenant.UUID(), begin, messageIDAt(begin).UUID(), messageIDAt(end).UUID(), usageDays)
	if err == nil {
		err = s.pool.QueryRow(ctx, known, tenant.UUID(), begin).Scan(&n)
	}
	return n, failure("count a day's messages", err)
}

// Used is how many messages of a tenant were accepted on a day.
type Used struct {
	Tenant   webhook.TenantID
	Day      time.Time
	Messages int64
}

// AddUsage adds to what tenants have used, each tenant's day once, and returns what that comes to, in
// the same order.
func (s *Store) AddUsage(ctx context.Context, used []Used) ([]int64, error) {
	tenants, days, messages := make([][16]byte, len(used)), make([]time.Time, len(used)), make([]int64, len(used))
	at := make(map[Used]int, len(used))
	for i, u := range used {
		tenants[i], days[i], messages[i] = u.Tenant, u.Day, u.Messages
		at[Used{Tenant: u.Tenant, Day: u.Day.UTC()}] = i
	}
	// In order, since two processes may add to the same.
	rows, err := s.pool.Query(ctx, `INSERT INTO tenant_usage (tenant_id, day, messages)
		SELECT * FROM unnest($1::uuid[], $2::date[], $3::bigint[]) AS u(tenant_id, day, messages) ORDER BY 1, 2
		ON CONFLICT (tenant_id, day) DO UPDATE SET messages = tenant_usage.messages + EXCLUDED.messages
		RETURNING tenant_id, day, messages`, tenants, days, messages)
	if err != nil {
		return nil, fmt.Errorf("add to a day's messages: %w", err)
	}
	totals := make([]int64, len(used))
	var tenant [16]byte
	var day time.Time
	var total int64
	_, err = pgx.ForEachRow(rows, []any{&tenant, &day, &total}, func() error {
		totals[at[Used{Tenant: tenant, Day: day.UTC()}]] = total
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("add to a day's messages: %w", err)
	}
	return totals, nil
}

// Usage is what the tenant may use and how much of it is used. Of a tenant without a quota at most
// MaxCountedMessages are counted.
func (v View) Usage(ctx context.Context) (t webhook.Tenant, u webhook.Usage, err error) {
	const doing = "read usage"
	if err := v.wholeTenant(); err != nil {
		return webhook.Tenant{}, u, err
	}
	q := v.db.WithContext(ctx)
	if err := q.Where("id = ? AND deleted_at IS NULL", v.scope.Tenant).Take(&t).Error; err != nil {
		return webhook.Tenant{}, u, failure(doing, err)
	}
	var endpoints int64
	if err := q.Model(&webhook.Endpoint{}).Where("tenant_id = ? AND deleted_at IS NULL", v.scope.Tenant).Count(&endpoints).Error; err != nil {
		return webhook.Tenant{}, u, failure(doing, err)
	}
	u.Endpoints = int(endpoints)
	if t.Effective.MessagesPerDay > 0 {
		u.MessagesToday, err = v.store.MessagesOn(ctx, v.scope.Tenant, v.store.now())
		return t, u, err
	}
	begin, end := webhook.Day(v.store.now())
	err = v.store.pool.QueryRow(ctx, `SELECT count(*) FROM (
		SELECT FROM message WHERE tenant_id = $1 AND id >= $2 AND id < $3 LIMIT $4) m`,
		v.scope.Tenant.UUID(), messageIDAt(begin).UUID(), messageIDAt(end).UUID(), MaxCountedMessages).Scan(&u.MessagesToday)
	return t, u, failure(doing, err)
}
