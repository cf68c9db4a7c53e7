package customer_test

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

// Names that the steps share.
const (
	acme = "acme"
	hook = "main"
)

// pair is an Ed25519 key, of the published vectors.
const pair = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="

// customer is what a step works with.
type customer struct {
	*testing.T
	operator *posthaste.Client
	client   *posthaste.Client
	tenant   posthaste.Tenant
	receiver *receiver
}

// steps is what is done, in this order; each builds on those before it.
var steps = []struct {
	name string
	do   func(customer)
}{
	{"tenant", customer.changeTenant},
	{"plans and limits", customer.limits},
	{"API keys", customer.keys},
	{"applications", customer.applications},
	{"event types", customer.eventTypes},
	{"endpoints", customer.endpoints},
	{"headers of an endpoint", customer.headers},
	{"publish, receive and verify through a rotation", customer.deliver},
	{"messages", customer.messages},
	{"retries make one message", customer.retries},
	{"batches", customer.batches},
	{"attempts", customer.attempts},
	{"an example", customer.example},
	{"application tokens", customer.tokens},
	{"erase contents", customer.erase},
	{"background tasks", customer.tasks},
	{"hold back and let go", customer.holds},
	{"errors", customer.errors},
	{"remove everything", customer.remove},
}

func TestEveryOperation(t *testing.T) {
	url, token := os.Getenv("POSTHASTE_TEST_URL"), os.Getenv("POSTHASTE_TEST_OPERATOR_TOKEN")
	if url == "" || token == "" {
		t.Skip("there is no Posthaste to use: set POSTHASTE_TEST_URL and POSTHASTE_TEST_OPERATOR_TOKEN")
	}
	operator := connect(t, token, url)
	tenant := must(operator.Operator.Tenants.Create(t.Context(), posthaste.TenantIn{Name: "Customer"}))(t)
	key := must(operator.Operator.APIKeys.Create(t.Context(), tenant.ID, posthaste.APIKeyIn{Name: "all", Scopes: []posthaste.Scope{posthaste.ScopeAdmin}}))(t)
	c := customer{operator: operator, client: connect(t, key.Key, url), tenant: tenant, receiver: listen(t)}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) {
			c := c
			c.T = t
			step.do(c)
		}) {
			return
		}
	}
}

