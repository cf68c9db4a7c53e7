package store_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

const lease = 30 * time.Second

var (
	released = store.Release{Released: true, Lease: lease}
	parked   = store.Release{Lease: lease}
)

// pipeline is a tenant with an application, and a connection to look behind the store's back.
type pipeline struct {
	*store.Store
	t       *testing.T
	options store.Options
	tenant  webhook.TenantID
	app     webhook.Application
	view    store.View
	sql     *pgx.Conn
}

func newPipeline(t *testing.T) *pipeline {
	t.Helper()
	url := storetest.Migrated(t)
	options := storetest.Options(t, url)
	s := storetest.OpenAt(t, options)
	tenant := storetest.Tenant(t, s)
	view := s.View(webhook.Scope{Tenant: tenant.ID})
	app, _, err := view.CreateApplication(t.Context(), webhook.Application{Name: "app", UID: "app-uid"}, false)
	if err != nil {
		t.Fatal(err)
	}
	return &pipeline{
		Store: s, t: t, options: options, tenant: tenant.ID, view: view, sql: storetest.Connect(t, url), app: app,
	}
}

func (p *pipeline) endpoint(change ...func(*webhook.Endpoint)) webhook.Endpoint {
	p.t.Helper()
	return storetest.Endpoint(p.t, p.Store, p.app, "https://example.com/hook", change...)
}

func (p *pipeline) message() store.Accept {
	m := webhook.Message{
		TenantID: p.tenant, ID: webhook.NewMessageID(), EventType: "user.created", Payload: []byte(`{"a": 1}`),
		ExpiresAt: time.Now().Add(24 * time.Hour),
	}
	return store.Accept{Message: m, Application: p.app.ID.String()}
}

func (p *pipeline) accept(r store.Release, messages ...store.Accept) []store.Accepted {
	p.t.Helper()
	got := p.Store.Accept(p.t.Context(), messages, r)
	for i, a := range got {
		if a.Err != nil {
			p.t.Fatalf("message %d: %v", i, a.Err)
		}
	}
	return got
}

