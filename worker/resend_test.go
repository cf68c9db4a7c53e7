package worker

import (
	"net/http"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// resend asks for a message once more, as the API does.
func (p *platform) resend(m webhook.Message, e webhook.Endpoint) {
	p.t.Helper()
	handOut, err := p.pub.Resend(p.t.Context(), p.view, p.app.ID.String(), m.ID.String(), e.ID.String())
	if err != nil {
		p.t.Fatal(err)
	}
	handOut()
}

func TestADeliveredMessageIsSentAgain(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusOK))
	e := p.endpoint(r.URL)
	m := p.publish(`{"n": 1}`)
	p.ended(m)
	p.resend(m, e)
	attempts := p.ended(m)
	if len(attempts) != 2 {
		t.Fatalf("%d attempts", len(attempts))
	}
	if a := attempts[1]; a.Trigger != webhook.TriggerManual || a.Number != 1 || a.Status != webhook.StatusSuccess || !a.Final {
		t.Errorf("sent again as %+v", a)
	}
	requests, bodies := r.requests()
	if len(requests) != 2 || bodies[0] != bodies[1] || requests[0].Header.Get("Webhook-Id") != requests[1].Header.Get("Webhook-Id") {
		t.Errorf("%d requests with bodies %q", len(requests), bodies)
	}
}

// far is a schedule whose next step never comes during a test.
func far(o *Options) { o.Policy = webhook.Policy{Schedule: []time.Duration{time.Hour, time.Hour}} }

// attempted waits until a message has so many attempts, and returns how many deliveries it is owed.
func (p *platform) attempted(m webhook.Message, attempts int) (owed int) {
	p.t.Helper()
	p.until("the attempts are recorded", func() bool {
		var n int
		err := p.sql.QueryRow(p.t.Context(), `SELECT (SELECT count(*) FROM attempt WHERE message_id = $1),
			(SELECT count(*) FROM delivery WHERE message_id = $1)`, m.ID.UUID()).Scan(&n, &owed)
		if err != nil {
			p.t.Fatal(err)
		}
		return n == attempts
	})
	return owed
}

func TestAManualSuccessEndsTheScheduledRetries(t *testing.T) {
	p := start(t, far)
	r := receive(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	e := p.endpoint(r.URL)
	m := p.publish(`{}`)
	if owed := p.attempted(m, 1); owed != 1 {
		t.Fatalf("%d deliveries are owed after the first failure", owed)
	}
	p.resend(m, e)
	if owed := p.attempted(m, 2); owed != 0 {
		t.Errorf("%d deliveries are owed after a manual success", owed)
	}
}

func TestAManualFailureLeavesTheScheduledRetriesAlone(t *testing.T) {
	p := start(t, far)
	r := receive(t, status(http.StatusInternalServerError))
	e := p.endpoint(r.URL)
	m := p.publish(`{}`)
	p.attempted(m, 1)
	scheduled := func() (row string) {
		if err := p.sql.QueryRow(t.Context(), `SELECT d::text FROM delivery d WHERE message_id = $1`, m.ID.UUID()).Scan(&row); err != nil {
			t.Fatal(err)
		}
		return row
	}
	before := scheduled()
	p.resend(m, e)
	if owed := p.attempted(m, 2); owed != 1 {
		t.Errorf("%d deliveries are owed after a manual failure", owed)
	}
	if after := scheduled(); after != before {
		t.Errorf("the scheduled delivery changed from %s to %s", before, after)
	}
}

// What the window has no room for is parked, and goes by the feeder.
func TestAParkedResendGoes(t *testing.T) {
	p := assembleWith(t, 1)
	r := receive(t, status(http.StatusOK))
	e := p.endpoint(r.URL)
	m := p.publish(`{}`)
	p.until("the window is full", func() bool { p.publish(`{}`); return !p.disp.Admits() })
	p.resend(m, e)
	var parked int
	if err := p.sql.QueryRow(t.Context(), `SELECT count(*) FROM delivery WHERE trigger = 1 AND state = 3`).Scan(&parked); err != nil || parked != 1 {
		t.Fatalf("%d are parked (%v)", parked, err)
	}
	p.run()
	if attempts := p.ended(m); len(attempts) == 0 {
		t.Error("nothing was sent")
	}
}
