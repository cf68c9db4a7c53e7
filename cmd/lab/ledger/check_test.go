package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func at(milliseconds int) time.Time { return start.Add(time.Duration(milliseconds) * time.Millisecond) }

// clean is a run of 4 messages of two tenants to two endpoints each, in which all went well. Message n
// is posted at n seconds, arrives 10 ms later, is answered after 1 ms and recorded after another 4.
func clean() Run {
	run := Run{
		Endpoints: []Endpoint{{ID: "ep_0", Tenant: 0}, {ID: "ep_1", Tenant: 0}, {ID: "ep_2", Tenant: 1}, {ID: "ep_3", Tenant: 1}},
		Closed:    map[uint64]time.Time{},
		Stored:    4,
		Rules:     Rules{Lag: 100 * time.Millisecond},
	}
	for seq := range 4 {
		tenant, id := seq%2, fmt.Sprintf("msg_%d", seq)
		message := Message{
			Seq: seq, Tenant: tenant, Outcome: Accepted, IDs: []string{id}, Hash: [32]byte{byte(seq)},
			Endpoints: []int{2 * tenant, 2*tenant + 1}, Posted: at(1000 * seq), Answered: at(1000*seq + 1), Tries: 1,
		}
		run.Messages = append(run.Messages, message)
		run.Tries = append(run.Tries, Try{Seq: seq, Status: 202, Began: message.Posted, Took: time.Millisecond})
		for _, endpoint := range message.Endpoints {
			run.Records = append(run.Records, Record{
				Endpoint: endpoint, ID: id, Tenant: tenant, Seq: seq, Hash: message.Hash, Signed: true, Status: 200,
				Arrived: at(1000*seq + 10), Answered: at(1000*seq + 11), Conn: uint64(endpoint + 1),
			})
			run.Rows = append(run.Rows, Row{
				Pair: Pair{id, endpoint}, Sent: true, Final: true, Success: true,
				Started: at(1000*seq + 9), Recorded: at(1000*seq + 15),
			})
		}
	}
	return run
}

func TestACleanRunPasses(t *testing.T) {
	report := Check(clean())
	if !report.OK() || report.Deliveries != 8 || report.Delivered != 8 || report.Resent != 0 || report.Requests != 8 {
		t.Fatalf("%+v", report)
	}
}

// again adds another send of the first record, and its row, at a time.
func again(run *Run, milliseconds int) {
	record, row := run.Records[0], run.Rows[0]
	record.Arrived, record.Answered, record.Conn = at(milliseconds), at(milliseconds+1), 99
	row.Started, row.Recorded = at(milliseconds-1), at(milliseconds+5)
	run.Records = append(run.Records, record)
	run.Rows = append(run.Rows, row)
}

