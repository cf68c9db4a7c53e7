package worker

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/publish"
	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/signature/signaturetest"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestAMessageArrivesSignedAndByteForByte(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusNoContent))
	e := p.endpoint(r.URL + "/hook")
	if err := p.view.ReplaceEndpointHeaders(t.Context(), p.app.ID.String(), e.ID.String(), map[string]string{"X-Token": "hunter2"}); err != nil {
		t.Fatal(err)
	}
	const payload = `{ "n": 12345678901234567890.000,  "n":1, "s":"\u0000\ud800 é" }`
	m := p.publish(payload)
	attempts := p.ended(m)
	requests, bodies := r.requests()
	if len(requests) != 1 || bodies[0] != payload {
		t.Fatalf("%d requests with bodies %q", len(requests), bodies)
	}
	got := requests[0]
	secret, err := p.view.EndpointSecret(t.Context(), p.app.ID.String(), e.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	key, err := signature.Parse(secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if err := signature.Verify(signature.Verifiers(key), got.Header, []byte(payload), time.Now()); err != nil {
		t.Errorf("the signature does not verify: %v", err)
	}
	if got.Method != http.MethodPost || got.Header.Get("Webhook-Id") != m.ID.String() ||
		got.Header.Get("Content-Type") != "application/json" || got.Header.Get("X-Token") != "hunter2" {
		t.Errorf("request %s with header %v", got.Method, got.Header)
	}
	a := attempts[0]
	if len(attempts) != 1 || a.Status != webhook.StatusSuccess || a.HTTPStatus != 204 || a.Number != 1 || !a.Sent || a.URL != r.URL+"/hook" {
		t.Errorf("attempts %+v", attempts)
	}
	d := a.Detail
	if d.RemoteIP != "127.0.0.1" || d.Timings == nil || d.Timings.Total <= 0 || len(d.SignedWith) != 1 || len(d.ResponseHeaders) == 0 {
		t.Errorf("detail %+v", d)
	}
	if !slices.Contains(d.RequestHeaders, webhook.Header{Name: "X-Token", Value: masked}) {
		t.Errorf("the custom header is not kept, or not masked: %v", d.RequestHeaders)
	}
}

func TestARawPayloadArrivesAsWhatItIs(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusOK))
	p.endpoint(r.URL)
	const payload = "<order n=\"1\"/>\n"
	m, _, err := p.pub.Accept(t.Context(), publish.Request{
		Tenant: p.app.TenantID, Application: p.app.ID.String(),
		Message: webhook.Message{EventType: "user.created", Payload: []byte(payload), ContentType: "application/xml"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.ended(m)
	requests, bodies := r.requests()
	if len(requests) != 1 || bodies[0] != payload || requests[0].Header.Get("Content-Type") != "application/xml" {
		t.Errorf("%d requests, with bodies %q", len(requests), bodies)
	}
}

func TestAFailureIsRetriedUntilItIsTaken(t *testing.T) {
	p := start(t)
	r := receive(t, func(n int, w http.ResponseWriter, _ *http.Request) {
		if n < 3 {
			http.Error(w, fmt.Sprint("no ", n), http.StatusInternalServerError)
		}
	})
	p.endpoint(r.URL)
	m := p.publish(`{}`)
	attempts := p.ended(m)
	if len(attempts) != 3 {
		t.Fatalf("%d attempts", len(attempts))
	}
	for i, a := range attempts {
		last := i == 2
		if int(a.Number) != i+1 || a.Final != last || (a.Status == webhook.StatusSuccess) != last || (a.Detail.NextAttempt == nil) != last {
			t.Errorf("attempt %d: %+v", i+1, a)
		}
	}
	if a := attempts[0]; a.Class != webhook.ClassServerError || a.HTTPStatus != 500 || string(a.Response) != "no 1\n" {
		t.Errorf("first attempt: %+v with answer %q", a, a.Response)
	}
	requests, _ := r.requests()
	for _, req := range requests {
		if req.Header.Get("Webhook-Id") != m.ID.String() {
			t.Errorf("an attempt has id %q", req.Header.Get("Webhook-Id"))
		}
	}
}

func TestAnExhaustedDeliveryEndsVisibly(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusTeapot))
	p.endpoint(r.URL)
	attempts := p.ended(p.publish(`{}`))
	last := attempts[len(attempts)-1]
	if len(attempts) != 3 || last.Status != webhook.StatusFail || last.Class != webhook.ClassClientError || !last.Final {
		t.Errorf("%d attempts, the last %+v", len(attempts), last)
	}
	if requests, _ := r.requests(); len(requests) != 3 {
		t.Errorf("%d requests, want as many as attempts", len(requests))
	}
}

