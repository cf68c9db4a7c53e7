package store

import (
	"context"
	"errors"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

// raceTries is how often a write is tried again that lost a race for a uid in a way that the next try
// settles.
const raceTries = 3

var errRaced = errors.New("raced with another write of the same uid")

// CreateApplication makes an application; its ids and times are set here. If its uid is taken, the
// answer is KindConflict, or with getIfExists the application that has it, unchanged.
func (v View) CreateApplication(ctx context.Context, a webhook.Application, getIfExists bool) (made webhook.Application, created bool, err error) {
	if err := v.wholeTenant(); err != nil {
		return webhook.Application{}, false, err
	}
	for range raceTries {
		err = v.transaction(ctx, "create application", func(tx *gorm.DB) error {
			made, created, err = v.insertApplication(tx, a)
			if err != nil || created {
				return err
			}
			if !getIfExists {
				return applicationTaken(a.UID)
			}
			// Into an empty one: gorm makes conditions of the keys it finds in a destination.
			made = webhook.Application{}
			err = v.applications(tx).Where("uid = ?", a.UID).Take(&made).Error
			if errors.Is(err, gorm.ErrRecordNotFound) { // deleted since it stood in the way
				return errRaced
			}
			return err
		})
		if !errors.Is(err, errRaced) {
			break
		}
	}
	if err != nil {
		return webhook.Application{}, false, err
	}
	return made, created, nil
}

// insertApplication answers created = false if the uid is taken; that does not fail the transaction.
func (v View) insertApplication(tx *gorm.DB, a webhook.Application) (webhook.Application, bool, error) {
	if err := v.lockTenant(tx); err != nil {
		return webhook.Application{}, false, err
	}
	a.TenantID, a.ID = v.scope.Tenant, webhook.NewApplicationID()
	a.CreatedAt = v.store.now()
	a.UpdatedAt, a.DeletedAt = a.CreatedAt, nil
	a.Metadata = orEmpty(a.Metadata)
	res := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&a)
	return a, res.RowsAffected == 1, res.Error
}

// lockTenant makes sure that the tenant lives until the transaction ends: deleting it waits, and
// then deletes what the transaction made.
func (v View) lockTenant(tx *gorm.DB) error {
	var t webhook.Tenant
	return tx.Clauses(clause.Locking{Strength: "KEY SHARE"}).Select("id").
		Where("id = ? AND deleted_at IS NULL", v.scope.Tenant).Take(&t).Error
}

// Application is the application that ref names.
func (v View) Application(ctx context.Context, ref string) (a webhook.Application, err error) {
	err = v.applicationCalled(v.db.WithContext(ctx), ref).Take(&a).Error
	return a, failure("read application", err)
}

// Applications lists applications by id.
func (v View) Applications(ctx context.Context, p Page) (List[webhook.Application], error) {
	at, backwards := p.position()
	var cursor any
	if at != "" {
		id, err := webhook.ParseID[webhook.ApplicationID](at)
		if err != nil {
			return List[webhook.Application]{}, badIterator()
		}
		cursor = id
	}
	l, err := listed[webhook.Application](v.applications(v.db.WithContext(ctx)), p, "id", cursor, backwards)
	return l, failure("list applications", err)
}

// ReplaceApplication sets everything about the application that ref names, or creates it if there is
// none. An application that is given no uid takes ref as its own if ref can be one.
func (v View) ReplaceApplication(ctx context.Context, ref string, a webhook.Application) (made webhook.Application, created bool, err error) {
	a.UID = uidFromRef(ref, webhook.ApplicationID{}.Prefix(), a.UID)
	for range raceTries {
		err = v.transaction(ctx, "replace application", func(tx *gorm.DB) error {
			made, err = v.lockedApplication(tx, ref)
			switch {
			case err == nil:
				created = false
				made.UID, made.Name, made.Metadata = a.UID, a.Name, a.Metadata
				made.ThrottleRate, made.ThrottleBurst = a.ThrottleRate, a.ThrottleBurst
				made, err = v.saveApplication(tx, made)
				return err
			case !errors.Is(err, gorm.ErrRecordNotFound):
				return err
			case !v.scope.Application.IsZero():
				return webhook.ErrNotFound // one application may not make another
			}
			made, created, err = v.insertApplication(tx, a)
			if err == nil && !created {
				if a.UID == ref {
					return errRaced // created under this very name a moment ago: replace it
				}
				return applicationTaken(a.UID)
			}
			return err
		})
		if !errors.Is(err, errRaced) {
			break
		}
	}
	if err != nil {
		return webhook.Application{}, false, err
	}
	return made, created, nil
}

