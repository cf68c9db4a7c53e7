package store

import (
	"context"
	"errors"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// CreatePortalSession keeps a session of an application, under the id it is given. Its application and
// expiry are the caller's to choose, the other fields are set here.
func (v View) CreatePortalSession(ctx context.Context, p webhook.PortalSession) (webhook.PortalSession, error) {
	if err := v.wholeTenant(); err != nil {
		return webhook.PortalSession{}, err
	}
	p.TenantID, p.CreatedAt = v.scope.Tenant, v.store.now()
	p.ExpiresAt = p.ExpiresAt.UTC().Truncate(time.Microsecond)
	err := v.transaction(ctx, "create portal session", func(tx *gorm.DB) error {
		// An application that is deleted meanwhile takes its sessions with it: each use asks for both.
		if _, err := v.applicationID(tx, p.ApplicationID.String()); err != nil {
			return err
		}
		return tx.Create(&p).Error
	})
	if err != nil {
		return webhook.PortalSession{}, err
	}
	return p, nil
}

// ExpirePortalSessions makes sessions of the application that ref names end after a time, which may be
// 0: those with one of the labels, or all if there are none. It never lengthens a session.
func (v View) ExpirePortalSessions(ctx context.Context, ref string, labels []string, after time.Duration) error {
	if err := v.wholeTenant(); err != nil {
		return err
	}
	return v.transaction(ctx, "expire portal sessions", func(tx *gorm.DB) error {
		app, err := v.applicationID(tx, ref)
		if err != nil {
			return err
		}
		q := tx.Where("tenant_id = ? AND app_id = ?", v.scope.Tenant, app)
		if len(labels) > 0 {
			q = q.Where("label = ANY (?)", array[string](labels))
		}
		return endSessions(q, after).Error
	})
}

// EndPortalSession ends one session of the view's application now.
func (v View) EndPortalSession(ctx context.Context, id webhook.PortalSessionID) error {
	return v.transaction(ctx, "end portal session", func(tx *gorm.DB) error {
		res := endSessions(tx.Where("tenant_id = ? AND app_id = ? AND id = ?", v.scope.Tenant, v.scope.Application, id), 0)
		if res.Error == nil && res.RowsAffected == 0 {
			return webhook.ErrNotFound
		}
		return res.Error
	})
}

// endSessions goes by Postgres's clock, as the question whether a session counts does: the clocks of
// the processes may differ by more than a revocation may take.
func endSessions(q *gorm.DB, after time.Duration) *gorm.DB {
	return q.Model(&webhook.PortalSession{}).
		UpdateColumn("expires_at", gorm.Expr("LEAST(expires_at, now() + make_interval(secs => ?))", after.Seconds()))
}

// PortalSession is a session of the scope's application, if it and the application count now;
// otherwise the error is KindUnauthorized.
func (s *Store) PortalSession(ctx context.Context, scope webhook.Scope, id webhook.PortalSessionID) (p webhook.PortalSession, err error) {
	err = s.db.WithContext(ctx).
		Where("tenant_id = ? AND app_id = ? AND id = ? AND expires_at > now()", scope.Tenant, scope.Application, id).
		Where(`EXISTS (SELECT FROM application a
			WHERE a.tenant_id = portal_session.tenant_id AND a.id = portal_session.app_id AND a.deleted_at IS NULL)`).
		Take(&p).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return webhook.PortalSession{}, errBadKey
	}
	return p, failure("find portal session", err)
}
