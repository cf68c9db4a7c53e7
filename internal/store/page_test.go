package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// modelPage is what a page must hold: names are all of a list's iterators in its order, compared as
// texts, since ids and names sort the same way inside and outside.
func modelPage(names []string, p store.Page, newestFirst bool) (page []string, done bool) {
	after := func(name, at string) bool {
		if newestFirst {
			return name < at
		}
		return name > at
	}
	at, backwards := strings.CutPrefix(p.Iterator, "-")
	var rest []string
	for _, name := range names {
		if at == "" || (!backwards && after(name, at)) || (backwards && name != at && !after(name, at)) {
			rest = append(rest, name)
		}
	}
	n := min(p.Limit, len(rest))
	if backwards {
		return rest[len(rest)-n:], n == len(rest)
	}
	return rest[:n], n == len(rest)
}

// checkPages reads pages of a list at random, and walks it from end to end.
func checkPages[T any](t *testing.T, all, positions []string, fixedOrder bool, newestFirst bool,
	read func(store.Page) (store.List[T], error), name func(T) string,
) {
	t.Helper()
	read1 := func(t interface{ Fatal(...any) }, p store.Page) ([]string, bool) {
		l, err := read(p)
		if err != nil {
			t.Fatal(err)
		}
		if l.Data == nil {
			t.Fatal("an empty page is nil")
		}
		var got []string
		for _, row := range l.Data {
			got = append(got, name(row))
		}
		return got, l.Done
	}
	ordered := func(p store.Page) ([]string, bool) {
		descending := newestFirst
		if !fixedOrder {
			descending = p.Descending
		}
		names := slices.Sorted(slices.Values(all))
		if descending {
			slices.Reverse(names)
		}
		return names, descending
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := store.Page{Limit: rapid.IntRange(1, len(all)+1).Draw(rt, "limit"), Descending: rapid.Bool().Draw(rt, "descending")}
		if at := rapid.SampledFrom(append([]string{""}, positions...)).Draw(rt, "at"); at != "" {
			p.Iterator = rapid.SampledFrom([]string{"", "-"}).Draw(rt, "direction") + at
		}
		names, descending := ordered(p)
		want, wantDone := modelPage(names, p, descending)
		if got, done := read1(rt, p); !slices.Equal(got, want) || done != wantDone {
			rt.Fatalf("page %+v:\n got %v %v\nwant %v %v", p, got, done, want, wantDone)
		}
	})
	for _, descending := range []bool{false, true} {
		p := store.Page{Limit: 3, Descending: descending}
		names, _ := ordered(p)
		var there, back []string
		for done := false; !done; {
			var page []string
			page, done = read1(t, p)
			there = append(there, page...)
			p.Iterator = page[len(page)-1]
		}
		back = []string{there[len(there)-1]}
		p.Iterator = "-" + back[0]
		for done := false; !done; {
			var page []string
			page, done = read1(t, p)
			back = append(slices.Clone(page), back...)
			p.Iterator = "-" + back[0]
		}
		if !slices.Equal(there, names) || !slices.Equal(back, names) {
			t.Fatalf("walked %v and back %v, want %v", there, back, names)
		}
	}
}

const listLength = 17

func TestListsOfNounsPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()

	t.Run("applications", func(t *testing.T) {
		all := []string{w.app.ID.String()}
		for range listLength {
			all = append(all, storetest.Application(t, w.Store, w.tenant.ID).ID.String())
		}
		deleted := all[5]
		ok(t, w.view.DeleteApplication(ctx, deleted))
		positions := slices.Clone(all) // of what is deleted too
		all = slices.Delete(all, 5, 6)
		checkPages(t, all, positions, false, false,
			func(p store.Page) (store.List[webhook.Application], error) { return w.view.Applications(ctx, p) },
			func(a webhook.Application) string { return a.ID.String() })
	})
	t.Run("endpoints", func(t *testing.T) {
		var all []string
		other := storetest.Application(t, w.Store, w.tenant.ID)
		for range listLength {
			all = append(all, storetest.Endpoint(t, w.Store, w.app, "https://example.com").ID.String())
			storetest.Endpoint(t, w.Store, other, "https://example.com/other")
		}
		positions := slices.Clone(all)
		ok(t, w.view.DeleteEndpoint(ctx, w.app.ID.String(), all[3]))
		all = slices.Delete(all, 3, 4)
		checkPages(t, all, positions, false, false,
			func(p store.Page) (store.List[webhook.Endpoint], error) {
				return w.view.Endpoints(ctx, w.app.ID.String(), p)
			},
			func(e webhook.Endpoint) string { return e.ID.String() })
	})
	t.Run("event types", func(t *testing.T) {
		var all, live []string
		for i := range listLength {
			// Byte order, not a language's: "B" < "_" < "a".
			name := fmt.Sprintf("%c%d", "aB_z.-"[i%6], i)
			storetest.EventType(t, w.Store, w.tenant.ID, name)
			all = append(all, name)
			if i%4 == 0 {
				ok(t, w.view.DeleteEventType(ctx, name, false))
			} else {
				live = append(live, name)
			}
		}
		positions := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return strings.HasPrefix(name, "-") })
		list := func(archived bool) func(store.Page) (store.List[webhook.EventType], error) {
			return func(p store.Page) (store.List[webhook.EventType], error) {
				if strings.HasPrefix(p.Iterator, "-") && slices.Contains(all, p.Iterator) {
					p.Iterator = "+" + p.Iterator // as the API writes it, or it would go back
				}
				return w.view.EventTypes(ctx, p, archived)
			}
		}
		name := func(e webhook.EventType) string { return e.Name }
		checkPages(t, live, positions, true, false, list(false), name)
		checkPages(t, all, positions, true, false, list(true), name)
	})
	t.Run("tenants", func(t *testing.T) {
		all := []string{w.tenant.ID.String()}
		for range listLength {
			all = append(all, storetest.Tenant(t, w.Store).ID.String())
		}
		checkPages(t, all, all, false, false,
			func(p store.Page) (store.List[webhook.Tenant], error) { return w.Tenants(ctx, p) },
			func(x webhook.Tenant) string { return x.ID.String() })
	})
	t.Run("API keys", func(t *testing.T) {
		var all []string
		for i := range listLength {
			all = append(all, storetest.APIKey(t, w.Store, w.tenant.ID, fmt.Sprint("key", i)).ID.String())
		}
		checkPages(t, all, all, false, false,
			func(p store.Page) (store.List[webhook.APIKey], error) { return w.APIKeys(ctx, w.tenant.ID.String(), p) },
			func(k webhook.APIKey) string { return k.ID.String() })
	})
}

func TestPageLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.exec(t, `INSERT INTO event_type (tenant_id, name, description, created_at, updated_at)
		SELECT $1, 'n' || i, '', now(), now() FROM generate_series(1, $2) AS i`, w.tenant.ID.UUID(), webhook.MaxPage+1)
	for limit, want := range map[int]int{0: webhook.DefaultPage, 1: 1, webhook.MaxPage: webhook.MaxPage, webhook.MaxPage + 1: webhook.MaxPage} {
		l := must[store.List[webhook.EventType]](t)(w.view.EventTypes(t.Context(), store.Page{Limit: limit}, false))
		if len(l.Data) != want || l.Done {
			t.Errorf("limit %d: %d rows, done %v, want %d", limit, len(l.Data), l.Done, want)
		}
	}
}

func TestForeignIteratorsAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, app := t.Context(), w.app.ID.String()
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	message := w.putMessage(t, webhook.Message{})
	for _, iterator := range []string{"x", "-x", "-", "--" + app, "msg_", w.tenant.ID.String(), "\x00", strings.Repeat("a", 300)} {
		p := store.Page{Iterator: iterator}
		_, err := w.view.Applications(ctx, p)
		if iterator != "-" {
			wantKind(t, err, webhook.KindInvalid)
			_, err = w.view.Endpoints(ctx, app, p)
			wantKind(t, err, webhook.KindInvalid)
			_, err = w.view.Messages(ctx, app, store.MessageFilter{}, p)
			wantKind(t, err, webhook.KindInvalid)
			_, err = w.view.AttemptsByEndpoint(ctx, app, endpoint.ID.String(), store.AttemptFilter{}, p)
			wantKind(t, err, webhook.KindInvalid)
			_, err = w.view.AttemptsByMessage(ctx, app, message.ID.String(), store.AttemptFilter{}, p)
			wantKind(t, err, webhook.KindInvalid)
		}
	}
	_, err := w.view.EventTypes(ctx, store.Page{Iterator: "a\x00"}, false)
	wantKind(t, err, webhook.KindInvalid)
}

// moments are where the model's messages and attempts lie: dense, so that pages cut through equal
// days and hours, and around the ends of a list's window.
func moments(now time.Time) (list []time.Time) {
	for _, days := range []time.Duration{0, 1, 2, 30, 89, 90, 91} {
		at := now.Add(-days * 24 * time.Hour)
		list = append(list, at.Add(-time.Hour), at.Add(-time.Millisecond), at, at)
	}
	return list
}

