package store

import (
	"context"
	"errors"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

var eventTypeColumns = []string{
	"description", "archived", "deprecated", "schemas", "group_name", "feature_flags", "updated_at",
}

// CreateEventType makes an event type. An archived one of the same name is replaced and comes back;
// a live one is KindConflict "event_type_exists".
func (v View) CreateEventType(ctx context.Context, e webhook.EventType) (webhook.EventType, error) {
	if err := v.wholeTenant(); err != nil {
		return webhook.EventType{}, err
	}
	e.TenantID, e.Archived = v.scope.Tenant, false
	e.CreatedAt = v.store.now()
	e.UpdatedAt = e.CreatedAt
	err := v.transaction(ctx, "create event type", func(tx *gorm.DB) error {
		if err := v.lockTenant(tx); err != nil {
			return err
		}
		res := tx.Clauses(clause.OnConflict{
			Columns:   []clause.Column{{Name: "tenant_id"}, {Name: "name"}},
			Where:     clause.Where{Exprs: []clause.Expression{clause.Expr{SQL: "event_type.archived"}}},
			DoUpdates: clause.AssignmentColumns(append([]string{"created_at"}, eventTypeColumns...)),
		}).Create(&e)
		if res.Error == nil && res.RowsAffected == 0 {
			return webhook.Conflict("event_type_exists", "An event type with the name %q exists already", e.Name)
		}
		return res.Error
	})
	if err != nil {
		return webhook.EventType{}, err
	}
	return e, nil
}

// EventType is the event type of a name, archived or not.
func (v View) EventType(ctx context.Context, name string) (e webhook.EventType, err error) {
	err = v.eventTypeCalled(v.db.WithContext(ctx), name).Take(&e).Error
	return e, failure("read event type", err)
}

// EventTypes lists event types by name, always ascending; archived ones only if asked for.
func (v View) EventTypes(ctx context.Context, p Page, includeArchived bool) (List[webhook.EventType], error) {
	at, backwards := p.position()
	var cursor any
	if at != "" {
		if !storable(at) {
			return List[webhook.EventType]{}, badIterator()
		}
		cursor = at
	}
	q := v.eventTypes(v.db.WithContext(ctx))
	if !includeArchived {
		q = q.Where("NOT archived")
	}
	p.Descending = false
	l, err := listed[webhook.EventType](q, p, "name", cursor, backwards)
	return l, failure("list event types", err)
}

// ReplaceEventType sets everything about the event type of a name, or creates it if there is none.
func (v View) ReplaceEventType(ctx context.Context, name string, e webhook.EventType) (made webhook.EventType, created bool, err error) {
	if err := v.wholeTenant(); err != nil {
		return webhook.EventType{}, false, err
	}
	for range raceTries {
		err = v.transaction(ctx, "replace event type", func(tx *gorm.DB) error {
			old, err := v.lockedEventType(tx, name)
			if err == nil {
				created = false
				made, err = v.saveEventType(tx, old, e)
				return err
			}
			if !errors.Is(err, gorm.ErrRecordNotFound) {
				return err
			}
			if err := v.lockTenant(tx); err != nil {
				return err
			}
			made = e
			made.TenantID, made.Name = v.scope.Tenant, name
			made.CreatedAt = v.store.now()
			made.UpdatedAt = made.CreatedAt
			res := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&made)
			if res.Error == nil && res.RowsAffected == 0 {
				return errRaced
			}
			created = true
			return res.Error
		})
		if !errors.Is(err, errRaced) {
			break
		}
	}
	if err != nil {
		return webhook.EventType{}, false, err
	}
	return made, created, nil
}

// PatchEventType lets change edit the event type of a name while nobody else can. An error of change
// is returned and nothing is saved; name and times are not change's to set.
func (v View) PatchEventType(ctx context.Context, name string, change func(*webhook.EventType) error) (made webhook.EventType, err error) {
	if err := v.wholeTenant(); err != nil {
		return webhook.EventType{}, err
	}
	err = v.transaction(ctx, "change event type", func(tx *gorm.DB) error {
		old, err := v.lockedEventType(tx, name)
		if err != nil {
			return err
		}
		e := old
		if err := change(&e); err != nil {
			return err
		}
		made, err = v.saveEventType(tx, old, e)
		return err
	})
	if err != nil {
		return webhook.EventType{}, err
	}
	return made, nil
}

// DeleteEventType archives the event type of a name, or with expunge removes it.
func (v View) DeleteEventType(ctx context.Context, name string, expunge bool) error {
	if err := v.wholeTenant(); err != nil {
		return err
	}
	return v.transaction(ctx, "delete event type", func(tx *gorm.DB) error {
		q := v.eventTypeCalled(tx.Model(&webhook.EventType{}), name)
		if expunge {
			q = q.Delete(&webhook.EventType{})
		} else {
			q = q.UpdateColumns(map[string]any{"archived": true, "updated_at": v.store.now()})
		}
		if q.Error == nil && q.RowsAffected == 0 {
			return webhook.ErrNotFound
		}
		return q.Error
	})
}

// eventTypes are those the view may see. An application sees none that only others were let into.
func (v View) eventTypes(q *gorm.DB) *gorm.DB {
	q = q.Where("tenant_id = ?", v.scope.Tenant)
	if !v.scope.Application.IsZero() {
		q = q.Where("(COALESCE(cardinality(feature_flags), 0) = 0 OR feature_flags && ?)", array[string](v.scope.FeatureFlags))
	}
	return q
}

func (v View) eventTypeCalled(q *gorm.DB, name string) *gorm.DB {
	q = v.eventTypes(q)
	if !storable(name) {
		return q.Where("false")
	}
	return q.Where("name = ?", name)
}

func (v View) lockedEventType(tx *gorm.DB, name string) (e webhook.EventType, err error) {
	err = v.eventTypeCalled(tx, name).Clauses(forChange).Take(&e).Error
	return e, err
}

func (v View) saveEventType(tx *gorm.DB, old, e webhook.EventType) (webhook.EventType, error) {
	e.TenantID, e.Name, e.CreatedAt, e.UpdatedAt = old.TenantID, old.Name, old.CreatedAt, v.store.now()
	err := tx.Model(&webhook.EventType{}).Where("tenant_id = ? AND name = ?", e.TenantID, e.Name).
		Select(eventTypeColumns).UpdateColumns(&e).Error
	return e, err
}