func connect(t *testing.T, key, url string) *posthaste.Client {
	t.Helper()
	c, err := posthaste.New(key, posthaste.WithURL(url), posthaste.WithUserAgent("customer"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

// must is the value of a call that has to go well.
func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (c customer) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c customer) want(what string, ok bool, got any) {
	c.Helper()
	if !ok {
		c.Fatalf("not %s: %+v", what, got)
	}
}

// all are the items of a list, which is the same when it is walked back from its end, and begins with a
// page of one.
func all[T any](c customer, list iter.Seq2[T, error], page posthaste.Page[T], err error) (items []T) {
	c.Helper()
	c.ok(err)
	for item, err := range list {
		c.ok(err)
		items = append(items, item)
	}
	c.want("a page of one", len(page.Data) == 1 && page.PrevIterator != "" && page.Done == (len(items) == 1), page)
	return items
}

func names[T any](items []T, name func(T) string) (list []string) {
	for _, item := range items {
		list = append(list, name(item))
	}
	return list
}

// until asks again until the answer is as wanted.
func until[T any](c customer, ask func() (T, error), wanted func(T) bool) T {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		got := must(ask())(c)
		if wanted(got) {
			return got
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			c.Fatalf("what was waited for did not come: %+v", got)
		}
	}
}

func (c customer) changeTenant() {
	tenants := c.operator.Operator.Tenants
	got := must(tenants.Patch(c.Context(), c.tenant.ID, posthaste.TenantPatch{
		Name: posthaste.Set("Renamed"), SchemaValidation: posthaste.Set(posthaste.SchemaValidationWarn),
	}))(c)
	c.want("changed", got.Name == "Renamed" && got.SchemaValidation == posthaste.SchemaValidationWarn && !got.StrictEventTypes, got)
	again := must(tenants.Get(c.Context(), c.tenant.ID))(c)
	c.want("kept", again == got, again)
	page, err := tenants.ListPage(c.Context(), posthaste.TenantListOptions{Limit: 1})
	list := all(c, tenants.List(c.Context()), page, err)
	c.want("listed", slices.Contains(list, got), list)
}

func (c customer) limits() {
	plans, name := c.operator.Operator.Plans, "plan-of-"+c.tenant.ID
	made := must(plans.Update(c.Context(), name, posthaste.PlanIn{Limits: posthaste.LimitsIn{DeliverRate: 5000, MessagesPerDay: 1_000_000, Weight: 2}}))(c)
	c.want("as it was sent", made.Name == name && made.Limits.DeliverRate == 5000 && made.Limits.Weight == 2 && made.Limits.PublishRate == 0, made)
	c.want("found", must(plans.Get(c.Context(), name))(c) == made, made)
	page, err := plans.ListPage(c.Context(), posthaste.PlanListOptions{Limit: 1})
	list := all(c, plans.List(c.Context()), page, err)
	c.want("listed", slices.Contains(list, made), list)
	tenants := c.operator.Operator.Tenants
	got := must(tenants.Patch(c.Context(), c.tenant.ID, posthaste.TenantPatch{
		Plan: posthaste.Set(name), Limits: posthaste.Set(posthaste.LimitsIn{MaxEndpoints: 1000}),
	}))(c)
	c.want("both", got.Plan == name && got.Limits.MaxEndpoints == 1000 && got.EffectiveLimits.DeliverRate == 5000, got)
	err = plans.Delete(c.Context(), name)
	c.want("in use", errors.Is(err, posthaste.ErrConflict), err)
	mine := must(c.client.Limits.Get(c.Context()))(c)
	c.want("what holds", mine.Plan == name && mine.Limits.DeliverRate == 5000 && mine.Limits.MaxEndpoints == 1000 && mine.Usage.Endpoints == 0 && mine.Usage.ResetsAt.After(time.Now()), mine)
	got = must(tenants.Patch(c.Context(), c.tenant.ID, posthaste.TenantPatch{Plan: posthaste.Null[string](), Limits: posthaste.Set(posthaste.LimitsIn{})}))(c)
	c.want("none", got.Plan == "" && got.EffectiveLimits.DeliverRate == 0 && got.EffectiveLimits.Weight == 1, got)
	c.ok(plans.Delete(c.Context(), name))
}

func (c customer) keys() {
	keys := c.operator.Operator.APIKeys
	in := posthaste.APIKeyIn{Name: "sender", UID: "sender", Scopes: []posthaste.Scope{posthaste.ScopeSend}, ExpiresAt: time.Now().Add(time.Hour)}
	made := must(keys.Create(c.Context(), c.tenant.ID, in))(c)
	c.want("a key", strings.HasPrefix(made.Key, "phk_") && made.UID == "sender" && !made.ExpiresAt.IsZero() && made.LastUsedAt.IsZero(), made.ID)
	again := must(keys.Create(c.Context(), c.tenant.ID, in))(c)
	c.want("the same, without its secret", again.ID == made.ID && again.Key == "", again.ID)
	page, err := keys.ListPage(c.Context(), c.tenant.ID, posthaste.APIKeyListOptions{Limit: 1})
	list := all(c, keys.List(c.Context(), c.tenant.ID, posthaste.APIKeyListOptions{Limit: 1}), page, err)
	c.want("both keys", len(list) == 2, list)
	c.ok(keys.Expire(c.Context(), c.tenant.ID, "sender", posthaste.APIKeyExpireIn{}))
}

func (c customer) applications() {
	apps := c.client.Applications
	made := must(apps.Create(c.Context(), posthaste.ApplicationIn{Name: "Acme GmbH", UID: acme, Metadata: map[string]string{"plan": "gold"}, ThrottleRate: 100, ThrottleBurst: 7}))(c)
	c.want("as it was sent", made.UID == acme && made.ThrottleRate == 100 && made.ThrottleBurst == 7 && made.Metadata["plan"] == "gold" && !made.CreatedAt.IsZero(), made)
	same := must(apps.Create(c.Context(), posthaste.ApplicationIn{Name: "Other", UID: acme}, posthaste.ApplicationCreateOptions{GetIfExists: true}))(c)
	c.want("the one that exists", same.ID == made.ID && same.Name == "Acme GmbH", same)
	got := must(apps.Patch(c.Context(), acme, posthaste.ApplicationPatch{Name: posthaste.Set("Acme AG"), ThrottleRate: posthaste.Null[int]()}))(c)
	c.want("changed in part", got.Name == "Acme AG" && got.ThrottleRate == 0 && got.Metadata["plan"] == "gold", got)
	got = must(apps.Update(c.Context(), acme, posthaste.ApplicationIn{Name: "Acme SE", UID: acme}))(c)
	c.want("replaced", got.ID == made.ID && got.Name == "Acme SE" && len(got.Metadata) == 0, got)
	got = must(apps.Get(c.Context(), made.ID))(c)
	c.want("found by its id", got.Name == "Acme SE", got)
	for _, uid := range []string{"b", "c"} {
		must(apps.Update(c.Context(), uid, posthaste.ApplicationIn{Name: uid}))(c)
	}
	page, err := apps.ListPage(c.Context(), posthaste.ApplicationListOptions{Limit: 1})
	uid := func(a posthaste.Application) string { return a.UID }
	list := names(all(c, apps.List(c.Context(), posthaste.ApplicationListOptions{Limit: 2}), page, err), uid)
	c.want("all, the oldest first", slices.Equal(list, []string{acme, "b", "c"}), list)
	list = names(all(c, apps.List(c.Context(), posthaste.ApplicationListOptions{Limit: 1, Order: posthaste.OrderDescending}), page, nil), uid)
	c.want("all, the youngest first", slices.Equal(list, []string{"c", "b", acme}), list)
	c.ok(apps.Delete(c.Context(), "b"))
}

func (c customer) eventTypes() {
	types := c.client.EventTypes
	schema := map[string]any{"1": map[string]any{"type": "object", "required": []string{"id"}, "examples": []any{map[string]any{"id": "in_1"}}}}
	made := must(types.Create(c.Context(), posthaste.EventTypeIn{Name: "invoice.paid", Description: "An invoice was paid.", Schemas: schema, FeatureFlags: []string{"beta"}}))(c)
	c.want("with its schema", len(made.Schemas["1"]) > 0 && slices.Equal(made.FeatureFlags, []string{"beta"}), made)
	got := must(types.Patch(c.Context(), "invoice.paid", posthaste.EventTypePatch{FeatureFlags: posthaste.Null[[]string](), GroupName: posthaste.Set("billing")}))(c)
	c.want("changed in part", got.FeatureFlags == nil && got.GroupName == "billing" && got.Description == made.Description, got)
	must(types.Update(c.Context(), "user.created", posthaste.EventTypeUpdate{Description: "Somebody joined."}))(c)
	got = must(types.Get(c.Context(), "user.created"))(c)
	c.want("made by its name", got.Description == "Somebody joined." && !got.Archived, got)
	spec := map[string]any{"openapi": "3.1.0", "info": map[string]any{"title": "t", "version": "1"}, "webhooks": map[string]any{
		"order.shipped": map[string]any{"post": map[string]any{"summary": "An order left.", "requestBody": map[string]any{
			"content": map[string]any{"application/json": map[string]any{"schema": map[string]any{"type": "object"}}}}}}}}
	would := must(types.ImportOpenAPI(c.Context(), posthaste.EventTypeImportIn{Spec: spec, DryRun: true}))(c)
	c.want("what would change", len(would.Data.Modified) == 0 && len(would.Data.ToModify) == 1 && would.Data.ToModify[0].Name == "order.shipped", would)
	did := must(types.ImportOpenAPI(c.Context(), posthaste.EventTypeImportIn{Spec: spec}))(c)
	c.want("what changed", slices.Equal(did.Data.Modified, []string{"order.shipped"}), did)
	page, err := types.ListPage(c.Context(), posthaste.EventTypeListOptions{Limit: 1})
	list := names(all(c, types.List(c.Context(), posthaste.EventTypeListOptions{Limit: 2}), page, err), func(e posthaste.EventType) string { return e.Name })
	c.want("all by name", slices.Equal(list, []string{"invoice.paid", "order.shipped", "user.created"}), list)
	c.ok(types.Delete(c.Context(), "order.shipped"))
	got = must(types.Get(c.Context(), "order.shipped"))(c)
	c.want("archived", got.Archived, got)
	c.ok(types.Delete(c.Context(), "order.shipped", posthaste.EventTypeDeleteOptions{Expunge: true}))
}

func (c customer) endpoints() {
	endpoints := c.client.Endpoints
	made := must(endpoints.Create(c.Context(), acme, posthaste.EndpointIn{
		URL: c.receiver.url + "/first", UID: hook, EventTypes: []string{"invoice.paid", "user.created"}, Headers: map[string]string{"X-Plan": "gold"}, ThrottleRate: 50,
	}))(c)
	c.want("as it was sent", made.UID == hook && len(made.EventTypes) == 2 && made.Channels == nil && made.ThrottleRate == 50, made)
	got := must(endpoints.Patch(c.Context(), acme, hook, posthaste.EndpointPatch{
		URL: posthaste.Set(c.receiver.url + "/hooks"), EventTypes: posthaste.Null[[]string](), ThrottleRate: posthaste.Null[int](), Description: posthaste.Set("d"),
	}))(c)
	c.want("changed in part", got.EventTypes == nil && got.ThrottleRate == 0 && got.Description == "d" && strings.HasSuffix(got.URL, "/hooks") && got.UID == hook, got)
	must(endpoints.Update(c.Context(), acme, "off", posthaste.EndpointUpdate{URL: c.receiver.url, Disabled: true}))(c)
	got = must(endpoints.Get(c.Context(), acme, "off"))(c)
	c.want("made by its uid", got.Disabled && got.UID == "off", got)
	page, err := endpoints.ListPage(c.Context(), acme, posthaste.EndpointListOptions{Limit: 1})
	list := names(all(c, endpoints.List(c.Context(), acme, posthaste.EndpointListOptions{Limit: 1}), page, err), func(e posthaste.Endpoint) string { return e.UID })
	c.want("all, the youngest first", slices.Equal(list, []string{"off", hook}), list)
	c.ok(endpoints.Delete(c.Context(), acme, "off"))
}

func (c customer) headers() {
	endpoints := c.client.Endpoints
	c.ok(endpoints.PatchHeaders(c.Context(), acme, hook, posthaste.EndpointHeadersPatch{Headers: map[string]string{"Authorization": "Bearer x", "X-Two": "2"}}))
	c.ok(endpoints.PatchHeaders(c.Context(), acme, hook, posthaste.EndpointHeadersPatch{DeleteHeaders: []string{"X-Two"}}))
	got := must(endpoints.GetHeaders(c.Context(), acme, hook))(c)
	c.want("what was set", len(got.Headers) == 1 && got.Headers["X-Plan"] == "gold" && slices.Equal(got.Sensitive, []string{"Authorization"}), got)
	c.ok(endpoints.UpdateHeaders(c.Context(), acme, hook, posthaste.EndpointHeadersIn{}))
	got = must(endpoints.GetHeaders(c.Context(), acme, hook))(c)
	c.want("none", len(got.Headers)+len(got.Sensitive) == 0, got)
}

func (c customer) secret() string {
	c.Helper()
	return must(c.client.Endpoints.GetSecret(c.Context(), acme, hook))(c).Key
}

func (c customer) publish(in posthaste.MessageIn, opts ...posthaste.MessageCreateOptions) posthaste.Message {
	c.Helper()
	return must(c.client.Messages.Create(c.Context(), acme, in, opts...))(c)
}

func (c customer) deliver() {
	old := c.secret()
	c.receiver.trust(c.T, old)
	first := c.publish(posthaste.MessageIn{EventType: "invoice.paid", EventID: "first", Payload: json.RawMessage(`{"id":"<Zoë>","n":12345678901234567890}`), Tags: []string{"t/1"}, Channels: []string{"eu"}})
	c.want("what was sent", first.EventID == "first" && string(first.Payload) == `{"id":"<Zoë>","n":12345678901234567890}` && len(first.Warnings) == 0, first)
	c.receiver.wait(c.T, first.ID, 1, string(first.Payload))
	c.ok(c.client.Endpoints.RotateSecret(c.Context(), acme, hook, posthaste.EndpointSecretRotateIn{}))
	c.want("another secret", c.secret() != old, nil)
	during := c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}})
	c.receiver.wait(c.T, during.ID, 1, `{}`) // the old one still signs
	// An Ed25519 key, at once: receivers verify with its public half.
	c.ok(c.client.Endpoints.RotateSecret(c.Context(), acme, hook, posthaste.EndpointSecretRotateIn{Key: pair, GracePeriodSeconds: posthaste.Set(0)}))
	public := c.secret()
	c.want("a public key", strings.HasPrefix(public, "whpk_"), public)
	c.receiver.trust(c.T, public)
	after := c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}, TransformationsParams: &posthaste.TransformationsParams{RawPayload: "plain", Headers: map[string]string{"content-type": "text/plain"}}})
	c.receiver.wait(c.T, after.ID, 1, "plain")
}

