package chaos

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// point is a failpoint and how often it is reached: it bites after about one passage in every "every"
// messages, so that it bites several times in a run.
type point struct {
	name  string
	every int
}

// Fault is one way to break an installation under load.
type Fault struct {
	ID    string
	Title string

	apiPoints    []point
	workerPoints []point
	holds        bool     // some endpoints keep requests waiting
	goesDown     bool     // the receivers can be made to refuse everything
	atOnce       int      // requests that the first guest may have at the same time; 0 = it is not judged
	copies       int      // how often each message is posted at once; 0 = once
	rate         float64  // messages per second; 0 = by the length of the run
	retries      string   // the retry schedule; empty = retrySchedule
	settings     []string // further settings of the product
	rule         string   // what failpoints do in every life of a worker
	front        bool     // messages are posted through a load balancer
	redisProxy   bool     // a proxy stands between the product and Redis
	// replays is how many messages are replayed, per delivery of the run.
	replays  float64
	rules    ledger.Rules
	recovery time.Duration // from the fault's end until things are back to normal
	// latest is how long a delivery may wait for its first send, given the length of a lease.
	latest func(lease time.Duration) time.Duration
	// retried is the same for what a receiver refused.
	retried func(lease time.Duration) time.Duration
	// timeout is that of an attempt; 0 = as the series says.
	timeout time.Duration
	// guests are receivers of a tenant of their own that misbehave, and invitation how they are posted to.
	guests     []*manner
	invitation invitation
	// names answers the workers' questions for host names, if they are not to ask the machine's server.
	names func(name string, since time.Duration) answer
	// strike breaks things while the load runs; when it returns everything has been mended.
	strike func(ctx context.Context, s *stage) error
	// needs are the things that have to have happened for the fault to count, besides all its failpoints.
	needs []string
	// judge looks at the evidence for what is peculiar to the fault.
	judge func(s *stage, run ledger.Run)
	// afterwards makes further requests once the load has ended.
	afterwards func(ctx context.Context, s *stage) error
}

func (f Fault) number() int {
	n, _ := strconv.Atoi(strings.TrimPrefix(f.ID, "F")) // ids are F and a number
	return n
}

// afterLease allows what a dead process held to be taken back when its lease has ended.
func afterLease(lease time.Duration) time.Duration { return lease + leaseSlack }

// untilRedisIsBack allows what Redis was to hold to wait until it is there again, and is filled.
func untilRedisIsBack(lease time.Duration) time.Duration {
	return (lease-leaseMargin)*4/3 + 15*time.Second
}

// commitLag is how long before a fault an answer may have come without its result being recorded.
// Results are committed in groups, one commit after the other.
const commitLag = 500 * time.Millisecond

// asyncLag is the same for a crash of Postgres: commits of results do not wait for the disk, so up to
// three times wal_writer_delay (200 ms) of them may be gone.
const asyncLag = commitLag + 600*time.Millisecond