// visible is what a time-limited list may show.
func visible(ids []string, timeOf map[string]time.Time, before, after time.Time, p store.Page, now time.Time) (names []string) {
	const window = 90 * 24 * time.Hour
	at := timeOf[strings.TrimPrefix(p.Iterator, "-")]
	for _, id := range ids {
		in := timeOf[id].Before(now.Add(time.Hour))
		made := timeOf[id]
		if !before.IsZero() {
			in = in && made.Before(before) && !made.Before(before.Add(-window))
		}
		if !after.IsZero() {
			in = in && made.After(after) && made.Before(after.Add(window))
		}
		if before.IsZero() && after.IsZero() {
			switch {
			case p.Iterator == "":
				in = in && !made.Before(now.Add(-window))
			case strings.HasPrefix(p.Iterator, "-"):
				in = in && made.Before(at.Add(window))
			default:
				in = in && !made.Before(at.Add(-window))
			}
		}
		if in {
			names = append(names, id)
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names
}

// checkTimeLimited reads pages of a list of messages or attempts at random and compares them with
// the model. matches says which pass the filter that read applies.
func checkTimeLimited(t *testing.T, now time.Time, timeOf map[string]time.Time,
	read func(rt *rapid.T, before, after time.Time, p store.Page) (names []string, done bool, matches func(string) bool, err error),
) {
	t.Helper()
	var all []string
	for id := range timeOf {
		all = append(all, id)
	}
	slices.Sort(all)
	times := append(moments(now), time.Time{}, time.Time{}, time.Time{}, now.Add(-60*24*time.Hour))
	rapid.Check(t, func(rt *rapid.T) {
		p := store.Page{Limit: rapid.IntRange(1, len(all)+1).Draw(rt, "limit")}
		if rapid.Bool().Draw(rt, "iterator") {
			p.Iterator = rapid.SampledFrom([]string{"", "-"}).Draw(rt, "direction") + rapid.SampledFrom(all).Draw(rt, "at")
		}
		before, after := rapid.SampledFrom(times).Draw(rt, "before"), rapid.SampledFrom(times).Draw(rt, "after")
		got, done, matches, err := read(rt, before, after, p)
		if err != nil {
			rt.Fatal(err)
		}
		names := slices.DeleteFunc(visible(all, timeOf, before, after, p, now), func(id string) bool { return !matches(id) })
		asked := p
		if p.Iterator == "" && before.IsZero() && !after.IsZero() {
			asked.Iterator = "-" + lowest(all[0]) // the page nearest to after, as if one came from before it all
		}
		want, wantDone := modelPage(names, asked, true)
		if !slices.Equal(got, want) || done != wantDone {
			rt.Fatalf("%+v before %v after %v:\n got %v %v\nwant %v %v", p, before, after, got, done, want, wantDone)
		}
	})
}

// lowest sorts before every id with the prefix of one.
func lowest(id string) string { return id[:strings.IndexByte(id, '_')+1] + "!" }

func TestListsOfMessagesPage(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Millisecond)
	w := newWorldAt(t, func() time.Time { return now })
	timeOf, byID := map[string]time.Time{}, map[string]webhook.Message{}
	other := storetest.Application(t, w.Store, w.tenant.ID)
	for i, at := range moments(now) {
		w.partitions(t, at)
		m := w.putMessage(t, webhook.Message{
			ID: messageAt(at), EventType: fmt.Sprint("type", i%3), Channels: [][]string{nil, {"a"}, {"a", "b"}}[i%3], Tags: [][]string{nil, {"t"}}[i%2],
		})
		timeOf[m.ID.String()], byID[m.ID.String()] = at, m
		w.putMessage(t, webhook.Message{TenantID: w.tenant.ID, ApplicationID: other.ID, ID: messageAt(at)})
	}
	checkTimeLimited(t, now, timeOf, func(rt *rapid.T, before, after time.Time, p store.Page) ([]string, bool, func(string) bool, error) {
		f := store.MessageFilter{
			Before: before, After: after,
			Channel:    rapid.SampledFrom([]string{"", "", "a", "b", "c"}).Draw(rt, "channel"),
			Tag:        rapid.SampledFrom([]string{"", "", "t"}).Draw(rt, "tag"),
			EventTypes: rapid.SampledFrom([][]string{nil, nil, {"type0"}, {"type1", "type2"}}).Draw(rt, "types"),
		}
		l, err := w.view.Messages(t.Context(), w.app.ID.String(), f, p)
		var names []string
		for _, m := range l.Data {
			names = append(names, m.ID.String())
		}
		return names, l.Done, func(id string) bool { return published(byID[id], f.Channel, f.Tag, f.EventTypes) }, err
	})
}

func published(m webhook.Message, channel, tag string, types []string) bool {
	return (channel == "" || slices.Contains(m.Channels, channel)) && (tag == "" || slices.Contains(m.Tags, tag)) &&
		(types == nil || slices.Contains(types, m.EventType))
}

func TestListsOfAttemptsPage(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC().Truncate(time.Millisecond)
	w := newWorldAt(t, func() time.Time { return now })
	endpoint := storetest.Endpoint(t, w.Store, w.app, "https://example.com")
	second := storetest.Endpoint(t, w.Store, w.app, "https://example.com/2")
	third := storetest.Endpoint(t, w.Store, w.app, "https://example.com/3")
	made := 0
	message := func(at time.Time) webhook.Message {
		w.partitions(t, at)
		made++
		return w.putMessage(t, webhook.Message{
			ID: messageAt(at), EventType: fmt.Sprint("type", made%3),
			Channels: [][]string{nil, {"a"}, {"a", "b"}}[made%3], Tags: [][]string{nil, {"t"}}[made%2],
		})
	}
	long := message(now.Add(-92 * 24 * time.Hour)) // attempted again and again
	ofEndpoint, ofMessage := map[string]time.Time{}, map[string]time.Time{}
	attempts := map[string]webhook.Attempt{}
	of := map[string]webhook.Message{}
	for i, at := range moments(now) {
		attempt := func(m webhook.Message, e webhook.Endpoint) string {
			a := w.putAttempt(t, webhook.Attempt{
				MessageID: m.ID, EndpointID: e.ID, ID: webhook.NewAttemptIDAt(at), Number: 1,
				Status:     []webhook.Status{webhook.StatusSuccess, webhook.StatusFail, webhook.StatusFail, webhook.StatusCanceled}[i%4],
				HTTPStatus: []int16{204, 500, 0, 0}[i%4], Sent: i%4 != 3,
			})
			id := a.ID.String()
			attempts[id], of[id] = a, m
			return id
		}
		ofEndpoint[attempt(message(at.Add(-20*time.Hour)), endpoint)] = at
		ofMessage[attempt(long, second)] = at
		if i%2 == 0 {
			ofMessage[attempt(long, third)] = at
		}
	}
	read := func(list func(store.AttemptFilter, store.Page) (store.List[webhook.Attempt], error)) func(*rapid.T, time.Time, time.Time, store.Page) ([]string, bool, func(string) bool, error) {
		return func(rt *rapid.T, before, after time.Time, p store.Page) ([]string, bool, func(string) bool, error) {
			f := store.AttemptFilter{
				Before: before, After: after,
				Status: rapid.SampledFrom([]*webhook.Status{
					nil, nil, nil, new(webhook.StatusSuccess), new(webhook.StatusFail), new(webhook.StatusCanceled), new(webhook.StatusPending),
				}).Draw(rt, "status"),
				StatusCodeClass: rapid.SampledFrom([]*int{nil, nil, nil, new(0), new(200), new(300), new(500)}).Draw(rt, "class"),
				Channel:         rapid.SampledFrom([]string{"", "", "", "a", "b"}).Draw(rt, "channel"),
				Tag:             rapid.SampledFrom([]string{"", "", "", "t"}).Draw(rt, "tag"),
				EventTypes:      rapid.SampledFrom([][]string{nil, nil, nil, {"type1"}, {"type0", "type2"}}).Draw(rt, "types"),
			}
			l, err := list(f, p)
			var names []string
			for _, a := range l.Data {
				names = append(names, a.ID.String())
			}
			return names, l.Done, func(id string) bool {
				a := attempts[id]
				return published(of[id], f.Channel, f.Tag, f.EventTypes) && (f.Status == nil || a.Status == *f.Status) &&
					(f.StatusCodeClass == nil || int(a.HTTPStatus)/100*100 == *f.StatusCodeClass)
			}, err
		}
	}
	t.Run("by endpoint", func(t *testing.T) {
		checkTimeLimited(t, now, ofEndpoint, read(func(f store.AttemptFilter, p store.Page) (store.List[webhook.Attempt], error) {
			return w.view.AttemptsByEndpoint(t.Context(), w.app.ID.String(), endpoint.ID.String(), f, p)
		}))
	})
	t.Run("by message", func(t *testing.T) {
		checkTimeLimited(t, now, ofMessage, read(func(f store.AttemptFilter, p store.Page) (store.List[webhook.Attempt], error) {
			return w.view.AttemptsByMessage(t.Context(), w.app.ID.String(), long.ID.String(), f, p)
		}))
	})
	t.Run("by message and endpoint", func(t *testing.T) {
		both := map[string]time.Time{}
		for id, at := range ofMessage {
			if attempts[id].EndpointID == second.ID {
				both[id] = at
			}
		}
		checkTimeLimited(t, now, both, read(func(f store.AttemptFilter, p store.Page) (store.List[webhook.Attempt], error) {
			f.EndpointRef = second.ID.String()
			return w.view.AttemptsByMessage(t.Context(), w.app.ID.String(), long.ID.String(), f, p)
		}))
	})
}