func (c customer) messages() {
	messages := c.client.Messages
	warned := c.publish(posthaste.MessageIn{EventType: "invoice.paid", Payload: map[string]any{}, PayloadRetentionHours: 1})
	c.want("warned", len(warned.Warnings) == 1, warned)
	c.receiver.wait(c.T, warned.ID, 1, "")
	once := posthaste.MessageCreateOptions{IdempotencyKey: "k-1", WithContent: posthaste.Set(false)}
	in := posthaste.MessageIn{EventType: "user.created", Payload: map[string]any{"n": 1}, Tags: []string{"once"}}
	one, two := c.publish(in, once), c.publish(in, once)
	c.want("one message", one.ID == two.ID && string(one.Payload) == "{}", []posthaste.Message{one, two})
	c.receiver.wait(c.T, one.ID, 1, `{"n":1}`)
	inline := must(messages.Create(c.Context(), "inline", posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}, Application: &posthaste.ApplicationIn{Name: "Inline", UID: "inline"}}))(c)
	got := must(messages.Get(c.Context(), "inline", inline.ID, posthaste.MessageGetOptions{WithContent: posthaste.Set(true)}))(c)
	c.want("with its application", got.ID == inline.ID, got)
	page, err := messages.ListPage(c.Context(), acme, posthaste.MessageListOptions{Limit: 1})
	list := all(c, messages.List(c.Context(), acme, posthaste.MessageListOptions{Limit: 2, After: time.Now().Add(-time.Hour)}), page, err)
	c.want("all, the youngest first", len(list) == 5 && list[0].ID == one.ID && list[4].EventID == "first", list)
	var back []string
	for m, err := range messages.List(c.Context(), acme, posthaste.MessageListOptions{Limit: 2, Iterator: "-" + list[4].ID}) {
		c.ok(err)
		back = append(back, m.ID)
	}
	forth := names(list[:4], func(m posthaste.Message) string { return m.ID })
	slices.Reverse(forth)
	c.want("the same backwards", slices.Equal(back, forth), back)
	for what, o := range map[string]posthaste.MessageListOptions{
		"tag": {Tag: "t/1"}, "channel": {Channel: "eu", EventTypes: []string{"invoice.paid", "other"}}, "no content": {Tag: "t/1", WithContent: posthaste.Set(false)},
	} {
		found := must(messages.ListPage(c.Context(), acme, o))(c)
		c.want("found by "+what, len(found.Data) == 1 && found.Data[0].EventID == "first" && (string(found.Data[0].Payload) == "{}") == (what == "no content"), found)
	}
}

