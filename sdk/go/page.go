package posthaste

import (
	"errors"
	"iter"
	"slices"
	"strings"
	"time"
)

// Page is one page of a list.
type Page[T any] struct {
	Data []T `json:"data"`
	// Iterator names the last item; given as the Iterator of the options, it asks for the page after this one.
	Iterator string `json:"iterator"`
	// PrevIterator names the first item; given as the Iterator, it asks for the page before this one.
	PrevIterator string `json:"prevIterator"`
	// Done says that there is nothing further in the direction walked.
	Done bool `json:"done"`
}

// errNoProgress ends a walk that a server would make endless.
var errNoProgress = errors.New("posthaste: the server answered a page with the iterator that asked for it")

// walk asks for page after page. From an iterator that leads backwards it walks backwards, the items of
// each page too.
func walk[T any](from string, page func(iterator string) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		at, back := from, strings.HasPrefix(from, "-")
		for {
			p, err := page(at)
			next := p.Iterator
			if back {
				next = p.PrevIterator
				slices.Reverse(p.Data)
			}
			for _, item := range p.Data {
				if !yield(item, nil) {
					return
				}
			}
			if err == nil && !p.Done && next != "" && next == at {
				err = errNoProgress
			}
			if err != nil {
				var nothing T
				yield(nothing, err)
				return
			}
			if p.Done || next == "" {
				return
			}
			at = next
		}
	}
}

// span is how much time a list reaches over at most.
const span = 90 * 24 * time.Hour

// end is where in time a walk begins that was only told where to end. Told just that, the API's first
// page is the one nearest to it, from which there is no way to what is younger.
func end(before, after time.Time, iterator string) time.Time {
	if before.IsZero() && !after.IsZero() && iterator == "" {
		return after.Add(span)
	}
	return before
}

// last is the options that count: those of the last, if there are several.
func last[O any](opts []O) (o O) {
	if n := len(opts); n > 0 {
		o = opts[n-1]
	}
	return o
}
