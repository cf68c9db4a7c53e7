package store_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// history gives a message every way it can stand with an endpoint.
type history struct {
	name     string
	open     int // 0 = nothing owed, else the state
	attempts []webhook.Status
	want     webhook.Status
}

var histories = []history{
	{"owed", int(webhook.StateParked), nil, webhook.StatusPending},
	{"retried", int(webhook.StateWaiting), []webhook.Status{webhook.StatusFail}, webhook.StatusSending},
	{"taken", 0, []webhook.Status{webhook.StatusFail, webhook.StatusSuccess}, webhook.StatusSuccess},
	{"taken and tried again", 0, []webhook.Status{webhook.StatusSuccess, webhook.StatusFail}, webhook.StatusSuccess},
	{"failed", 0, []webhook.Status{webhook.StatusFail, webhook.StatusFail}, webhook.StatusFail},
	{"canceled", 0, []webhook.Status{webhook.StatusCanceled}, webhook.StatusCanceled},
}

func (w world) happen(t *testing.T, h history, m webhook.Message, e webhook.Endpoint) (due *time.Time) {
	t.Helper()
	if h.open != 0 {
		if webhook.State(h.open) == webhook.StateWaiting {
			at := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
			due = &at
		}
		w.exec(t, `INSERT INTO delivery (tenant_id, message_id, endpoint_id, trigger, state, due_at) VALUES ($1, $2, $3, 0, $4, $5)`,
			m.TenantID.UUID(), m.ID.UUID(), e.ID.UUID(), h.open, due)
	}
	for i, s := range h.attempts {
		w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID, Number: int16(i + 1), Sent: true, Status: s})
	}
	return due
}

func sameTime(a, b *time.Time) bool { return a == b || a != nil && b != nil && a.Equal(*b) }

func TestAttemptedMessagesAreReadOffWhatIsOwedAndWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e, other := storetest.Endpoint(t, w.Store, w.app, "https://example.com"), storetest.Endpoint(t, w.Store, w.app, "https://example.com/other")
	byID, due := map[webhook.MessageID]history{}, map[webhook.MessageID]*time.Time{}
	var all []string
	for _, h := range histories {
		m := w.putMessage(t, webhook.Message{Payload: []byte(`{"of":"` + h.name + `"}`), Channels: []string{"c"}, Tags: []string{"t"}})
		byID[m.ID], due[m.ID] = h, w.happen(t, h, m, e)
		all = append(all, m.ID.String())
		elsewhere := w.putMessage(t, webhook.Message{})
		w.happen(t, history{attempts: []webhook.Status{webhook.StatusSuccess}}, elsewhere, other)
	}
	slices.Reverse(all)
	read := func(f store.AttemptedFilter, p store.Page) []store.AttemptedMessage {
		t.Helper()
		return must[store.List[store.AttemptedMessage]](t)(w.view.AttemptedMessages(t.Context(), w.app.ID.String(), e.ID.String(), f, p)).Data
	}
	var got []string
	for _, m := range read(store.AttemptedFilter{MessageFilter: filterMessages(true)}, listAll) {
		got = append(got, m.Message.ID.String())
		h := byID[m.Message.ID]
		if m.Status != h.want || !sameTime(m.NextAttempt, due[m.Message.ID]) || string(m.Payload) != `{"of":"`+h.name+`"}` {
			t.Errorf("%s: %+v", h.name, m)
		}
	}
	if !slices.Equal(got, all) {
		t.Errorf("listed %v, want %v", got, all)
	}
	for status := webhook.StatusSuccess; status <= webhook.StatusCanceled; status++ {
		var want, got []string
		for _, h := range histories {
			if h.want == status {
				want = append(want, h.name)
			}
		}
		for _, m := range read(store.AttemptedFilter{Status: &status}, listAll) {
			got = append([]string{byID[m.Message.ID].name}, got...)
			if m.Payload != nil {
				t.Error("a payload was read that nobody asked for")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("of status %d there are %v, want %v", status, got, want)
		}
	}
	for filter, matches := range map[*store.MessageFilter]bool{
		{Channel: "c", Tag: "t", EventTypes: []string{"user.created"}}: true,
		{Channel: "d"}: false, {Tag: "u"}: false, {EventTypes: []string{"other"}}: false, {After: time.Now().Add(time.Minute)}: false,
	} {
		if n := len(read(store.AttemptedFilter{MessageFilter: *filter}, listAll)); (n == len(histories)) != matches || n != 0 && !matches {
			t.Errorf("filter %+v: %d messages", *filter, n)
		}
	}
	checkPages(t, all, all, true, true,
		func(p store.Page) (store.List[store.AttemptedMessage], error) {
			return w.view.AttemptedMessages(t.Context(), w.app.ID.String(), e.ID.String(), store.AttemptedFilter{}, p)
		},
		func(m store.AttemptedMessage) string { return m.Message.ID.String() })
}