func TestPlantedFailuresAreCaught(t *testing.T) {
	tests := []struct {
		name  string
		plant func(*Run)
		want  []Invariant
	}{
		{"a delivery that never arrived", func(r *Run) {
			r.Records, r.Rows = r.Records[1:], r.Rows[1:]
		}, []Invariant{Lost}},
		{"a delivery only answered 500", func(r *Run) {
			r.Records[0].Status = 500
			r.Rows[0].Success, r.Rows[0].Final = false, false
		}, []Invariant{Lost}},
		{"a delivery given up visibly", func(r *Run) {
			r.Records[0].Status = 500
			r.Rows[0].Success = false
		}, nil},
		{"a message gone from the store", func(r *Run) { r.Stored = 3 }, []Invariant{Lost}},
		{"a message stored but never posted", func(r *Run) { r.Stored = 5 }, []Invariant{Ghost}},
		{"an unknown message that was delivered", func(r *Run) {
			r.Messages[0].Outcome, r.Messages[0].IDs = Unknown, nil
		}, nil},
		{"an unknown message that was not", func(r *Run) {
			r.Messages[0].Outcome, r.Messages[0].IDs = Unknown, nil
			r.Records, r.Rows, r.Stored = r.Records[2:], r.Rows[2:], 3
		}, nil},
		{"a body of nobody's", func(r *Run) {
			r.Records[0].Seq = -1
		}, []Invariant{Lost, Ghost, FalseOK, Silent}},
		{"a refused message that was delivered", func(r *Run) {
			r.Messages[0].Outcome, r.Stored = Refused, 3
		}, []Invariant{Ghost, FalseOK, Silent}},
		{"another tenant's message", func(r *Run) {
			extra := r.Records[0]
			extra.Endpoint = 2
			r.Records = append(r.Records, extra)
		}, []Invariant{Leak, Silent}},
		{"an endpoint that was not asked for", func(r *Run) {
			r.Messages[0].Endpoints = []int{1}
		}, []Invariant{Leak}},
		{"a path of nobody's", func(r *Run) {
			extra := r.Records[0]
			extra.Endpoint = 4
			r.Records = append(r.Records, extra)
		}, []Invariant{Leak}},
		{"one key, two ids", func(r *Run) {
			r.Messages[0].IDs = append(r.Messages[0].IDs, "msg_x")
		}, []Invariant{Twice}},
		{"one message arriving under two ids", func(r *Run) {
			extra := r.Records[0]
			extra.ID = "msg_x"
			r.Records = append(r.Records, extra)
		}, []Invariant{Twice, Silent}},
		{"a duplicate that nothing explains", func(r *Run) { again(r, 500) }, []Invariant{Dup}},
		{"a send without a row", func(r *Run) { r.Rows = r.Rows[1:] }, []Invariant{Silent}},
		{"a row without a send", func(r *Run) { r.Rows = append(r.Rows, r.Rows[0]) }, []Invariant{Silent}},
		{"a row without a request", func(r *Run) {
			r.Rows = append(r.Rows, Row{Pair: r.Rows[0].Pair, Final: true})
		}, nil},
		{"a success the sink never gave", func(r *Run) {
			r.Records[0].Status = 500
		}, []Invariant{Lost, FalseOK}},
		{"a delivery still owed", func(r *Run) { r.Owed = []Pair{{"msg_0", 0}} }, []Invariant{Stuck}},
		{"a delivery nobody tried but gave up", func(r *Run) {
			r.Records, r.Rows[0] = r.Records[1:], Row{Pair: r.Rows[0].Pair, Final: true}
		}, []Invariant{Lost}},
		{"a first send in time", func(r *Run) { r.Rules.Latest = 9 * time.Millisecond }, nil},
		{"a late first send", func(r *Run) { r.Rules.Latest = 8 * time.Millisecond }, []Invariant{Late}},
		{"a late retry", func(r *Run) {
			r.Records[0].Status, r.Rows[0].Success, r.Rows[0].Final = 500, false, false
			again(r, 500)
			r.Records[8].Status, r.Rows[8].Success = 200, true
			r.Rules.Retried = 488 * time.Millisecond
		}, []Invariant{Late}},
		{"a retry in time", func(r *Run) {
			r.Records[0].Status, r.Rows[0].Success, r.Rows[0].Final = 500, false, false
			again(r, 500)
			r.Records[8].Status, r.Rows[8].Success = 200, true
			r.Rules.Retried = 489 * time.Millisecond
		}, nil},
		{"a crash", func(r *Run) { r.Crashes = []string{"api-1: exit status 2"} }, []Invariant{Crash}},
		{"a bad signature", func(r *Run) { r.Records[0].Signed = false }, []Invariant{Sig}},
		{"changed bytes", func(r *Run) { r.Records[0].Hash[0]++ }, []Invariant{Sig}},
		{"an internal error", func(r *Run) { r.Tries[0].Status = 500 }, []Invariant{API}},
		{"a refusal", func(r *Run) { r.Tries[0].Status = 404 }, []Invariant{API}},
		{"a hang", func(r *Run) { r.Tries[0] = Try{Timeout: true, Took: 10 * time.Second} }, []Invariant{API}},
		{"a broken connection", func(r *Run) { r.Tries[0].Status = 0 }, []Invariant{API}},
		{"an allowed broken connection", func(r *Run) { r.Tries[0].Status, r.Rules.BrokenConnections = 0, true }, nil},
		{"unavailable", func(r *Run) { r.Tries[0].Status = 503 }, []Invariant{API}},
		{"allowed to be unavailable", func(r *Run) { r.Tries[0].Status, r.Rules.Unavailable = 503, true }, nil},
		{"unavailable after a long wait", func(r *Run) {
			r.Rules.Unavailable = true
			r.Tries[0].Status, r.Tries[0].Took = 503, unavailableLimit+schedulingSlack+1
		}, []Invariant{API}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run := clean()
			test.plant(&run)
			expect(t, Check(run), test.want...)
		})
	}
}

// expect fails unless exactly these invariants are violated.
func expect(t *testing.T, report Report, want ...Invariant) {
	t.Helper()
	wanted := make(map[Invariant]bool)
	for _, invariant := range want {
		wanted[invariant] = true
		if report.Counts[invariant] == 0 {
			t.Errorf("%s was not found", invariant)
		}
	}
	for _, finding := range report.Findings {
		if !wanted[finding.Invariant] {
			t.Errorf("found %s: %s", finding.Invariant, finding.Text)
		}
	}
}