func TestDisabledAndDeletedEndpointsReceiveNothing(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	disabled, deleted := p.endpoint(r.URL), p.endpoint(r.URL)
	m := p.publish(`{}`)
	if _, err := p.view.PatchEndpoint(t.Context(), p.app.ID.String(), disabled.ID.String(), func(e *store.NewEndpoint) error {
		e.Disabled = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), deleted.ID.String()); err != nil {
		t.Fatal(err)
	}
	p.run()
	attempts := p.ended(m)
	if len(attempts) != 2 {
		t.Errorf("%d attempts", len(attempts))
	}
	for _, a := range attempts {
		if a.Sent || a.Status != webhook.StatusCanceled || a.Class != webhook.ClassCanceled || !a.Final {
			t.Errorf("ended as %+v", a)
		}
	}
	if requests, _ := r.requests(); len(requests) != 0 {
		t.Errorf("%d requests", len(requests))
	}
}

func TestARotatedSecretSignsBesideTheNewOne(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusOK))
	e := p.endpoint(r.URL)
	secret := func() signature.Key {
		text, err := p.view.EndpointSecret(t.Context(), p.app.ID.String(), e.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		key, err := signature.Parse(text.Reveal())
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	old := secret()
	next := signature.Generate(signature.Ed25519)
	if err := p.view.RotateEndpointSecret(t.Context(), p.app.ID.String(), e.ID.String(), next.Secret(), time.Hour); err != nil {
		t.Fatal(err)
	}
	attempts := p.ended(p.publish(`{}`))
	requests, _ := r.requests()
	for name, key := range map[string]signature.Key{"old": old, "new": secret()} {
		if err := signature.Verify(signature.Verifiers(key), requests[0].Header, []byte(`{}`), time.Now()); err != nil {
			t.Errorf("%s key: %v", name, err)
		}
	}
	if got := requests[0].Header.Get("Webhook-Signature"); !strings.HasPrefix(got, "v1a,") {
		t.Errorf("the current key does not sign first: %s", got)
	}
	if len(attempts[0].Detail.SignedWith) != 2 {
		t.Errorf("signed with %v", attempts[0].Detail.SignedWith)
	}
}

// TestABacklogThatDoesNotFitTheWindowIsDelivered accepts far more than Redis may hold before any
// worker runs.
func TestABacklogThatDoesNotFitTheWindowIsDelivered(t *testing.T) {
	p := assembleWith(t, 2)
	var mu sync.Mutex
	seen := map[string]int{}
	r := receive(t, func(_ int, w http.ResponseWriter, req *http.Request) {
		mu.Lock()
		seen[req.Header.Get("Webhook-Id")]++
		mu.Unlock()
	})
	p.endpoint(r.URL)
	const total = 600
	var last webhook.Message
	for range total {
		last = p.publish(`{}`)
	}
	if n, err := p.queued(t.Context()); err != nil || n > 30 {
		t.Errorf("%d tasks in a window of 2, %v", n, err)
	}
	p.run()
	p.ended(last)
	p.drained()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != total {
		t.Errorf("%d of %d messages arrived", len(seen), total)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s arrived %d times", id, n)
		}
	}
}

func TestAStoppedWorkerFinishesWhatItBeganAndHandsBackTheRest(t *testing.T) {
	p := start(t, func(o *Options) { o.Concurrency, o.AttemptTimeout = 4, time.Minute })
	begun := make(chan struct{}, 100)
	finish := make(chan struct{})
	r := receive(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-finish
	})
	p.endpoint(r.URL)
	var messages []webhook.Message
	for range 20 {
		messages = append(messages, p.publish(`{}`))
	}
	<-begun
	stopped := make(chan struct{})
	go func() { p.stop(); close(stopped) }()
	<-p.worker.stop.Done()
	close(finish)
	<-stopped
	requests, _ := r.requests()
	before := len(requests)
	recorded := 0
	for _, m := range messages {
		list, err := p.view.AttemptsByMessage(context.Background(), p.app.ID.String(), m.ID.String(), store.AttemptFilter{}, store.Page{})
		if err != nil {
			t.Fatal(err)
		}
		recorded += len(list.Data)
	}
	if recorded != before {
		t.Errorf("%d requests were sent and %d results recorded", before, recorded)
	}
	// Another worker takes the rest, without waiting for any lease.
	w := New(p.worker.o)
	p.worker = w
	p.run()
	for _, m := range messages {
		p.ended(m)
	}
	if requests, _ := r.requests(); len(requests) != len(messages) {
		t.Errorf("%d requests for %d messages", len(requests), len(messages))
	}
}