// Faults are all faults, in order.
func Faults() []Fault {
	return []Fault{
		{
			ID: "F1", Title: "kill -9 of API processes in the middle of requests",
			apiPoints: []point{
				{"api.body_read", 24}, {"api.before_commit", 32}, {"api.after_commit", 32},
				{"api.after_enqueue", 32}, {"api.before_answer", 24},
			},
			rules:    ledger.Rules{BrokenConnections: true, Unavailable: true, Lag: commitLag},
			recovery: 2 * time.Second, latest: afterLease,
			strike: killAPIs, needs: []string{"random kill"},
		},
		{
			ID: "F2", Title: "kill -9 of worker processes in the middle of deliveries",
			workerPoints: []point{
				{"worker.before_send", 12}, {"worker.after_send", 12}, {"worker.before_result_commit", 24},
				{"worker.after_result_commit", 24}, {"feeder.mid_batch", 400},
			},
			holds:    true,
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 5 * time.Second, latest: afterLease,
			strike: killWorkers, needs: []string{"random kill", "request held"},
		},
		{
			ID: "F3", Title: "workers stopped for longer than a lease, then going on",
			holds: true, rate: 100,
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 5 * time.Second, latest: afterLease, retried: afterLease,
			strike: stopWorkers, needs: []string{"worker stopped", "request held"},
		},
		{
			ID: "F4", Title: "FLUSHALL of Redis",
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 15 * time.Second, latest: func(time.Duration) time.Duration { return 15 * time.Second },
			strike: flushRedis, needs: []string{"flush", "task destroyed"},
		},
		{
			ID: "F5", Title: "kill -9 and restart of Redis without persistence",
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 15 * time.Second, latest: func(time.Duration) time.Duration { return 15 * time.Second },
			strike: killRedis, needs: []string{"restart", "task destroyed"},
		},
		{
			ID: "F6", Title: "kill -9 of Redis, and its return with what it held a while ago",
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 15 * time.Second, latest: afterLease,
			strike: ageRedis, needs: []string{"old Redis", "stale task", "task destroyed"},
		},
		{
			ID: "F7", Title: "no Redis for a while",
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 15 * time.Second, latest: untilRedisIsBack,
			strike: withoutRedis, needs: []string{"Redis away", "task destroyed"},
		},
		{
			ID: "F8", Title: "Redis slow, silent and with connections that break",
			redisProxy: true,
			rules:      ledger.Rules{Lag: commitLag},
			recovery:   15 * time.Second, latest: untilRedisIsBack,
			strike: badWayToRedis, needs: []string{"answer delayed", "request held up", "connection reset"},
			afterwards: keepsNoGoroutines,
		},
		{
			ID: "F9", Title: "Redis full",
			rules:    ledger.Rules{Lag: commitLag},
			recovery: 15 * time.Second, latest: func(time.Duration) time.Duration { return fullFor + 15*time.Second },
			strike: fillRedis, needs: []string{"write refused"},
		},
		{
			ID: "F10", Title: "restart of Postgres, orderly and as a crash",
			rules:    ledger.Rules{Unavailable: true, Lag: asyncLag},
			recovery: 5 * time.Second, latest: afterLease,
			strike: restartPostgres, needs: []string{"fast restart", "immediate restart", "API unavailable"},
		},
		{
			ID: "F11", Title: "all connections of Postgres taken by others",
			rules:    ledger.Rules{Unavailable: true, Lag: asyncLag},
			recovery: 5 * time.Second, latest: afterLease,
			strike: takeConnections, needs: []string{"connections taken", "API unavailable"},
		},
		{
			ID: "F15", Title: "one receiver of fifty keeps every request waiting",
			guests: sleepy(), retries: "1s", timeout: bombTimeout, rate: 150, invitation: invitation{rate: 20, messages: 200, lasts: 8 * time.Second},
			recovery: 5 * time.Second, // and no latest: what the sleeper is owed waits until it has answered others
			strike:   misbehave, judge: judgeSleep,
		},
		{
			ID: "F16", Title: "connections of receivers that break",
			guests: breaks(), retries: "500ms,1s", invitation: invitation{rate: 20, messages: 100, lasts: 3 * time.Second},
			recovery: 5 * time.Second, latest: afterLease,
			strike: misbehave, judge: judgeGuests,
		},
		{
			ID: "F17", Title: "answers that are made to exhaust their reader",
			guests: bombs(), retries: "500ms", timeout: bombTimeout, invitation: invitation{rate: 50, messages: 50, lasts: 8 * time.Second},
			recovery: 5 * time.Second, latest: afterLease,
			strike: dropBombs, judge: judgeGuests,
		},
		{
			ID: "F20", Title: "all receivers down for a while, and back",
			goesDown: true, rate: downRate, retries: downRetries,
			recovery: 5 * time.Second,
			strike:   takeDown, judge: judgeReturn, needs: []string{"receiver down", "request refused"},
		},
		{
			ID: "F21", Title: "duplicate posts: 20 at once, with kills and flushes between",
			apiPoints: []point{{"api.after_commit", 24}, {"api.after_enqueue", 24}, {"api.before_answer", 8}},
			copies:    20, rate: 100,
			rules:    ledger.Rules{BrokenConnections: true, Unavailable: true, Lag: commitLag},
			recovery: 5 * time.Second, latest: afterLease,
			strike: flushAndKill, needs: []string{"flush", "task destroyed", "parallel posts", "repeat after flush", "other body refused", "auto_ key replayed"},
			afterwards: repeatPosts,
		},
		{
			ID: "F22", Title: "rolling deploy: every process replaced in order, one after the other",
			front: true, holds: true, rate: 200, settings: []string{"POSTHASTE_DRAIN_DELAY=" + deployDrain},
			recovery: 5 * time.Second, latest: afterLease,
			strike: deploy, needs: []string{"process replaced", "request held"},
		},
		{
			ID: "F25", Title: "deliveries that cannot be made: panics, what does not open, deleted endpoints, expired payloads",
			guests: poisoned(), rule: poisonRule(), retries: poisonRetries, invitation: invitation{rate: 20, messages: 60, lasts: 6 * time.Second},
			recovery: 5 * time.Second, latest: afterLease,
			strike: poison, judge: judgePoison,
			needs: []string{"worker.before_send", "worker.after_send", "class canceled", "class expired"},
		},
		{
			ID: "F26", Title: "host names that do not resolve",
			guests: lost(), names: answers, retries: "500ms", invitation: invitation{rate: 5, messages: 40, lasts: 8 * time.Second},
			recovery: 5 * time.Second, latest: afterLease,
			strike: loseNames, judge: judgeGuests,
		},
		{
			ID: "F30", Title: "kill -9 of every process during a replay",
			replays: 2, rate: liveRate, retries: "1s",
			rules:    ledger.Rules{BrokenConnections: true, Unavailable: true, Lag: asyncLag},
			recovery: 5 * time.Second, latest: afterLease,
			strike: killDuringReplay, needs: []string{"API killed", "worker killed", "Redis killed", "Postgres killed"},
			afterwards: finishReplay,
		},
	}
}

