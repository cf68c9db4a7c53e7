package rig

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/posthaste/posthaste/internal/webhook"
)

// LimitTenant sets how many deliveries a second a tenant may have, over everything, and how many at once
// after a pause. It goes past the API, because limits are read where they are used.
func (r *Rig) LimitTenant(ctx context.Context, t Tenant, rate, burst int) error {
	id, err := webhook.ParseID[webhook.TenantID](t.ID)
	if err != nil {
		return fmt.Errorf("limit a tenant: %w", err)
	}
	conn, err := r.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `UPDATE tenant SET deliver_rate = $2, deliver_burst = $3 WHERE id = $1`, id.UUID(), rate, burst); err != nil {
		return fmt.Errorf("limit a tenant: %w", err)
	}
	return nil
}

// RedisMemory is how much memory Redis uses for what it holds, in bytes, by its own account.
func (r *Rig) RedisMemory(ctx context.Context) (int64, error) {
	text, err := r.askRedis(ctx, "INFO memory")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(text, "used_memory:")
	number, _, _ := strings.Cut(rest, "\r")
	used, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("ask redis for its memory: it answered %q", number)
	}
	return used, nil
}
