package conformance_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	svix "github.com/svix/svix-webhooks/go"
	"github.com/svix/svix-webhooks/go/models"
)

// verify judges a request as a receiver does that uses the client's own class.
func (s scenario) verify(key string, a arrival) error {
	s.Helper()
	wh, err := svix.NewWebhook(key)
	s.ok(err)
	return wh.Verify(a.body, a.header)
}

func (s scenario) deliver() {
	secret := func() string { return must(s.client.Endpoint.GetSecret(s.Context(), customer, mainHook))(s).Key }
	send := func(in models.MessageIn) *models.MessageOut {
		in.EventType = "invoice.paid"
		return must(s.client.Message.Create(s.Context(), customer, in, nil))(s)
	}
	before := secret()
	first := send(models.MessageIn{Payload: map[string]any{"text": "Zoë 🚀"}, EventId: new("first"), Tags: []string{"t/1"}, Channels: []string{"eu"}})
	s.want("what was sent", *first.EventId == "first" && slices.Equal(first.Tags, []string{"t/1"}) && slices.Equal(first.Channels, []string{"eu"}), first)
	got := s.receiver.wait(s.T, first.Id, 1)
	s.ok(s.verify(before, got))
	s.want("the payload as it was sent", string(got.body) == `{"text":"Zoë 🚀"}` && got.header.Get("X-Three") == "3" && got.header.Get("Authorization") == "Bearer secret", got.header)
	if forged := (arrival{got.path, got.header, []byte(`{"text":"Zoe"}`)}); s.verify(before, forged) == nil {
		s.Fatal("another body verifies")
	}

	s.ok(s.client.Endpoint.RotateSecret(s.Context(), customer, mainHook, models.EndpointSecretRotateIn{}, nil))
	after := secret()
	second := send(models.MessageIn{Payload: map[string]any{}})
	got = s.receiver.wait(s.T, second.Id, 1)
	s.want("another secret", after != before, nil)
	s.ok(s.verify(before, got))
	s.ok(s.verify(after, got))

	own := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 24)))
	s.ok(s.client.Endpoint.RotateSecret(s.Context(), customer, mainHook, models.EndpointSecretRotateIn{Key: &own, GracePeriodSeconds: new(uint32(0))}, nil))
	s.want("the secret that was given", secret() == own, nil)
	third := s.receiver.wait(s.T, send(models.MessageIn{Payload: map[string]any{}}).Id, 1)
	s.ok(s.verify(own, third))
	if s.verify(after, third) == nil {
		s.Fatal("a secret without grace still signs")
	}
}

func (s scenario) messages() {
	messages := s.client.Message
	_, err := messages.Create(s.Context(), customer, models.MessageIn{EventType: "invoice.paid", Payload: map[string]any{}, EventId: new("first")}, nil)
	s.refused(err, http.StatusConflict)
	for i := range 4 {
		shown := i%2 == 0
		made := must(messages.Create(s.Context(), customer, models.MessageIn{EventType: "user.created", Payload: map[string]any{"a": true}, PayloadRetentionHours: new(int64(1))},
			&svix.MessageCreateOptions{WithContent: &shown}))(s)
		s.want("shown if asked for", (made.Payload["a"] == true) == shown, made)
	}
	for _, with := range []bool{true, false} {
		got := must(messages.Get(s.Context(), customer, "first", &svix.MessageGetOptions{WithContent: &with}))(s)
		s.want("shown if asked for", (len(got.Payload) == 1) == with, got)
	}
	s.walk(5, func(limit *uint64, iterator *string) (page, error) {
		got, err := messages.List(s.Context(), customer, &svix.MessageListOptions{Limit: limit, Iterator: iterator})
		if err != nil {
			return page{}, err
		}
		return page{names(got.Data, func(m models.MessageOut) string { return m.Id }), got.Iterator, got.PrevIterator, got.Done}, nil
	})
	hour := time.Now().Add(-time.Hour)
	for _, c := range []struct {
		what string
		o    svix.MessageListOptions
		want int
	}{
		{"tag", svix.MessageListOptions{Tag: new("t/1")}, 1},
		{"channel and types", svix.MessageListOptions{Channel: new("eu"), EventTypes: &[]string{"invoice.paid", "other.type"}}, 1},
		{"before", svix.MessageListOptions{Before: &hour}, 0},
		{"after", svix.MessageListOptions{After: &hour, EventTypes: &[]string{"user.created"}}, 4},
	} {
		got := must(messages.List(s.Context(), customer, &c.o))(s)
		s.want("found by "+c.what, len(got.Data) == c.want, got)
	}
	inline := must(messages.Create(s.Context(), "customer-2", models.MessageIn{
		EventType: "user.created", Payload: map[string]any{}, Application: &models.ApplicationIn{Name: "Made on the way", Uid: new("customer-2")},
	}, nil))(s)
	must(messages.Get(s.Context(), "customer-2", inline.Id, nil))(s)
}