func TestDuplicatesAreExplainedByTheFaultThatCaughtThem(t *testing.T) {
	moment := func(milliseconds int) Fault {
		return Fault{What: "kill", At: at(milliseconds), Until: at(milliseconds), Resends: true, Unlogged: true}
	}
	t.Run("caught while held", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		run.Faults = []Fault{moment(12)}
		report := Check(run)
		expect(t, report)
		if report.Resent != 1 || report.Bound < 1 {
			t.Errorf("%+v", report)
		}
	})
	t.Run("recorded before the fault", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		run.Faults = []Fault{moment(15 + int(sendMargin/time.Millisecond) + 1)}
		expect(t, Check(run), Dup)
	})
	t.Run("sent after the fault", func(t *testing.T) {
		run := clean()
		again(&run, 1500)
		run.Records[0].Arrived, run.Records[0].Answered = at(900), at(901)
		run.Rows[0].Started, run.Rows[0].Recorded = at(899), at(905)
		run.Faults = []Fault{moment(100)}
		expect(t, Check(run), Dup)
	})
	t.Run("once per fault", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		again(&run, 600)
		run.Faults = []Fault{moment(12)}
		expect(t, Check(run), Dup)
		run.Faults = append(run.Faults, moment(503))
		expect(t, Check(run))
	})
	t.Run("the second send is refused and retried", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		run.Records[8].Status, run.Rows[8].Success, run.Rows[8].Final = 500, false, false
		again(&run, 600)
		expect(t, Check(run), Dup)
		run.Faults = []Fault{moment(12)}
		expect(t, Check(run))
	})
	t.Run("another process was killed", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		kill := moment(12)
		kill.OneOf = true
		run.Faults = []Fault{kill}
		run.Closed[1] = at(13)
		run.Records[4].Conn = 77 // else the next message at this endpoint uses the same connection
		expect(t, Check(run))
		run.Records[4].Conn = 1
		run.Closed[1] = at(3000)
		expect(t, Check(run), Dup)
	})
	t.Run("a process that recorded the result later was not killed", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		kill := moment(12)
		kill.OneOf = true
		run.Faults = []Fault{kill}
		run.Closed[1] = at(13)
		run.Records[4].Conn = 77
		run.Rows[0].Recorded = at(12 + int(sendMargin/time.Millisecond))
		expect(t, Check(run))
		run.Rows[0].Recorded = run.Rows[0].Recorded.Add(1)
		expect(t, Check(run), Dup)
	})
	t.Run("the same process held another request on the connection", func(t *testing.T) {
		run := clean()
		again(&run, 500)
		kill := moment(12)
		kill.At, kill.Until, kill.OneOf = at(5), at(14), true
		run.Faults = []Fault{kill}
		run.Records[4].Arrived, run.Records[4].Answered = at(12), at(2012)
		run.Rows[4].Started = at(11)
		run.Closed[1] = at(2013)
		run.Messages[2].Posted, run.Messages[2].Answered = at(1), at(2)
		expect(t, Check(run))
	})
	t.Run("a stretch allows what was under way at one moment", func(t *testing.T) {
		run := clean()
		// Deliveries 0 and 2 (messages 0 and 1) are each sent again, but were never under way together.
		again(&run, 500)
		record, row := run.Records[2], run.Rows[2]
		record.Arrived, record.Answered, record.Conn = at(1500), at(1501), 98
		row.Started, row.Recorded = at(1499), at(1505)
		run.Records, run.Rows = append(run.Records, record), append(run.Rows, row)
		run.Records, run.Rows = remove(run.Records, 1, 3), remove(run.Rows, 1, 3)
		run.Messages[0].Endpoints, run.Messages[1].Endpoints = []int{0}, []int{2}
		run.Faults = []Fault{{What: "flush", At: at(0), Until: at(1900), Resends: true}}
		report := Check(run)
		expect(t, report, Dup)
		if text := report.Findings[0].Text; !strings.Contains(text, "led to 2 sends more, but at most 1 were under way") {
			t.Error(text)
		}
	})
}

func remove[T any](list []T, indexes ...int) []T {
	var kept []T
	for i, element := range list {
		if i != indexes[0] && i != indexes[1] {
			kept = append(kept, element)
		}
	}
	return kept
}

