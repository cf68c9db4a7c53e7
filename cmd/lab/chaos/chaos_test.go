package chaos

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/cmd/lab/wire"
	"github.com/posthaste/posthaste/internal/failpoint"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPayloadsAreJSONAndCarryTheirTag(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for seq := range 200 {
		text := payload(tag{Tenant: 2, Seq: seq}, random)
		got, ok := readTag(text)
		if !json.Valid(text) || !ok || got != (tag{2, seq}) {
			t.Fatalf("%s: %v %v", text, got, ok)
		}
		other := changed(message{payload: text}).payload
		if got, ok := readTag(other); !json.Valid(other) || !ok || got.Seq != seq || string(other) == string(text) {
			t.Fatalf("changed to %s", other)
		}
	}
	for _, foreign := range []string{"", "{}", "[]", `{"lab":null}`, "x"} {
		if got, ok := readTag([]byte(foreign)); ok || got.Seq != -1 {
			t.Errorf("%q: %v %v", foreign, got, ok)
		}
	}
}

func TestSignaturesAreThoseOfStandardWebhooks(t *testing.T) {
	secret := newSecret()
	library, err := standardwebhooks.NewWebhook(secretText(secret))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now()
	signature, err := library.Sign("msg_1", at, []byte(`{"a":1}`))
	if err != nil {
		t.Fatal(err)
	}
	good := wire.Request{
		ID: []byte("msg_1"), Timestamp: strconv.AppendInt(nil, at.Unix(), 10), Body: []byte(`{"a":1}`),
		Signature: []byte("v1,AAAA " + signature),
	}
	if !signed(secret, &good) {
		t.Error("a good signature was refused")
	}
	for name, spoil := range map[string]func(*wire.Request){
		"id": func(r *wire.Request) { r.ID = []byte("msg_2") }, "time": func(r *wire.Request) { r.Timestamp = []byte("1") },
		"body": func(r *wire.Request) { r.Body = []byte(`{"a":2}`) }, "signature": func(r *wire.Request) { r.Signature = nil },
	} {
		bad := good
		spoil(&bad)
		if signed(secret, &bad) {
			t.Errorf("another %s was let pass", name)
		}
	}
	if signed(newSecret(), &good) {
		t.Error("another secret was let pass")
	}
}

func TestTheSinkKeepsItsLedger(t *testing.T) {
	s := newSink([]receiver{{secret: newSecret()}, {secret: newSecret(), flaky: true}, {secret: newSecret(), holds: true}}, 1)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, listener) }()
	client := wire.Client{Address: listener.Addr().String(), Timeout: 100 * time.Millisecond}
	text := payload(tag{1, 7}, s.random)
	statuses := make(map[int]int)
	for range 300 {
		answer, err := client.Do("POST", endpointPath+"1", "Webhook-Id: msg_1\r\n", text)
		if err != nil {
			t.Fatal(err)
		}
		statuses[answer.Status]++
	}
	if statuses[200] < 240 || statuses[500] < 3 || statuses[200]+statuses[500] != 300 {
		t.Errorf("a flaky endpoint answered %v", statuses)
	}
	if answer, err := client.Do("POST", endpointPath+"3", "", text); err != nil || answer.Status != 404 {
		t.Errorf("an endpoint of nobody's answered %d, %v", answer.Status, err)
	}
	for s.heldSoFar() == 0 { // one in ten is held for longer than the client waits
		if _, err := client.Do("POST", endpointPath+"2", "", text); err != nil && !wire.IsTimeout(err) {
			t.Fatal(err)
		}
	}
	client.Close()
	cancel() // lets go of what is held
	if err := <-done; err != nil {
		t.Error(err)
	}
	records, closed := s.snapshot()
	if len(closed) != 1 {
		t.Errorf("%d connections ended", len(closed))
	}
	first := records[0]
	if first.Endpoint != 1 || first.ID != "msg_1" || first.Tenant != 1 || first.Seq != 7 || first.Signed ||
		first.Hash != sha256.Sum256(text) || first.Arrived.After(first.Answered) {
		t.Errorf("%+v", first)
	}
	if nobody := records[300]; nobody.Endpoint != -1 || nobody.Status != 404 {
		t.Errorf("%+v", nobody)
	}
}

// platform stands for an API that is unwell: it answers each key's first requests as told, then 202
// with an id made from the key.
type platform struct {
	first []int // statuses; 0 breaks the connection
	mu    sync.Mutex
	seen  map[string]int
}

func (p *platform) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	key := r.Header.Get("Idempotency-Key")
	p.mu.Lock()
	n := p.seen[key]
	p.seen[key]++
	p.mu.Unlock()
	if n < len(p.first) {
		if p.first[n] == 0 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(p.first[n])
		return
	}
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, `{"id":"msg_of_%s"}`, key)
}