// Whoever stands in front of the installation may be able to break one request: POST to the address and
// before, or after, makes the next one fail before the server has seen it, or after it did what was asked.
func (c customer) retries() {
	faults := os.Getenv("POSTHASTE_TEST_FAULTS")
	if faults == "" {
		c.Skip("nobody breaks requests: POSTHASTE_TEST_FAULTS is not set")
	}
	for _, when := range []string{"before", "after"} {
		req, err := http.NewRequestWithContext(c.Context(), http.MethodPost, faults+when, nil)
		c.ok(err)
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		c.ok(err)
		c.ok(resp.Body.Close())
		sent := c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}, Tags: []string{"fault-" + when}})
		found := must(c.client.Messages.ListPage(c.Context(), acme, posthaste.MessageListOptions{Tag: "fault-" + when}))(c)
		c.want("one message", len(found.Data) == 1 && found.Data[0].ID == sent.ID, found)
		c.receiver.wait(c.T, sent.ID, 1, `{}`)
	}
}

func (c customer) batches() {
	out := must(c.client.Messages.CreateBatch(c.Context(), acme, posthaste.MessageBatchIn{Messages: []posthaste.MessageIn{
		{EventType: "user.created", Payload: map[string]any{"batch": 1}}, {EventType: "not a name", Payload: struct{}{}},
	}}))(c)
	c.want("a result for each", len(out.Data) == 2 && out.Data[0].Error == nil && out.Data[0].ID != "" && out.Data[1].ID == "" && out.Data[1].Error != nil && len(out.Data[1].Error.Fields) == 1, out)
	c.receiver.wait(c.T, out.Data[0].ID, 1, `{"batch":1}`)
}

