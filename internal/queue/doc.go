// Package queue is the bounded, disposable window between what Postgres owes and the workers that
// send it. It alone knows asynq and what asynq keeps in Redis.
//
// A task carries the ids of 1 to 64 deliveries and nothing else. Nothing here is the only copy of
// anything: whatever Redis loses, repeats or delivers late, the lease and the fence of the delivery's
// row in Postgres put right. That is why tasks are never retried here, why a handler's return is
// backpressure and not success, and why everything on the pushing side would rather fail within a
// quarter of a second than make its caller wait.
//
//	Push ──▶ asynq:{posthaste:live:0..1}:pending ──▶ one asynq.Server per queue ──▶ handler
//	  │  ├─▶ asynq:{posthaste:fed}:pending ────────▶ one for the feeder's ────────▶ handler
//	  │  └─▶ asynq:{posthaste:bulk}:pending ───────▶ one with few handlers ────────▶ handler
//	  │                                                     ▲
//	  └── bell of this process, or PUBLISH to the others ───┘   wakes the dequeue that found nothing
package queue
