package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// NewEndpoint is an endpoint with what is kept sealed beside it. Where an endpoint exists already,
// zero Secret, Headers and Authorization leave what it has.
type NewEndpoint struct {
	webhook.Endpoint
	Secret        webhook.Secret    // text of the signing key; needed to create one
	Headers       map[string]string // custom headers, name → value
	Authorization webhook.Secret    // value of the Authorization header, from the URL's userinfo; gives way to one in Headers
}

// CreateEndpoint makes an endpoint of an application; its ids and times are set here. The errors are,
// besides a view's usual ones: KindConflict "limit_reached" when the application has
// webhook.MaxEndpoints or the tenant as many as its limits say, and KindInvalid for a filter naming an event type that does not exist or is
// archived.
func (v View) CreateEndpoint(ctx context.Context, appRef string, e NewEndpoint) (made webhook.Endpoint, err error) {
	err = v.transaction(ctx, "create endpoint", func(tx *gorm.DB) error {
		if err := v.lockQuota(tx); err != nil {
			return err
		}
		app, err := v.lockedApplication(tx, appRef)
		if err != nil {
			return err
		}
		made, err = v.insertEndpoint(tx, app.ID, e)
		return err
	})
	if err != nil {
		return webhook.Endpoint{}, err
	}
	return made, nil
}

// Wanted reports whether any endpoint of an application would be owed a message of a type and channels
// that were accepted now.
func (v View) Wanted(ctx context.Context, appRef, eventType string, channels []string) (wanted bool, err error) {
	q := v.db.WithContext(ctx)
	app, err := v.applicationID(q, appRef)
	if err != nil {
		return false, failure("look for an endpoint", err)
	}
	err = q.Raw(`SELECT EXISTS (SELECT FROM endpoint e
			WHERE e.tenant_id = ? AND e.app_id = ? AND e.deleted_at IS NULL AND NOT e.disabled
			AND (e.event_types IS NULL OR ?::text = ANY (e.event_types))
			AND (e.channels IS NULL OR e.channels && ?::text[]))`, v.scope.Tenant, app, eventType, array[string](channels)).Row().Scan(&wanted)
	return wanted, failure("look for an endpoint", err)
}

// lockQuota makes endpoints of a tenant with a quota of them come one after the other. It comes before the
// application's lock, as it does where a tenant is deleted.
func (v View) lockQuota(tx *gorm.DB) error {
	quota, err := v.endpointQuota(tx)
	if err != nil || quota == 0 {
		return err
	}
	var t webhook.Tenant
	return tx.Clauses(forChange).Select("id").Where("id = ? AND deleted_at IS NULL", v.scope.Tenant).Take(&t).Error
}

// endpointQuota is how many endpoints the tenant may have; 0 = any number.
func (v View) endpointQuota(tx *gorm.DB) (int, error) {
	var t webhook.Tenant
	err := tx.Select("max_endpoints").Where("id = ? AND deleted_at IS NULL", v.scope.Tenant).Take(&t).Error
	return t.Effective.MaxEndpoints, err
}

func (v View) underQuota(tx *gorm.DB) error {
	quota, err := v.endpointQuota(tx)
	if err != nil || quota == 0 {
		return err
	}
	var count int64
	err = tx.Model(&webhook.Endpoint{}).Where("tenant_id = ? AND deleted_at IS NULL", v.scope.Tenant).Count(&count).Error
	if err == nil && count >= int64(quota) {
		err = webhook.Conflict("limit_reached", "The tenant's limit is %d endpoints", quota)
	}
	return err
}

