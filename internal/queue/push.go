package queue

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	taskType = "deliver"
	// taskTimeout is asynq's own limit on a handler. It must never be the one that strikes: a task is
	// given up by lease and fence in Postgres, and asynq's limit would free the slot while the
	// handler still runs.
	taskTimeout = 24 * time.Hour
	// maxRoundTrip is the most tasks pushed in one round trip; about 200 KiB when all are full.
	maxRoundTrip = 128
)

// Push makes each element of tasks one task, in as few round trips as possible, and wakes whoever
// waits for one. Every task carries 1 to MaxTaskDeliveries deliveries of one lane; otherwise nothing is
// pushed.
// After any other error some of the tasks may have been pushed; pushing all of them again is harmless,
// since the fence lets only one release of a delivery through.
func (q *Queue) Push(ctx context.Context, tasks [][]webhook.Delivery) error {
	for i, deliveries := range tasks {
		if len(deliveries) < 1 || len(deliveries) > MaxTaskDeliveries {
			return fmt.Errorf("push tasks: task %d carries %d deliveries; it must be 1 to %d", i, len(deliveries), MaxTaskDeliveries)
		}
		if slices.ContainsFunc(deliveries, func(d webhook.Delivery) bool { return d.Lane != deliveries[0].Lane }) {
			return fmt.Errorf("push tasks: task %d carries deliveries of several lanes", i)
		}
		if slices.ContainsFunc(deliveries, func(d webhook.Delivery) bool { return d.Ordered != deliveries[0].Ordered }) {
			return fmt.Errorf("push tasks: task %d carries deliveries of a stream and others", i)
		}
	}
	for batch := range slices.Chunk(tasks, maxRoundTrip) {
		err := q.bounded(ctx, "push tasks", func(ctx context.Context) error {
			return q.pushBatch(ctx, batch)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (q *Queue) pushBatch(ctx context.Context, tasks [][]webhook.Delivery) error {
	pipe := q.client.Pipeline()
	// A client per batch, so that asynq registers the queues each time: it remembers having done so
	// and would never notice that Redis was emptied.
	client := asynq.NewClientFromRedisClient(&recorder{UniversalClient: q.client, pipe: pipe, queue: q})
	var mask queueSet
	for _, deliveries := range tasks {
		i := q.queueOf(deliveries[0].Lane)
		mask.add(i)
		// The id is left to asynq, which takes a random one: a chosen id would be refused for as long as
		// an earlier task of that id is remembered.
		_, err := client.EnqueueContext(ctx, asynq.NewTask(taskType, encode(deliveries)),
			asynq.Queue(q.names[i]), asynq.MaxRetry(0), asynq.Timeout(taskTimeout))
		if err != nil {
			return err
		}
	}
	q.wakes.publish(ctx, pipe, mask)
	cmds, err := pipe.Exec(ctx)
	if unreachable(err) {
		return err
	}
	again, err := q.sort(cmds)
	if err != nil {
		return err
	}
	if len(again) > 0 {
		if err := q.pushSource(ctx, again, mask); err != nil {
			return err
		}
	}
	q.wakes.ring(mask)
	return nil
}

// sort looks through the answers of a batch: which tasks have to be sent again because Redis does not
// know the script, or the first error there is.
func (q *Queue) sort(cmds []redis.Cmder) (again []redis.Cmder, err error) {
	for _, cmd := range cmds {
		switch err := cmd.Err(); {
		case err == nil:
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			again = append(again, cmd)
		case cmd.Name() == "publish":
			// Whoever may not publish still pushes; the workers poll.
		default:
			return nil, err
		}
	}
	return again, nil
}

// pushSource sends tasks again with the script's text: Redis was restarted or emptied of scripts.
func (q *Queue) pushSource(ctx context.Context, cmds []redis.Cmder, mask queueSet) error {
	pipe := q.client.Pipeline()
	source := q.enqueue.Load().source
	for _, cmd := range cmds {
		args := slices.Clone(cmd.Args())
		args[0], args[1] = "eval", source
		pipe.Do(ctx, args...)
	}
	q.wakes.publish(ctx, pipe, mask)
	cmds, err := pipe.Exec(ctx)
	if unreachable(err) {
		return err
	}
	again, err := q.sort(cmds)
	if len(again) > 0 {
		return again[0].Err()
	}
	return err
}

// script is a Lua script by its digest and its text.
type script struct{ digest, source string }

// recorder is the client asynq.Client is given: it lets asynq write the commands that enqueue a task,
// but gathers them in a pipeline instead of sending them one by one. asynq is told each time that the
// task was enqueued; the true answers come with the pipeline.
type recorder struct {
	redis.UniversalClient
	pipe  redis.Pipeliner
	queue *Queue
}

// SAdd gathers the registration of a queue.
func (r *recorder) SAdd(ctx context.Context, key string, members ...any) *redis.IntCmd {
	return r.pipe.SAdd(ctx, key, members...)
}

// EvalSha gathers the enqueueing of a task. A script not seen yet is answered as Redis would, which
// makes asynq call Eval with its text.
func (r *recorder) EvalSha(ctx context.Context, digest string, keys []string, args ...any) *redis.Cmd {
	if known := r.queue.enqueue.Load(); known == nil || known.digest != digest {
		return redis.NewCmdResult(nil, redis.ErrNoScript)
	}
	r.pipe.EvalSha(ctx, digest, keys, args...)
	return redis.NewCmdResult(int64(1), nil)
}

// Eval remembers the script and gathers the enqueueing by its digest.
func (r *recorder) Eval(ctx context.Context, source string, keys []string, args ...any) *redis.Cmd {
	sum := sha1.Sum([]byte(source)) // Redis names scripts so; nothing is protected by it
	known := script{digest: hex.EncodeToString(sum[:]), source: source}
	r.queue.enqueue.Store(&known)
	return r.EvalSha(ctx, known.digest, keys, args...)
}