// PatchApplication lets change edit the application that ref names while nobody else can. An error of
// change is returned and nothing is saved; ids and times are not change's to set.
func (v View) PatchApplication(ctx context.Context, ref string, change func(*webhook.Application) error) (a webhook.Application, err error) {
	err = v.transaction(ctx, "change application", func(tx *gorm.DB) error {
		old, err := v.lockedApplication(tx, ref)
		if err != nil {
			return err
		}
		a = old
		if err := change(&a); err != nil {
			return err
		}
		a.TenantID, a.ID, a.CreatedAt, a.DeletedAt = old.TenantID, old.ID, old.CreatedAt, nil
		a, err = v.saveApplication(tx, a)
		return err
	})
	if err != nil {
		return webhook.Application{}, err
	}
	return a, nil
}

// DeleteApplication deletes the application that ref names and its endpoints, and frees their uids.
// What is still owed to the endpoints ends as canceled.
func (v View) DeleteApplication(ctx context.Context, ref string) error {
	return v.transaction(ctx, "delete application", func(tx *gorm.DB) error {
		// The lock comes first: an endpoint being created holds it too, so that the statement after it
		// sees every endpoint there will ever be.
		a, err := v.lockedApplication(tx, ref)
		if err != nil {
			return err
		}
		err = tx.Model(&webhook.Application{}).Where("tenant_id = ? AND id = ?", a.TenantID, a.ID).
			UpdateColumn("deleted_at", v.store.now()).Error
		if err != nil {
			return err
		}
		return v.deleteEndpoints(tx, "tenant_id = ? AND app_id = ? AND deleted_at IS NULL", a.TenantID, a.ID)
	})
}

// applications are those the view may see.
func (v View) applications(q *gorm.DB) *gorm.DB {
	q = q.Where("tenant_id = ? AND deleted_at IS NULL", v.scope.Tenant)
	if !v.scope.Application.IsZero() {
		q = q.Where("id = ?", v.scope.Application)
	}
	return q
}

func (v View) applicationCalled(q *gorm.DB, ref string) *gorm.DB {
	id, err := webhook.ParseID[webhook.ApplicationID](ref)
	return named(v.applications(q), ref, id, err)
}

func (v View) applicationID(q *gorm.DB, ref string) (webhook.ApplicationID, error) {
	var a webhook.Application
	err := v.applicationCalled(q, ref).Select("id").Take(&a).Error
	return a.ID, err
}

func (v View) lockedApplication(tx *gorm.DB, ref string) (a webhook.Application, err error) {
	err = v.applicationCalled(tx, ref).Clauses(forChange).Take(&a).Error
	return a, err
}

func (v View) saveApplication(tx *gorm.DB, a webhook.Application) (webhook.Application, error) {
	a.UpdatedAt = v.store.now()
	a.Metadata = orEmpty(a.Metadata)
	err := tx.Model(&webhook.Application{}).Where("tenant_id = ? AND id = ?", a.TenantID, a.ID).
		Select("uid", "name", "throttle_rate", "throttle_burst", "metadata", "updated_at").UpdateColumns(&a).Error
	if uidTaken(err) {
		return a, applicationTaken(a.UID)
	}
	return a, err
}

func applicationTaken(uid string) error {
	return webhook.Conflict("conflict", "An application with the uid %q exists already", uid)
}

// orEmpty is the column's rule: metadata is {} when there is none.
func orEmpty(metadata map[string]string) map[string]string {
	if metadata == nil {
		return map[string]string{}
	}
	return metadata
}