// insertEndpoint needs the application's row locked, and the tenant's if it has a quota: that is what makes
// the counts hold.
func (v View) insertEndpoint(tx *gorm.DB, app webhook.ApplicationID, e NewEndpoint) (webhook.Endpoint, error) {
	if e.Secret.IsZero() {
		return webhook.Endpoint{}, errors.New("endpoint without a signing key")
	}
	var count int64
	if err := v.endpoints(tx.Model(&webhook.Endpoint{}), app).Count(&count).Error; err != nil {
		return webhook.Endpoint{}, err
	}
	if count >= webhook.MaxEndpoints {
		return webhook.Endpoint{}, webhook.Conflict("limit_reached", "An application has at most %d endpoints", webhook.MaxEndpoints)
	}
	if err := v.underQuota(tx); err != nil {
		return webhook.Endpoint{}, err
	}
	row := e.Endpoint
	row.TenantID, row.ApplicationID, row.ID = v.scope.Tenant, app, webhook.NewEndpointID()
	row.CreatedAt = v.store.now()
	row.UpdatedAt, row.DeletedAt = row.CreatedAt, nil
	row = tidyEndpoint(row)
	if err := v.eventTypesExist(tx, row.EventTypes); err != nil {
		return webhook.Endpoint{}, err
	}
	var err error
	if row.Headers, err = v.sealHeaders(row.ID, withAuthorization(e.Headers, e.Authorization)); err != nil {
		return webhook.Endpoint{}, err
	}
	if err := tx.Create(&row).Error; err != nil {
		if uidTaken(err) {
			return webhook.Endpoint{}, endpointTaken(row.UID)
		}
		return webhook.Endpoint{}, err
	}
	if err := v.order(tx, "", row); err != nil {
		return webhook.Endpoint{}, err
	}
	return row, v.insertSecret(tx, row.ID, e.Secret)
}

// Endpoint is the endpoint of an application that ref names.
func (v View) Endpoint(ctx context.Context, appRef, ref string) (webhook.Endpoint, error) {
	e, err := v.endpoint(v.db.WithContext(ctx), appRef, ref)
	return e, failure("read endpoint", err)
}

// Endpoints lists an application's endpoints by id.
func (v View) Endpoints(ctx context.Context, appRef string, p Page) (List[webhook.Endpoint], error) {
	at, backwards := p.position()
	var cursor any
	if at != "" {
		id, err := webhook.ParseID[webhook.EndpointID](at)
		if err != nil {
			return List[webhook.Endpoint]{}, badIterator()
		}
		cursor = id
	}
	q := v.db.WithContext(ctx)
	app, err := v.applicationID(q, appRef)
	if err != nil {
		return List[webhook.Endpoint]{}, failure("list endpoints", err)
	}
	l, err := listed[webhook.Endpoint](v.endpoints(q, app), p, "id", cursor, backwards)
	return l, failure("list endpoints", err)
}

// ReplaceEndpoint sets everything about the endpoint that ref names but its signing keys, or creates
// it (with e.Secret) if there is none. An endpoint that is given no uid takes ref as its own if ref
// can be one.
func (v View) ReplaceEndpoint(ctx context.Context, appRef, ref string, e NewEndpoint) (made webhook.Endpoint, created bool, err error) {
	e.UID = uidFromRef(ref, webhook.EndpointID{}.Prefix(), e.UID)
	err = v.transaction(ctx, "replace endpoint", func(tx *gorm.DB) error {
		if err := v.lockQuota(tx); err != nil {
			return err
		}
		// Creating needs this lock, and taking it first leaves no moment between "there is none" and
		// "create it".
		app, err := v.lockedApplication(tx, appRef)
		if err != nil {
			return err
		}
		old, err := v.lockedEndpoint(tx, app.ID, ref)
		if errors.Is(err, gorm.ErrRecordNotFound) {
			created = true
			made, err = v.insertEndpoint(tx, app.ID, e)
			return err
		}
		if err != nil {
			return err
		}
		e.Secret = webhook.Secret{}
		if err := v.eventTypesExist(tx, e.EventTypes); err != nil {
			return err
		}
		made, err = v.saveEndpoint(tx, old, e)
		return err
	})
	if err != nil {
		return webhook.Endpoint{}, false, err
	}
	return made, created, nil
}

