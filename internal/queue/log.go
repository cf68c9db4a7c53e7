package queue

import (
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// asynqLogEvery is the least time between two lines of asynq's: while Redis is away every server
// complains every few seconds, which would bury the one line that matters.
const asynqLogEvery = 10 * time.Second

// asynqLog passes asynq's complaints on to slog, thinned out.
type asynqLog struct {
	logger *slog.Logger

	mu         sync.Mutex
	next       time.Time
	suppressed int
}

func (l *asynqLog) Debug(...any)      {}
func (l *asynqLog) Info(...any)       {}
func (l *asynqLog) Warn(args ...any)  { l.warn(args) }
func (l *asynqLog) Error(args ...any) { l.warn(args) }

// Fatal does not end the process: nothing that happens to a disposable queue is worth that.
func (l *asynqLog) Fatal(args ...any) { l.warn(args) }

func (l *asynqLog) warn(args []any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.suppressed++
		return
	}
	l.next = now.Add(asynqLogEvery)
	l.logger.Warn("asynq reports trouble", "text", fmt.Sprint(args...), "suppressed_before", l.suppressed)
	l.suppressed = 0
}
