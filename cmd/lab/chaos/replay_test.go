package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

// replaying is a stage with a replayed application of so many accepted messages, msg_0 and so on, and a
// sink that can be told what arrived.
func replaying(messages int) *stage {
	load := &producer{
		senders: []sender{{key: "k", application: "a", endpoints: []int{9}, ids: []string{"ep"}}}, name: "test",
		first: replayFirst, tenant: tenants, types: replayTypes, messages: make(map[int]*ledger.Message),
	}
	for n := range messages {
		seq := replayFirst + n
		load.messages[seq] = &ledger.Message{Seq: seq, Outcome: ledger.Accepted, IDs: []string{"msg_" + strconv.Itoa(n)}}
	}
	return &stage{
		sink: &sink{random: rand.New(rand.NewPCG(1, 1)), arrived: make(map[int]int)}, bites: make(map[string]int),
		replay: &replay{load: load, from: load.senders[0], number: 9},
	}
}

// arrives puts a request for the replayed endpoint into the sink's ledger.
func arrives(s *stage, message, status int, at time.Time) {
	s.sink.records = append(s.sink.records, ledger.Record{Endpoint: 9, ID: "msg_" + strconv.Itoa(message), Status: status, Arrived: at})
}

func TestTheProducerPostsSoManyOfItsOwn(t *testing.T) {
	var posted atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			EventType string
			Payload   struct{ Lab tag }
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		seq := body.Payload.Lab.Seq
		if body.EventType != replayTypes[seq%2] || body.Payload.Lab.Tenant != tenants || seq < replayFirst || seq >= replayFirst+50 {
			t.Errorf("%+v", body)
		}
		posted.Add(1)
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintf(w, `{"id":"msg_%d"}`, seq)
	}))
	defer server.Close()
	s := replaying(0)
	s.replay.load.apis, s.replay.load.rate, s.replay.load.copies, s.replay.load.most = []string{server.Listener.Addr().String()}, 10_000, 1, 50
	s.replay.load.run(t.Context(), nil)
	if posted.Load() != 50 || len(s.replay.ids("")) != 50 || len(s.replay.ids(replayTypes[1])) != 25 {
		t.Errorf("%d posted, %d of them accepted", posted.Load(), len(s.replay.ids("")))
	}
}

func TestARefusingEndpointRefusesItsShare(t *testing.T) {
	s := &sink{random: rand.New(rand.NewPCG(1, 1))}
	r := receiver{refuses: new(atomic.Int32)}
	for _, percent := range []int32{0, 95, 100} {
		r.refuses.Store(percent)
		refused := 0
		for range 1000 {
			if s.decide(r) != http.StatusOK {
				refused++
			}
		}
		if want := int(10 * percent); refused < want-30 || refused > want+30 || percent%100 == 0 && refused != want {
			t.Errorf("%d %%: %d of 1000", percent, refused)
		}
	}
}

func TestEveryProcessIsKilledInAnOrderOfItsOwn(t *testing.T) {
	orders := make(map[string]bool)
	for seed := range uint64(20) {
		s := &stage{apis: make([]*rig.Keeper, 2), workers: make([]*rig.Keeper, 2), random: rand.New(rand.NewPCG(seed, 30))}
		victims := s.victims()
		if len(victims) != 6 {
			t.Fatalf("%d processes", len(victims))
		}
		order := ""
		for _, v := range victims {
			order += v.what + " "
		}
		for what, n := range map[string]int{"API": 2, "worker": 2, "Redis": 1, "Postgres": 1} {
			if strings.Count(order, what) != n {
				t.Errorf("seed %d: %s", seed, order)
			}
		}
		orders[order] = true
	}
	if len(orders) < 10 {
		t.Errorf("20 seeds, %d orders", len(orders))
	}
}

func TestATaskIsJudgedByWhatArrived(t *testing.T) {
	asked := time.Unix(1_800_000_000, 0)
	before, after := asked.Add(-time.Second), asked.Add(time.Second)
	// Of five, one was refused when it was replayed.
	good := backgroundTask{ID: "qtask_1", Status: "finished", Counted: 5, Done: 4, Failed: 1}
	tests := []struct {
		name  string
		spoil func(*backgroundTask)
		wrong int
	}{
		{"as it was", func(*backgroundTask) {}, 0},
		{"still running", func(b *backgroundTask) { b.Status = "running" }, 1},
		{"failed", func(b *backgroundTask) { b.Status = "failed" }, 1},
		{"counted too few", func(b *backgroundTask) { b.Counted, b.Failed = 4, 0 }, 1},
		{"counters that do not add up", func(b *backgroundTask) { b.Failed = 0 }, 1},
		{"more done than arrived", func(b *backgroundTask) { b.Done, b.Failed = 5, 0 }, 1},
		{"less done than arrived", func(b *backgroundTask) { b.Done, b.Skipped = 3, 1 }, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := replaying(6)
			arrives(s, 5, 200, before) // taken at first, and not owed
			for n := range 5 {
				arrives(s, n, 500, before)
				arrives(s, n, map[bool]int{true: 500, false: 200}[n == 2], after)
			}
			task := good
			test.spoil(&task)
			s.judge(task, []string{"msg_0", "msg_1", "msg_2", "msg_3", "msg_4"}, asked)
			if len(s.extra.Findings) != test.wrong || test.wrong > 0 && s.extra.Findings[0].Invariant != ledger.Task {
				t.Errorf("%+v", s.extra.Findings)
			}
		})
	}
	// A send whose result died with its process, and that was refused when it was repeated.
	s := replaying(1)
	arrives(s, 0, 200, after)
	arrives(s, 0, 500, after.Add(time.Second))
	s.judge(backgroundTask{Status: "finished", Counted: 1, Failed: 1}, []string{"msg_0"}, asked)
	if len(s.extra.Findings) != 0 {
		t.Errorf("%+v", s.extra.Findings)
	}
}