func TestAMissingRowIsExplainedByTheFaultThatCaughtTheSend(t *testing.T) {
	run := clean()
	run.Rows = run.Rows[1:]
	run.Faults = []Fault{{At: at(50), Until: at(50), Unlogged: true}}
	report := Check(run)
	expect(t, report)
	if report.Unlogged != 1 {
		t.Errorf("%+v", report)
	}
	run.Faults[0].At, run.Faults[0].Until = at(112), at(112) // answered at 11, lag 100
	expect(t, Check(run), Silent)
	run.Faults[0] = Fault{At: at(50), Until: at(50), Resends: true}
	expect(t, Check(run), Silent)
}

func TestRecovery(t *testing.T) {
	run := clean()
	tests := []struct {
		name  string
		slow  []int // messages that arrive two seconds late
		took  time.Duration
		again bool
	}{
		{"never disturbed", nil, 0, true},
		{"slow at first", []int{0, 1}, 1500 * time.Millisecond, true},
		{"slow once more", []int{2}, 2500 * time.Millisecond, true},
		{"slow to the end", []int{3}, 3500 * time.Millisecond, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run := clean()
			for _, seq := range test.slow {
				for i := range run.Records {
					if run.Records[i].Seq == seq {
						run.Records[i].Arrived = run.Records[i].Arrived.Add(2 * time.Second)
					}
				}
			}
			took, ok := Recovery(run, at(0))
			if took != test.took || ok != test.again {
				t.Errorf("%v %v", took, ok)
			}
		})
	}
	if _, ok := Recovery(run, at(5000)); ok {
		t.Error("recovered with nothing to judge by")
	}
	run.Records = nil
	if _, ok := Recovery(run, at(0)); ok {
		t.Error("recovered without any delivery")
	}
}

func TestAnAttemptThatReachedNobodyIsExplainedByTheFaultItSpans(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*Row, *Fault)
		want  []Invariant
	}{
		{"under way when the process was stopped", func(*Row, *Fault) {}, nil},
		{"another kind of fault", func(_ *Row, f *Fault) { f.Unsent = false }, []Invariant{Silent}},
		{"begun afterwards", func(r *Row, _ *Fault) { r.Started = at(401) }, []Invariant{Silent}},
		{"recorded before", func(r *Row, _ *Fault) { r.Recorded = at(399) }, []Invariant{Silent}},
		{"recorded as a success", func(r *Row, _ *Fault) { r.Success = true }, []Invariant{Silent}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run := clean()
			row := Row{Pair: run.Rows[0].Pair, Sent: true, Started: at(300), Recorded: at(900)}
			fault := Fault{At: at(400), Until: at(400), Unsent: true}
			test.spoil(&row, &fault)
			run.Rows, run.Faults = append(run.Rows, row), []Fault{fault}
			expect(t, Check(run), test.want...)
		})
	}
}

func TestWhatWasAskedForIsSentOnceMore(t *testing.T) {
	ask := func(milliseconds int) Ask { return Ask{Pair: Pair{"msg_0", 0}, At: at(milliseconds)} }
	perhaps := ask(400)
	perhaps.Perhaps = true
	tests := []struct {
		name  string
		asks  []Ask
		sends []int
		want  []Invariant
	}{
		{"asked and sent", []Ask{ask(400)}, []int{500}, nil},
		{"asked and not sent", []Ask{ask(400)}, nil, []Invariant{Lost}},
		{"sent before it was asked", []Ask{ask(600)}, []int{500}, []Invariant{Lost}},
		{"asked once and sent twice", []Ask{ask(400)}, []int{500, 600}, []Invariant{Dup}},
		{"asked twice and sent twice", []Ask{ask(400), ask(550)}, []int{500, 600}, nil},
		{"asked twice and sent once", []Ask{ask(400), ask(450)}, []int{500}, []Invariant{Lost}},
		{"the second time missing", []Ask{ask(400), ask(550)}, []int{500}, []Invariant{Lost}},
		{"perhaps, and not sent", []Ask{perhaps}, nil, nil},
		{"perhaps, and sent", []Ask{perhaps}, []int{500}, nil},
		{"perhaps, and sent twice", []Ask{perhaps}, []int{500, 600}, []Invariant{Dup}},
		{"firm after perhaps", []Ask{perhaps, ask(450)}, []int{500}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			run := clean()
			run.Asked = test.asks
			for _, milliseconds := range test.sends {
				again(&run, milliseconds)
			}
			report := Check(run)
			expect(t, report, test.want...)
			if report.Asked != len(test.asks) || len(test.want) == 0 && report.Resent != 0 {
				t.Errorf("%+v", report)
			}
		})
	}
	t.Run("asked because the first send was refused", func(t *testing.T) {
		run := clean()
		run.Asked = []Ask{ask(400)}
		again(&run, 500)
		run.Records[0].Status, run.Rows[0].Success = 500, false
		expect(t, Check(run))
		run.Records[0].Status, run.Rows[0].Success = 200, true
		again(&run, 600)
		run.Records[0].Status, run.Rows[0].Success = 500, false
		expect(t, Check(run), Dup) // the first success answered the request: it allows no more
	})
	t.Run("a fault explains one more", func(t *testing.T) {
		run := clean()
		run.Asked = []Ask{ask(400)}
		again(&run, 500)
		again(&run, 600)
		run.Faults = []Fault{{What: "kill", At: at(503), Until: at(503), Resends: true}}
		report := Check(run)
		expect(t, report)
		if report.Resent != 1 {
			t.Errorf("%+v", report)
		}
	})
}

