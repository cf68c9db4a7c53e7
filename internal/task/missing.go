package task

import (
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// missingRule sends what the endpoint would get if it were published now, and was never owed: the
// endpoint did not exist then, was disabled or had other filters.
func missingRule(_ webhook.TaskFilter, f store.TaskFact) verdict {
	switch {
	case !f.Wanted:
		return pass
	case f.Taken:
		return delivered
	case f.Open:
		return underWay
	case f.Tried:
		return pass
	}
	return ifKept(f)
}