func (c customer) attempts() {
	attempts := c.client.Attempts
	c.receiver.fail(1)
	sent := c.publish(posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}, Tags: []string{"t/2"}})
	c.receiver.wait(c.T, sent.ID, 2, `{}`)
	tried := until(c, func() (posthaste.Page[posthaste.Attempt], error) {
		return attempts.ListByMsgPage(c.Context(), acme, sent.ID, posthaste.AttemptListByMsgOptions{WithMsg: true, EndpointID: hook})
	}, func(p posthaste.Page[posthaste.Attempt]) bool { return len(p.Data) == 2 }).Data
	last, first := tried[0], tried[1]
	c.want("a failure", first.Status == posthaste.StatusFail && first.StatusText == posthaste.StatusTextFail && first.ResponseStatusCode == 503 &&
		strings.HasPrefix(first.Response, "not now") && first.Detail.Number == 1 && !first.Detail.Final && !first.NextAttempt.IsZero() && first.Msg.ID == sent.ID, first)
	c.want("a success", last.Status == posthaste.StatusSuccess && last.Response == "taken" && last.Detail.Final && last.Detail.Timings != nil && last.Detail.Timings.TotalUs > 0 &&
		last.NextAttempt.IsZero() && last.TriggerType == posthaste.TriggerTypeScheduled, last)
	got := must(attempts.Get(c.Context(), acme, sent.ID, first.ID, posthaste.AttemptGetOptions{ExpandedStatuses: true}))(c)
	c.want("found by id", got.ID == first.ID, got)
	id := func(a posthaste.Attempt) string { return a.ID }
	page, err := attempts.ListByMsgPage(c.Context(), acme, sent.ID, posthaste.AttemptListByMsgOptions{Limit: 1})
	list := names(all(c, attempts.ListByMsg(c.Context(), acme, sent.ID, posthaste.AttemptListByMsgOptions{Limit: 1}), page, err), id)
	c.want("both", slices.Equal(list, []string{last.ID, first.ID}), list)
	page, err = attempts.ListByEndpointPage(c.Context(), acme, hook, posthaste.AttemptListByEndpointOptions{Limit: 1, Status: posthaste.Set(posthaste.StatusFail)})
	list = names(all(c, attempts.ListByEndpoint(c.Context(), acme, hook, posthaste.AttemptListByEndpointOptions{StatusCodeClass: posthaste.Set(posthaste.StatusCodeClass5xx)}), page, err), id)
	c.want("the failure", slices.Equal(list, []string{first.ID}), list)

	messages, err := attempts.ListAttemptedMessagesPage(c.Context(), acme, hook, posthaste.AttemptListAttemptedMessagesOptions{Limit: 1, Tag: "t/2"})
	owed := all(c, attempts.ListAttemptedMessages(c.Context(), acme, hook, posthaste.AttemptListAttemptedMessagesOptions{Tag: "t/2"}), messages, err)
	c.want("the message", len(owed) == 1 && owed[0].ID == sent.ID && owed[0].Status == posthaste.StatusSuccess, owed)
	destinations, err := attempts.ListAttemptedDestinationsPage(c.Context(), acme, sent.ID, posthaste.AttemptListAttemptedDestinationsOptions{Limit: 1})
	where := all(c, attempts.ListAttemptedDestinations(c.Context(), acme, sent.ID), destinations, err)
	c.want("the endpoint", len(where) == 1 && where[0].UID == hook && where[0].DeletedAt.IsZero() && where[0].StatusText == posthaste.StatusTextSuccess, where)

	c.ok(attempts.Resend(c.Context(), acme, sent.ID, hook))
	c.receiver.wait(c.T, sent.ID, 3, `{}`)
	until(c, func() (posthaste.EndpointStats, error) {
		return c.client.Endpoints.GetStats(c.Context(), acme, hook, posthaste.EndpointGetStatsOptions{Since: time.Now().Add(-time.Hour)})
	}, func(s posthaste.EndpointStats) bool { return s.Success >= 7 && s.Fail == 1 })
}

