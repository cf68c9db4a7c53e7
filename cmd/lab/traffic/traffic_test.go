package traffic

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
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
		text := AppendPayload([]byte("x"), seq, sent)[1:]
		if len(text) != PayloadSize || !json.Valid(text) {
			t.Fatalf("%d bytes: %s", len(text), text)
		}
		gotSeq, gotSent, ok := ReadPayload(text)
		if !ok || gotSeq != seq || gotSent != sent.UnixNano() {
			t.Errorf("%d %d %v", gotSeq, gotSent, ok)
		}
	}
	good := AppendPayload(nil, 1, sent)
	for _, bad := range [][]byte{nil, good[1:], append(good[:len(good):len(good)], ' '), []byte(strings.Repeat("x", PayloadSize))} {
		if _, _, ok := ReadPayload(bad); ok {
			t.Errorf("%.30q was understood", bad)
		}
	}
}

func TestRecordsSurviveTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	want := []Record{{1, 2, 3, 4, 5, 6}, {1 << 31, 1 << 15, 202, 1 << 63, -1, 1 << 62}}
	if err := WriteRecords(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRecords(path)
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v %v", got, err)
	}
}

// child runs a part of the bench that says where it listens, as its process would.
func child(t *testing.T, run func(context.Context, io.Writer) error) Addresses {
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
	var at Addresses
	if err := json.Unmarshal(line, &at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestTheSinkRemembersWhatArrives(t *testing.T) {
	at := child(t, func(ctx context.Context, out io.Writer) error { return RunSink(ctx, 0, out) })
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
	if status := post("/e/3", AppendPayload(nil, 5, sent)); status != 200 {
		t.Errorf("answered %d", status)
	}
	for _, path := range []string{"/e/65536", "/x/3"} {
		if status := post(path, AppendPayload(nil, 5, sent)); status != 404 {
			t.Errorf("%s: answered %d", path, status)
		}
	}
	if status := post("/e/3", []byte("{}")); status != 404 {
		t.Errorf("answered %d", status)
	}
	s := &Sink{Address: at.Address, dir: t.TempDir(), control: control}
	if url := s.URL(3); url != "http://"+at.Address+"/e/3" {
		t.Error(url)
	}
	if state, err := s.State(); err != nil || state != (SinkState{Count: 1, Foreign: 3}) {
		t.Errorf("%+v %v", state, err)
	}
	records, err := s.Records()
	if err != nil || len(records) != 1 {
		t.Fatalf("%v %v", records, err)
	}
	if r := records[0]; r.Seq != 5 || r.Endpoint != 3 || r.ID != HashID([]byte("msg_1")) || r.Sent != sent.UnixNano() || r.End < r.Sent {
		t.Errorf("%+v", r)
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, "*")); err != nil || len(left) != 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
	if _, err := s.ask("/dump", "/does/not/exist/dump"); err == nil {
		t.Error("dumped to nowhere")
	}
	if err := s.Reset(); err != nil {
		t.Fatal(err)
	}
	if state, err := s.State(); err != nil || state != (SinkState{}) {
		t.Errorf("%+v %v", state, err)
	}
	s.Close()
}

func TestASlowSinkKeepsItsAnswers(t *testing.T) {
	const delay = 30 * time.Millisecond
	at := child(t, func(ctx context.Context, out io.Writer) error { return RunSink(ctx, delay, out) })
	client := wire.Client{Address: at.Address}
	defer client.Close()
	began := time.Now()
	answer, err := client.Do("POST", "/e/0", "", AppendPayload(nil, 1, began))
	if took := time.Since(began); err != nil || answer.Status != 200 || took < delay {
		t.Errorf("%d after %v, %v", answer.Status, took, err)
	}
}

func TestTheHoleTakesEverythingAndNeverAnswers(t *testing.T) {
	at := child(t, RunHole)
	_, port, err := net.SplitHostPort(at.Address)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "127.9.8.7"} {
		client := wire.Client{Address: net.JoinHostPort(host, port), Timeout: 50 * time.Millisecond}
		if _, err := client.Do("POST", "/", "", []byte("x")); !wire.IsTimeout(err) {
			t.Errorf("%s: %v", host, err)
		}
	}
	open, err := net.Dial("tcp", at.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = open.Close() }) // after the hole has ended, which must not wait for it
}

// turn is the application whose turn a message is.
func turn(payload []byte) string {
	seq, _, _ := ReadPayload(payload)
	return fmt.Sprintf("app_%d", 1+seq%2)
}

func TestLoadNotesEveryAnswer(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			EventType string          `json:"eventType"`
			Payload   json.RawMessage `json:"payload"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Payload) != PayloadSize ||
			r.Header.Get("Authorization") != "Bearer key" || r.URL.RequestURI() != "/api/v1/app/"+turn(body.Payload)+"/msg?with_content=false" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if requests.Add(1)%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		seq, _, _ := ReadPayload(body.Payload)
		w.WriteHeader(http.StatusAccepted)
		_, _ = fmt.Fprintf(w, `{"eventId":"other","id":"msg_%d"}`, seq)
	}))
	defer server.Close()
	for _, rate := range []float64{0, 400} {
		requests.Store(0)
		path := filepath.Join(t.TempDir(), "records")
		err := RunLoad(t.Context(), Load{
			Address: server.Listener.Addr().String(), Applications: []string{"app_1", "app_2"}, Key: "key",
			Conns: 4, Rate: rate, Duration: 250 * time.Millisecond, Out: path,
		})
		if err != nil {
			t.Fatal(err)
		}
		records, err := ReadRecords(path)
		if err != nil || int64(len(records)) != requests.Load() || len(records) < 10 {
			t.Fatalf("%d records of %d requests, %v", len(records), requests.Load(), err)
		}
		if rate > 0 && len(records) > 101 {
			t.Errorf("%d messages in a quarter of a second at %v/s", len(records), rate)
		}
		seen := make(map[uint32]bool)
		for _, r := range records {
			if seen[r.Seq] || r.End < r.Sent {
				t.Errorf("%+v", r)
			}
			seen[r.Seq] = true
			if want := HashID(fmt.Appendf(nil, "msg_%d", r.Seq)); r.Status == 202 && r.ID != want || r.Status != 202 && r.Status != 503 {
				t.Errorf("%+v", r)
			}
		}
	}
}

func TestPercentile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for p, want := range map[int]float64{0: 1, 20: 1, 21: 2, 50: 3, 99: 5, 100: 5} {
		if got := Percentile(values, p); got != want {
			t.Errorf("p%d = %v, want %v", p, got, want)
		}
	}
	if Percentile(nil, 50) != 0 {
		t.Error("a percentile of nothing")
	}
}