func TestAsksNameTheReplayedEndpoint(t *testing.T) {
	s := replaying(2)
	at := time.Unix(1_800_000_000, 0)
	asks := s.replay.asks([]string{"msg_1"}, at)
	if len(asks) != 1 || asks[0] != (ledger.Ask{Pair: ledger.Pair{Message: "msg_1", Endpoint: 9}, At: at}) {
		t.Errorf("%+v", asks)
	}
	arrives(s, 0, 200, at.Add(-1))
	arrives(s, 0, 500, at)
	s.sink.records = append(s.sink.records, ledger.Record{Endpoint: 8, Arrived: at})
	if n := s.replay.since(s.sink, at); n != 1 {
		t.Errorf("%d since then", n)
	}
}

func TestTheLongestPauseEndsWithARequest(t *testing.T) {
	s := replaying(3)
	asked := time.Unix(1_800_000_000, 0)
	if got := s.longestPause(asked); got != 0 {
		t.Errorf("nothing arrived: %v", got)
	}
	arrives(s, 2, 200, asked.Add(9*time.Second))
	arrives(s, 0, 200, asked.Add(-time.Minute))
	arrives(s, 1, 200, asked.Add(2*time.Second))
	s.sink.records = append(s.sink.records, ledger.Record{Endpoint: 8, Arrived: asked.Add(5 * time.Second)})
	if got := s.longestPause(asked); got != 7*time.Second {
		t.Error(got)
	}
}

func TestTasksAreAskedForUntilThereIsAnAnswer(t *testing.T) {
	var keys []string
	running := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Header.Get("Authorization") != "Bearer k":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/recover"):
			if keys = append(keys, r.Header.Get("Idempotency-Key")); len(keys) == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			if !strings.HasPrefix(string(body), `{"since":"2`) {
				t.Errorf("%s", body)
			}
			w.WriteHeader(http.StatusAccepted)
			_, _ = io.WriteString(w, `{"id":"qtask_1","status":"running"}`)
		case r.URL.Path == "/api/v1/background-task/qtask_1":
			status := "finished"
			if running++; running < 3 {
				status = "running"
			}
			_, _ = fmt.Fprintf(w, `{"id":"qtask_1","status":"%s","counted":3,"done":1,"failed":1,"skipped":1}`, status)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	c := &taskClient{apis: []string{"127.0.0.1:1", server.Listener.Addr().String()}, key: "k", name: "test"}
	task, err := c.start(t.Context(), "/api/v1/app/a/endpoint/e/recover", taskRequest{Since: time.Now()})
	if err != nil || task.ID != "qtask_1" || len(keys) != 2 || keys[0] != keys[1] || keys[0] == "" {
		t.Fatalf("%+v %v, keys %q", task, err, keys)
	}
	task, err = c.ended(t.Context(), task.ID, time.Minute)
	if err != nil || task.Status != "finished" || task.Counted != 3 || task.Done != 1 || task.Failed != 1 || task.Skipped != 1 {
		t.Errorf("%+v %v", task, err)
	}
	running = 0
	if task, err := c.ended(t.Context(), task.ID, 0); err != nil || task.Status != "running" {
		t.Errorf("past the limit: %+v %v", task, err)
	}
	if _, err := c.start(t.Context(), "/nowhere", taskRequest{}); !errors.Is(err, errTaskRefused) {
		t.Error(err)
	}
}

func TestSmallReplaysAreSlow(t *testing.T) {
	for deliveries, want := range map[int]string{1000: "POSTHASTE_TASK_RATE=100", 5000: "", 10_000: "", 1: "POSTHASTE_TASK_RATE=1"} {
		s := &stage{fault: Fault{replays: 2}, options: Options{Deliveries: deliveries}}
		if got := strings.Join(s.replaySettings(), " "); got != want {
			t.Errorf("%d: %q", deliveries, got)
		}
	}
	if got := (&stage{options: Options{Deliveries: 1000}}).replaySettings(); got != nil {
		t.Errorf("a fault without a replay: %q", got)
	}
}