// TestAnEmptiedQueueLosesNothing throws Redis's data away while deliveries are in it.
func TestAnEmptiedQueueLosesNothing(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	p.endpoint(r.URL)
	p.run()
	p.ended(p.publish(`{}`)) // the sentinel is known
	p.stop()
	var messages []webhook.Message
	for range 50 {
		messages = append(messages, p.publish(`{}`))
	}
	p.flushQueue()
	p.worker = New(p.worker.o)
	p.run()
	for _, m := range messages {
		p.ended(m)
	}
	if requests, _ := r.requests(); len(requests) != len(messages)+1 {
		t.Errorf("%d requests for %d messages", len(requests), len(messages)+1)
	}
}

func TestPoisonEndsAfterItsTriesAlone(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	p.endpoint(r.URL)
	m := p.publish(`{}`)
	p.flushQueue()
	p.exec(`UPDATE delivery SET due_at = now(), lost = $1`, webhook.PoisonAfter)
	p.run()
	a := p.ended(m)
	if len(a) != 1 || a[0].Sent || a[0].Class != webhook.ClassPoison || a[0].Status != webhook.StatusFail {
		t.Errorf("ended as %+v", a)
	}
	if requests, _ := r.requests(); len(requests) != 0 {
		t.Errorf("%d requests", len(requests))
	}
}

func TestASuspectIsStillDelivered(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	p.endpoint(r.URL)
	m := p.publish(`{}`)
	p.flushQueue()
	p.exec(`UPDATE delivery SET due_at = now(), lost = $1`, webhook.PoisonAfter-2)
	p.run()
	if a := p.ended(m); len(a) != 1 || a[0].Status != webhook.StatusSuccess {
		t.Errorf("ended as %+v", a)
	}
}

