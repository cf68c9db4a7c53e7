package task

import (
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// recoverRule sends what ended without ever being taken: failed, or canceled because the endpoint was
// disabled at the time.
func recoverRule(_ webhook.TaskFilter, f store.TaskFact) verdict {
	switch {
	case !f.Tried:
		return pass
	case f.Taken:
		return delivered
	case f.Open:
		return underWay
	}
	return ifKept(f)
}