// However few of an application's messages concern an endpoint, a page looks at a bounded number of
// them; what it returns leads on, in both directions, until all have been seen.
func TestAPageOfAttemptedMessagesEndsEarlyAndLeadsOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	mine := func() string {
		m := w.putMessage(t, webhook.Message{})
		w.happen(t, history{attempts: []webhook.Status{webhook.StatusSuccess}}, m, e)
		return m.ID.String()
	}
	start := time.Now()
	fill := func(n int, at time.Time) { // of others
		base := messageAt(at)
		w.exec(t, `INSERT INTO message (tenant_id, app_id, id, event_type, expires_at)
			SELECT $1, $2, (left($3::uuid::text, 24) || lpad(to_hex(i), 12, '0'))::uuid, 'e', now() FROM generate_series(1, $4) i`,
			w.app.TenantID.UUID(), w.app.ID.UUID(), base.UUID(), n)
	}
	want := []string{mine()}
	fill(2*2000+10, start.Add(time.Second))
	last := webhook.MessageID(webhook.NewAttemptIDAt(start.Add(2 * time.Second)))
	w.putMessage(t, webhook.Message{ID: last})
	w.putAttempt(t, webhook.Attempt{MessageID: last, EndpointID: e.ID, Sent: true})
	want = append([]string{last.String()}, want...)
	for _, backwards := range []bool{false, true} {
		p := store.Page{Limit: 5}
		if backwards {
			p.Iterator = "-" + messageAt(start.Add(-time.Hour)).String()
		}
		var got []string
		pages, empty := 0, 0
		for done := false; !done; pages++ {
			l := must[store.List[store.AttemptedMessage]](t)(w.view.AttemptedMessages(t.Context(), w.app.ID.String(), e.ID.String(), store.AttemptedFilter{}, p))
			var page []string
			for _, m := range l.Data {
				page = append(page, m.Message.ID.String())
			}
			if done = l.Done; !done && l.Reached == "" {
				t.Fatalf("page %d ends early with %v and does not say where", pages, page)
			}
			if strings.HasPrefix(l.Reached, "-") != (backwards && !done) {
				t.Fatalf("page %d, backwards %v, goes on at %q", pages, backwards, l.Reached)
			}
			if len(page) == 0 {
				empty++
			}
			if p.Iterator = l.Reached; backwards {
				got = append(page, got...)
			} else {
				got = append(got, page...)
			}
		}
		if !slices.Equal(got, want) || pages != 3 || empty != 1 {
			t.Errorf("backwards %v: %v in %d pages, %d of them empty; want %v in 3, one empty", backwards, got, pages, empty, want)
		}
	}
}