func TestJudge(t *testing.T) {
	fence := webhook.Fence{Attempt: 1, Feed: 2}
	job := func(change func(*store.Job)) store.Job {
		j := store.Job{Known: true, State: webhook.StateReleased, Lease: time.Minute, Delivery: webhook.Delivery{Fence: fence}}
		change(&j)
		return j
	}
	for name, test := range map[string]struct {
		job  store.Job
		want verdict
	}{
		"as handed out":         {job(func(*store.Job) {}), mayGo},
		"exactly enough lease":  {job(func(j *store.Job) { j.Lease = 20 * time.Second }), mayGo},
		"just too little lease": {job(func(j *store.Job) { j.Lease = 20*time.Second - 1 }), tooLate},
		"lease over":            {job(func(j *store.Job) { j.Lease = -time.Second }), tooLate},
		"ended":                 {job(func(j *store.Job) { j.Known = false }), stale},
		"handed out again":      {job(func(j *store.Job) { j.Delivery.Feed++ }), stale},
		"another attempt":       {job(func(j *store.Job) { j.Delivery.Attempt++ }), stale},
		"waiting":               {job(func(j *store.Job) { j.State = webhook.StateWaiting }), stale},
		"parked":                {job(func(j *store.Job) { j.State = webhook.StateParked }), stale},
		"lost often":            {job(func(j *store.Job) { j.Lost = webhook.AloneAfter }), mayGo},
		"lost too often":        {job(func(j *store.Job) { j.Lost = webhook.AloneAfter + 1 }), suspect},
	} {
		if got := judge(test.job, fence, 20*time.Second); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestAForeignKeysetFailsVisiblyAndSendsNothing(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	p.endpoint(r.URL)
	m := p.publish(`{}`)
	o := p.options
	o.Keyset = storetest.Keyset(t)
	p.worker.o.Store = storetest.OpenAt(t, o)
	p.run()
	for _, a := range p.ended(m) {
		if a.Sent || a.Class != webhook.ClassSecret || strings.Contains(a.Detail.Error, "key") && strings.Contains(a.Detail.Error, "whsec") {
			t.Errorf("attempt %+v", a)
		}
	}
	if requests, _ := r.requests(); len(requests) != 0 {
		t.Errorf("%d requests", len(requests))
	}
}

// TestReceiversVerifyWithTheLibrariesTheyHave captures real requests before, during and after a
// rotation and has them judged by the Standard Webhooks libraries for JavaScript and Go.
func TestReceiversVerifyWithTheLibrariesTheyHave(t *testing.T) {
	p := start(t)
	r := receive(t, status(http.StatusOK))
	e := p.endpoint(r.URL)
	secret := func() string {
		t.Helper()
		text, err := p.view.EndpointSecret(t.Context(), p.app.ID.String(), e.ID.String())
		if err != nil {
			t.Fatal(err)
		}
		return text.Reveal()
	}
	rotate := func(grace time.Duration) {
		t.Helper()
		if err := p.view.RotateEndpointSecret(t.Context(), p.app.ID.String(), e.ID.String(), storetest.SigningKey(), grace); err != nil {
			t.Fatal(err)
		}
	}
	var captured []signaturetest.Captured
	var want []bool
	send := func(accepted, refused []string) {
		t.Helper()
		for _, payload := range []string{`{}`, `{"text":"żółć 🙂 \u0000", "n": 1.0}`} {
			p.ended(p.publish(payload))
			requests, bodies := r.requests()
			last := len(requests) - 1
			for i, s := range append(slices.Clone(accepted), refused...) {
				captured = append(captured, signaturetest.Captured{Secret: s, Header: requests[last].Header, Body: []byte(bodies[last])})
				want = append(want, i < len(accepted))
			}
		}
	}
	first := secret()
	send([]string{first}, []string{storetest.SigningKey().Reveal()})
	rotate(time.Hour)
	second := secret()
	send([]string{first, second}, nil)
	rotate(0)
	third := secret()
	p.exec(`UPDATE endpoint_secret SET expires_at = now() WHERE expires_at IS NOT NULL`) // the first one's hour is over
	send([]string{third}, []string{first, second})

	for library, verdicts := range map[string][]error{
		"Go": signaturetest.VerifyWithGo(t, captured), "JavaScript": signaturetest.VerifyWithNode(t, captured),
	} {
		for i, err := range verdicts {
			if (err == nil) != want[i] {
				t.Errorf("%s: request %d: %v, want accepted %v", library, i, err, want[i])
			}
		}
	}
}

// What is to be delivered later waits for its time, which the feeder knows, and not for a worker.
func TestALaterMessageIsSentAtItsTime(t *testing.T) {
	p := start(t)
	p.endpoint(receive(t, status(http.StatusNoContent)).URL)
	late, _, err := p.pub.Accept(t.Context(), publish.Request{
		Tenant: p.app.TenantID, Application: p.app.ID.String(),
		Message: webhook.Message{EventType: "user.created", Payload: []byte(`{"late":1}`), DeliverAt: time.Now().Add(time.Hour)},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.ended(p.publish(`{"early":1}`))
	var waits bool
	err = p.sql.QueryRow(t.Context(), `SELECT state = 2 AND attempt = 0 AND due_at > now() + interval '59 minutes' FROM delivery WHERE message_id = $1`,
		late.ID.UUID()).Scan(&waits)
	if err != nil || !waits {
		t.Fatalf("it does not wait (%v)", err)
	}
	p.exec(`UPDATE delivery SET due_at = now() WHERE message_id = $1`, late.ID.UUID())
	if attempts := p.ended(late); len(attempts) != 1 || attempts[0].Status != webhook.StatusSuccess || attempts[0].Number != 1 {
		t.Errorf("%+v", attempts)
	}
}

// A process that stood still between taking a delivery over and sending it finds the lease at its end.
func TestWhatOutlivedItsLeaseIsNotBegun(t *testing.T) {
	p := assemble(t)
	r := receive(t, status(http.StatusOK))
	e := p.endpoint(r.URL)
	w := p.worker
	job := store.Job{
		Endpoint: e, Deliverable: true, MessageExists: true, Message: webhook.Message{ID: webhook.NewMessageID(), Payload: []byte(`{}`)},
		Delivery: webhook.Delivery{DeliveryKey: webhook.DeliveryKey{Tenant: e.TenantID, Endpoint: e.ID}},
	}
	f := &flight{job: job, lease: time.Now().Add(-time.Millisecond), place: place{lane: webhook.LaneLive}}
	if n, err := w.slots.take(t.Context(), f.lane, 1); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if became, _ := w.targets.admit(f, time.Now()); became != goes {
		t.Fatalf("admitted as %v", became)
	}
	w.launch(f)
	w.sends.Wait()
	if requests, _ := r.requests(); len(requests) != 0 {
		t.Error("it was sent")
	}
	if n := w.slots.taken[f.lane]; n != 0 {
		t.Errorf("%d places are still taken", n)
	}
	if n := f.target.underWay; n != 0 {
		t.Errorf("%d count as under way at its endpoint", n)
	}
	if n := p.count("attempt"); n != 0 {
		t.Errorf("%d attempts were recorded", n)
	}
}
