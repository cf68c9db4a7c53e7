package store

import "gorm.io/gorm"

// WatchReads shows f every raw read of views, with its values.
func (s *Store) WatchReads(f func(sql string, values []any)) error {
	return s.db.Callback().Row().After("gorm:row").Register("test:watch", func(tx *gorm.DB) {
		f(tx.Statement.SQL.String(), tx.Statement.Vars)
	})
}

// Careless runs a statement that forgets the tenant.
func (s *Store) Careless() {
	var rows []map[string]any
	s.db.Table("application").Where("name = ?", "x").Find(&rows)
}