// PatchEndpoint lets change edit the endpoint that ref names while nobody else can. What change finds
// in Secret, Headers and Authorization is empty and is left as it is unless set; a Secret takes the
// place of the current signing key at once, Headers that of all the headers. An error of change is
// returned and nothing is saved; ids and times are not change's to set.
func (v View) PatchEndpoint(ctx context.Context, appRef, ref string, change func(*NewEndpoint) error) (made webhook.Endpoint, err error) {
	err = v.changeEndpoint(ctx, "change endpoint", appRef, ref, func(tx *gorm.DB, old webhook.Endpoint) error {
		e := NewEndpoint{Endpoint: old}
		if err := change(&e); err != nil {
			return err
		}
		// A filter that is not touched may name a type that was archived meanwhile.
		if !slices.Equal(e.EventTypes, old.EventTypes) {
			if err := v.eventTypesExist(tx, e.EventTypes); err != nil {
				return err
			}
		}
		made, err = v.saveEndpoint(tx, old, e)
		return err
	})
	if err != nil {
		return webhook.Endpoint{}, err
	}
	return made, nil
}

// DeleteEndpoint deletes the endpoint that ref names and frees its uid. What is still owed to it ends
// as canceled.
func (v View) DeleteEndpoint(ctx context.Context, appRef, ref string) error {
	return v.changeEndpoint(ctx, "delete endpoint", appRef, ref, func(tx *gorm.DB, e webhook.Endpoint) error {
		return v.deleteEndpoints(tx, "tenant_id = ? AND id = ?", e.TenantID, e.ID)
	})
}

// deleteEndpoints marks the endpoints that match and forgets their signing keys and headers: nobody
// can ask for them again, so keeping them only adds to what can be stolen.
func (v View) deleteEndpoints(tx *gorm.DB, where string, args ...any) error {
	ids := tx.Session(&gorm.Session{NewDB: true}).Model(&webhook.Endpoint{}).Select("id").Where(where, args...)
	err := tx.Where("tenant_id = ? AND endpoint_id IN (?)", v.scope.Tenant, ids).Delete(&webhook.EndpointSecret{}).Error
	if err != nil {
		return err
	}
	if err := v.wakeStreamsOf(tx, ids); err != nil {
		return err
	}
	err = tx.Model(&webhook.Endpoint{}).Where(where, args...).
		UpdateColumns(map[string]any{"deleted_at": v.store.now(), "headers": nil}).Error
	if err != nil {
		return err
	}
	return v.dropGates(tx)
}

// changeEndpoint runs do with the endpoint's row locked.
func (v View) changeEndpoint(ctx context.Context, doing, appRef, ref string, do func(*gorm.DB, webhook.Endpoint) error) error {
	return v.transaction(ctx, doing, func(tx *gorm.DB) error {
		app, err := v.applicationID(tx, appRef)
		if err != nil {
			return err
		}
		// Not the application's lock but this one tells whether the application was deleted meanwhile:
		// its endpoints are deleted with it.
		e, err := v.lockedEndpoint(tx, app, ref)
		if err != nil {
			return err
		}
		return do(tx, e)
	})
}

func (v View) endpoints(q *gorm.DB, app webhook.ApplicationID) *gorm.DB {
	return q.Where("tenant_id = ? AND app_id = ? AND deleted_at IS NULL", v.scope.Tenant, app)
}

func (v View) endpointCalled(q *gorm.DB, app webhook.ApplicationID, ref string) *gorm.DB {
	id, err := webhook.ParseID[webhook.EndpointID](ref)
	return named(v.endpoints(q, app), ref, id, err)
}

func (v View) endpoint(q *gorm.DB, appRef, ref string) (e webhook.Endpoint, err error) {
	app, err := v.applicationID(q, appRef)
	if err != nil {
		return e, err
	}
	err = v.endpointCalled(q, app, ref).Take(&e).Error
	return e, err
}

