package store

import (
	"bytes"
	"context"
	"encoding/json"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Import is a set of event types that a tenant's are to be brought in line with.
type Import struct {
	EventTypes []webhook.EventType // Name, Description, Deprecated and Schemas
	ReplaceAll bool                // archive every event type that is not in the set
	DryRun     bool                // write nothing
}

// ImportEventTypes creates or changes event types, all or none, and returns those that were, or in a dry
// run would be, other than before: imported ones in their order, archived ones after them. Versions of a
// schema that the import does not have stay.
func (v View) ImportEventTypes(ctx context.Context, in Import) (modified []webhook.EventType, err error) {
	if err := v.wholeTenant(); err != nil {
		return nil, err
	}
	err = v.transaction(ctx, "import event types", func(tx *gorm.DB) error {
		modified = nil
		if err := v.lockTenant(tx); err != nil {
			return err
		}
		var all []webhook.EventType
		if err := tx.Where("tenant_id = ?", v.scope.Tenant).Order("name").Clauses(forChange).Find(&all).Error; err != nil {
			return err
		}
		old, imported := make(map[string]webhook.EventType, len(all)), make(map[string]bool)
		for _, e := range all {
			old[e.Name] = e
		}
		for _, e := range in.EventTypes {
			imported[e.Name] = true
			was, exists := old[e.Name]
			if e, err = mergedEventType(was, e); err != nil {
				return err
			}
			if exists && sameEventType(was, e) {
				continue
			}
			if modified = append(modified, e); in.DryRun {
				continue
			}
			if err := v.putEventType(tx, was, e, exists); err != nil {
				return err
			}
		}
		for _, e := range all {
			if !in.ReplaceAll || imported[e.Name] || e.Archived {
				continue
			}
			was := e
			e.Archived = true
			if modified = append(modified, e); in.DryRun {
				continue
			}
			if err := v.putEventType(tx, was, e, true); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return modified, nil
}

// mergedEventType is what an event type becomes: what an import says nothing about stays.
func mergedEventType(was, e webhook.EventType) (webhook.EventType, error) {
	versions := map[string]json.RawMessage{}
	for _, text := range []json.RawMessage{was.Schemas, e.Schemas} {
		if len(text) == 0 {
			continue
		}
		if err := json.Unmarshal(text, &versions); err != nil {
			return e, err
		}
	}
	e.GroupName, e.FeatureFlags = was.GroupName, was.FeatureFlags
	if len(versions) == 0 {
		return e, nil
	}
	text, err := json.Marshal(versions)
	e.Schemas = text
	if err == nil && len(text) > webhook.MaxSchemas {
		return e, webhook.Invalid("spec", "makes the schemas of %s larger than %d bytes", e.Name, webhook.MaxSchemas)
	}
	return e, err
}

func sameEventType(a, b webhook.EventType) bool {
	return a.Description == b.Description && a.Deprecated == b.Deprecated && a.Archived == b.Archived && sameJSON(a.Schemas, b.Schemas)
}

func sameJSON(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

func (v View) putEventType(tx *gorm.DB, was, e webhook.EventType, exists bool) error {
	if exists {
		_, err := v.saveEventType(tx, was, e)
		return err
	}
	e.TenantID = v.scope.Tenant
	e.CreatedAt = v.store.now()
	e.UpdatedAt = e.CreatedAt
	res := tx.Clauses(clause.OnConflict{DoNothing: true}).Create(&e)
	if res.Error == nil && res.RowsAffected == 0 {
		return webhook.Unavailable(errRaced, "The event type %s was created meanwhile; try again", e.Name)
	}
	return res.Error
}
