package api

import (
	"strings"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// listResponse is one page of a list.
type listResponse[T any] struct {
	Data         []T     `json:"data"`
	Iterator     *string `json:"iterator" doc:"Names the last item, or where the search ended; give it back as iterator to get the page after this one."`
	PrevIterator *string `json:"prevIterator,omitempty" doc:"Names the first item; give it back as iterator to get the page before this one."`
	Done         bool    `json:"done" doc:"There is nothing further in the direction walked."`
}

// pageQuery is how a list is walked.
type pageQuery struct {
	Limit    int    `query:"limit" default:"50" minimum:"0" maximum:"250" doc:"Items per page; 0 means the default."`
	Iterator string `query:"iterator" maxLength:"257" doc:"An iterator of an earlier page; a leading - walks backwards."`
}

// orderedQuery is a page whose order can be chosen.
type orderedQuery struct {
	pageQuery
	Order string `query:"order" enum:"ascending,descending" doc:"Order by age."`
}

const (
	ascending  = "ascending"
	descending = "descending"
)

// What an iterator starts with: backwards walks towards the beginning of the list; forwards is only
// written before a name that could be mistaken for that.
const (
	backwards = "-"
	forwards  = "+"
)

// page turns the query into the store's terms. An iterator is a place in time, not a right: it is
// looked up by nobody, so another tenant's is harmless.
func (q pageQuery) page(descending bool, isItem func(string) bool) (store.Page, error) {
	p := store.Page{Limit: q.Limit, Iterator: q.Iterator, Descending: descending}
	if p.Limit == 0 {
		p.Limit = webhook.DefaultPage
	}
	if q.Iterator != "" && !isItem(strings.TrimLeft(q.Iterator[:1], backwards+forwards)+q.Iterator[1:]) {
		return store.Page{}, invalidAt(typeValue, []string{"query", "iterator"}, "is not an iterator of this list")
	}
	return p, nil
}

func isApplicationID(text string) bool {
	_, err := webhook.ParseID[webhook.ApplicationID](text)
	return err == nil
}

func isEndpointID(text string) bool {
	_, err := webhook.ParseID[webhook.EndpointID](text)
	return err == nil
}

func isMessageID(text string) bool {
	_, err := webhook.ParseID[webhook.MessageID](text)
	return err == nil
}

func isAttemptID(text string) bool {
	_, err := webhook.ParseID[webhook.AttemptID](text)
	return err == nil
}

func isTaskID(text string) bool {
	_, err := webhook.ParseID[webhook.TaskID](text)
	return err == nil
}

func isTenantID(text string) bool {
	_, err := webhook.ParseID[webhook.TenantID](text)
	return err == nil
}

func isAPIKeyID(text string) bool {
	_, err := webhook.ParseID[webhook.APIKeyID](text)
	return err == nil
}

// listOf builds a page from what the store found; name is what an item is called in an iterator.
func listOf[D, J any](found store.List[D], shape func(D) J, name func(D) string) listResponse[J] {
	out := listResponse[J]{Data: make([]J, len(found.Data)), Done: found.Done}
	for i, d := range found.Data {
		out.Data[i] = shape(d)
	}
	if n := len(found.Data); n > 0 {
		last, first := name(found.Data[n-1]), backwards+name(found.Data[0])
		if strings.HasPrefix(last, backwards) {
			last = forwards + last
		}
		out.Iterator, out.PrevIterator = &last, &first
	}
	switch {
	case strings.HasPrefix(found.Reached, backwards):
		out.PrevIterator = &found.Reached
	case found.Reached != "":
		out.Iterator = &found.Reached
	}
	return out
}
