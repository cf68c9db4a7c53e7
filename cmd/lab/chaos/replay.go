package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// liveRate is how many messages per second other applications post while one is replayed.
	liveRate = 100
	// replayPostRate is how fast the messages that are replayed later are posted, at most.
	replayPostRate = 2000
	// replayFirst is the number of the first of them, above all others.
	replayFirst = 1 << 28
	// refusedAtFirst is the percentage of them that their endpoint refuses when they are new: the rest
	// must not be sent again by a recovery.
	refusedAtFirst = 95
	// replayTakes is how long a replay takes at least, so that every process can be killed during it.
	replayTakes = 20
	// fullReplayRate is the product's own rate of replays, per second; it is lowered for small runs only.
	fullReplayRate = 500
	// replayMoves is how long a replay may stand still after a kill, besides a lease.
	replayMoves = 30 * time.Second
)

// replayTypes are the event types of the messages that are replayed, alternating, so that a filter can
// tell one half from the other.
var replayTypes = []string{"lab.replay.even", "lab.replay.odd"}

// replay is the application whose messages are sent again.
type replay struct {
	load   *producer
	from   sender
	number int // of its only endpoint
	tasks  *taskClient
	began  time.Time // before its first message
	asked  time.Time // when the recovery was asked for
	task   string    // the recovery
	owed   []string  // the messages it is about
}

// replayed is how many messages there are to replay, at least. A fifth more are posted, since their endpoint
// takes some at the first attempt or the second.
func (s *stage) replayed() int { return int(s.fault.replays * float64(s.options.Deliveries)) }

// replaySettings slow replays down where there is little to replay.
func (s *stage) replaySettings() []string {
	if rate := s.replayed() / replayTakes; s.fault.replays > 0 && rate < fullReplayRate {
		return []string{fmt.Sprintf("POSTHASTE_TASK_RATE=%d", max(rate, 1))}
	}
	return nil
}

// startReplay makes the application that will be replayed, in a tenant of its own.
func (s *stage) startReplay(ctx context.Context) error {
	from, err := s.tenant(ctx, tenants, 1)
	if err != nil {
		return err
	}
	load := &producer{
		apis: s.load.apis, senders: []sender{from}, name: s.load.name + "-replay", rate: replayPostRate, copies: 1, seed: s.options.Seed,
		first: replayFirst, most: s.replayed() * 6 / 5, tenant: tenants, types: replayTypes, messages: make(map[int]*ledger.Message),
	}
	s.beside = append(s.beside, load)
	s.replay = &replay{load: load, from: from, number: from.endpoints[0], tasks: &taskClient{apis: s.load.apis, key: from.key, name: load.name}}
	return nil
}

// refuses makes the replayed endpoint refuse so many per cent from now on.
func (s *stage) refuses(percent int32) { s.sink.receivers[s.replay.number].refuses.Store(percent) }

// killDuringReplay posts messages that their endpoint refuses, asks for their recovery, and while that
// runs kills every process of the installation, one after the other.
func killDuringReplay(ctx context.Context, s *stage) error {
	if err := s.refuseAll(ctx); err != nil {
		return err
	}
	if err := s.recover(ctx); err != nil {
		return err
	}
	victims := s.victims()
	before := s.sink.arrivedSoFar(s.replay.number)
	var killed []string
	for i, victim := range victims {
		// Each at a random moment of its own part of the replay.
		share := strikeFrom + (strikeTo-strikeFrom)*(float64(i)+s.random.Float64())/float64(len(victims))
		err := poll(ctx, s.lease()+leaseSlack+replayMoves, fmt.Sprintf("%.0f %% of the replay", 100*share), func() (bool, error) {
			return float64(s.sink.arrivedSoFar(s.replay.number)-before) >= share*float64(len(s.replay.owed)), nil
		})
		if errors.Is(err, errNotInTime) {
			s.found(ledger.Task, "the replay stands still at %d of %d messages", s.sink.arrivedSoFar(s.replay.number)-before, len(s.replay.owed))
			break
		}
		if err != nil {
			return err
		}
		if err := victim.kill(ctx, s); err != nil {
			return err
		}
		s.bit(victim.what + " killed")
		killed = append(killed, fmt.Sprintf("%s after %v", victim.what, time.Since(s.replay.asked).Round(100*time.Millisecond)))
	}
	s.note("killed: %s", strings.Join(killed, ", "))
	return s.ready(ctx)
}

