package queue

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// BenchmarkWake is how long a task takes from Push to its handler when nothing else is going on:
// pushed by the worker's own process, and by another.
func BenchmarkWake(b *testing.B) {
	for _, from := range []string{"same process", "other process"} {
		b.Run(from, func(b *testing.B) {
			url := startServer(b).url()
			worker := open(b, Options{URL: url})
			pusher := worker
			if from == "other process" {
				pusher = open(b, Options{URL: url})
			}
			handle, handled := collect()
			run(b, worker, handle)
			eventually(b, "wake-ups are proven", worker.wakes.proven)
			mustHandle(b, pusher, handled)
			took := make([]time.Duration, 0, b.N)
			for b.Loop() {
				start := time.Now()
				pushOne(b, pusher)
				<-handled
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
		})
	}
}

// BenchmarkTask is what a task costs in CPU, in this process (pushing and handling) and in Redis, by
// how many deliveries it carries and how many tasks are pushed at once.
func BenchmarkTask(b *testing.B) {
	for _, size := range []int{1, MaxTaskDeliveries} {
		for _, batch := range []int{1, 16} {
			b.Run(strconv.Itoa(size)+" deliveries "+strconv.Itoa(batch)+" a push", func(b *testing.B) {
				s := startServer(b)
				q := open(b, Options{URL: s.url()})
				handle, handled := collect()
				run(b, q, handle)
				mustHandle(b, q, handled)
				tasks := make([][]webhook.Delivery, batch)
				for i := range tasks {
					for range size { // of different messages, as of a busy installation
						tasks[i] = append(tasks[i], delivery())
					}
				}
				const window = 256 // as bounded as in life
				waiting, pushed := 0, 0
				own, redis := ownCPU(b), redisCPU(b, q)
				for b.Loop() {
					if err := q.Push(b.Context(), tasks); err != nil {
						b.Fatal(err)
					}
					pushed += batch
					for waiting += batch; waiting > window; waiting-- {
						<-handled
					}
				}
				for ; waiting > 0; waiting-- {
					<-handled
				}
				own, redis = ownCPU(b)-own, redisCPU(b, q)-redis
				b.ReportMetric(float64(own.Microseconds())/float64(pushed), "own-µs/task")
				b.ReportMetric(float64(redis.Microseconds())/float64(pushed), "redis-µs/task")
				b.ReportMetric(float64((own+redis).Microseconds())/float64(pushed*size), "µs/delivery")
			})
		}
	}
}

// BenchmarkIdle is what a worker with nothing to do costs in CPU, as a share of one core.
func BenchmarkIdle(b *testing.B) {
	q := open(b, Options{URL: startServer(b).url()})
	handle, handled := collect()
	run(b, q, handle)
	mustHandle(b, q, handled)
	eventually(b, "wake-ups are proven", q.wakes.proven)
	const period = 20 * time.Second
	for b.Loop() {
		own, redis := ownCPU(b), redisCPU(b, q)
		ctx, cancel := context.WithTimeout(b.Context(), period)
		<-ctx.Done()
		cancel()
		own, redis = ownCPU(b)-own, redisCPU(b, q)-redis
		b.ReportMetric(100*own.Seconds()/period.Seconds(), "own-%core")
		b.ReportMetric(100*redis.Seconds()/period.Seconds(), "redis-%core")
	}
}

func ownCPU(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func redisCPU(b *testing.B, q *Queue) (sum time.Duration) {
	info, err := q.client.Info(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, _ := strconv.ParseFloat(value, 64)
			sum += time.Duration(seconds * float64(time.Second))
		}
	}
	return sum
}
