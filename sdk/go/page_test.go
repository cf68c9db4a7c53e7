package posthaste_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

// numbers answers a list of event types named 1 to n, page by page in both directions.
func numbers(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		iterator := r.URL.Query().Get("iterator")
		at, _ := strconv.Atoi(strings.TrimPrefix(iterator, "-"))
		first, last := at+1, min(at+limit, n)
		done := last == n
		if strings.HasPrefix(iterator, "-") {
			first, last = max(1, at-limit), at-1
			done = first == 1
		}
		var items []string
		for i := first; i <= last; i++ {
			items = append(items, fmt.Sprintf(`{"name":"%d"}`, i))
		}
		_, _ = fmt.Fprintf(w, `{"data":[%s],"iterator":"%d","prevIterator":"-%d","done":%v}`, strings.Join(items, ","), last, first, done)
	}
}

func names(t *testing.T, c *posthaste.Client, o posthaste.EventTypeListOptions) (list []string) {
	t.Helper()
	for e, err := range c.EventTypes.List(t.Context(), o) {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e.Name)
	}
	return list
}

func TestListsAreWalkedToTheirEnds(t *testing.T) {
	t.Parallel()
	for n := range 8 {
		s, c, _ := serve(t, numbers(n))
		var want, back []string
		for i := range n {
			want = append(want, strconv.Itoa(i+1))
		}
		if got := names(t, c, posthaste.EventTypeListOptions{Limit: 3}); !slices.Equal(got, want) {
			t.Errorf("%d items: %v", n, got)
		}
		if got, want := len(s.requests()), max(1, (n+2)/3); got != want {
			t.Errorf("%d items: %d pages, want %d", n, got, want)
		}
		if n == 0 {
			continue
		}
		back = append(back, want[:n-1]...)
		slices.Reverse(back)
		if got := names(t, c, posthaste.EventTypeListOptions{Limit: 3, Iterator: "-" + strconv.Itoa(n)}); !slices.Equal(got, back) {
			t.Errorf("%d items, back: %v", n, got)
		}
	}
}

func TestListsStopWhenTheirReaderDoes(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, numbers(100))
	list := c.EventTypes.List(t.Context(), posthaste.EventTypeListOptions{Limit: 3})
	for range 2 { // a list can be walked again
		for e, err := range list {
			if err != nil {
				t.Fatal(err)
			}
			if e.Name == "4" {
				break
			}
		}
	}
	if got := len(s.requests()); got != 4 {
		t.Errorf("%d pages were asked for, want 4", got)
	}
}

func TestListsEndWithTheirError(t *testing.T) {
	t.Parallel()
	_, c, _ := serve(t, says(200, `{"data":[{"name":"a"}],"iterator":"a","done":false}`), says(404, `{}`))
	var seen []string
	for e, err := range c.EventTypes.List(t.Context()) {
		if err != nil {
			if !errors.Is(err, posthaste.ErrNotFound) || e.Name != "" {
				t.Errorf("%+v, %v", e, err)
			}
			seen = append(seen, "error")
			continue
		}
		seen = append(seen, e.Name)
	}
	if !slices.Equal(seen, []string{"a", "error"}) {
		t.Errorf("%v", seen)
	}
}

func TestListsAfterATimeAreWhole(t *testing.T) {
	t.Parallel()
	after, before := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Date(2026, 1, 3, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		o    posthaste.MessageListOptions
		want string
	}{
		{posthaste.MessageListOptions{After: after}, "2026-04-02T03:04:05Z"}, // as far as a list reaches
		{posthaste.MessageListOptions{After: after, Before: before}, "2026-01-03T03:04:05Z"},
		{posthaste.MessageListOptions{After: after, Iterator: "msg_1"}, ""},
		{posthaste.MessageListOptions{}, ""},
	} {
		s, c1, _ := serve(t, says(200, `{"data":[],"iterator":"msg_2","done":false}`), says(200, `{"data":[],"iterator":null,"done":true}`))
		for _, err := range c1.Messages.List(t.Context(), "a", c.o) {
			t.Error(err)
		}
		for _, r := range s.requests() {
			u, err := url.Parse(r.uri)
			if err != nil || u.Query().Get("before") != c.want {
				t.Errorf("%+v: asked %s, want before=%s", c.o, r.uri, c.want)
			}
		}
		if len(s.requests()) != 2 {
			t.Errorf("%d pages", len(s.requests()))
		}
	}
}

// A page of a list that is bounded by time may be empty and still not be the last.
func TestEmptyPagesAreNoEnd(t *testing.T) {
	t.Parallel()
	_, c, _ := serve(t, says(200, `{"data":[],"iterator":"x","done":false}`), says(200, `{"data":[{"name":"a"}],"iterator":"a","done":true}`))
	if got := names(t, c, posthaste.EventTypeListOptions{}); !slices.Equal(got, []string{"a"}) {
		t.Errorf("%v", got)
	}
}

func TestListsAreNotEndless(t *testing.T) {
	t.Parallel()
	s, c, _ := serve(t, says(200, `{"data":[{"name":"a"}],"iterator":"a","done":false}`))
	var last error
	for _, err := range c.EventTypes.List(t.Context()) {
		last = err
	}
	if last == nil || len(s.requests()) != 2 {
		t.Errorf("%v after %d pages", last, len(s.requests()))
	}
	s, c, _ = serve(t, says(200, `{"data":[],"iterator":null,"done":false}`))
	if names(t, c, posthaste.EventTypeListOptions{}); len(s.requests()) != 1 {
		t.Errorf("%d pages without an iterator", len(s.requests()))
	}
}
