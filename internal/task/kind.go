package task

import (
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// verdict is what one message is to a task.
type verdict uint8

const (
	pass      verdict = iota // none of its business
	send                     // to be sent, or erased
	delivered                // left out because it was taken already
	underWay                 // left out because it is owed anyhow
	gone                     // it would be sent, but its payload is no longer kept
)

// judge is a kind's rule.
type judge func(webhook.TaskFilter, store.TaskFact) verdict

// kinds are the rules of all kinds.
var kinds = map[webhook.TaskKind]judge{
	webhook.TaskRecover:       recoverRule,
	webhook.TaskReplayMissing: missingRule,
	webhook.TaskBulkReplay:    bulkRule,
	webhook.TaskPurge:         purgeRule,
}

// standing is the status of a message with the task's endpoint, as lists show it.
func standing(f store.TaskFact) webhook.Status {
	var ended []webhook.Status
	if f.Tried {
		ended = []webhook.Status{f.Last}
	}
	if f.Taken {
		ended = append(ended, webhook.StatusSuccess)
	}
	return webhook.StatusOf(f.Open, ended)
}

// ifKept is what becomes of a message that ought to be sent.
func ifKept(f store.TaskFact) verdict {
	if !f.Kept {
		return gone
	}
	return send
}