func (p *pipeline) count(query string, args ...any) (n int) {
	p.t.Helper()
	if err := p.sql.QueryRow(p.t.Context(), `SELECT count(*) FROM `+query, args...).Scan(&n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

func (p *pipeline) exec(query string, args ...any) {
	p.t.Helper()
	if _, err := p.sql.Exec(p.t.Context(), query, args...); err != nil {
		p.t.Fatal(err)
	}
}

// result is what a worker would record of a delivery.
func (p *pipeline) result(d webhook.Delivery, success bool, outcome webhook.Outcome) store.Recorded {
	a := webhook.Attempt{
		TenantID: d.Tenant, ApplicationID: p.app.ID, MessageID: d.Message, EndpointID: d.Endpoint, ID: webhook.NewAttemptID(),
		Trigger: d.Trigger, Number: d.Attempt + 1, Sent: true, Status: webhook.StatusFail, HTTPStatus: 500,
		Class: webhook.ClassServerError, URL: "https://example.com/hook",
	}
	if success {
		a.Status, a.HTTPStatus, a.Class = webhook.StatusSuccess, 200, webhook.ClassNone
	}
	return store.Recorded{Delivery: d, Attempt: a, Outcome: outcome}
}

func (p *pipeline) record(results ...store.Recorded) {
	p.t.Helper()
	if err := p.Record(p.t.Context(), results); err != nil {
		p.t.Fatal(err)
	}
}

var over = webhook.Outcome{Final: true}

func keys(deliveries []webhook.Delivery) []webhook.EndpointID {
	ids := make([]webhook.EndpointID, len(deliveries))
	for i, d := range deliveries {
		ids[i] = d.Endpoint
	}
	slices.SortFunc(ids, func(a, b webhook.EndpointID) int { return strings.Compare(a.String(), b.String()) })
	return ids
}

func TestAcceptOwesTheMessageToTheEndpointsThatWantIt(t *testing.T) {
	p := newPipeline(t)
	all := p.endpoint()
	typed := p.endpoint(func(e *webhook.Endpoint) { e.EventTypes = []string{"user.created"} })
	p.endpoint(func(e *webhook.Endpoint) { e.EventTypes = []string{"user.deleted"} })
	channelled := p.endpoint(func(e *webhook.Endpoint) { e.Channels = []string{"eu", "us"} })
	p.endpoint(func(e *webhook.Endpoint) { e.Disabled = true })
	gone := p.endpoint()
	if err := p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), gone.ID.String()); err != nil {
		t.Fatal(err)
	}
	other := storetest.Application(t, p.Store, p.tenant)
	storetest.Endpoint(t, p.Store, other, "https://example.com/other")

	plain, inChannel, elsewhere := p.message(), p.message(), p.message()
	inChannel.Message.Channels = []string{"us", `odd"\,{}`}
	elsewhere.Message.Channels = []string{"asia"}
	elsewhere.Message.EventType = "user.changed"
	got := p.accept(released, plain, inChannel, elsewhere)
	for i, want := range [][]webhook.EndpointID{{all.ID, typed.ID}, {all.ID, typed.ID, channelled.ID}, {all.ID}} {
		if !slices.Equal(keys(got[i].Deliveries), want) {
			t.Errorf("message %d is owed to %v, want %v", i, keys(got[i].Deliveries), want)
		}
	}
	if n := p.count(`delivery WHERE state = 1 AND feed = 1 AND due_at BETWEEN now() + interval '25 s' AND now() + interval '30 s'`); n != 6 {
		t.Errorf("%d rows are released under a lease, want 6", n)
	}
	m, err := p.view.Message(t.Context(), p.app.ID.String(), inChannel.Message.ID.String())
	if err != nil || !slices.Equal(m.Channels, inChannel.Message.Channels) || string(m.Payload) != `{"a": 1}` {
		t.Errorf("stored as %+v, %v", m, err)
	}
}

func TestAcceptKnowsApplicationsByUIDAndAnswersInOrder(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	byUID, missing, foreign, byID := p.message(), p.message(), p.message(), p.message()
	byUID.Application = p.app.UID
	missing.Application = webhook.NewApplicationID().String()
	foreign.Message.TenantID = storetest.Tenant(t, p.Store).ID
	got := p.Store.Accept(t.Context(), []store.Accept{byUID, missing, foreign, byID}, released)
	for i, want := range []webhook.Kind{0, webhook.KindNotFound, webhook.KindNotFound, 0} {
		if err := got[i].Err; (err == nil) != (want == 0) || err != nil && webhook.KindOf(err) != want {
			t.Errorf("message %d: %v", i, err)
		}
	}
	if got[0].Message.ApplicationID != p.app.ID || got[3].Message.ID != byID.Message.ID || len(got[3].Deliveries) != 1 {
		t.Errorf("answers are mixed up: %+v", got)
	}
	if n := p.count("message"); n != 2 {
		t.Errorf("%d messages are stored, want 2", n)
	}
}

func (p *pipeline) keyed(key, body string, check bool) store.Accept {
	a := p.message()
	a.Idempotency = &store.Idempotency{Key: sha256.Sum256([]byte(key)), BodyHash: sha256.Sum256([]byte(body)), CheckBody: check}
	return a
}