// bittenWait is how much longer the load may go on until every failpoint has bitten.
const bittenWait = 30 * time.Second

// disarm ends a stretch of kills: what still runs with a failpoint is killed and starts without.
func (s *stage) disarm(ctx context.Context, keepers []*rig.Keeper) error {
	if err := s.bitten(ctx, bittenWait); err != nil {
		return err
	}
	s.armed.Store(false)
	for _, keeper := range keepers {
		keeper.Kill()
	}
	return s.restarted(ctx, keepers)
}

// restarted waits until the killed processes have ended and their next lives are ready.
func (s *stage) restarted(ctx context.Context, keepers []*rig.Keeper) error {
	for _, keeper := range keepers {
		if err := keeper.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// killAtRandom kills a random one of some processes at so many moments of the run's first part.
func (s *stage) killAtRandom(ctx context.Context, keepers []*rig.Keeper, times int) error {
	for _, share := range s.moments(times) {
		if err := s.until(ctx, share); err != nil {
			return err
		}
		keepers[s.random.IntN(len(keepers))].Kill()
		s.bit("random kill")
	}
	return nil
}

// The faults strike between these shares of the messages, so that there is a before and an after.
const strikeFrom, strikeTo = 0.1, 0.8

// moments are random shares of the run, in order.
func (s *stage) moments(times int) []float64 {
	list := make([]float64, times)
	for i := range list {
		list[i] = strikeFrom + (strikeTo-strikeFrom)*s.random.Float64()
	}
	slices.Sort(list)
	return list
}

// randomKills is how often, besides the failpoints, a process is killed wherever it may be.
const randomKills = 10

func killAPIs(ctx context.Context, s *stage) error {
	if err := s.killAtRandom(ctx, s.apis, randomKills); err != nil {
		return err
	}
	return s.disarm(ctx, s.apis)
}

func killWorkers(ctx context.Context, s *stage) error {
	if err := s.killAtRandom(ctx, s.workers, randomKills/2); err != nil {
		return err
	}
	return s.disarm(ctx, s.workers)
}
