package store

import (
	"context"
	"errors"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// effectiveColumns are what a tenant's plan and its own limits come to.
var effectiveColumns = []string{
	"deliver_rate", "deliver_burst", "publish_rate", "publish_burst", "key_rate", "key_burst",
	"messages_per_day", "max_endpoints", "max_payload", "weight",
}

// lockPlans makes changes of plans, and of who has which, come one after the other until the transaction
// ends: each writes what follows from all of them. Only the operator makes any.
func lockPlans(tx *gorm.DB) error {
	return tx.Exec("SELECT pg_advisory_xact_lock(hashtext('posthaste plans'))").Error
}

// settle sets what a tenant's plan and its own limits come to; plans must be locked if it has one.
func settle(tx *gorm.DB, t *webhook.Tenant) error {
	var p webhook.Plan
	if t.Plan != "" {
		err := planCalled(tx, t.Plan).Take(&p).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			return webhook.Invalid("plan", "there is no plan of this name")
		}
		if err != nil {
			return err
		}
	}
	t.Effective = t.Limits.Over(p.Limits)
	return nil
}

// Plans lists plans by name.
func (s *Store) Plans(ctx context.Context, p Page) (List[webhook.Plan], error) {
	at, backwards := p.position()
	var cursor any
	if at != "" {
		if !storable(at) {
			return List[webhook.Plan]{}, badIterator()
		}
		cursor = at
	}
	p.Descending = false
	l, err := listed[webhook.Plan](s.db.WithContext(ctx), p, "name", cursor, backwards)
	return l, failure("list plans", err)
}

// Plan is the plan of a name.
func (s *Store) Plan(ctx context.Context, name string) (p webhook.Plan, err error) {
	err = planCalled(s.db.WithContext(ctx), name).Take(&p).Error
	return p, failure("read plan", err)
}

// PutPlan makes a plan or replaces its limits; with the same commit they hold for every tenant that has it.
func (s *Store) PutPlan(ctx context.Context, name string, l webhook.Limits) (p webhook.Plan, created bool, err error) {
	err = failure("replace plan", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lockPlans(tx); err != nil {
			return err
		}
		now := s.now()
		err := planCalled(tx, name).Take(&p).Error
		if errors.Is(err, gorm.ErrRecordNotFound) {
			created = true
			p = webhook.Plan{Name: name, Limits: l, CreatedAt: now, UpdatedAt: now}
			return tx.Create(&p).Error
		}
		if err != nil {
			return err
		}
		p.Limits, p.UpdatedAt = l, now
		err = planCalled(tx.Model(&webhook.Plan{}), name).Select("limits", "updated_at").UpdateColumns(&p).Error
		if err != nil {
			return err
		}
		return settlePlan(tx, p)
	}))
	if err != nil {
		return webhook.Plan{}, false, err
	}
	return p, created, nil
}

// settlePlan writes what a plan comes to for those who have it: most do not differ from it, and are one
// statement.
func settlePlan(tx *gorm.DB, p webhook.Plan) error {
	who := func() *gorm.DB { return tx.Model(&webhook.Tenant{}).Where("plan = ?", p.Name) }
	plain := webhook.Tenant{Effective: webhook.Limits{}.Over(p.Limits)}
	if err := who().Where("limits = '{}'").Select(effectiveColumns).UpdateColumns(&plain).Error; err != nil {
		return err
	}
	var others []webhook.Tenant
	if err := who().Where("limits <> '{}'").Order("id").Find(&others).Error; err != nil {
		return err
	}
	for _, t := range others {
		t.Effective = t.Limits.Over(p.Limits)
		err := tx.Model(&webhook.Tenant{}).Where("id = ?", t.ID).Select(effectiveColumns).UpdateColumns(&t).Error
		if err != nil {
			return err
		}
	}
	return nil
}

// DeletePlan deletes a plan that no tenant has; else it is KindConflict "plan_in_use".
func (s *Store) DeletePlan(ctx context.Context, name string) error {
	return failure("delete plan", s.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		if err := lockPlans(tx); err != nil {
			return err
		}
		var used int64
		if err := tx.Model(&webhook.Tenant{}).Where("plan = ?", name).Count(&used).Error; err != nil {
			return err
		}
		if used > 0 {
			return webhook.Conflict("plan_in_use", "%d tenants have this plan; give them another first", used)
		}
		res := planCalled(tx, name).Delete(&webhook.Plan{})
		if res.Error == nil && res.RowsAffected == 0 {
			return gorm.ErrRecordNotFound
		}
		return res.Error
	}))
}

func planCalled(q *gorm.DB, name string) *gorm.DB {
	if !storable(name) {
		return q.Where("false")
	}
	return q.Where("name = ?", name)
}