func (c customer) example() {
	_, err := c.client.Endpoints.Skip(c.Context(), acme, hook, posthaste.EndpointSkipIn{})
	var refusal *posthaste.Error
	c.want("a refusal to skip where there is no order", errors.As(err, &refusal) && refusal.Code == "not_ordered", err)
	const lined = "lined"
	must(c.client.Applications.Create(c.Context(), posthaste.ApplicationIn{Name: "In line", UID: lined}))(c)
	must(c.client.Endpoints.Create(c.Context(), lined, posthaste.EndpointIn{URL: c.receiver.url + "/lined", UID: hook, Ordering: posthaste.OrderingFifo}))(c)
	must(c.client.Endpoints.Pause(c.Context(), lined, hook))(c)
	first := must(c.client.Messages.Create(c.Context(), lined, posthaste.MessageIn{EventType: "user.created", Payload: struct{}{}}))(c)
	skipped := must(c.client.Endpoints.Skip(c.Context(), lined, hook, posthaste.EndpointSkipIn{MsgID: first.ID}))(c)
	c.want("the first in line", skipped.MsgID == first.ID, skipped)
	c.ok(c.client.Applications.Delete(c.Context(), lined))
	sent := must(c.client.Endpoints.SendExample(c.Context(), acme, hook, posthaste.ExampleIn{EventType: "invoice.paid"}))(c)
	c.receiver.wait(c.T, sent.ID, 1, `{"id":"in_1"}`)
}

