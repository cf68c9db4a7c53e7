package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

func TestPayloadsExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	yesterday := time.Now().Add(-24 * time.Hour)
	var expired []webhook.Message
	for i := range 7 {
		at := time.Now()
		if i%2 == 0 {
			at = yesterday
		}
		expired = append(expired, w.putMessage(t, webhook.Message{
			ID: messageAt(at), Payload: []byte("canary-payload"), ExpiresAt: time.Now().Add(-time.Minute),
		}))
	}
	kept := w.putMessage(t, webhook.Message{Payload: []byte("kept"), ExpiresAt: time.Now().Add(time.Minute)})
	var done []int
	for range 4 {
		done = append(done, must[int](t)(w.ExpirePayloads(ctx, 3)))
	}
	if !slices.Equal(done, []int{3, 3, 1, 0}) {
		t.Errorf("batches of 3 expired %v", done)
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM message m WHERE m::text LIKE '%' || encode('canary-payload', 'hex') || '%'`); n != 0 {
		t.Errorf("%d payloads are still there", n)
	}
	if got := must[webhook.Message](t)(w.view.Message(ctx, w.app.ID.String(), kept.ID.String())); string(got.Payload) != "kept" {
		t.Errorf("a payload within its time is %q", got.Payload)
	}
	for _, m := range expired { // the messages themselves stay
		if got := must[webhook.Message](t)(w.view.Message(ctx, w.app.ID.String(), m.ID.String())); got.Payload != nil {
			t.Errorf("payload %q", got.Payload)
		}
	}
	plan := one[string](t, w.sql, `SELECT count(*)::text FROM pg_indexes WHERE indexdef LIKE '%(expires_at) WHERE (payload IS NOT NULL)%'`)
	if plan == "0" {
		t.Error("no index finds expired payloads")
	}
}

func TestOldPartitionsAreDroppedAndWhatWasOwedEndsVisibly(t *testing.T) {
	t.Parallel()
	const maxAge = 30 * 24 * time.Hour
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com/owed")
	now := time.Now()
	oldAt, keptAt := now.Add(-maxAge-48*time.Hour), now.Add(-maxAge+time.Minute)
	w.partitions(t, oldAt)
	w.partitions(t, keptAt)
	old := w.putMessage(t, webhook.Message{ID: messageAt(oldAt), EventID: "old"})
	kept := w.putMessage(t, webhook.Message{ID: messageAt(keptAt), EventID: "kept"})
	w.putAttempt(t, webhook.Attempt{MessageID: old.ID, EndpointID: e.ID, ID: webhook.NewAttemptIDAt(oldAt), Sent: true})
	first := w.putAttempt(t, webhook.Attempt{MessageID: kept.ID, EndpointID: e.ID, ID: webhook.NewAttemptIDAt(keptAt), Sent: true})
	w.putDelivery(t, old, e)
	w.putDelivery(t, kept, e)
	// Enough for several batches, and of an endpoint that is deleted by now.
	gone := storetest.Endpoint(t, w.Store, w.app, "https://example.com/gone")
	w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, attempt, state, due_at)
		SELECT $1, overlay(overlay($2::text placing lpad(to_hex(i), 12, '0') from 25) placing '7' from 15)::uuid, $3, 0, 4, 2, now()
		FROM generate_series(1, 4500) AS i`, w.tenant.ID.UUID(), uuidText(old.ID), gone.ID.UUID())
	ok(t, w.view.DeleteEndpoint(ctx, app, gone.ID.String()))

	d, err := w.DropPartitions(ctx, maxAge)
	ok(t, err)
	if d.Deliveries != 4501 || d.EventIDs != 1 {
		t.Errorf("ended %d deliveries and %d event ids, want 4501 and 1", d.Deliveries, d.EventIDs)
	}
	if !slices.Contains(d.Partitions, oldAt.UTC().Format("message_p20060102")) || !slices.Contains(d.Partitions, oldAt.UTC().Format("attempt_p20060102")) ||
		slices.Contains(d.Partitions, keptAt.UTC().Format("message_p20060102")) {
		t.Errorf("dropped %v", d.Partitions)
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM delivery`); n != 1 {
		t.Errorf("%d deliveries are open, want the one within its time", n)
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM attempt WHERE NOT sent AND final AND status = 2 AND error_class = 'expired' AND number = 5`); n != 4500 {
		t.Errorf("%d ends were recorded for 4500 deliveries", n)
	}
	l, err := w.view.AttemptsByEndpoint(ctx, app, e.ID.String(), filterAttempts(true), listAll)
	ok(t, err)
	if len(l.Data) != 2 {
		t.Fatalf("attempts %+v", l.Data)
	}
	end := l.Data[0]
	if end.MessageID != old.ID || end.Sent || !end.Final || end.Class != webhook.ClassExpired || end.Number != 1 ||
		end.URL != "https://example.com/owed" || end.Detail.Error == "" || l.Data[1].ID != first.ID {
		t.Errorf("the end is shown as %+v", end)
	}
	if _, err := w.view.Message(ctx, app, "old"); webhook.KindOf(err) != webhook.KindNotFound {
		t.Errorf("the old message: %v", err)
	}
	must[webhook.Message](t)(w.view.Message(ctx, app, "kept"))

	d, err = w.DropPartitions(ctx, maxAge)
	ok(t, err)
	if len(d.Partitions)+d.Deliveries+d.EventIDs != 0 {
		t.Errorf("did it twice: %+v", d)
	}
}

