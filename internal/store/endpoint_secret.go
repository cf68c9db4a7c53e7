package store

import (
	"context"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

// EndpointSecret is the text of the key an endpoint's messages are signed with now.
func (v View) EndpointSecret(ctx context.Context, appRef, ref string) (webhook.Secret, error) {
	q := v.db.WithContext(ctx)
	e, err := v.endpoint(q, appRef, ref)
	if err != nil {
		return webhook.Secret{}, failure("read endpoint secret", err)
	}
	var row webhook.EndpointSecret
	err = q.Where("tenant_id = ? AND endpoint_id = ? AND expires_at IS NULL", e.TenantID, e.ID).Take(&row).Error
	if err != nil {
		return webhook.Secret{}, failure("read endpoint secret", err)
	}
	return v.store.openSecret(row.TenantID, row.ID, row.Sealed)
}

// RotateEndpointSecret makes next an endpoint's signing key. The one before goes on signing beside it
// for the grace; with grace 0 it is gone at once. More than webhook.MaxOldSecrets of those at a time
// are refused with KindBadRequest "limit_reached".
func (v View) RotateEndpointSecret(ctx context.Context, appRef, ref string, next webhook.Secret, grace time.Duration) error {
	if grace < 0 || grace > webhook.MaxSecretGrace {
		return webhook.Invalid("gracePeriodSeconds", "must be between 0 and %d", int(webhook.MaxSecretGrace.Seconds()))
	}
	return v.changeEndpoint(ctx, "rotate endpoint secret", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		return v.rotateSecret(tx, e.ID, next, grace)
	})
}

// rotateSecret needs the endpoint's row locked.
func (v View) rotateSecret(tx *gorm.DB, endpoint webhook.EndpointID, next webhook.Secret, grace time.Duration) error {
	secrets := func() *gorm.DB {
		return tx.Model(&webhook.EndpointSecret{}).Where("tenant_id = ? AND endpoint_id = ?", v.scope.Tenant, endpoint)
	}
	now := v.store.now()
	if err := secrets().Where("expires_at <= ?", now).Delete(&webhook.EndpointSecret{}).Error; err != nil {
		return err
	}
	current := secrets().Where("expires_at IS NULL")
	if grace == 0 {
		if err := current.Delete(&webhook.EndpointSecret{}).Error; err != nil {
			return err
		}
		return v.insertSecret(tx, endpoint, next)
	}
	var old int64
	if err := secrets().Where("expires_at IS NOT NULL").Count(&old).Error; err != nil {
		return err
	}
	if old >= webhook.MaxOldSecrets {
		return &webhook.Error{Kind: webhook.KindBadRequest, Code: "limit_reached", Detail: fmt.Sprintf(
			"An endpoint has at most %d replaced signing keys that are still valid; wait for one to expire", webhook.MaxOldSecrets)}
	}
	if err := current.UpdateColumn("expires_at", now.Add(grace)).Error; err != nil {
		return err
	}
	return v.insertSecret(tx, endpoint, next)
}

func (v View) insertSecret(tx *gorm.DB, endpoint webhook.EndpointID, key webhook.Secret) error {
	row := webhook.EndpointSecret{TenantID: v.scope.Tenant, EndpointID: endpoint, ID: webhook.NewSecretID(), CreatedAt: v.store.now()}
	var err error
	if row.Sealed, err = v.store.keys.Seal([]byte(key.Reveal()), secretPlace(row)); err != nil {
		return fmt.Errorf("seal signing key: %w", err)
	}
	return tx.Create(&row).Error
}

func secretPlace(s webhook.EndpointSecret) seal.AD {
	return seal.AD{Table: "endpoint_secret", Column: "sealed", Tenant: s.TenantID, Row: s.ID}
}
