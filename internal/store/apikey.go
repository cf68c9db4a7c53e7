package store

import (
	"context"
	"errors"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

// CreateAPIKey keeps a tenant's new key, of which only the digest is known here; its id and time are
// set here. A uid that is known answers with the key that has it, unchanged, and created = false.
func (s *Store) CreateAPIKey(ctx context.Context, tenantRef string, k webhook.APIKey) (key webhook.APIKey, created bool, err error) {
	err = failure("create API key", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		var t webhook.Tenant
		err := tenantCalled(tx, tenantRef).Clauses(clause.Locking{Strength: "KEY SHARE"}).Select("id").Take(&t).Error
		if err != nil {
			return err
		}
		k.TenantID, k.ID, k.CreatedAt, k.LastUsedAt = t.ID, webhook.NewAPIKeyID(), s.now(), nil
		if k.Scopes == nil {
			k.Scopes = []string{}
		}
		byUID := clause.OnConflict{Columns: []clause.Column{{Name: "tenant_id"}, {Name: "uid"}}, DoNothing: true}
		res := tx.Clauses(byUID).Create(&k)
		if res.Error != nil || res.RowsAffected == 1 {
			key, created = k, true
			return res.Error
		}
		return tx.Where("tenant_id = ? AND uid = ?", t.ID, k.UID).Take(&key).Error
	}))
	if err != nil {
		return webhook.APIKey{}, false, err
	}
	return key, created, nil
}

// APIKeys lists a tenant's keys by id, expired ones too.
func (s *Store) APIKeys(ctx context.Context, tenantRef string, p Page) (List[webhook.APIKey], error) {
	at, backwards := p.position()
	var cursor any
	if at != "" {
		id, err := webhook.ParseID[webhook.APIKeyID](at)
		if err != nil {
			return List[webhook.APIKey]{}, badIterator()
		}
		cursor = id
	}
	t, err := s.Tenant(ctx, tenantRef)
	if err != nil {
		return List[webhook.APIKey]{}, err
	}
	l, err := listed[webhook.APIKey](s.db.WithContext(ctx).Where("tenant_id = ?", t.ID), p, "id", cursor, backwards)
	return l, failure("list API keys", err)
}

// ExpireAPIKey makes a tenant's key end at a time, which may be now. It never lengthens a key's life:
// an ended key stays ended.
func (s *Store) ExpireAPIKey(ctx context.Context, tenantRef, keyRef string, at time.Time) error {
	t, err := s.Tenant(ctx, tenantRef)
	if err != nil {
		return err
	}
	id, err := webhook.ParseID[webhook.APIKeyID](keyRef)
	res := named(s.db.WithContext(ctx).Model(&webhook.APIKey{}).Where("tenant_id = ?", t.ID), keyRef, id, err).
		UpdateColumn("expires_at", gorm.Expr("LEAST(expires_at, ?)", at.UTC()))
	if res.Error == nil && res.RowsAffected == 0 {
		return webhook.ErrNotFound
	}
	return failure("expire API key", res.Error)
}

// effective are a tenant t's limits.
var effective = "t." + strings.Join(effectiveColumns, ", t.")

// errBadKey does not say whether a key is unknown, expired or of a deleted tenant.
var errBadKey error = &webhook.Error{Kind: webhook.KindUnauthorized, Code: "authentication_failed", Detail: "Invalid token"}

// APIKeyByDigest is the key with a digest, if it may be used now; otherwise the error is
// KindUnauthorized.
func (s *Store) APIKeyByDigest(ctx context.Context, digest [32]byte) (webhook.APIKey, error) {
	p, err := s.PrincipalByDigest(ctx, digest)
	return p.Key, err
}

// Principal is an API key together with what its tenant wants of messages and may use, so that whoever
// remembers the one has the others.
type Principal struct {
	Key    webhook.APIKey       `gorm:"embedded"`
	Rules  webhook.PublishRules `gorm:"embedded"`
	Limits webhook.Limits       `gorm:"embedded"`
}

// PrincipalByDigest is APIKeyByDigest with more.
func (s *Store) PrincipalByDigest(ctx context.Context, digest [32]byte) (found Principal, err error) {
	err = s.acrossTenants(ctx).Table("api_key").Select("api_key.*, t.schema_validation, t.strict_event_types, "+effective).
		Joins("JOIN tenant t ON t.id = api_key.tenant_id AND t.deleted_at IS NULL").
		Where("digest = ? AND (expires_at IS NULL OR expires_at > now())", digest[:]).Take(&found).Error
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return Principal{}, errBadKey
	}
	return found, failure("find API key", err)
}

// TouchAPIKeys remembers when keys were last used, to the minute and never going back.
func (s *Store) TouchAPIKeys(ctx context.Context, used map[webhook.APIKeyID]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	var ids array[[16]byte]
	var times array[time.Time]
	for id, at := range used {
		ids, times = append(ids, id), append(times, at.UTC().Truncate(time.Minute))
	}
	// Locked in the order of their ids, since two processes may touch the same keys.
	err := s.acrossTenants(ctx).Exec(`
WITH u AS MATERIALIZED (
	SELECT k.tenant_id, k.id, u.at FROM unnest(?::uuid[], ?::timestamptz[]) AS u (id, at) JOIN api_key k ON k.id = u.id
	WHERE k.last_used_at IS NULL OR k.last_used_at < u.at
	ORDER BY k.id FOR NO KEY UPDATE OF k
)
UPDATE api_key SET last_used_at = u.at FROM u WHERE api_key.tenant_id = u.tenant_id AND api_key.id = u.id`, ids, times).Error
	return failure("note use of API keys", err)
}

// acrossTenants is for the few questions that are not one tenant's; tests let no other statement
// over tenant data go by that names no tenant.
func (s *Store) acrossTenants(ctx context.Context) *gorm.DB {
	return s.db.WithContext(ctx).Set(acrossTenants, true)
}
