package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Every list is walked to its end and back again, in pages that do not divide it evenly.
func TestListsAreWalkedBothWays(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant()
	app := a.app()
	const count, limit = 7, 3
	endpoint, message := "", ""
	var apps, endpoints, types, messages, attempts []string
	apps = append(apps, app)
	for i := range count {
		endpoint = a.endpoint(app)
		endpoints = append(endpoints, endpoint)
		message = a.message(app)
		messages = append(messages, message)
		if i > 0 {
			apps = append(apps, a.app())
		}
		name := fmt.Sprintf("t.%d", i)
		if i == 3 {
			name = "-t" // sorts first, and looks like an iterator that walks backwards
		}
		a.post("/event-type", obj{"name": name, "description": "d"}).want(201)
		types = append(types, name)
	}
	for range count {
		attempts = append(attempts, a.attempt(app, endpoint, message))
	}
	slices.Sort(types)
	slices.Sort(attempts)
	for _, list := range []struct {
		path, field string
		want        []string
		newestFirst bool
	}{
		{"/app?", "id", apps, false},
		{"/app?order=descending&", "id", apps, true},
		{"/app/" + app + "/endpoint?", "id", endpoints, true},
		{"/app/" + app + "/endpoint?order=ascending&", "id", endpoints, false},
		{"/event-type?", "name", types, false},
		{"/event-type?order=descending&", "name", types, false},
		{"/app/" + app + "/msg?", "id", messages, true},
		{"/app/" + app + "/attempt/endpoint/" + endpoint + "?", "id", attempts, true},
		{"/app/" + app + "/attempt/msg/" + message + "?", "id", attempts, true},
	} {
		want := slices.Clone(list.want)
		if list.newestFirst {
			slices.Reverse(want)
		}
		pages, last := walk(a, list.path, list.field, limit, "")
		if got := slices.Concat(pages...); !slices.Equal(got, want) {
			t.Errorf("%s forwards: %v, want %v", list.path, got, want)
		}
		if len(pages) != 3 {
			t.Errorf("%s: %d pages", list.path, len(pages))
		}
		back, _ := walk(a, list.path, list.field, limit, last)
		slices.Reverse(back)
		if got := slices.Concat(back...); !slices.Equal(got, want[:count-1]) {
			t.Errorf("%s backwards: %v, want %v", list.path, got, want[:count-1])
		}
	}
}

// walk reads a list to its end, from an iterator if there is one, and returns its pages and the
// prevIterator of the last.
func walk(a tenant, path, field string, limit int, iterator string) (pages [][]string, prev string) {
	a.t.Helper()
	backwards := strings.HasPrefix(iterator, "-") && iterator != ""
	for {
		got := a.get(fmt.Sprintf("%slimit=%d&iterator=%s", path, limit, strings.ReplaceAll(iterator, "+", "%2B"))).want(200)
		var p struct {
			Iterator, PrevIterator *string
			Done                   bool
		}
		got.into(&p)
		items := listed(got, field)
		if len(items) == 0 {
			a.t.Fatalf("an empty page before the end of %s", path)
		}
		pages = append(pages, items)
		if prev = *p.PrevIterator; p.Done {
			return pages, prev
		}
		if iterator = *p.Iterator; backwards {
			iterator = prev
		}
	}
}

func TestEmptyPage(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := r.tenant()
	app := a.app()
	check := func(got result) {
		t.Helper()
		if got.want(200); string(got.body) != `{"data":[],"iterator":null,"done":true}` {
			t.Errorf("%s", got.body)
		}
	}
	for _, path := range []string{"/event-type", "/app/" + app + "/endpoint", "/app/" + app + "/msg"} {
		check(a.get(path))
	}
	check(r.tenant().get("/app"))
}

func TestPageLimits(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	a.app()
	for limit, status := range map[int]int{0: 200, 1: 200, webhook.MaxPage: 200, webhook.MaxPage + 1: 422, -1: 422} {
		a.get(fmt.Sprintf("/app?limit=%d", limit)).want(status)
	}
	for _, iterator := range []string{"x", "ep_" + strings.Repeat("0", 27), "app_" + strings.Repeat("z", 27), "-", "--app", "%00", strings.Repeat("a", 300)} {
		if got := a.get("/app?iterator=" + iterator).want(422); locOf(got) != "query.iterator" {
			t.Errorf("%s", got.body)
		}
	}
	a.get("/app?order=sideways").want(400)
}