func (s scenario) attempts() {
	attempts := s.client.MessageAttempt
	s.receiver.fail(1)
	sent := must(s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "invoice.paid", Payload: map[string]any{"n": 3}, Tags: []string{"t/2"}}, nil))(s)
	s.receiver.wait(s.T, sent.Id, 2)
	all := until(s, func() (*models.ListResponseMessageAttemptOut, error) {
		return attempts.ListByMsg(s.Context(), customer, sent.Id, &svix.MessageAttemptListByMsgOptions{WithContent: new(true)})
	}, func(l models.ListResponseMessageAttemptOut) bool { return len(l.Data) == 2 })
	last, first := all.Data[0], all.Data[1]
	s.want("a failure", first.Status == models.MESSAGESTATUS_FAIL && first.StatusText == models.MESSAGESTATUSTEXT_FAIL && first.ResponseStatusCode == 500 && first.Response == "not now", first)
	s.want("a success", last.Status == models.MESSAGESTATUS_SUCCESS && last.ResponseStatusCode == 200 && last.Response == "taken" &&
		last.TriggerType == models.MESSAGEATTEMPTTRIGGERTYPE_SCHEDULED && !last.Timestamp.Before(first.Timestamp), last)
	s.want("found by id", must(attempts.Get(s.Context(), customer, sent.Id, first.Id, nil))(s).Id == first.Id, nil)
	for _, c := range []struct {
		what string
		o    svix.MessageAttemptListByMsgOptions
		want []string
	}{
		{"status", svix.MessageAttemptListByMsgOptions{Status: new(models.MESSAGESTATUS_FAIL)}, []string{first.Id}},
		{"class", svix.MessageAttemptListByMsgOptions{StatusCodeClass: new(models.STATUSCODECLASS_CODE2XX)}, []string{last.Id}},
		{"endpoint", svix.MessageAttemptListByMsgOptions{EndpointId: new(mainHook)}, []string{last.Id, first.Id}},
	} {
		got := must(attempts.ListByMsg(s.Context(), customer, sent.Id, &c.o))(s)
		s.want("found by "+c.what, slices.Equal(names(got.Data, func(a models.MessageAttemptOut) string { return a.Id }), c.want), got)
	}
	tagged := must(attempts.ListByEndpoint(s.Context(), customer, mainHook, &svix.MessageAttemptListByEndpointOptions{Tag: new("t/2"), WithMsg: new(true)}))(s)
	s.want("with its message", len(tagged.Data) == 2 && tagged.Data[0].Msg != nil && tagged.Data[0].Msg.Id == sent.Id, tagged)
	s.walk(5, func(limit *uint64, iterator *string) (page, error) {
		got, err := attempts.ListByEndpoint(s.Context(), customer, mainHook, &svix.MessageAttemptListByEndpointOptions{Limit: limit, Iterator: iterator})
		if err != nil {
			return page{}, err
		}
		return page{names(got.Data, func(a models.MessageAttemptOut) string { return a.Id }), got.Iterator, got.PrevIterator, got.Done}, nil
	})
}