func TestP99(t *testing.T) {
	run := clean()
	if got, n := P99(run.Messages, run.Records, run.Endpoints); got != 10*time.Millisecond || n != 8 {
		t.Errorf("%v of %d", got, n)
	}
	run.Records[3].Arrived = at(1500) // message 1 at endpoint 3
	run.Endpoints[3].Flaky = true
	if got, n := P99(run.Messages, run.Records, run.Endpoints); got != 10*time.Millisecond || n != 6 {
		t.Errorf("a flaky endpoint counts: %v of %d", got, n)
	}
	again(&run, 500)
	if got, _ := P99(run.Messages, run.Records, run.Endpoints); got != 10*time.Millisecond {
		t.Errorf("a second arrival counts: %v", got)
	}
	run.Messages[0].Outcome = Unknown
	if _, n := P99(run.Messages, run.Records, run.Endpoints); n != 4 {
		t.Errorf("what was not accepted counts: %d", n)
	}
	if got, _ := P99(run.Messages, nil, run.Endpoints); got < time.Minute {
		t.Errorf("nothing arrived within %v", got)
	}
	if got, n := P99(nil, run.Records, run.Endpoints); got != 0 || n != 0 {
		t.Errorf("%v of %d", got, n)
	}
}

func TestWhatFailsUnseenIsJudgedByItsRows(t *testing.T) {
	unseen := func() Run {
		run := clean()
		run.Endpoints[0].Unseen = true
		run.Records = run.Records[1:] // message 0 never reached endpoint 0
		run.Rows[0].Success = false
		run.Rows[0].Final = true
		return run
	}
	report := Check(unseen())
	expect(t, report)
	if report.GivenUp != 1 || report.Delivered != 7 {
		t.Errorf("%+v", report)
	}
	run := unseen()
	run.Rows[0].Final = false
	expect(t, Check(run), Lost)
	run = unseen()
	run.Rows[0].Success = true
	expect(t, Check(run), Lost, Silent, FalseOK)
	run = unseen()
	run.Endpoints[0].Unseen = false
	expect(t, Check(run), Lost, Silent)
}

// What was posted after another message was accepted must not be taken before it, at an ordered endpoint.
func TestOrder(t *testing.T) {
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	for name, c := range map[string]struct {
		answered int // of the first message; the second is posted at 20
		arrivals [2]int
		ordered  bool
		want     int
	}{
		"in order":                    {10, [2]int{40, 50}, true, 0},
		"the other way round":         {10, [2]int{50, 40}, true, 1},
		"posted at the same time":     {25, [2]int{50, 40}, true, 0},
		"where there is no order":     {10, [2]int{50, 40}, false, 0},
		"accepted just when the next": {20, [2]int{50, 40}, true, 0},
	} {
		run := Run{Endpoints: []Endpoint{{ID: "ep", Ordered: c.ordered}}, Stored: 2}
		for i, id := range []string{"msg_1", "msg_2"} {
			run.Messages = append(run.Messages, Message{
				Seq: i, IDs: []string{id}, Endpoints: []int{0}, Outcome: Accepted,
				Posted: at(20 * i), Answered: at(c.answered + 25*i), Tries: 1,
			})
			run.Records = append(run.Records, Record{ID: id, Seq: i, Status: 200, Signed: true, Arrived: at(c.arrivals[i]), Answered: at(c.arrivals[i] + 1)})
		}
		if got := Check(run).Counts[Order]; got != c.want {
			t.Errorf("%s: %d findings, want %d", name, got, c.want)
		}
	}
}