func TestOneIdempotencyKeyIsOneMessage(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	first := p.accept(released, p.keyed("k", "body", true))[0]
	again := p.accept(released, p.keyed("k", "body", true))[0]
	if !again.Replayed || again.Message.ID != first.Message.ID || string(again.Message.Payload) != string(first.Message.Payload) || len(again.Deliveries) != 0 {
		t.Errorf("repeated: %+v, first %+v", again, first)
	}
	if err := p.Store.Accept(t.Context(), []store.Accept{p.keyed("k", "other", true)}, released)[0].Err; webhook.KindOf(err) != webhook.KindInvalid {
		t.Errorf("the key with another body: %v", err)
	}
	if lenient := p.accept(released, p.keyed("k", "other", false))[0]; lenient.Message.ID != first.Message.ID {
		t.Errorf("a library's key with another body: %+v", lenient)
	}
	batch := p.accept(released, p.keyed("b", "body", true), p.keyed("c", "body", true), p.keyed("b", "body", true))
	if batch[0].Replayed || batch[1].Replayed || !batch[2].Replayed || batch[2].Message.ID != batch[0].Message.ID {
		t.Errorf("twice in one batch: %+v", batch)
	}
	p.exec(`UPDATE idempotency SET created_at = now() - interval '12 hours 1 second'`)
	if late := p.accept(released, p.keyed("k", "other", true))[0]; late.Replayed || late.Message.ID == first.Message.ID {
		t.Errorf("after twelve hours the key is still taken: %+v", late)
	}
	if n := p.count("message"); n != 4 {
		t.Errorf("%d messages are stored, want 4", n)
	}
}

func TestConcurrentBatchesWithTheSameKeysMakeEachMessageOnce(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	const writers, keys = 8, 40
	ids := make([][]webhook.MessageID, writers)
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			batch := make([]store.Accept, keys)
			for k := range keys {
				at := k
				if w%2 == 1 {
					at = keys - 1 - k // the other way round: whoever does not sort deadlocks
				}
				batch[at] = p.keyed(fmt.Sprint("key", k), "body", true)
				if k%4 == 0 {
					batch[at].Message.EventID = fmt.Sprint("event", k)
				}
			}
			got := p.Store.Accept(t.Context(), batch, released)
			ids[w] = make([]webhook.MessageID, keys)
			for i, a := range got {
				if a.Err != nil {
					t.Errorf("writer %d, message %d: %v", w, i, a.Err)
				}
				k := i
				if w%2 == 1 {
					k = keys - 1 - i
				}
				ids[w][k] = a.Message.ID
			}
		})
	}
	group.Wait()
	for w := range writers {
		if !slices.Equal(ids[w], ids[0]) {
			t.Fatalf("writer %d got other messages than writer 0", w)
		}
	}
	if n := p.count("message"); n != keys {
		t.Errorf("%d messages are stored, want %d", n, keys)
	}
	if n := p.count("delivery"); n != keys {
		t.Errorf("%d deliveries are owed, want %d", n, keys)
	}
}

func TestAnEventIDIsTakenOncePerApplication(t *testing.T) {
	p := newPipeline(t)
	named := func(id, app string) store.Accept {
		a := p.message()
		a.Message.EventID, a.Application = id, app
		return a
	}
	other := storetest.Application(t, p.Store, p.tenant)
	p.accept(released, named("e", p.app.ID.String()), named("e", other.ID.String()))
	got := p.Store.Accept(t.Context(), []store.Accept{
		named("fine", p.app.ID.String()), named("e", p.app.ID.String()), named("twice", p.app.ID.String()), named("twice", p.app.UID),
	}, released)
	for i, want := range []bool{true, false, true, false} {
		if (got[i].Err == nil) != want || !want && webhook.KindOf(got[i].Err) != webhook.KindConflict {
			t.Errorf("message %d: %v", i, got[i].Err)
		}
	}
	if n := p.count("message"); n != 4 {
		t.Errorf("%d messages are stored, want 4", n)
	}
	m, err := p.view.Message(t.Context(), p.app.ID.String(), "twice")
	if err != nil || m.ID != got[2].Message.ID {
		t.Errorf("by event id: %+v, %v", m, err)
	}
}