func (s scenario) replays() {
	same := func(make func() (string, error)) string {
		s.Helper()
		one, err := make()
		s.ok(err)
		two, err := make()
		s.ok(err)
		s.want("the same", one == two, []string{one, two})
		return one
	}
	same(func() (string, error) {
		made, err := s.client.Application.Create(s.Context(), models.ApplicationIn{Name: "Once"}, &svix.ApplicationCreateOptions{IdempotencyKey: new("k-app")})
		if err != nil {
			return "", err
		}
		return made.Id, nil
	})
	same(func() (string, error) {
		made, err := s.client.Endpoint.Create(s.Context(), customer, models.EndpointIn{Url: s.receiver.url + "/once", Disabled: new(true)}, &svix.EndpointCreateOptions{IdempotencyKey: new("k-ep")})
		if err != nil {
			return "", err
		}
		return made.Id, nil
	})
	id := same(func() (string, error) {
		made, err := s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "once.only", Payload: map[string]any{}, Tags: []string{"once"}}, &svix.MessageCreateOptions{IdempotencyKey: new("k-msg")})
		if err != nil {
			return "", err
		}
		return made.Id, nil
	})
	s.tagged("once", id)
	_, err := s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "other", Payload: map[string]any{}}, &svix.MessageCreateOptions{IdempotencyKey: new("k-msg")})
	body := s.refused(err, http.StatusUnprocessableEntity)
	s.want("about the key", body.Code == "idempotency_key_reused", body)
}

// tagged wants exactly one message with a tag.
func (s scenario) tagged(tag, id string) {
	s.Helper()
	found := must(s.client.Message.List(s.Context(), customer, &svix.MessageListOptions{Tag: &tag}))(s)
	s.want("one message", len(found.Data) == 1 && found.Data[0].Id == id, found)
}

// The front answers with 500 once, either before the request reaches the server or after: the client
// sees neither, and asks again with its own key.
func (s scenario) retries() {
	for _, when := range []string{"before", "after"} {
		s.front.order(when)
		made := must(s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "user.created", Payload: map[string]any{}, Tags: []string{"fault-" + when}}, nil))(s)
		s.tagged("fault-"+when, made.Id)
	}
}

func (s scenario) errors() {
	_, err := client(s.T, s.front.url, "phk_wrong").Application.List(s.Context(), nil)
	body := s.refused(err, http.StatusUnauthorized)
	s.want("about the key", body.Code == "authentication_failed", body)
	_, err = s.client.Application.Get(s.Context(), "nobody")
	body = s.refused(err, http.StatusNotFound)
	s.want("not found", body.Code == "not_found", body)
	_, err = s.client.Application.List(s.Context(), &svix.ApplicationListOptions{Order: new(models.Ordering("sideways"))})
	body = s.refused(err, http.StatusBadRequest)
	s.want("not understood", body.Code == "generic_error", body)
	_, err = s.client.Application.List(s.Context(), &svix.ApplicationListOptions{Limit: new(uint64(251))})
	body = s.refused(err, http.StatusUnprocessableEntity)
	s.want("about the limit", slices.Equal(body.at(), []string{"query.limit"}), body)
	_, err = s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "a b", Payload: map[string]any{}}, nil)
	body = s.refused(err, http.StatusUnprocessableEntity)
	s.want("about the type", slices.Equal(body.at(), []string{"body.eventType"}), body)
	_, err = s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "e", Payload: map[string]any{"text": strings.Repeat("x", 1<<20)}}, nil)
	body = s.refused(err, http.StatusRequestEntityTooLarge)
	s.want("too large", body.Code == "payload_too_large", body)
	_, err = s.client.Integration.List(s.Context(), customer, nil) // of the hosted service alone
	s.refused(err, http.StatusNotFound)
}

func (s scenario) attemptedMessages() {
	got := must(s.client.MessageAttempt.ListAttemptedMessages(s.Context(), customer, mainHook, &svix.MessageAttemptListAttemptedMessagesOptions{Tag: new("t/2")}))(s)
	s.want("with its outcome", len(got.Data) == 1 && got.Data[0].Status == models.MESSAGESTATUS_SUCCESS, got)
}

func (s scenario) attemptedDestinations() {
	got := must(s.client.MessageAttempt.ListAttemptedDestinations(s.Context(), customer, "first", nil))(s)
	s.want("with its outcome", len(got.Data) == 1 && *got.Data[0].Uid == mainHook && got.Data[0].Status == models.MESSAGESTATUS_SUCCESS, got)
}

func (s scenario) resend() {
	first := must(s.client.Message.Get(s.Context(), customer, "first", nil))(s)
	must(s.client.MessageAttempt.Resend(s.Context(), customer, "first", mainHook, nil))(s)
	s.receiver.wait(s.T, first.Id, 2)
	until(s, func() (*models.ListResponseMessageAttemptOut, error) {
		return s.client.MessageAttempt.ListByMsg(s.Context(), customer, "first", nil)
	}, func(l models.ListResponseMessageAttemptOut) bool {
		return len(l.Data) == 2 && l.Data[0].TriggerType == models.MESSAGEATTEMPTTRIGGERTYPE_MANUAL
	})
}