// produce posts so many messages to an unwell platform and returns the ledger.
func produce(t *testing.T, first []int, copies int) ([]ledger.Message, []ledger.Try) {
	t.Helper()
	server := httptest.NewServer(&platform{first: first, seen: make(map[string]int)})
	defer server.Close()
	p := &producer{
		apis: []string{server.Listener.Addr().String()}, senders: []sender{{key: "k", application: "a", endpoints: []int{0, 1}}},
		name: "test", rate: 1000, copies: copies, seed: 3, messages: make(map[int]*ledger.Message),
	}
	finish := make(chan struct{})
	go func() {
		for p.begun.Load() < 5 {
			if rig.Pause(context.Background(), time.Millisecond) != nil {
				break
			}
		}
		close(finish)
	}()
	p.run(t.Context(), finish)
	messages, tries := p.snapshot()
	if int64(len(messages)) != p.begun.Load() || len(messages) < 5 {
		t.Fatalf("%d messages of %d", len(messages), p.begun.Load())
	}
	return messages, tries
}

func TestTheProducerInsistsUntilTheAnswerIsDefinite(t *testing.T) {
	tests := []struct {
		first   []int
		tries   int
		outcome ledger.Outcome
	}{
		{nil, 1, ledger.Accepted},
		{[]int{503, 0, 429, 500}, 5, ledger.Accepted},
		{[]int{503, 404}, 2, ledger.Refused},
	}
	for _, test := range tests {
		messages, tries := produce(t, test.first, 1)
		if len(tries) != test.tries*len(messages) {
			t.Errorf("%v: %d tries for %d messages", test.first, len(tries), len(messages))
		}
		for _, m := range messages {
			if m.Outcome != test.outcome || m.Tries != test.tries || (m.Outcome == ledger.Accepted) != slices.Equal(m.IDs, []string{"msg_of_test-" + strconv.Itoa(m.Seq)}) {
				t.Errorf("%v: %+v", test.first, m)
			}
		}
		for _, first := range test.first {
			if !slices.ContainsFunc(tries, func(try ledger.Try) bool { return try.Status == first && !try.Timeout }) {
				t.Errorf("%v: %d was not noted", test.first, first)
			}
		}
	}
}

func TestTheProducerPostsCopiesAtOnce(t *testing.T) {
	messages, _ := produce(t, []int{503}, 20)
	for _, m := range messages {
		if m.Outcome != ledger.Accepted || m.Tries != 21 || len(m.IDs) != 20 {
			t.Errorf("%+v", m)
		}
	}
}

func TestEachLifeGetsTheNextFailpoint(t *testing.T) {
	for _, f := range Faults() {
		s := &stage{fault: f, total: 700, options: Options{Seed: 5}}
		s.armed.Store(true)
		for _, list := range [][]point{f.apiPoints, f.workerPoints} {
			environment := s.points(list, 1)
			if list == nil {
				if environment != nil {
					t.Errorf("%s: failpoints without points", f.ID)
				}
				continue
			}
			given := make(map[string]bool)
			for life := range list {
				text := strings.Join(environment(life), "")
				name, _, _ := strings.Cut(strings.TrimPrefix(text, "POSTHASTE_FAILPOINTS="), "=")
				given[name] = true
			}
			for _, p := range list {
				if !given[p.name] {
					t.Errorf("%s: %s is never given", f.ID, p.name)
				}
				if !slices.Contains(failpoint.Points, failpoint.Point(p.name)) {
					t.Errorf("%s: the product has no failpoint %s", f.ID, p.name)
				}
			}
			s.armed.Store(false)
			if environment(0) != nil {
				t.Errorf("%s: armed after the end", f.ID)
			}
			s.armed.Store(true)
		}
	}
}

func TestPollStopsInTime(t *testing.T) {
	never := func() (bool, error) { return false, nil }
	if err := poll(t.Context(), time.Millisecond, "nothing", never); !errors.Is(err, errNotInTime) {
		t.Error(err)
	}
	broken := errors.New("broken")
	if err := poll(t.Context(), time.Minute, "nothing", func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestAResultLineSaysWhatFailed(t *testing.T) {
	result := Result{Fault: "F1", Bites: map[string]int{"b": 2, "a": 1}}
	if line := result.Line(); !strings.HasPrefix(line, "pass F1") || !strings.Contains(line, "LOST 0") || !strings.Contains(line, "bites: a 1, b 2;") {
		t.Error(line)
	}
	result.Report.Add(ledger.Crash, "api-1 fell over")
	if line := result.Line(); !strings.HasPrefix(line, "FAIL F1") || !strings.Contains(line, "CRASH 1") {
		t.Error(line)
	}
}