// refuseAll posts the messages and waits until their endpoint has refused them to the end.
func (s *stage) refuseAll(ctx context.Context) error {
	s.refuses(refusedAtFirst)
	s.replay.began = time.Now()
	s.replay.load.run(ctx, nil)
	if err := ctx.Err(); err != nil {
		return err
	}
	endpoint, err := webhook.ParseID[webhook.EndpointID](s.replay.from.ids[0])
	if err != nil {
		return fmt.Errorf("read an endpoint's id: %w", err)
	}
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = poll(ctx, time.Minute+time.Duration(s.replayed())*10*time.Millisecond, "first deliveries to end", func() (bool, error) {
		var open bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM delivery WHERE endpoint_id = $1)", [16]byte(endpoint)).Scan(&open); err != nil {
			return false, fmt.Errorf("look for open deliveries: %w", err)
		}
		return !open, nil
	})
	s.refuses(0)
	return err
}

// recover asks for the recovery of what the endpoint never took.
func (s *stage) recover(ctx context.Context) error {
	taken := s.taken(time.Time{})
	for _, id := range s.replay.ids("") {
		if !taken[id] {
			s.replay.owed = append(s.replay.owed, id)
		}
	}
	s.replay.asked = time.Now()
	task, err := s.replay.tasks.start(ctx, s.replay.path("recover"), taskRequest{Since: s.replay.began})
	if err != nil {
		return err
	}
	s.replay.task = task.ID
	s.ask(s.replay.asks(s.replay.owed, s.replay.asked))
	return nil
}

// path is where a task about the replayed endpoint is asked for.
func (r *replay) path(operation string) string {
	return "/api/v1/app/" + r.from.application + "/endpoint/" + r.from.ids[0] + "/" + operation
}

// ids are the accepted messages of an event type; empty means all.
func (r *replay) ids(eventType string) []string {
	messages, _ := r.load.snapshot()
	var list []string
	for _, m := range messages {
		if m.Outcome == ledger.Accepted && (eventType == "" || r.load.make(m.Seq).eventType == eventType) {
			list = append(list, m.IDs[0])
		}
	}
	return list
}

// asks are requests to send messages again.
func (r *replay) asks(ids []string, at time.Time) []ledger.Ask {
	list := make([]ledger.Ask, len(ids))
	for i, id := range ids {
		list[i] = ledger.Ask{Pair: ledger.Pair{Message: id, Endpoint: r.number}, At: at}
	}
	return list
}

// taken are the messages that the replayed endpoint has answered 2xx after a moment.
func (s *stage) taken(after time.Time) map[string]bool {
	records, _ := s.sink.snapshot()
	taken := make(map[string]bool)
	for _, record := range records {
		if record.Endpoint == s.replay.number && record.Status/100 == 2 && record.Arrived.After(after) {
			taken[record.ID] = true
		}
	}
	return taken
}

// victim is a process to kill.
type victim struct {
	what string
	kill func(context.Context, *stage) error
}

