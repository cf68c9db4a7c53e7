package chaos

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/internal/egress"
	"github.com/posthaste/posthaste/internal/webhook"
)

// serveGuests runs a sink with guests of some manners and returns the addresses of its two listeners.
func serveGuests(t *testing.T, manners []*manner) *stage {
	t.Helper()
	s := &stage{sink: newSink(Fault{guests: manners}.receivers()[tenants*endpointsPerTenant:], 1), bites: make(map[string]int)}
	listeners, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.sink.run(ctx, listeners...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestGuestsMisbehaveUntilTheyAreMended(t *testing.T) {
	manners := slices.Concat(breaks(), bombs())
	gzipped() // takes longer than an attempt may here
	s := serveGuests(t, manners)
	client := egress.New(egress.Options{
		Policy:  egress.Policy{AllowHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		Timeout: 500 * time.Millisecond,
	})
	defer client.Close()
	send := func(number int) egress.Result {
		url := "http://" + s.at(s.sink.receivers[number]) + endpointPath + strconv.Itoa(number)
		return client.Send(t.Context(), egress.Request{URL: url, Body: []byte(`{}`)})
	}
	for number, m := range manners {
		want := webhook.ClassNone
		if len(m.classes) > 0 {
			want = m.classes[0]
		}
		if got := send(number); got.Class != want || got.OK() != (m.status == 200) {
			t.Errorf("%s: %s (%s), want %q", m.name, got.Class, got.Error, want)
		}
	}
	if n := s.sink.slammed.Load(); n != 1 {
		t.Errorf("%d connections were reset at once", n)
	}
	records, _ := s.sink.snapshot()
	if len(records) != len(manners)-1 { // the other was never read
		t.Errorf("%d requests in the ledger for %d guests", len(records), len(manners))
	}
	s.sink.mended.Store(true)
	for number, m := range manners {
		if got := send(number); !got.OK() {
			t.Errorf("%s, mended: %s (%s)", m.name, got.Class, got.Error)
		}
	}
}

func TestNamesResolveWhenTheyAreMended(t *testing.T) {
	server, err := startNameServer(answers)
	if err != nil {
		t.Fatal(err)
	}
	defer server.close()
	ask := func(name string) string {
		query := dnsmessage.Message{Questions: []dnsmessage.Question{{
			Name: dnsmessage.MustNewName(name + "."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
		}}}
		packet, err := query.Pack()
		if err != nil {
			t.Fatal(err)
		}
		var reply dnsmessage.Message
		switch text := server.reply(packet); {
		case text == nil:
			return "silence"
		case reply.Unpack(text) != nil:
			return "nonsense"
		case reply.RCode != dnsmessage.RCodeSuccess:
			return reply.RCode.String()
		}
		return netip.AddrFrom4(reply.Answers[0].Body.(*dnsmessage.AResource).A).String()
	}
	for name, want := range map[string]string{
		nameFails: "RCodeServerFailure", nameSilent: "silence", nameUnknown: "RCodeNameError", "other.example": "RCodeNameError",
	} {
		if got := ask(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	ok := 0
	for since := range time.Duration(4) {
		if answers(nameFlaps, since*flapEvery) == (answer{}) {
			ok++
		}
	}
	if ok != 2 {
		t.Errorf("a name that flaps resolves %d times of 4", ok)
	}
	server.mended.Store(true)
	for _, m := range lost() {
		if got := ask(m.host); got != "127.0.0.1" {
			t.Errorf("%s, mended: %s", m.host, got)
		}
	}
	if server.reply([]byte("x")) != nil {
		t.Error("nonsense was answered")
	}
}

func TestAttemptsAtGuestsAreJudged(t *testing.T) {
	m := &manner{name: "slow", classes: []webhook.ErrorClass{webhook.ClassTimeoutBody, webhook.ClassReset}, least: time.Second, most: 2 * time.Second}
	good := &manner{name: "good"}
	tests := []struct {
		name string
		m    *manner
		row  ledger.Row
		bite string
		want ledger.Invariant
	}{
		{"as expected", m, ledger.Row{Class: "timeout_body", Took: time.Second}, "slow", ""},
		{"also allowed", m, ledger.Row{Class: "connection_reset"}, "class connection_reset", ""},
		{"another class", m, ledger.Row{Class: "protocol"}, "", ledger.Class},
		{"too soon", m, ledger.Row{Class: "timeout_body", Took: time.Second - 1}, "slow", ledger.Class},
		{"too late", m, ledger.Row{Class: "timeout_body", Took: 2*time.Second + 1}, "slow", ledger.Class},
		{"mended", m, ledger.Row{Success: true}, "", ""},
		{"a success that has to be", good, ledger.Row{Success: true}, "good", ""},
		{"a failure that may not be", good, ledger.Row{Class: "protocol"}, "", ledger.Class},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := &stage{options: Options{Timed: true}, bites: make(map[string]int)}
			s.judgeRow(test.m, test.row)
			if (test.bite != "") != (len(s.bites) > 0) || test.bite != "" && s.bites[test.bite] != 1 {
				t.Errorf("bites %v", s.bites)
			}
			if (test.want != "") != (len(s.extra.Findings) > 0) || s.extra.Counts[test.want] != len(s.extra.Findings) {
				t.Errorf("found %v", s.extra.Findings)
			}
		})
	}
}

func TestGuestsHaveNamesOfTheirOwn(t *testing.T) {
	for _, f := range Faults() {
		seen := make(map[string]bool)
		for _, m := range f.guests {
			if m.name == "" || seen[m.name] && !m.harmless() {
				t.Errorf("%s: a guest is called %q", f.ID, m.name)
			}
			seen[m.name] = true
		}
		if len(f.guests) > 0 && f.invitation.messages == 0 {
			t.Errorf("%s: nothing is posted to the guests", f.ID)
		}
	}
}