func (s scenario) recover() {
	got := must(s.client.Endpoint.Recover(s.Context(), customer, mainHook, models.RecoverIn{Since: time.Now().Add(-time.Hour)}, nil))(s)
	s.want("a task", strings.HasPrefix(got.Id, "qtask_") && got.Task == models.BACKGROUNDTASKTYPE_ENDPOINT_RECOVER, got)
}

// finished waits until a background task is, and returns it.
func (s scenario) finished(id string) *models.BackgroundTaskOut {
	s.Helper()
	until(s, func() (*models.BackgroundTaskOut, error) { return s.client.BackgroundTask.Get(s.Context(), id) },
		func(t models.BackgroundTaskOut) bool { return t.Status != models.BACKGROUNDTASKSTATUS_RUNNING })
	got := must(s.client.BackgroundTask.Get(s.Context(), id))(s)
	s.want("finished", got.Id == id && got.Status == models.BACKGROUNDTASKSTATUS_FINISHED && got.Data["appId"] != nil, got)
	return got
}

func (s scenario) replayMissing() {
	sent := must(s.client.Message.Create(s.Context(), customer, models.MessageIn{EventType: "late.type", Payload: map[string]any{"n": 1}}, nil))(s)
	late := must(s.client.Endpoint.Create(s.Context(), customer, models.EndpointIn{Url: s.receiver.url + "/late", Uid: new(lateHook), FilterTypes: nil}, nil))(s)
	got := must(s.client.Endpoint.ReplayMissing(s.Context(), customer, lateHook, models.ReplayIn{Since: time.Now().Add(-time.Hour)}, nil))(s)
	s.want("a task", got.Task == models.BACKGROUNDTASKTYPE_ENDPOINT_REPLAY, got)
	s.receiver.wait(s.T, sent.Id, 1)
	s.want("of its endpoint", s.finished(got.Id).Data["endpointId"] == late.Id, got)
}

func (s scenario) bulkReplay() {
	got := must(s.client.Endpoint.BulkReplay(s.Context(), customer, lateHook, models.BulkReplayIn{
		Since: time.Now().Add(-time.Hour), EventTypes: []string{"late.type"}, Status: new(models.MESSAGESTATUS_SUCCESS),
		StatusCodeClass: new(models.STATUSCODECLASS_CODE2XX),
	}, nil))(s)
	s.want("a task", got.Task == models.BACKGROUNDTASKTYPE_ENDPOINT_BULK_REPLAY, got)
	s.finished(got.Id)
	_, err := s.client.Endpoint.BulkReplay(s.Context(), customer, lateHook, models.BulkReplayIn{Since: time.Now().Add(time.Hour)}, nil)
	body := s.refused(err, http.StatusUnprocessableEntity)
	s.want("about the time", slices.Equal(body.at(), []string{"body.since"}), body)
}

func (s scenario) backgroundTasks() {
	kind := models.BACKGROUNDTASKTYPE_ENDPOINT_BULK_REPLAY
	got := must(s.client.BackgroundTask.List(s.Context(), &svix.BackgroundTaskListOptions{Task: &kind}))(s)
	s.want("the bulk replay", len(got.Data) == 1 && got.Data[0].Task == kind && got.Done, got)
	_, err := s.client.BackgroundTask.Get(s.Context(), "qtask_000000000000000000000000000")
	s.refused(err, http.StatusNotFound)
	s.walk(3, func(limit *uint64, iterator *string) (page, error) {
		got, err := s.client.BackgroundTask.List(s.Context(), &svix.BackgroundTaskListOptions{Limit: limit, Iterator: iterator})
		if err != nil {
			return page{}, err
		}
		return page{names(got.Data, func(t models.BackgroundTaskOut) string { return t.Id }), got.Iterator, got.PrevIterator, got.Done}, nil
	})
}

func (s scenario) precheck() {
	got := must(s.client.Message.Precheck(s.Context(), customer, models.MessagePrecheckIn{EventType: "any.type"}, nil))(s)
	s.want("wanted", got.Active, got)
	s.ok(s.client.Endpoint.Delete(s.Context(), customer, lateHook))
	got = must(s.client.Message.Precheck(s.Context(), customer, models.MessagePrecheckIn{EventType: "any.type", Channels: []string{"a"}}, nil))(s)
	s.want("wanted by nobody", !got.Active, got)
}

