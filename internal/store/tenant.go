package store

import (
	"cmp"
	"context"
	"errors"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

// CreateTenant makes a tenant; its id and times are set here. A uid that is known answers with the
// tenant that has it, unchanged, and created = false.
func (s *Store) CreateTenant(ctx context.Context, t webhook.Tenant) (tenant webhook.Tenant, created bool, err error) {
	t.ID = webhook.NewTenantID()
	t.SchemaValidation = cmp.Or(t.SchemaValidation, webhook.ValidationIgnore)
	t.CreatedAt = s.now()
	t.UpdatedAt, t.DeletedAt = t.CreatedAt, nil
	for range raceTries {
		err = s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			if t.Plan != "" {
				if err := lockPlans(tx); err != nil {
					return err
				}
			}
			if err := settle(tx, &t); err != nil {
				return err
			}
			res := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&t)
			created = res.RowsAffected == 1
			return res.Error
		})
		if err != nil || created {
			return t, err == nil, failure("create tenant", err)
		}
		err = tenants(s.db.WithContext(ctx)).Where("uid = ?", t.UID).Take(&tenant).Error
		if !errors.Is(err, gorm.ErrRecordNotFound) { // else deleted since it stood in the way
			break
		}
	}
	return tenant, false, failure("create tenant", err)
}

// Tenant is the tenant that ref, its id or uid, names.
func (s *Store) Tenant(ctx context.Context, ref string) (t webhook.Tenant, err error) {
	err = tenantCalled(s.db.WithContext(ctx), ref).Take(&t).Error
	return t, failure("read tenant", err)
}

// Tenants lists tenants by id.
func (s *Store) Tenants(ctx context.Context, p Page) (List[webhook.Tenant], error) {
	at, backwards := p.position()
	var cursor any
	if at != "" {
		id, err := webhook.ParseID[webhook.TenantID](at)
		if err != nil {
			return List[webhook.Tenant]{}, badIterator()
		}
		cursor = id
	}
	l, err := listed[webhook.Tenant](tenants(s.db.WithContext(ctx)), p, "id", cursor, backwards)
	return l, failure("list tenants", err)
}

// PatchTenant lets change edit a tenant's name, rules, plan and limits while nobody else can. An error of
// change is returned and nothing is saved.
func (s *Store) PatchTenant(ctx context.Context, ref string, change func(*webhook.Tenant) error) (t webhook.Tenant, err error) {
	err = failure("change tenant", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lockPlans(tx); err != nil {
			return err
		}
		if err := tenantCalled(tx, ref).Clauses(forChange).Take(&t).Error; err != nil {
			return err
		}
		if err := change(&t); err != nil {
			return err
		}
		if err := settle(tx, &t); err != nil {
			return err
		}
		t.UpdatedAt = s.now()
		return tx.Model(&webhook.Tenant{}).Where("id = ?", t.ID).
			Select(append([]string{"name", "schema_validation", "strict_event_types", "plan", "limits", "updated_at"}, effectiveColumns...)).
			UpdateColumns(&t).Error
	}))
	if err != nil {
		return webhook.Tenant{}, err
	}
	return t, nil
}

// DeleteTenant deletes a tenant with its applications and endpoints and frees its uid. Its keys are
// refused from then on, and what is still owed to its endpoints ends as canceled.
func (s *Store) DeleteTenant(ctx context.Context, ref string) error {
	return failure("delete tenant", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		// This lock, unlike that of the update, stands in the way of transactions that make something
		// for the tenant, and waits for those under way: the statements after it see all there is.
		var t webhook.Tenant
		if err := tenantCalled(tx, ref).Clauses(clause.Locking{Strength: "UPDATE"}).Take(&t).Error; err != nil {
			return err
		}
		now := s.now()
		err := tx.Model(&webhook.Tenant{}).Where("id = ?", t.ID).
			UpdateColumns(map[string]any{"deleted_at": now, "plan": nil}).Error // a plan that only the deleted have may go
		if err != nil {
			return err
		}
		err = tx.Model(&webhook.Application{}).Where("tenant_id = ? AND deleted_at IS NULL", t.ID).UpdateColumn("deleted_at", now).Error
		if err != nil {
			return err
		}
		return s.View(webhook.Scope{Tenant: t.ID}).deleteEndpoints(tx, "tenant_id = ? AND deleted_at IS NULL", t.ID)
	}))
}

func tenants(q *gorm.DB) *gorm.DB { return q.Where("deleted_at IS NULL") }

func tenantCalled(q *gorm.DB, ref string) *gorm.DB {
	id, err := webhook.ParseID[webhook.TenantID](ref)
	return named(tenants(q), ref, id, err)
}