func (c customer) tokens() {
	access := must(c.client.Authentication.AppPortalAccess(c.Context(), acme, posthaste.PortalAccessIn{
		Capabilities: []posthaste.Capability{posthaste.CapabilityViewBase}, Expiry: 3600, SessionID: "zoe@acme",
	}))(c)
	c.want("a link", strings.Contains(access.URL, "#key="), nil)
	server := os.Getenv("POSTHASTE_TEST_URL")
	own := connect(c.T, access.Token, server)
	must(own.Endpoints.Get(c.Context(), acme, hook))(c)
	err := own.Endpoints.Delete(c.Context(), acme, hook)
	c.want("forbidden", errors.Is(err, posthaste.ErrForbidden), err)
	c.ok(own.Authentication.Logout(c.Context()))
	c.over(own)

	//lint:ignore SA1019 every operation is called, those for older clients too
	old, err := c.client.Authentication.DashboardAccess(c.Context(), acme)
	c.ok(err)
	older := connect(c.T, old.Token, server)
	must(older.Applications.Get(c.Context(), acme))(c)
	c.ok(c.client.Authentication.ExpireAll(c.Context(), acme, posthaste.SessionsExpireIn{}))
	c.over(older)
}

// over waits until a token is no good any more.
func (c customer) over(client *posthaste.Client) {
	c.Helper()
	until(c, func() (bool, error) {
		_, err := client.Applications.Get(c.Context(), acme)
		if errors.Is(err, posthaste.ErrUnauthorized) {
			return true, nil
		}
		return false, err
	}, func(ended bool) bool { return ended })
}