func (v View) lockedEndpoint(tx *gorm.DB, app webhook.ApplicationID, ref string) (e webhook.Endpoint, err error) {
	err = v.endpointCalled(tx, app, ref).Clauses(forChange).Take(&e).Error
	return e, err
}

// saveEndpoint writes e over old.
func (v View) saveEndpoint(tx *gorm.DB, old webhook.Endpoint, e NewEndpoint) (webhook.Endpoint, error) {
	row := e.Endpoint
	row.TenantID, row.ApplicationID, row.ID = old.TenantID, old.ApplicationID, old.ID
	row.CreatedAt, row.UpdatedAt, row.DeletedAt = old.CreatedAt, v.store.now(), nil
	row.Headers = old.Headers
	row = tidyEndpoint(row)
	headers := e.Headers
	if headers == nil && !e.Authorization.IsZero() {
		kept, err := v.openHeaders(old)
		if err != nil {
			return webhook.Endpoint{}, err
		}
		headers, _ = mergeHeaders(kept, nil, []string{authorization})
	}
	if headers != nil {
		var err error
		if row.Headers, err = v.sealHeaders(row.ID, withAuthorization(headers, e.Authorization)); err != nil {
			return webhook.Endpoint{}, err
		}
	}
	err := tx.Model(&webhook.Endpoint{}).Where("tenant_id = ? AND id = ?", row.TenantID, row.ID).
		Select("uid", "url", "description", "disabled", "event_types", "channels", "throttle_rate", "throttle_burst", "concurrency", "ordering", "on_exhausted",
			"metadata", "version", "headers", "updated_at").UpdateColumns(&row).Error
	if uidTaken(err) {
		return webhook.Endpoint{}, endpointTaken(row.UID)
	}
	if err == nil {
		err = v.order(tx, old.Ordering, row)
	}
	if err == nil {
		err = v.gateAfterChange(tx, old, row)
	}
	if err != nil || e.Secret.IsZero() {
		return row, err
	}
	return row, v.rotateSecret(tx, row.ID, e.Secret, 0)
}

// eventTypesExist refuses a filter naming an event type that is not there: it would match nothing,
// for ever and without a word.
func (v View) eventTypesExist(tx *gorm.DB, names []string) error {
	if len(names) == 0 {
		return nil
	}
	for _, name := range names {
		if !storable(name) {
			return webhook.Invalid("eventTypes", "event type %q does not exist", name)
		}
	}
	var found []string
	err := v.eventTypes(tx.Model(&webhook.EventType{})).Where("name IN ? AND NOT archived", names).
		Pluck("name", &found).Error
	if err != nil {
		return fmt.Errorf("read event types: %w", err)
	}
	var missing []string
	for _, name := range names {
		if !slices.Contains(found, name) {
			missing = append(missing, fmt.Sprintf("%q", name))
		}
	}
	if len(missing) > 0 {
		return webhook.Invalid("eventTypes", "these event types do not exist or are archived: %s", strings.Join(missing, ", "))
	}
	return nil
}

// tidyEndpoint writes "no filter" in one way, since fan-out asks for NULL, and fills what the columns
// need.
func tidyEndpoint(e webhook.Endpoint) webhook.Endpoint {
	if len(e.EventTypes) == 0 {
		e.EventTypes = nil
	}
	if len(e.Channels) == 0 {
		e.Channels = nil
	}
	e.Ordering, e.OnExhausted = cmp.Or(e.Ordering, webhook.OrderingNone), cmp.Or(e.OnExhausted, webhook.ExhaustedBlocks)
	e.Version = max(e.Version, 1)
	e.Metadata = orEmpty(e.Metadata)
	return e
}

func endpointTaken(uid string) error {
	return webhook.Conflict("conflict", "An endpoint with the uid %q exists already", uid)
}
