package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/cmd/lab/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPayloadsAreJSONOfTheRightSizeAndCarryTheirNumber(t *testing.T) {
	sent := time.Unix(1_800_000_000, 123)
	for _, seq := range []uint32{0, 7, 123_456_789} {
		text := appendPayload([]byte("x"), seq, sent)[1:]
		if len(text) != PayloadSize || !json.Valid(text) {
			t.Fatalf("%d bytes: %s", len(text), text)
		}
		gotSeq, gotSent, ok := readPayload(text)
		if !ok || gotSeq != seq || gotSent != sent.UnixNano() {
			t.Errorf("%d %d %v", gotSeq, gotSent, ok)
		}
	}
	good := appendPayload(nil, 1, sent)
	for _, bad := range [][]byte{nil, good[1:], append(good[:len(good):len(good)], ' '), []byte(strings.Repeat("x", PayloadSize))} {
		if _, _, ok := readPayload(bad); ok {
			t.Errorf("%.30q was understood", bad)
		}
	}
}

func TestRecordsSurviveTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	want := []record{{1, 2, 3, 4, 5, 6}, {1 << 31, 1 << 15, 202, 1 << 63, -1, 1 << 62}}
	if err := writeRecords(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := readRecords(path)
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v %v", got, err)
	}
}

