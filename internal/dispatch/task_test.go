package dispatch

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestTasksHoldEveryDeliveryOnceInOrderAndEvenly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 5*queue.MaxTaskDeliveries).Draw(t, "n")
		deliveries := make([]webhook.Delivery, n)
		for i := range deliveries {
			deliveries[i].Attempt = int16(i)
		}
		tasks := Tasks(deliveries)
		if want := (n + queue.MaxTaskDeliveries - 1) / queue.MaxTaskDeliveries; len(tasks) != want {
			t.Fatalf("%d deliveries in %d tasks, want %d", n, len(tasks), want)
		}
		next := int16(0)
		for _, task := range tasks {
			if least := n / len(tasks); len(task) < least || len(task) > least+1 || len(task) > queue.MaxTaskDeliveries {
				t.Fatalf("a task of %d among %d deliveries in %d tasks", len(task), n, len(tasks))
			}
			for _, d := range task {
				if d.Attempt != next {
					t.Fatalf("delivery %d where %d is due", d.Attempt, next)
				}
				next++
			}
		}
	})
}

func TestLiveAndBulkNeverShareATask(t *testing.T) {
	fed := make([]store.Fed, 70)
	for i := range fed {
		if i%3 == 0 {
			fed[i].Lane = webhook.LaneBulk
		}
	}
	total := 0
	for _, task := range FedTasks(fed) {
		total += len(task)
		for _, d := range task {
			if d.Lane != task[0].Lane {
				t.Fatal("a task carries both")
			}
		}
	}
	if total != len(fed) {
		t.Errorf("%d of %d", total, len(fed))
	}
}

func TestWhatKeepsGettingLostGoesAlone(t *testing.T) {
	fed := make([]store.Fed, queue.MaxTaskDeliveries+8)
	for i := range fed {
		fed[i].Attempt = int16(i)
		if i%10 == 0 {
			fed[i].Lost = webhook.AloneAfter
		}
	}
	fed[3].Lost, fed[30].Lost = webhook.AloneAfter+1, webhook.PoisonAfter
	tasks := FedTasks(fed)
	var alone []int16
	total := 0
	for _, task := range tasks {
		total += len(task)
		if len(task) == 1 {
			alone = append(alone, task[0].Attempt)
		}
	}
	if total != len(fed) || len(tasks) != 4 || len(alone) != 2 || alone[0] != 3 || alone[1] != 30 {
		t.Errorf("%d deliveries in %d tasks, alone %v", total, len(tasks), alone)
	}
}
