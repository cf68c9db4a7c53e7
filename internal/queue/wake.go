package queue

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// wokenWait is how long an empty queue is left alone when pushes are known to wake us; what is
	// left of polling, should a wake-up get lost after all.
	wokenWait = 3 * time.Second
	// polledWait is how long it is left alone when wake-ups are not known to arrive.
	polledWait = 250 * time.Millisecond
	// probeIdle is how long silence on the channel is believed before a probe is sent through it.
	probeIdle = 10 * time.Second
	// probeTimeout is how long a probe may take.
	probeTimeout = time.Second
	// listenBackoff is the pause before subscribing again.
	listenBackoff = 500 * time.Millisecond
)

// queueSet is a set of queues by their number.
type queueSet uint32

func (s *queueSet) add(i int)     { *s |= 1 << i }
func (s queueSet) has(i int) bool { return s&(1<<i) != 0 }

// allQueues has every queue there can be, the bulk queue included.
const allQueues queueSet = 1<<(MaxQueues+1) - 1

// wakes tells this process's servers that a task may be waiting: at once when this process pushed it,
// through Redis pub/sub when another did. It is only ever a hint, which may come twice or not at all.
type wakes struct {
	// bells holds one channel of size one per queue. A ring that comes between an empty dequeue and
	// the wait after it stays in the channel, so it cannot be missed; more rings make no difference.
	bells   []chan struct{}
	private bool
	channel string
	self    string // names this process on the channel, so that it ignores itself
	logger  *slog.Logger

	works      atomic.Bool // a probe came through
	complained bool        // that it did not; touched by run only
	waits      waits
	probes     probes
}

// waits are the longest waits of an empty dequeue.
type waits struct{ woken, polled time.Duration }

// probes are the times of the channel's self-test.
type probes struct{ idle, timeout, backoff time.Duration }

func newWakes(queues, database int, private bool, logger *slog.Logger) *wakes {
	var self [8]byte
	rand.Read(self[:])
	w := &wakes{
		private: private,
		// Pub/sub knows no databases, so the name has to.
		channel: "posthaste:wake:" + strconv.Itoa(database),
		self:    hex.EncodeToString(self[:]),
		logger:  logger,
		waits:   waits{wokenWait, polledWait},
		probes:  probes{probeIdle, probeTimeout, listenBackoff},
	}
	for range queues {
		w.bells = append(w.bells, make(chan struct{}, 1))
	}
	return w
}

// proven reports whether every push is known to wake this process.
func (w *wakes) proven() bool { return w.private || w.works.Load() }

// longest is how long an empty queue may be left alone.
func (w *wakes) longest() time.Duration {
	if w.proven() {
		return w.waits.woken
	}
	return w.waits.polled
}

// ring wakes this process's servers of some queues.
func (w *wakes) ring(queues queueSet) {
	for i, bell := range w.bells {
		if queues.has(i) {
			select {
			case bell <- struct{}{}:
			default:
			}
		}
	}
}

// publish adds the waking of the other processes to a pipeline.
func (w *wakes) publish(ctx context.Context, pipe redis.Pipeliner, queues queueSet) {
	if !w.private {
		pipe.Publish(ctx, w.channel, w.self+" "+strconv.FormatUint(uint64(queues), 16))
	}
}

// heard takes one message of the channel: "<process> <queues in hex>", or "<process> probe".
func (w *wakes) heard(payload string) {
	process, what, _ := strings.Cut(payload, " ")
	if process == w.self {
		return // rung already
	}
	if queues, err := strconv.ParseUint(what, 16, 32); err == nil {
		w.ring(queueSet(queues))
	}
}

// run keeps listening to the channel until ctx is cancelled, over every failure.
func (w *wakes) run(ctx context.Context, client redis.UniversalClient) {
	if w.private {
		return
	}
	defer w.works.Store(false)
	for {
		err := w.listen(ctx, client)
		if ctx.Err() != nil {
			return
		}
		w.works.Store(false)
		if !w.complained {
			w.complained = true
			w.logger.Warn("wake-ups through redis do not arrive; polling for tasks", "every", w.waits.polled, "error", err)
		}
		w.ring(allQueues) // those who wait must not wait as long as if they were woken
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.probes.backoff):
		}
	}
}

// listen subscribes and passes on what it hears. It believes in the channel only once a probe of its
// own has come back, sends another whenever the channel has been silent, and gives up when one stays
// away: a subscription can be dead without its connection showing it.
func (w *wakes) listen(ctx context.Context, client redis.UniversalClient) error {
	sub := client.Subscribe(ctx, w.channel)
	// A read is not ended by its context, only by closing what it reads from.
	unhook := context.AfterFunc(ctx, func() { _ = sub.Close() })
	defer func() {
		if unhook() {
			_ = sub.Close()
		}
	}()
	patience, awaited := w.probes.timeout, false
	probe := func() error {
		patience, awaited = w.probes.timeout, true
		ctx, cancel := context.WithTimeout(ctx, w.probes.timeout)
		defer cancel()
		return client.Publish(ctx, w.channel, w.self+" probe").Err()
	}
	for {
		event, err := sub.ReceiveTimeout(ctx, patience)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			if awaited {
				return errors.New("a probe did not come back")
			}
			err = probe()
		case err != nil:
		default:
			switch event := event.(type) {
			case *redis.Subscription:
				err = probe()
			case *redis.Message:
				patience, awaited = w.probes.idle, false
				if !w.works.Swap(true) {
					w.ring(allQueues) // for what was pushed while nobody listened
					if w.complained {
						w.complained = false
						w.logger.Info("wake-ups through redis arrive again")
					}
				}
				w.heard(event.Payload)
			}
		}
		if err != nil {
			return fmt.Errorf("listen for wake-ups: %w", err)
		}
	}
}