func (c customer) erase() {
	tried := must(c.client.Attempts.ListByMsgPage(c.Context(), acme, "first"))(c).Data[0]
	c.ok(c.client.Attempts.ExpungeContent(c.Context(), acme, "first", tried.ID))
	got := must(c.client.Attempts.Get(c.Context(), acme, "first", tried.ID))(c)
	c.want("erased", got.Response == "EXPUNGED", got)
	c.ok(c.client.Messages.ExpungeContent(c.Context(), acme, "first"))
	message := must(c.client.Messages.Get(c.Context(), acme, "first"))(c)
	c.want("erased", string(message.Payload) == `{"expired":true}`, message)
}

func (c customer) errors() {
	_, err := c.client.Applications.Create(c.Context(), posthaste.ApplicationIn{Name: "Twice", UID: acme})
	c.want("a conflict", errors.Is(err, posthaste.ErrConflict), err)
	_, err = c.client.Applications.Get(c.Context(), "nobody")
	c.want("not found", errors.Is(err, posthaste.ErrNotFound), err)
	// A name that is dots is a name, not a way to another path.
	_, err = c.client.Applications.Get(c.Context(), "..")
	c.want("not found", errors.Is(err, posthaste.ErrNotFound), err)
	_, err = c.client.Messages.Create(c.Context(), acme, posthaste.MessageIn{EventType: "a b"})
	var refused *posthaste.Error
	c.want("invalid", errors.As(err, &refused) && errors.Is(err, posthaste.ErrInvalid) && len(refused.Fields) > 0 && refused.Fields[0].Loc[0] == "body" && strings.HasPrefix(refused.RequestID, "req_"), err)
	_, err = c.client.Messages.Create(c.Context(), acme, posthaste.MessageIn{EventType: "a", Payload: map[string]string{"x": strings.Repeat("x", 1<<20)}})
	c.want("too large", errors.Is(err, posthaste.ErrTooLarge), err)
	_, err = c.client.Applications.ListPage(c.Context(), posthaste.ApplicationListOptions{Order: "sideways"})
	c.want("a bad request", errors.Is(err, posthaste.ErrBadRequest), err)
	err = c.client.Operator.Tenants.Delete(c.Context(), c.tenant.ID)
	c.want("unauthorized", errors.Is(err, posthaste.ErrUnauthorized), err)
}

func (c customer) remove() {
	c.ok(c.client.Endpoints.Delete(c.Context(), acme, hook))
	c.ok(c.client.Applications.Delete(c.Context(), acme))
	_, err := c.client.Endpoints.Get(c.Context(), acme, hook)
	c.want("not found", errors.Is(err, posthaste.ErrNotFound), err)
	c.ok(c.operator.Operator.Tenants.Delete(c.Context(), c.tenant.ID))
	_, err = c.operator.Operator.Tenants.Get(c.Context(), c.tenant.ID)
	c.want("not found", errors.Is(err, posthaste.ErrNotFound), err)
}
