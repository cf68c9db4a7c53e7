package task

import (
	"bytes"
	"slices"

	"github.com/posthaste/posthaste/internal/webhook"
)

// turns says whose turn it is: tenants go round, and each tenant's tasks go round within it, so that
// who has many tasks is served no more often than who has one.
type turns struct {
	tenant webhook.TenantID                    // the last one served
	task   map[webhook.TenantID]webhook.TaskID // the last one of each tenant
}

// order lists tasks, which are sorted by tenant and id, in the order of their turns.
func (t *turns) order(going []webhook.Task) []webhook.Task {
	var byTenant [][]webhook.Task
	for tasks := range chunksOf(going) {
		last := t.task[tasks[0].TenantID]
		at := slices.IndexFunc(tasks, func(g webhook.Task) bool { return bytes.Compare(g.ID[:], last[:]) > 0 })
		byTenant = append(byTenant, rotated(tasks, max(at, 0)))
	}
	at := slices.IndexFunc(byTenant, func(tasks []webhook.Task) bool {
		return bytes.Compare(tasks[0].TenantID[:], t.tenant[:]) > 0
	})
	byTenant = rotated(byTenant, max(at, 0))
	out := make([]webhook.Task, 0, len(going))
	for i := 0; len(out) < len(going); i++ {
		for _, tasks := range byTenant {
			if i < len(tasks) {
				out = append(out, tasks[i])
			}
		}
	}
	return out
}

// served notes that a task had its turn.
func (t *turns) served(g webhook.Task) {
	if t.task == nil {
		t.task = make(map[webhook.TenantID]webhook.TaskID)
	}
	t.tenant, t.task[g.TenantID] = g.TenantID, g.ID
}

func chunksOf(going []webhook.Task) func(func([]webhook.Task) bool) {
	return func(yield func([]webhook.Task) bool) {
		for from := 0; from < len(going); {
			to := from + 1
			for to < len(going) && going[to].TenantID == going[from].TenantID {
				to++
			}
			if !yield(going[from:to]) {
				return
			}
			from = to
		}
	}
}

func rotated[T any](list []T, by int) []T { return append(slices.Clone(list[by:]), list[:by]...) }