// child runs a part of the bench that says where it listens, as its process would.
func child(t *testing.T, run func(context.Context, io.Writer) error) addresses {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- run(ctx, writer) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	line, err := bufio.NewReader(reader).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var at addresses
	if err := json.Unmarshal(line, &at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestTheSinkRemembersWhatArrives(t *testing.T) {
	at := child(t, RunSink)
	client, control := wire.Client{Address: at.Address}, wire.Client{Address: at.Control}
	defer client.Close()
	defer control.Close()
	post := func(path string, body []byte) int {
		t.Helper()
		answer, err := client.Do("POST", path, "Webhook-Id: msg_1\r\n", body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status
	}
	sent := time.Now()
	if status := post("/e/3", appendPayload(nil, 5, sent)); status != 200 {
		t.Errorf("answered %d", status)
	}
	for _, path := range []string{"/e/65536", "/x/3"} {
		if status := post(path, appendPayload(nil, 5, sent)); status != 404 {
			t.Errorf("%s: answered %d", path, status)
		}
	}
	if status := post("/e/3", []byte("{}")); status != 404 {
		t.Errorf("answered %d", status)
	}
	s := &session{control: control}
	if state, err := s.state(); err != nil || state != (sinkState{Count: 1, Foreign: 3}) {
		t.Errorf("%+v %v", state, err)
	}
	path := filepath.Join(t.TempDir(), "dump")
	if _, err := s.ask("/dump", path); err != nil {
		t.Fatal(err)
	}
	records, err := readRecords(path)
	if err != nil || len(records) != 1 {
		t.Fatalf("%v %v", records, err)
	}
	if r := records[0]; r.seq != 5 || r.endpoint != 3 || r.id != idHash([]byte("msg_1")) || r.sent != sent.UnixNano() || r.end < r.sent {
		t.Errorf("%+v", r)
	}
	if _, err := s.ask("/dump", "/does/not/exist/dump"); err == nil {
		t.Error("dumped to nowhere")
	}
	if _, err := s.ask("/reset", ""); err != nil {
		t.Fatal(err)
	}
	if state, err := s.state(); err != nil || state != (sinkState{}) {
		t.Errorf("%+v %v", state, err)
	}
	s.control.Close()
}

func TestLoadNotesEveryAnswer(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			EventType string          `json:"eventType"`
			Payload   json.RawMessage `json:"payload"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Payload) != PayloadSize ||
			r.Header.Get("Authorization") != "Bearer key" || r.URL.RequestURI() != "/api/v1/app/app_1/msg?with_content=false" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if requests.Add(1)%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		seq, _, _ := readPayload(body.Payload)
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintf(w, `{"eventId":"other","id":"msg_%d"}`, seq)
	}))
	defer server.Close()
	for _, rate := range []float64{0, 400} {
		requests.Store(0)
		path := filepath.Join(t.TempDir(), "records")
		err := RunLoad(t.Context(), Load{
			Address: server.Listener.Addr().String(), Application: "app_1", Key: "key",
			Conns: 4, Rate: rate, Duration: 250 * time.Millisecond, Out: path,
		})
		if err != nil {
			t.Fatal(err)
		}
		records, err := readRecords(path)
		if err != nil || int64(len(records)) != requests.Load() || len(records) < 10 {
			t.Fatalf("%d records of %d requests, %v", len(records), requests.Load(), err)
		}
		if rate > 0 && len(records) > 101 {
			t.Errorf("%d messages in a quarter of a second at %v/s", len(records), rate)
		}
		seen := make(map[uint32]bool)
		for _, r := range records {
			if seen[r.seq] || r.end < r.sent {
				t.Errorf("%+v", r)
			}
			seen[r.seq] = true
			if want := idHash(fmt.Appendf(nil, "msg_%d", r.seq)); r.status == 202 && r.id != want || r.status != 202 && r.status != 503 {
				t.Errorf("%+v", r)
			}
		}
	}
}

func TestBareLoop(t *testing.T) {
	at := child(t, RunBareServer)
	var out strings.Builder
	if err := RunBareClient(t.Context(), at.Address, 50*time.Millisecond, &out); err != nil {
		t.Fatal(err)
	}
	var result bareResult
	if err := json.Unmarshal([]byte(out.String()), &result); err != nil || result.Requests < 1 || result.Seconds < 0.05 {
		t.Errorf("%+v %v", result, err)
	}
	if err := RunBareClient(t.Context(), "127.0.0.1:1", 50*time.Millisecond, &out); err == nil {
		t.Error("nothing listens there")
	}
}

// posted and arrived make records at milliseconds after an arbitrary moment.
func posted(seq uint32, sent, answered int64, status uint16) record {
	return record{seq: seq, status: status, id: uint64(seq) + 100, sent: 1e18 + sent*1e6, end: 1e18 + answered*1e6}
}

func arrived(seq uint32, endpoint uint16, sent, at int64) record {
	return record{seq: seq, endpoint: endpoint, id: uint64(seq) + 100, sent: 1e18 + sent*1e6, end: 1e18 + at*1e6}
}

func TestEvaluate(t *testing.T) {
	scenario := Scenario{Name: "test", FanOut: 2, Duration: time.Second}
	posts := []record{posted(0, 0, 10, 202), posted(1, 500, 520, 202), posted(2, 600, 610, 503), posted(3, 700, 800, 0)}
	arrivals := []record{
		arrived(0, 0, 0, 20), arrived(0, 1, 0, 30), arrived(1, 0, 500, 600), arrived(1, 1, 500, 2000),
	}
	clean, err := evaluate(scenario, posts, arrivals)
	if err != nil {
		t.Fatal(err)
	}
	want := Outcome{
		Scenario: "test", FanOut: 2, Posted: 4, Accepted: 2, Refused: 1, Broken: 1,
		Accepts: 2 / seconds(520e6), AcceptP50: 10, AcceptP99: 20,
		Sustained: 2, Steady: 1 / 0.75, DrainMS: 1480, P50: 30, P95: 1500, P99: 1500,
	}
	if fmt.Sprintf("%+v", clean) != fmt.Sprintf("%+v", want) {
		t.Errorf("\n%+v\n%+v", clean, want)
	}
	tests := []struct {
		name                  string
		arrivals              []record
		lost, double, foreign int
	}{
		{"lost", arrivals[1:], 1, 0, 0},
		{"doubled", append(arrivals[:4:4], arrivals[0]), 0, 1, 0},
		{"never posted", append(arrivals[:4:4], arrived(9, 0, 0, 1)), 0, 0, 1},
		{"not accepted", append(arrivals[:4:4], arrived(2, 0, 600, 700)), 0, 0, 1},
		{"under another id", append(arrivals[1:4:4], record{seq: 0, id: 1}), 1, 0, 1},
		{"nothing", nil, 4, 0, 0},
	}
	for _, test := range tests {
		o, err := evaluate(scenario, posts, test.arrivals)
		if err != nil || o.Lost != test.lost || o.Doubled != test.double || o.Foreign != test.foreign {
			t.Errorf("%s: %+v %v", test.name, o, err)
		}
	}
	if _, err := evaluate(scenario, posts[2:], nil); err == nil {
		t.Error("nothing accepted is no result")
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for p, want := range map[int]float64{0: 1, 20: 1, 21: 2, 50: 3, 99: 5, 100: 5} {
		if got := percentile(values, p); got != want {
			t.Errorf("p%d = %v, want %v", p, got, want)
		}
	}
	if percentile(nil, 50) != 0 {
		t.Error("a percentile of nothing")
	}
}

func TestReport(t *testing.T) {
	run := func(sustained float64) Run {
		return Run{Bare: []float64{1000, 3000, 2000}, Memory: map[string]int64{"api": 3 << 20}, Outcomes: []Outcome{
			{Scenario: "closed 64", FanOut: 1, Sustained: sustained, Ratio: sustained / 2000, Platform: 0.2, CPU: map[string]float64{"api": 0.1}},
			{Scenario: "idle", Platform: 0.03, CPU: map[string]float64{"api": 0.03}},
		}}
	}
	report := Report{Side: Side{Runs: []Run{run(400), run(500), run(200)}}}
	var out strings.Builder
	report.Print(&out)
	for _, want := range []string{
		"400 (200–500)", "2000 (2000–2000) /s", "20.0 %    at least 15.0 %   met", "3.00 %    at most 2.00 %    MISSED", "3 (3–3)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
	if v := report.Violations(); len(v) != 0 {
		t.Error(v)
	}
	report.Runs[1].Outcomes[0].Doubled = 1
	if v := report.Violations(); len(v) != 1 || !strings.Contains(v[0], "run 2, closed 64: 0 lost, 1 duplicates") {
		t.Error(v)
	}
}
