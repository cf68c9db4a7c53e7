package store

import (
	"slices"
	"strings"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Page says which part of a list is wanted.
type Page struct {
	Limit int // rows; 0 = webhook.DefaultPage, more than webhook.MaxPage = webhook.MaxPage
	// Iterator is where the last page ended: the id (of event types the name) of its last item, to go
	// on; "-" and the id of its first item, to go back; "" = from the start. A name that itself starts
	// with "-" is written with "+" before it to go on.
	Iterator   string
	Descending bool // the list's order; messages and attempts are newest first whatever it says
}

// List is one page, in the list's order whichever way it was walked.
type List[T any] struct {
	Data []T
	Done bool // there is nothing more in the direction walked
	// Reached is the iterator to go on with, after a page that ended early, where it is not that of an
	// item: without it a page that holds nothing could not be left behind.
	Reached string
}

func (p Page) limit() int {
	if p.Limit <= 0 {
		return webhook.DefaultPage
	}
	return min(p.Limit, webhook.MaxPage)
}

// position takes the iterator apart.
func (p Page) position() (at string, backwards bool) {
	if at, ok := strings.CutPrefix(p.Iterator, "-"); ok {
		return at, true
	}
	return strings.TrimPrefix(p.Iterator, "+"), false
}

func badIterator() error {
	return &webhook.Error{Kind: webhook.KindInvalid, Detail: "Validation error", Fields: []webhook.Field{{
		Loc: []string{"query", "iterator"}, Msg: "must be an iterator that this list returned", Type: "value_error",
	}}}
}

// listed reads the page of q that comes after cursor (nil = from the start) in the order of column.
// It reads one row more than asked for, to know whether there are more.
func listed[T any](q *gorm.DB, p Page, column string, cursor any, backwards bool) (List[T], error) {
	descending := p.Descending != backwards
	if cursor != nil {
		if descending {
			q = q.Where(column+" < ?", cursor)
		} else {
			q = q.Where(column+" > ?", cursor)
		}
	}
	var rows []T
	err := q.Order(clause.OrderByColumn{Column: clause.Column{Name: column}, Desc: descending}).
		Limit(p.limit() + 1).Find(&rows).Error
	if err != nil {
		return List[T]{}, err
	}
	return cut(rows, p.limit(), backwards), nil
}

// cut makes a page of rows that were read one further than limit.
func cut[T any](rows []T, limit int, reverse bool) List[T] {
	done := len(rows) <= limit
	rows = append([]T{}, rows[:min(len(rows), limit)]...) // never nil: an empty page is [] in JSON
	if reverse {
		slices.Reverse(rows)
	}
	return List[T]{Data: rows, Done: done}
}

// window is the part of a time-limited list that a page lies in.
type window struct {
	from, to  time.Time // of ids, in whole milliseconds; from ≤ time < to
	ascending bool      // the page is the one nearest to from
}

const (
	// maxWindow is how much time a page of messages or attempts may span. Together with the id's
	// order it bounds the partitions a query can touch.
	maxWindow = webhook.MaxRetentionDays * 24 * time.Hour
	// clockAhead is how far another process's clock may be ahead and its rows still be seen.
	clockAhead = time.Hour
)

// windowOf decides which times a page spans: 90 days back from before, on from after, both at once,
// or back (backwards: on) from the iterator, or else from now. before and after are exclusive, zero
// = not given; at is the iterator's time.
func windowOf(before, after, at time.Time, backwards bool, now time.Time) window {
	w := window{to: now.Add(clockAhead), ascending: backwards}
	if !after.IsZero() {
		w.from = after.Truncate(time.Millisecond).Add(time.Millisecond)
		w.to = earlier(w.to, after.Add(maxWindow))
	}
	if !before.IsZero() {
		w.to = earlier(w.to, before)
		w.from = later(w.from, before.Add(-maxWindow))
	}
	switch {
	case !before.IsZero():
	case !after.IsZero():
		// A page of what came after a time starts there, not at the newest end.
		w.ascending = backwards || at.IsZero()
	case at.IsZero():
		w.from = now.Add(-maxWindow)
	case backwards:
		w.from, w.to = at, earlier(w.to, at.Add(maxWindow))
	default:
		w.from = at.Add(-maxWindow)
	}
	// Ids know milliseconds: one that shows an earlier time than to lies before its next whole one.
	if rounded := w.to.Truncate(time.Millisecond); rounded.Before(w.to) {
		w.to = rounded.Add(time.Millisecond)
	}
	return w
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
