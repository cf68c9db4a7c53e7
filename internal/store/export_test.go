package store

import (
	"errors"

	"gorm.io/gorm"
)

// WatchReads shows f every raw statement of views, with its values.
func (s *Store) WatchReads(f func(sql string, values []any)) error {
	watch := func(tx *gorm.DB) { f(tx.Statement.SQL.String(), tx.Statement.Vars) }
	return errors.Join(s.db.Callback().Row().After("gorm:row").Register("test:watch", watch),
		s.db.Callback().Raw().After("gorm:raw").Register("test:watch", watch))
}

// Careless runs a statement that forgets the tenant.
func (s *Store) Careless() {
	var rows []map[string]any
	s.db.Table("application").Where("name = ?", "x").Find(&rows)
}

// CountOpenPlan is what the count of open deliveries tells the planner.
var CountOpenPlan = countOpenPlan

// The statements of tasks that read or change partitioned tables past gorm.
const (
	TaskFactsSQL     = taskFactsSQL
	TaskMessagesSQL  = taskMessagesSQL
	ErasePayloadsSQL = erasePayloadsSQL
	AnswersSQL       = answersSQL
	EraseAnswersSQL  = eraseAnswersSQL
)

// The statements that find streams and their heads.
const (
	StreamRowsSQL         = streamRowsSQL
	DueStreamsByTenantSQL = dueStreamsByTenantSQL
)

// AnyDueSQL is what the feeder asks before it looks.
const AnyDueSQL = anyDueSQL