func (s scenario) eraseAll() {
	got := must(s.client.Message.ExpungeAllContents(s.Context(), customer, nil))(s)
	s.want("a task", got.Task == models.BACKGROUNDTASKTYPE_APPLICATION_PURGE_CONTENT, got)
	s.finished(got.Id)
	list := must(s.client.Message.List(s.Context(), customer, &svix.MessageListOptions{WithContent: new(true)}))(s)
	for _, m := range list.Data {
		s.want("erased", m.Payload["expired"] == true, m)
	}
}

func (s scenario) statistics() {
	got := must(s.client.Endpoint.GetStats(s.Context(), customer, mainHook, nil))(s)
	s.want("counted", got.Success >= 3 && got.Fail >= 1, got)
	now := time.Now()
	must(s.client.Endpoint.GetStats(s.Context(), customer, mainHook, &svix.EndpointGetStatsOptions{Since: new(now.Add(-time.Hour)), Until: &now}))(s)
}

func (s scenario) example() {
	sent := must(s.client.Endpoint.SendExample(s.Context(), customer, mainHook, models.EventExampleIn{EventType: "svix.ping"}, nil))(s)
	got := s.receiver.wait(s.T, sent.Id, 1)
	var body struct{ Success bool }
	s.want("a ping", json.Unmarshal(got.body, &body) == nil && body.Success, string(got.body))
}

func (s scenario) eraseAnswer() {
	list := must(s.client.MessageAttempt.ListByMsg(s.Context(), customer, "first", nil))(s)
	s.want("kept", list.Data[0].Response == "taken", list)
	s.ok(s.client.MessageAttempt.ExpungeContent(s.Context(), customer, "first", list.Data[0].Id))
	got := must(s.client.MessageAttempt.Get(s.Context(), customer, "first", list.Data[0].Id, nil))(s)
	s.want("erased", got.Response == "EXPUNGED", got)
}

func (s scenario) erasePayload() {
	for range 2 {
		s.ok(s.client.Message.ExpungeContent(s.Context(), customer, "first"))
	}
	got := must(s.client.Message.Get(s.Context(), customer, "first", nil))(s)
	s.want("erased", got.Payload["expired"] == true, got)
}

func (s scenario) access() {
	access := must(s.client.Authentication.AppPortalAccess(s.Context(), customer, models.AppPortalAccessIn{}, nil))(s)
	s.want("a link", access.Token != "" && strings.Contains(access.Url, "#key="), nil)
	own := client(s.T, s.front.url, access.Token)
	must(own.Endpoint.List(s.Context(), customer, nil))(s)
	_, err := own.Application.List(s.Context(), nil)
	s.refused(err, http.StatusForbidden)
	_, err = own.Endpoint.List(s.Context(), "customer-2", nil)
	s.refused(err, http.StatusNotFound)
	if slices.Contains(s.present, "POST /api/v1/auth/logout") {
		s.ok(own.Authentication.Logout(s.Context(), nil))
		s.untilRefused(own)
	}
}

func (s scenario) expireAll() {
	access := must(s.client.Authentication.AppPortalAccess(s.Context(), customer, models.AppPortalAccessIn{}, nil))(s)
	own := client(s.T, s.front.url, access.Token)
	must(own.Endpoint.List(s.Context(), customer, nil))(s)
	s.ok(s.client.Authentication.ExpireAll(s.Context(), customer, models.ApplicationTokenExpireIn{}, nil))
	s.untilRefused(own)
}

// untilRefused waits until a customer's access has ended.
func (s scenario) untilRefused(own *svix.Svix) {
	s.Helper()
	err := until(s, func() (*error, error) {
		_, err := own.Endpoint.List(s.Context(), customer, nil)
		return &err, nil
	}, func(err error) bool { return err != nil })
	s.refused(err, http.StatusUnauthorized)
}

func (s scenario) deleteApplication() {
	s.ok(s.client.Application.Delete(s.Context(), customer))
	_, err := s.client.Application.Get(s.Context(), customer)
	s.refused(err, http.StatusNotFound)
}
