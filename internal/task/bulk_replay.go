package task

import (
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// bulkRule sends again what was owed to the endpoint and fits the filter, taken or not. What is owed at
// this moment goes by itself, and is sent on top of that only if its status is asked for.
func bulkRule(filter webhook.TaskFilter, f store.TaskFact) verdict {
	switch {
	case !f.Matches, !f.Open && !f.Tried:
		return pass
	case filter.StatusCodeClass != nil && (!f.Tried || !inClass(f.LastHTTP, *filter.StatusCodeClass)):
		return pass
	case filter.Status != nil && standing(f) != *filter.Status:
		if f.Taken && !f.Open {
			return delivered
		}
		return pass
	case filter.Status == nil && f.Open:
		return underWay
	}
	return ifKept(f)
}

// inClass reports whether an HTTP status is of a class; 0 is the class of no answer.
func inClass(status int16, class int) bool {
	if class == 0 {
		return status == 0
	}
	return int(status) >= class && int(status) < class+100
}