// victims are all processes, in random order.
func (s *stage) victims() []victim {
	list := []victim{{"Redis", killRedisAtOnce}, {"Postgres", killPostgres}}
	for _, keeper := range s.apis {
		list = append(list, victim{"API", func(context.Context, *stage) error { keeper.Kill(); return nil }})
	}
	for _, keeper := range s.workers {
		// That it died is noted for the checker by crashes.
		list = append(list, victim{"worker", func(context.Context, *stage) error { keeper.Kill(); return nil }})
	}
	s.random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

func killRedisAtOnce(ctx context.Context, s *stage) error {
	began := time.Now()
	s.rig.KillRedis()
	if err := s.rig.StartRedis(ctx); err != nil {
		return err
	}
	s.broke(ledger.Fault{What: "kill of Redis", At: began, Until: time.Now().Add(refeedWithin), Resends: true})
	return nil
}

func killPostgres(ctx context.Context, s *stage) error {
	began := time.Now()
	if err := s.rig.KillPostgres(ctx); err != nil {
		return err
	}
	if err := s.rig.StartPostgres(ctx); err != nil {
		return fmt.Errorf("start postgres again: %w", err)
	}
	s.broke(ledger.Fault{What: "kill of Postgres", At: began, Until: time.Now().Add(commitLag), Resends: true, Unlogged: true})
	return nil
}

// finishReplay waits for the recovery to end and compares what it says of itself with what arrived;
// then it looks at what replays do to others.
func finishReplay(ctx context.Context, s *stage) error {
	limit := 2*(s.lease()+leaseSlack) + replayMoves + time.Duration(len(s.replay.owed))*10*time.Millisecond
	task, err := s.replay.tasks.ended(ctx, s.replay.task, limit)
	if err != nil {
		return err
	}
	s.note("replay of %d took %v and stood still for %v at most", task.Counted,
		time.Since(s.replay.asked).Round(100*time.Millisecond), s.longestPause(s.replay.asked).Round(100*time.Millisecond))
	s.judge(task, s.replay.owed, s.replay.asked)
	if err := s.settle(ctx); err != nil {
		return err
	}
	if s.replayed() >= windowsFrom {
		if err := s.compareWindows(ctx); err != nil {
			return err
		}
	}
	return s.replayInVain(ctx)
}

// judge compares what a task that should have finished says with what its messages came to.
func (s *stage) judge(task backgroundTask, owed []string, asked time.Time) {
	if task.Status != "finished" {
		s.found(ledger.Task, "%s is %s, not finished: %+v", task.ID, task.Status, task)
		return
	}
	if task.Counted != len(owed) {
		s.found(ledger.Task, "%s counted %d, but it was about %d messages", task.ID, task.Counted, len(owed))
	}
	if task.Done+task.Failed+task.Skipped != task.Counted {
		s.found(ledger.Task, "%s: %d done, %d failed and %d skipped are not the %d counted", task.ID, task.Done, task.Failed, task.Skipped, task.Counted)
	}
	taken := s.taken(asked)
	delivered := 0
	for _, id := range owed {
		if taken[id] {
			delivered++
		}
	}
	// What a process did not live to record is sent again, and may then be answered otherwise.
	if again := s.sentAgain(asked); task.Done < delivered-again || task.Done > delivered {
		s.found(ledger.Task, "%s says that %d are done, but the endpoint took %d, and %d were sent more than once", task.ID, task.Done, delivered, again)
	}
}

// longestPause is the longest time without any request at the replayed endpoint, from a moment until
// its last request.
func (s *stage) longestPause(after time.Time) time.Duration {
	records, _ := s.sink.snapshot()
	slices.SortFunc(records, func(a, b ledger.Record) int { return a.Arrived.Compare(b.Arrived) })
	longest := time.Duration(0)
	for _, record := range records {
		if record.Endpoint == s.replay.number && record.Arrived.After(after) {
			longest = max(longest, record.Arrived.Sub(after))
			after = record.Arrived
		}
	}
	return longest
}

// sentAgain is how many messages reached the replayed endpoint more than once after a moment.
func (s *stage) sentAgain(after time.Time) int {
	records, _ := s.sink.snapshot()
	times := make(map[string]int)
	again := 0
	for _, record := range records {
		if record.Endpoint == s.replay.number && record.Arrived.After(after) {
			if times[record.ID]++; times[record.ID] == 2 {
				again++
			}
		}
	}
	return again
}

const (
	// windowsFrom is how many messages have to be there for replays that last as long as a window.
	windowsFrom = 20_000
	// windowLasts is how long live latency is measured at a time.
	windowLasts = 15 * time.Second
	// windowFirst is the number of the first message of the first window, and windowNumbers how many
	// numbers each window has.
	windowFirst   = 1 << 29
	windowNumbers = 1 << 20
	// slowerAtMost is how many times its usual p99 live traffic may have beside a replay.
	slowerAtMost = 2
)

// compareWindows measures live latency alone and beside a replay, in turns: alone, beside, beside,
// alone, so that a drift of the machine weighs on both alike. Nothing is killed meanwhile, since what a
// dead process held waits for its lease with and without a replay, and would hide the difference.
func (s *stage) compareWindows(ctx context.Context) error {
	var alone, beside []ledger.Message
	for n, half := range []int{-1, 0, 1, -1} {
		if half < 0 {
			messages, err := s.window(ctx, n)
			if err != nil {
				return err
			}
			alone = append(alone, messages...)
			continue
		}
		owed := s.replay.ids(replayTypes[half])
		asked := time.Now()
		task, err := s.replay.tasks.start(ctx, s.replay.path("bulk-replay"), taskRequest{Since: s.replay.began, EventTypes: replayTypes[half : half+1]})
		if err != nil {
			return err
		}
		s.ask(s.replay.asks(owed, asked))
		messages, err := s.window(ctx, n)
		if err != nil {
			return err
		}
		beside = append(beside, messages...)
		if arrived := s.replay.since(s.sink, asked); arrived >= len(owed) {
			s.found(ledger.Bite, "the replay of %d messages ended within the window beside it", len(owed))
		}
		if task, err = s.replay.tasks.ended(ctx, task.ID, replayMoves+time.Duration(len(owed))*10*time.Millisecond); err != nil {
			return err
		}
		s.judge(task, owed, asked)
	}
	return s.judgeWindows(ctx, alone, beside)
}

// since is how many requests reached the replayed endpoint after a moment.
func (r *replay) since(from *sink, moment time.Time) int {
	records, _ := from.snapshot()
	return len(slices.DeleteFunc(records, func(record ledger.Record) bool {
		return record.Endpoint != r.number || record.Arrived.Before(moment)
	}))
}

// window posts live traffic for a while and returns its messages.
func (s *stage) window(ctx context.Context, n int) ([]ledger.Message, error) {
	load := &producer{
		apis: s.load.apis, senders: s.load.senders, name: fmt.Sprintf("%s-window-%d", s.load.name, n), rate: liveRate, copies: 1, seed: s.options.Seed,
		first: windowFirst + n*windowNumbers, messages: make(map[int]*ledger.Message),
	}
	s.beside = append(s.beside, load)
	finish := make(chan struct{})
	timer := time.AfterFunc(windowLasts, func() { close(finish) })
	defer timer.Stop()
	load.run(ctx, finish)
	messages, _ := load.snapshot()
	return messages, ctx.Err()
}

func (s *stage) judgeWindows(ctx context.Context, alone, beside []ledger.Message) error {
	if err := s.settle(ctx); err != nil {
		return err
	}
	records, _ := s.sink.snapshot()
	endpoints := make([]ledger.Endpoint, len(s.sink.receivers))
	for i, r := range s.sink.receivers {
		endpoints[i] = ledger.Endpoint{Flaky: r.flaky}
	}
	without, n := ledger.P99(alone, records, endpoints)
	with, m := ledger.P99(beside, records, endpoints)
	s.note("live p99 %v alone (%d deliveries), %v beside a replay (%d)", without.Round(10*time.Microsecond), n, with.Round(10*time.Microsecond), m)
	if s.options.Timed && with > slowerAtMost*without {
		s.found(ledger.Slow, "live p99 is %v beside a replay, more than %d times the %v without", with, slowerAtMost, without)
	}
	return nil
}

// replayInVain replays to a receiver that refuses everything: the task gives up instead of hammering it.
func (s *stage) replayInVain(ctx context.Context) error {
	s.refuses(100)
	defer s.refuses(0)
	owed := s.replay.ids("")
	asked := time.Now()
	task, err := s.replay.tasks.start(ctx, s.replay.path("bulk-replay"), taskRequest{Since: s.replay.began})
	if err != nil {
		return err
	}
	asks := s.replay.asks(owed, asked)
	for i := range asks {
		asks[i].Perhaps = true
	}
	s.ask(asks)
	if task, err = s.replay.tasks.ended(ctx, task.ID, replayMoves+time.Duration(len(owed))*10*time.Millisecond); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil { // what was on its way still goes
		return err
	}
	sent := s.replay.since(s.sink, asked)
	s.note("a replay in vain gave up after %d", sent)
	if task.Status != "failed" || sent > len(owed)/2 {
		s.found(ledger.Task, "%s to a receiver that refuses everything is %s after %d of %d: %+v", task.ID, task.Status, sent, len(owed), task)
	}
	return nil
}
