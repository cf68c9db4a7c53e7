package store

import (
	"context"
	"database/sql/driver"
	"strings"
	"unicode/utf8"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

// View is the data of one tenant, or of one application of it: it adds its scope to every query, so
// that whatever id it is given, it answers webhook.ErrNotFound for what belongs to somebody else.
//
// A ref is an id or a uid. What is missing, deleted or foreign is webhook.ErrNotFound; a uid that is
// taken is KindConflict; when Postgres cannot answer, the error is KindUnavailable.
type View struct {
	store *Store
	scope webhook.Scope
	db    *gorm.DB // the pool, or the transaction of Once
}

// View is the data a scope may see and change.
func (s *Store) View(scope webhook.Scope) View { return View{store: s, scope: scope, db: s.db} }

// Scope is whose data the view shows.
func (v View) Scope() webhook.Scope { return v.scope }

// transaction runs do in a transaction of its own (inside Once: in a savepoint); its error is the
// domain's.
func (v View) transaction(ctx context.Context, doing string, do func(tx *gorm.DB) error) error {
	return failure(doing, v.db.WithContext(ctx).Transaction(do))
}

// wholeTenant refuses what one application may not do to its tenant.
func (v View) wholeTenant() error {
	if v.scope.Application.IsZero() {
		return nil
	}
	return &webhook.Error{
		Kind: webhook.KindForbidden, Code: "insufficient access", Detail: "An application's credential may not do this",
	}
}

// forChange locks the rows of a query until the transaction ends, without standing in the way of
// foreign keys to them.
var forChange = clause.Locking{Strength: "NO KEY UPDATE"}

// named narrows a query to the object a ref names; id and err are the ref read as an id.
func named(q *gorm.DB, ref string, id driver.Valuer, err error) *gorm.DB {
	switch {
	case err == nil:
		return q.Where("id = ?", id)
	case storable(ref):
		return q.Where("uid = ?", ref)
	}
	return q.Where("false")
}

// storable reports whether a ref can be a uid or a name at all. Refs come from paths unchecked, and
// Postgres answers an error, not "no rows", for text it cannot hold.
func storable(ref string) bool {
	return ref != "" && len(ref) <= webhook.MaxUIDLength && utf8.ValidString(ref) && !strings.ContainsRune(ref, 0)
}

// uidFromRef is the uid that an object replaced or created under ref gets when it names none itself:
// without it, repeating the same PUT would create an object each time.
func uidFromRef(ref, prefix, uid string) string {
	if uid != "" || strings.HasPrefix(ref, prefix) || !storable(ref) {
		return uid
	}
	for _, c := range []byte(ref) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return ""
		}
	}
	return ref
}
