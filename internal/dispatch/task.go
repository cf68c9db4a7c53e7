package dispatch

import (
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Tasks groups deliveries into as few tasks as hold them, evenly filled, so that two workers get about
// as much to do.
func Tasks(deliveries []webhook.Delivery) [][]webhook.Delivery {
	n := (len(deliveries) + queue.MaxTaskDeliveries - 1) / queue.MaxTaskDeliveries
	tasks := make([][]webhook.Delivery, 0, n)
	for i := range n {
		from, to := i*len(deliveries)/n, (i+1)*len(deliveries)/n
		tasks = append(tasks, deliveries[from:to:to])
	}
	return tasks
}

// FedTasks groups what the feeder released: what is live and what background tasks owe apart, since
// they go by different queues. A delivery whose lease keeps ending without a word goes
// alone: if it is what brings its workers down, it brings no other delivery down with it.
func FedTasks(fed []store.Fed) [][]webhook.Delivery {
	together := make([]webhook.Delivery, 0, len(fed))
	var bulk []webhook.Delivery
	var alone [][]webhook.Delivery
	for _, f := range fed {
		switch {
		case f.Lost > webhook.AloneAfter:
			alone = append(alone, []webhook.Delivery{f.Delivery})
		case f.Lane == webhook.LaneBulk:
			bulk = append(bulk, f.Delivery)
		default:
			together = append(together, f.Delivery)
		}
	}
	return append(append(Tasks(together), Tasks(bulk)...), alone...)
}