func TestDestinationsAreReadOffWhatIsOwedAndWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	m, unowed := w.putMessage(t, webhook.Message{}), w.putMessage(t, webhook.Message{})
	byID, due := map[webhook.EndpointID]history{}, map[webhook.EndpointID]*time.Time{}
	var all []string
	for _, h := range histories {
		e := storetest.Endpoint(t, w.Store, w.app, "https://example.com/"+strings.ReplaceAll(h.name, " ", "-"))
		byID[e.ID], due[e.ID] = h, w.happen(t, h, m, e)
		all = append(all, e.ID.String())
		storetest.Endpoint(t, w.Store, w.app, "https://example.com/unowed")
	}
	ok(t, w.view.DeleteEndpoint(t.Context(), w.app.ID.String(), all[2]))
	l := must[store.List[store.Destination]](t)(w.view.Destinations(t.Context(), w.app.ID.String(), m.ID.String(), listAll))
	var got []string
	for _, d := range l.Data {
		got = append(got, d.ID.String())
		h := byID[d.ID]
		if d.Status != h.want || !sameTime(d.NextAttempt, due[d.ID]) || (d.DeletedAt != nil) != (d.ID.String() == all[2]) {
			t.Errorf("%s: %+v", h.name, d)
		}
	}
	if !slices.Equal(got, all) || !l.Done {
		t.Errorf("listed %v, want %v", got, all)
	}
	checkPages(t, all, all, true, false,
		func(p store.Page) (store.List[store.Destination], error) {
			return w.view.Destinations(t.Context(), w.app.ID.String(), m.ID.String(), p)
		},
		func(d store.Destination) string { return d.ID.String() })
	if l, err := w.view.Destinations(t.Context(), w.app.ID.String(), unowed.ID.String(), listAll); err != nil || l.Data == nil || len(l.Data) != 0 || !l.Done {
		t.Errorf("of a message owed to nobody: %+v %v", l, err)
	}
	_, err := w.view.Destinations(t.Context(), w.app.ID.String(), webhook.NewMessageID().String(), listAll)
	wantKind(t, err, webhook.KindNotFound)
}

// The messages of a page are read in one go, and the page ends where their payloads grow too many, in
// whichever direction it is walked; nothing is left out on the way.
func TestAttemptsWithMessagesEndAtTheBytesOfAPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	e := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	const messages, each = 40, 1 << 20
	var all []string
	for i := range messages {
		m := w.putMessage(t, webhook.Message{Payload: make([]byte, each)})
		for range 1 + i%2 {
			all = append([]string{w.putAttempt(t, webhook.Attempt{MessageID: m.ID, EndpointID: e.ID}).ID.String()}, all...)
		}
	}
	gone := w.putAttempt(t, webhook.Attempt{MessageID: webhook.NewMessageID(), EndpointID: e.ID})
	all = append([]string{gone.ID.String()}, all...)
	for _, backwards := range []bool{false, true} {
		p := store.Page{Limit: webhook.MaxPage}
		if backwards {
			p.Iterator = "-" + webhook.NewAttemptIDAt(time.Now().Add(-time.Hour)).String()
		}
		var got []string
		pages := 0
		for done := false; !done; pages++ {
			l := must[store.List[webhook.Attempt]](t)(w.view.AttemptsByEndpoint(t.Context(), w.app.ID.String(), e.ID.String(),
				store.AttemptFilter{WithMessages: true, WithContent: true}, p))
			var page []string
			for _, a := range l.Data {
				page = append(page, a.ID.String())
				if there := a.Message != nil; there != (a.ID != gone.ID) || there && (a.Message.ID != a.MessageID || len(a.Message.Payload) != each) {
					t.Fatalf("attempt %s has message %v", a.ID, a.Message)
				}
			}
			if done = l.Done; backwards {
				got, p.Iterator = append(page, got...), "-"+page[0]
			} else {
				got, p.Iterator = append(got, page...), page[len(page)-1]
			}
		}
		if !slices.Equal(got, all) || pages < 3 {
			t.Errorf("backwards %v: %d of %d attempts in %d pages", backwards, len(got), len(all), pages)
		}
	}
}
