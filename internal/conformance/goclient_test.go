package conformance_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	svix "github.com/svix/svix-webhooks/go"
	"github.com/svix/svix-webhooks/go/utils"
)

// Names that all steps share: the uids of the application and of its endpoint.
const (
	customer = "customer-1"
	mainHook = "main"
	lateHook = "late-hook"
)

// scenario is what a step of the Go client works with.
type scenario struct {
	*testing.T
	front    *front
	client   *svix.Svix
	receiver *receiver
	present  []string
}

// client is the official Go client with a key.
func client(t *testing.T, at, key string) *svix.Svix {
	t.Helper()
	server, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{} // one of our own, whose idle connections we can close
	t.Cleanup(transport.CloseIdleConnections)
	c, err := svix.New(key, &svix.SvixOptions{ServerUrl: server, HTTPClient: &http.Client{Transport: transport}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// goSteps is what is done, in this order. needs names an operation without which a step is left out.
var goSteps = []struct {
	name  string
	needs string
	step  func(s scenario)
}{
	{"health", "", scenario.health},
	{"create an application", "", scenario.createApplication},
	{"replace and change an application", "", scenario.changeApplication},
	{"list applications both ways", "", scenario.listApplications},
	{"event types", "", scenario.eventTypes},
	{"endpoints", "", scenario.endpoints},
	{"headers of an endpoint", "", scenario.headers},
	{"send, receive and verify through a rotation", "", scenario.deliver},
	{"messages", "", scenario.messages},
	{"attempts", "", scenario.attempts},
	{"repeating with a key does nothing twice", "", scenario.replays},
	{"retries make one message", "", scenario.retries},
	{"errors are the client's own", "", scenario.errors},
	{"attempted messages", "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/msg", scenario.attemptedMessages},
	{"attempted destinations", "GET /api/v1/app/{app_id}/msg/{msg_id}/endpoint", scenario.attemptedDestinations},
	{"resend", "POST /api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend", scenario.resend},
	{"recover", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/recover", scenario.recover},
	{"statistics", "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/stats", scenario.statistics},
	{"example", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example", scenario.example},
	{"erase an answer", "DELETE /api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content", scenario.eraseAnswer},
	{"erase a payload", "DELETE /api/v1/app/{app_id}/msg/{msg_id}/content", scenario.erasePayload},
	{"replay what was missed", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/replay-missing", scenario.replayMissing},
	{"replay what a filter selects", "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/bulk-replay", scenario.bulkReplay},
	{"background tasks", "GET /api/v1/background-task", scenario.backgroundTasks},
	{"ask before sending", "POST /api/v1/app/{app_id}/msg/precheck/active", scenario.precheck},
	{"erase all payloads", "POST /api/v1/app/{app_id}/msg/expunge-all-contents", scenario.eraseAll},
	{"a customer's own access", "POST /api/v1/auth/app-portal-access/{app_id}", scenario.access},
	{"end every customer's access", "POST /api/v1/auth/app/{app_id}/expire-all", scenario.expireAll},
	{"delete an application", "", scenario.deleteApplication},
}

// The Go client, of the generation before 2.0.
func TestGo1(t *testing.T) {
	t.Parallel()
	p := start(t)
	has := present(t, p)
	receiver := listen(t)
	for _, s := range goSteps {
		if s.needs != "" && !slices.Contains(has, s.needs) {
			continue // not there yet
		}
		ok := t.Run(s.name, func(t *testing.T) {
			s.step(scenario{T: t, front: p.front, client: client(t, p.front.url, p.key), receiver: receiver, present: has})
		})
		if !ok {
			return // the steps build on each other
		}
	}
	covered(t, p, has, bulkExpunge)
}

// must is the value of a call that has to go well.
func must[T any](v *T, err error) func(s scenario) *T {
	return func(s scenario) *T {
		s.Helper()
		s.ok(err)
		if v == nil {
			s.Fatal("no value")
		}
		return v
	}
}

func (s scenario) ok(err error) {
	s.Helper()
	var refused *svix.Error
	if errors.As(err, &refused) {
		s.Fatalf("%v: %s", err, refused.Body())
	}
	if err != nil {
		s.Fatal(err)
	}
}

func (s scenario) want(what string, ok bool, got any) {
	s.Helper()
	if !ok {
		text, _ := json.Marshal(got)
		s.Fatalf("not %s: %s", what, text)
	}
}

// problem is the body of an error, of either kind.
type problem struct {
	Code   string
	Detail json.RawMessage
}

// at are the places that a validation error names.
func (p problem) at() (places []string) {
	var fields []struct {
		Loc       []string
		Msg, Type string
	}
	if json.Unmarshal(p.Detail, &fields) != nil {
		return nil
	}
	for _, f := range fields {
		places = append(places, strings.Join(f.Loc, "."))
	}
	return places
}

// refused wants the client's own error, with a status and a body that can be parsed.
func (s scenario) refused(err error, status int) (body problem) {
	s.Helper()
	var refused *svix.Error
	if !errors.As(err, &refused) {
		s.Fatalf("want the client's error with status %d, got %v", status, err)
	}
	if refused.Status() != status {
		s.Fatalf("status %d, want %d: %s", refused.Status(), status, refused.Body())
	}
	if err := json.Unmarshal(refused.Body(), &body); err != nil {
		s.Fatal(err)
	}
	return body
}

func null[T any]() utils.Nullable[T] { return utils.NewNullableFromPtr[T](nil) }

// page is what the walk below needs of any list.
type page struct {
	names          []string
	iterator, prev *string
	done           bool
}

// walk reads a list to its end and back again, and wants the same both ways.
func (s scenario) walk(least int, list func(limit *uint64, iterator *string) (page, error)) {
	s.Helper()
	limit := new(uint64(2))
	var there, back []string
	p := page{}
	for {
		var err error
		p, err = list(limit, p.iterator)
		s.ok(err)
		there = append(there, p.names...)
		if p.done {
			break
		}
	}
	for back = p.names; ; {
		var err error
		p, err = list(limit, p.prev)
		s.ok(err)
		back = append(slices.Clone(p.names), back...)
		if p.done {
			break
		}
	}
	s.want("the same both ways", len(there) >= least && slices.Equal(there, back), []any{there, back})
}

func names[T any](items []T, name func(T) string) (list []string) {
	for _, item := range items {
		list = append(list, name(item))
	}
	return list
}

// until asks again until the answer is as wanted.
func until[T any](s scenario, ask func() (*T, error), wanted func(T) bool) T {
	s.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	give := time.NewTimer(limit)
	defer give.Stop()
	for {
		got, err := ask()
		s.ok(err)
		if wanted(*got) {
			return *got
		}
		select {
		case <-ticker.C:
		case <-give.C:
			s.want("what was waited for", false, got)
		}
	}
}