// TestABadRowFailsAlone has Postgres refuse one message of a batch, wherever in the batch it is.
func TestABadRowFailsAlone(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	for at := range 5 {
		batch := make([]store.Accept, 5)
		for i := range batch {
			batch[i] = p.message()
		}
		batch[at].Message.EventType = "broken \xff"
		for i, a := range p.Store.Accept(t.Context(), batch, released) {
			if (a.Err != nil) != (i == at) {
				t.Errorf("bad row at %d, message %d: %v", at, i, a.Err)
			}
		}
	}
	if n := p.count("message"); n != 20 {
		t.Errorf("%d messages are stored, want 20", n)
	}
}

func TestJobsAreReadAsTheyAreNow(t *testing.T) {
	p := newPipeline(t)
	kept, disabled, deleted := p.endpoint(), p.endpoint(), p.endpoint()
	if err := p.view.ReplaceEndpointHeaders(t.Context(), p.app.ID.String(), kept.ID.String(), map[string]string{"X-Own": "v"}); err != nil {
		t.Fatal(err)
	}
	a := p.accept(released, p.message())[0]
	if _, err := p.view.PatchEndpoint(t.Context(), p.app.ID.String(), disabled.ID.String(), func(e *store.NewEndpoint) error {
		e.Disabled = true
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := p.view.DeleteEndpoint(t.Context(), p.app.ID.String(), deleted.ID.String()); err != nil {
		t.Fatal(err)
	}
	unknown := a.Deliveries[0]
	unknown.Message = webhook.NewMessageID()
	jobs, err := p.Jobs(t.Context(), append(slices.Clone(a.Deliveries), unknown))
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range a.Deliveries {
		j := jobs[i]
		if !j.Known || j.Delivery != d || j.State != webhook.StateReleased || string(j.Message.Payload) != `{"a": 1}` || j.Err != nil {
			t.Errorf("job %d: %+v", i, j)
		}
		if j.Lease < lease-5*time.Second || j.Lease > lease {
			t.Errorf("job %d has %v of its lease left", i, j.Lease)
		}
		if j.Deliverable != (d.Endpoint == kept.ID) {
			t.Errorf("endpoint %v is deliverable: %v", d.Endpoint, j.Deliverable)
		}
		if d.Endpoint == kept.ID && (len(j.Secrets) != 1 || j.Headers["X-Own"] != "v" || j.Endpoint.URL != kept.URL) {
			t.Errorf("the endpoint is %+v with %d secrets and headers %v", j.Endpoint, len(j.Secrets), j.Headers)
		}
	}
	if jobs[len(jobs)-1].Known {
		t.Error("a delivery that does not exist is known")
	}
}

func TestSuccessEndsADeliveryWhateverTheFence(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	d := p.accept(released, p.message())[0].Deliveries[0]
	p.exec(`UPDATE delivery SET feed = feed + 1`) // handed out again meanwhile
	p.record(p.result(d, true, over))
	if n := p.count("delivery"); n != 0 {
		t.Errorf("%d deliveries are still owed after a success", n)
	}
	if n := p.count("attempt WHERE final AND status = 0"); n != 1 {
		t.Errorf("%d attempts are final successes, want 1", n)
	}
}

func TestALateFailureChangesNothing(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	d := p.accept(released, p.message())[0].Deliveries[0]
	p.exec(`UPDATE delivery SET feed = feed + 1`)
	p.record(p.result(d, false, webhook.Outcome{Wait: time.Minute}), p.result(d, false, over))
	if n := p.count("delivery WHERE state = 1 AND attempt = 0 AND feed = 2"); n != 1 {
		t.Error("a fenced-out failure changed the delivery")
	}
	if n := p.count("attempt WHERE NOT final AND status = 2"); n != 2 {
		t.Errorf("%d attempts are recorded as not final, want 2", n)
	}
}

func TestAFailureWaitsForItsNextTry(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	p.endpoint()
	deliveries := p.accept(released, p.message())[0].Deliveries
	p.exec(`UPDATE delivery SET lost = 3`)
	p.record(p.result(deliveries[0], false, webhook.Outcome{Wait: time.Minute}), p.result(deliveries[1], false, webhook.Outcome{Wait: time.Hour}))
	for i, wait := range []string{"1 minute", "1 hour"} {
		if n := p.count(`delivery WHERE endpoint_id = $1 AND state = 2 AND attempt = 1 AND feed = 0 AND lost = 0
			AND due_at BETWEEN now() + $2::interval - interval '5 s' AND now() + $2::interval`, deliveries[i].Endpoint.UUID(), wait); n != 1 {
			t.Errorf("delivery %d does not wait %s", i, wait)
		}
	}
	fed, _, _, err := p.FeedDue(t.Context(), store.Scan{}, 10, lease)
	if err != nil || len(fed) != 0 {
		t.Errorf("fed before its time: %v, %v", fed, err)
	}
	p.exec(`UPDATE delivery SET due_at = now()`)
	fed, _, _, err = p.FeedDue(t.Context(), store.Scan{}, 10, lease)
	if err != nil || len(fed) != 2 || fed[0].Fence != (webhook.Fence{Attempt: 1, Feed: 1}) || fed[0].Lost != 0 {
		t.Errorf("fed at its time: %+v, %v", fed, err)
	}
}

func TestWritingAResultTwiceWritesItOnce(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	d := p.accept(released, p.message())[0].Deliveries[0]
	r := p.result(d, false, webhook.Outcome{Wait: time.Minute})
	p.record(r)
	p.record(r)
	if n := p.count("attempt"); n != 1 {
		t.Errorf("%d attempts, want 1", n)
	}
	if n := p.count("delivery WHERE attempt = 1"); n != 1 {
		t.Error("the second write counted the attempt again")
	}
}

func TestAManualSuccessEndsTheScheduledDeliveryAndItsFailureDoesNot(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	for _, success := range []bool{false, true} {
		d := p.accept(released, p.message())[0].Deliveries[0]
		manual := d
		manual.Trigger = webhook.TriggerManual
		p.exec(`INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, feed, state, due_at)
			VALUES ($1, $2, $3, 1, 1, 1, now() + interval '30 s')`, d.Tenant.UUID(), d.Message.UUID(), d.Endpoint.UUID())
		p.record(p.result(manual, success, over))
		want := 1
		if success {
			want = 0
		}
		if n := p.count("delivery WHERE message_id = $1", d.Message.UUID()); n != want {
			t.Errorf("manual success %v: %d deliveries are owed, want %d", success, n, want)
		}
	}
}

func TestOnlyTheHolderOfTheFenceRenews(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	d := p.accept(released, p.message())[0].Deliveries[0]
	p.exec(`UPDATE delivery SET due_at = now() + interval '1 s'`)
	stale := d
	stale.Feed = 7
	got, err := p.Renew(t.Context(), []webhook.Delivery{d, stale}, lease, false)
	if err != nil || len(got) != 1 || got[0].Feed != 2 {
		t.Fatalf("renewed %+v, %v", got, err)
	}
	if got, err := p.Renew(t.Context(), []webhook.Delivery{d}, lease, true); err != nil || len(got) != 0 {
		t.Errorf("renewed with the old fence: %+v, %v", got, err)
	}
	if got, err := p.Renew(t.Context(), got, lease, true); err != nil || len(got) != 1 {
		t.Errorf("renewed with the new fence: %+v, %v", got, err)
	}
	if n := p.count("delivery WHERE feed = 3 AND lost = 1 AND due_at > now() + interval '25 s'"); n != 1 {
		t.Error("the row does not say what was renewed")
	}
}

func TestAnEndedLeaseIsFedAgainAndCounted(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	p.accept(released, p.message())
	for want := int16(1); want <= 3; want++ {
		p.exec(`UPDATE delivery SET due_at = now()`)
		fed, _, _, err := p.FeedDue(t.Context(), store.Scan{}, 10, lease)
		if err != nil || len(fed) != 1 || fed[0].Lost != want || fed[0].Feed != want+1 {
			t.Fatalf("fed %+v, %v; want %d lost", fed, err, want)
		}
	}
	// What the queue lost is fed again too, but says nothing about the delivery.
	if n, err := p.RecallReleased(t.Context()); n != 1 || err != nil {
		t.Fatalf("recalled %d, %v", n, err)
	}
	fed, _, _, err := p.FeedDue(t.Context(), store.Scan{}, 10, lease)
	if err != nil || len(fed) != 1 || fed[0].Lost != 3 {
		t.Errorf("after a recall: %+v, %v", fed, err)
	}
}

func TestParkTakesBackWhatCouldNotBePushed(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	deliveries := p.accept(released, p.message())[0].Deliveries
	stale := deliveries[0]
	stale.Feed = 9
	if err := p.Park(t.Context(), []webhook.Delivery{stale}, store.Hold{}); err != nil {
		t.Fatal(err)
	}
	if n := p.count("delivery WHERE state = 1"); n != 1 {
		t.Fatal("parked under a stale fence")
	}
	if err := p.Park(t.Context(), deliveries, store.Hold{}); err != nil {
		t.Fatal(err)
	}
	d := deliveries[0]
	fed, err := p.ReleaseParked(t.Context(), []store.Order{{Tenant: d.Tenant, Endpoint: d.Endpoint, N: 10}}, lease)
	if err != nil || len(fed) != 1 || fed[0].Feed != 2 {
		t.Errorf("fed after parking: %+v, %v", fed, err)
	}
}

func TestDueSaysWhatThereIsToDoAndHowFarBackToLook(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	want := func(from store.Scan, deliveries, wakes bool) store.Scan {
		t.Helper()
		d, w, _, next, err := p.Due(t.Context(), from)
		if d != deliveries || w != wakes || err != nil {
			t.Errorf("due: deliveries %v, wakes %v, %v", d, w, err)
		}
		return next
	}
	all := store.Scan{}
	want(all, false, false)
	p.accept(released, p.message())
	later := want(all, false, false)
	if later == all {
		t.Error("having found nothing, the next look goes all the way back")
	}
	p.exec(`UPDATE delivery SET due_at = now() - interval '14 s'`) // computed then, visible only now
	if next := want(later, true, false); next != later {
		t.Error("having found something, the next look goes on from elsewhere")
	}
	if fed, _, _, err := p.FeedDue(t.Context(), later, 10, lease); err != nil || len(fed) != 1 {
		t.Errorf("fed %+v, %v", fed, err)
	}
	p.exec(`UPDATE delivery SET due_at = now() - interval '16 s'`) // later than any write can be
	want(later, false, false)
	want(all, true, false)
	p.accept(parked, p.message())
	want(all, true, true)
}

func TestASweepFindsForgottenEndpoints(t *testing.T) {
	p := newPipeline(t)
	for range 3 {
		p.endpoint()
	}
	p.accept(parked, p.message(), p.message())
	p.exec(`DELETE FROM endpoint_wake WHERE endpoint_id IN (SELECT endpoint_id FROM endpoint_wake LIMIT 2)`)
	if n, err := p.SweepWakes(t.Context()); n != 2 || err != nil {
		t.Errorf("swept %d, %v; want 2", n, err)
	}
	if n, err := p.SweepWakes(t.Context()); n != 0 || err != nil {
		t.Errorf("swept %d, %v; want 0", n, err)
	}
}

func TestTheSentinelIsKept(t *testing.T) {
	p := newPipeline(t)
	if v, err := p.Sentinel(t.Context()); v != "" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	for _, want := range []string{"a", "b"} {
		if err := p.KeepSentinel(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if v, err := p.Sentinel(t.Context()); v != want || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	}
}

// TestTheHotPathNeverScansTheBacklog lets vacuum see the delivery table empty, after which the planner
// believes it is, has a store cache its plans, fills the table from elsewhere, and drains it as a
// worker does. Looking rows up by key reads a few pages each; a scan per batch would read the backlog
// over and over.
func TestTheHotPathNeverScansTheBacklog(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	drain := storetest.OpenAt(t, p.options)
	p.exec(`VACUUM ANALYZE delivery`)
	fill := func(n int) (all []webhook.Delivery) {
		for range n / 200 {
			messages := make([]store.Accept, 200)
			for i := range messages {
				messages[i] = p.message()
			}
			for _, a := range p.accept(released, messages...) {
				all = append(all, a.Deliveries...)
			}
		}
		return all
	}
	work := func(deliveries []webhook.Delivery) {
		for chunk := range slices.Chunk(deliveries, 100) {
			if _, err := drain.Jobs(t.Context(), chunk); err != nil {
				t.Fatal(err)
			}
			results := make([]store.Recorded, len(chunk))
			for i, d := range chunk {
				if i%10 == 0 {
					results[i] = p.result(d, false, webhook.Outcome{Wait: time.Hour})
				} else {
					results[i] = p.result(d, true, over)
				}
			}
			if err := drain.Record(t.Context(), results); err != nil {
				t.Fatal(err)
			}
		}
	}
	// More often than the five times after which Postgres keeps a plan, made for a table of a few rows.
	for range 60 {
		a := p.accept(released, p.message())
		work(a[0].Deliveries)
	}
	all := fill(20_000)
	openConns := 2 // one connection of each of drain's pools
	p.Store.Close()
	before := p.pagesRead("delivery", openConns)
	work(all)
	drain.Close()
	pages := p.pagesRead("delivery", 0) - before
	t.Logf("%d pages for %d deliveries, %.1f each", pages, len(all), float64(pages)/float64(len(all)))
	if limit := 30 * len(all); pages > limit {
		t.Errorf("draining %d deliveries read %d pages of delivery, want at most %d", len(all), pages, limit)
	}
	if pages < len(all) {
		t.Error("that is too few to have been counted")
	}
}

// pagesRead is how many pages of a table and its indexes have been read, found in memory or not, by
// connections that are closed: they report as they end. open is how many others there are.
func (p *pipeline) pagesRead(table string, open int) (pages int) {
	p.t.Helper()
	for p.count(`pg_stat_activity WHERE datname = current_database() AND application_name = 'posthaste'`) > open {
		if p.t.Context().Err() != nil {
			p.t.Fatal("the closed connections never ended")
		}
	}
	if err := p.sql.QueryRow(p.t.Context(), `SELECT heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read
		FROM pg_statio_user_tables WHERE relname = $1`, table).Scan(&pages); err != nil {
		p.t.Fatal(err)
	}
	return pages
}

func TestAttemptDetailReadsBack(t *testing.T) {
	p := newPipeline(t)
	p.endpoint()
	d := p.accept(released, p.message())[0].Deliveries[0]
	r := p.result(d, true, over)
	r.Attempt.Duration = 12 * time.Millisecond
	r.Attempt.Response = []byte{0, 0xff, 'x'}
	r.Attempt.Detail = webhook.AttemptDetail{Error: "e", RemoteIP: "::1", Timings: &webhook.Timings{DNS: 1, Total: 12000},
		RequestHeaders: []webhook.Header{{Name: "A", Value: "b"}}, SignedWith: []webhook.SecretID{webhook.NewSecretID()}}
	p.record(r)
	got, err := p.view.Attempt(t.Context(), p.app.ID.String(), d.Message.String(), r.Attempt.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := r.Attempt
	want.Final = true
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(want)
	if string(a) != string(b) {
		t.Errorf("reads back as\n%s, want\n%s", a, b)
	}
}