func uuidText(id webhook.MessageID) string {
	value, _ := id.Value()
	return value.(string)
}

func TestDroppingTakesUpWhatWasLeftHalfDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	at := time.Date(2020, 5, 5, 12, 0, 0, 0, time.UTC)
	w.partitions(t, at)
	w.exec(t, `ALTER TABLE message DETACH PARTITION message_p20200505`) // and not dropped
	// A concurrent detach that is stopped while it waits for a reader stays pending.
	reader, detacher := storetest.Connect(t, w.url), storetest.Connect(t, w.url)
	tx, err := reader.Begin(ctx)
	ok(t, err)
	_, err = tx.Exec(ctx, `SELECT count(*) FROM attempt`)
	ok(t, err)
	_, err = detacher.Exec(ctx, `SET lock_timeout = '50ms'`)
	ok(t, err)
	if _, err = detacher.Exec(ctx, `ALTER TABLE attempt DETACH PARTITION attempt_p20200505 CONCURRENTLY`); err == nil {
		t.Fatal("the detach did not wait")
	}
	ok(t, tx.Rollback(ctx))
	if !one[bool](t, w.sql, `SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'attempt_p20200505'::regclass`) {
		t.Fatal("the detach is not pending")
	}

	// Several at a time: one does it.
	var mu sync.Mutex
	var dropped []string
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			d, err := w.DropPartitions(ctx, 365*24*time.Hour)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			dropped = append(dropped, d.Partitions...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(dropped) != 20 || !slices.Contains(dropped, "message_p20200505") || !slices.Contains(dropped, "attempt_p20200505") {
		t.Errorf("dropped %v", dropped)
	}
	if n := one[int](t, w.sql, `SELECT count(*) FROM pg_class WHERE relname LIKE '%\_p2020%'`); n != 0 {
		t.Errorf("%d tables are left", n)
	}
	if !must[bool](t)(w.PartitionsReady(ctx, time.Now())) {
		t.Error("today's partitions are gone")
	}
	// The connections went back as they came.
	if n := one[int](t, w.sql, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`); n != 0 {
		t.Errorf("%d advisory locks are held", n)
	}
}

func TestTrace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	m := w.putMessage(t, webhook.Message{EventID: "ev", Tags: []string{"t"}, Payload: []byte("canary-payload")})
	a := w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID, Sent: true, Number: 1, Status: webhook.StatusFail, HTTPStatus: 500, Response: []byte("canary-response")})
	w.putDelivery(t, m, e)
	w.exec(t, `INSERT INTO endpoint_wake (tenant_id, endpoint_id, due_at) VALUES ($1, $2, now())`, w.tenant.ID.UUID(), e.ID.UUID())
	trace, err := w.Trace(t.Context(), m.ID)
	ok(t, err)
	if trace.Tenant != w.tenant.ID || trace.Application != w.app.ID || trace.EventID != "ev" || *trace.PayloadSize != len("canary-payload") {
		t.Errorf("trace %+v", trace)
	}
	if len(trace.Owed) != 1 || trace.Owed[0].State != "parked" || trace.Owed[0].WakeAt == nil || trace.Owed[0].DueAt != nil {
		t.Errorf("owed %+v", trace.Owed)
	}
	if len(trace.Attempts) != 1 || trace.Attempts[0].Attempt != a.ID || trace.Attempts[0].Detail.RemoteIP != "192.0.2.1" {
		t.Errorf("attempts %+v", trace.Attempts)
	}
	text, err := json.Marshal(trace)
	ok(t, err)
	if strings.Contains(string(text), "canary") || !strings.Contains(string(text), fmt.Sprintf("%q", m.ID)) {
		t.Errorf("as JSON: %s", text)
	}
	w.exec(t, `UPDATE endpoint_wake SET due_at = 'infinity'`) // its endpoint is paused
	trace, err = w.Trace(t.Context(), m.ID)
	ok(t, err)
	if len(trace.Owed) != 1 || trace.Owed[0].WakeAt != nil {
		t.Errorf("owed %+v", trace.Owed)
	}
	_, err = w.Trace(t.Context(), webhook.NewMessageID())
	wantKind(t, err, webhook.KindNotFound)
}
