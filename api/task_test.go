package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// failed publishes messages to an endpoint that took none of them.
func (a tenant) failed(app, endpoint string, n int) (messages []string) {
	a.t.Helper()
	for range n {
		m := a.message(app)
		a.attempt(app, endpoint, m, func(at *webhook.Attempt) { at.Final = true })
		messages = append(messages, m)
	}
	a.exec(`DELETE FROM delivery`)
	return messages
}

// step lets background tasks take so many steps.
func (a tenant) step(n int) {
	a.t.Helper()
	runner := a.tasks.Runner()
	for range n {
		if _, err := runner.RunOnce(a.t.Context()); err != nil {
			a.t.Fatal(err)
		}
	}
}

func since(ago time.Duration) obj { return obj{"since": time.Now().Add(-ago)} }

func TestRecoverAnswersWithATaskThatCanBeFollowed(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint := a.endpoint(app)
	messages := a.failed(app, endpoint, 3)
	a.attempt(app, endpoint, messages[0], func(at *webhook.Attempt) { at.Status, at.HTTPStatus, at.Final = webhook.StatusSuccess, 200, true })
	path := "/app/" + app + "/endpoint/" + endpoint + "/recover"

	dry := a.post(path+"/dry-run", since(time.Hour)).want(200).fields()
	if dry["count"] != 2.0 || dry["succeeded"] != 1.0 || dry["first"] == nil || dry["last"] == nil {
		t.Errorf("dry run: %v", dry)
	}
	if n := len(a.get("/background-task").fields()["data"].([]any)); n != 0 {
		t.Errorf("a dry run made %d tasks", n)
	}
	made := a.post(path, since(time.Hour), "Idempotency-Key", "auto_1").want(202)
	if again := a.post(path, since(time.Hour), "Idempotency-Key", "auto_1").want(202); again.str("id") != made.str("id") {
		t.Error("a repeated request began another task")
	}
	if made.str("status") != "running" || made.str("task") != "endpoint.recover" || !strings.HasPrefix(made.str("id"), "qtask_") {
		t.Errorf("%s", made.body)
	}
	get := func() map[string]any { return a.get("/background-task/" + made.str("id")).want(200).fields() }
	if got := get(); got["counting"] != true || got["data"].(map[string]any)["endpointId"] != endpoint {
		t.Errorf("%v", got)
	}
	a.step(3)
	if got := get(); got["counted"] != 2.0 || got["counting"] != false || got["done"] != 0.0 || got["status"] != "running" {
		t.Errorf("%v", got)
	}
	// What was handed out is that many sends on their way, so that it is not handed out again.
	if dry := a.post(path+"/dry-run", since(time.Hour)).want(200).fields(); dry["count"] != 0.0 || dry["underWay"] != 2.0 {
		t.Errorf("dry run of what is under way: %v", dry)
	}
	if got := a.post("/background-task/"+made.str("id")+"/cancel", nil).want(200); got.str("status") != "finished" || got.fields()["cancelled"] != true {
		t.Errorf("%s", got.body)
	}
	for _, verb := range []string{"pause", "resume"} {
		if got := a.post("/background-task/"+made.str("id")+"/"+verb, nil).want(409); got.str("code") != "task_ended" {
			t.Errorf("%s", got.body)
		}
	}
}

func TestTheTimeThatATaskSpansIsChecked(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	at := "/app/" + app + "/endpoint/" + a.endpoint(app)
	until := time.Now()
	span := func(d time.Duration) obj { return obj{"since": until.Add(-d), "until": until} }
	const most = webhook.MaxRecoverRange + webhook.RangeSlack
	a.post(at+"/recover", span(most)).want(202)
	for path, body := range map[string]any{
		"/recover":                span(most + time.Second),
		"/recover/dry-run":        span(most + time.Second),
		"/replay-missing":         span(-time.Second),
		"/replay-missing/dry-run": obj{"since": until.Add(time.Hour)},
		"/bulk-replay":            obj{"since": "1969-01-01T00:00:00Z"},
		"/bulk-replay/dry-run":    span(-time.Second),
	} {
		got := a.post(at+path, body).want(422).fields()
		if loc := got["detail"].([]any)[0].(map[string]any)["loc"].([]any); !slices.Equal(loc, []any{"body", "since"}) {
			t.Errorf("%s: %v", path, got)
		}
	}
	a.post(at+"/recover", obj{}).want(422)
	a.post(at+"/bulk-replay", span(90*24*time.Hour)).want(202)
	for n, want := range map[int]int{0: 422, 1: 202, webhook.MaxStopAfter: 202, webhook.MaxStopAfter + 1: 422} {
		body := span(time.Hour)
		body["stopAfter"] = n
		a.post(at+"/replay-missing", body).want(want)
	}
	a.patch(strings.TrimPrefix(at, basePath), obj{"disabled": true}).want(200)
	if got := a.post(at+"/recover", span(time.Hour)).want(400); got.str("code") != "endpoint_disabled" {
		t.Errorf("%s", got.body)
	}
}

func TestBulkReplayTakesTheFiltersOfTheLists(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint := a.endpoint(app)
	a.failed(app, endpoint, 2)
	path := "/app/" + app + "/endpoint/" + endpoint + "/bulk-replay"
	for text, want := range map[string]float64{
		``: 2, `"status":2`: 2, `"status":0`: 0, `"statusCodeClass":500`: 2, `"statusCodeClass":0`: 0, `"eventTypes":["user.created"]`: 2,
		`"eventTypes":["other"]`: 0, `"channel":"eu"`: 0, `"tag":"a/b"`: 0, `"status":null,"channel":null,"tag":null,"eventTypes":null,"until":null`: 2,
	} {
		body := `{"since":"2020-01-01T00:00:00Z"`
		if text != "" {
			body += "," + text
		}
		if got := a.post(path+"/dry-run", body+"}").want(200).fields(); got["count"] != want {
			t.Errorf("%s: %v", body, got)
		}
	}
	got := a.post(path, `{"since":"2020-01-01T00:00:00Z","status":2,"channel":"eu","tag":"t","eventTypes":["e"],"statusCodeClass":500,"stopAfter":7}`).want(202)
	data := got.fields()["data"].(map[string]any)
	if data["status"] != 2.0 || data["channel"] != "eu" || data["tag"] != "t" || data["statusCodeClass"] != 500.0 || data["stopAfter"] != 7.0 {
		t.Errorf("%s", got.body)
	}
	for _, bad := range []string{`"status":5`, `"statusCodeClass":201`, `"channel":"a b"`, `"tag":"é"`, `"eventTypes":["a b"]`} {
		a.post(path, `{"since":"2020-01-01T00:00:00Z",`+bad+`}`).want(422)
	}
}

func TestTasksAreListedBothWaysAndByKind(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	at := "/app/" + app + "/endpoint/" + a.endpoint(app)
	var ids []string
	for i := range 5 {
		path := []string{"/recover", "/replay-missing"}[i%2]
		ids = append(ids, a.post(at+path, since(time.Hour)).want(202).str("id"))
	}
	list := func(query string) (got []string, all map[string]any) {
		t.Helper()
		all = a.get("/background-task?" + query).want(200).fields()
		for _, d := range all["data"].([]any) {
			got = append(got, d.(map[string]any)["id"].(string))
		}
		return got, all
	}
	newest := slices.Clone(ids)
	slices.Reverse(newest)
	if got, _ := list(""); !slices.Equal(got, newest) {
		t.Errorf("%v, want the newest first", got)
	}
	if got, _ := list("order=ascending"); !slices.Equal(got, ids) {
		t.Errorf("%v, want the oldest first", got)
	}
	got, page := list("limit=2")
	next, _ := list("limit=2&iterator=" + page["iterator"].(string))
	if !slices.Equal(append(got, next...), newest[:4]) || page["done"] != false {
		t.Errorf("%v then %v", got, next)
	}
	if got, _ := list("task=endpoint.replay"); !slices.Equal(got, []string{ids[3], ids[1]}) {
		t.Errorf("%v", got)
	}
	a.post("/background-task/"+ids[0]+"/cancel", nil).want(200)
	if got, _ := list("status=finished"); !slices.Equal(got, ids[:1]) {
		t.Errorf("%v", got)
	}
	if got := a.post("/background-task/"+ids[1]+"/pause", nil).want(200).fields(); got["paused"] != true || got["status"] != "running" {
		t.Errorf("%v", got)
	}
	if got := a.post("/background-task/"+ids[1]+"/resume", nil).want(200).fields(); got["paused"] != false {
		t.Errorf("%v", got)
	}
	a.get("/background-task?status=paused").want(400)
	a.get("/background-task?iterator=ep_1").want(422)
	if got, _ := list("task=sdk.generate"); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

func TestAnApplicationIsErasedInTheBackground(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint, other := a.endpoint(app), a.app()
	message, elsewhere := a.message(app), a.message(other)
	attempt := a.attempt(app, endpoint, message)
	got := a.post("/app/"+app+"/msg/expunge-all-contents", nil).want(202)
	if got.str("task") != "application.purge_content" {
		t.Errorf("%s", got.body)
	}
	a.step(5)
	if done := a.get("/background-task/" + got.str("id")).fields(); done["status"] != "finished" || done["done"] != 1.0 || done["counted"] != 1.0 {
		t.Errorf("%v", done)
	}
	if text := string(a.get("/app/" + app + "/msg/" + message).body); !strings.Contains(text, `"payload":{"expired":true}`) {
		t.Error(text)
	}
	if text := a.get("/app/" + app + "/msg/" + message + "/attempt/" + attempt).str("response"); text != store.Expunged {
		t.Error(text)
	}
	if text := string(a.get("/app/" + other + "/msg/" + elsewhere).body); strings.Contains(text, "expired") {
		t.Error(text)
	}
}

func TestManyMessagesAreErasedAtOnce(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	message := a.message(app)
	a.post("/app/"+app+"/msg", obj{"eventType": "e", "eventId": "own", "payload": obj{}}).want(202)
	path := "/app/" + app + "/msg/bulk-expunge"
	for range 2 {
		got := a.post(path, obj{"ids": []string{message, "own", "nothing", message}}).want(200).fields()["results"].(map[string]any)
		if len(got) != 3 || got[message] != "expunged" || got["own"] != "expunged" || got["nothing"] != "not-found" {
			t.Errorf("%v", got)
		}
	}
	a.post(path, obj{}).want(200)
	ids := make([]string, webhook.MaxBulkExpunge+1)
	for i := range ids {
		ids[i] = fmt.Sprint("event-", i)
	}
	a.post(path, obj{"ids": ids}).want(422)
	a.post(path, obj{"ids": ids[1:]}).want(200)
	a.post(path, obj{"ids": []string{"a/b"}}).want(422)
}

func TestPrecheckSaysWhetherAnybodyListens(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	active := func(body obj) any {
		t.Helper()
		return a.post("/app/"+app+"/msg/precheck/active", body).want(200).fields()["active"]
	}
	if active(obj{"eventType": "e"}) != false {
		t.Error("nobody listens")
	}
	a.post("/app/"+app+"/endpoint", obj{"url": "http://127.0.0.1:8072/", "channels": []string{"eu"}}).want(201)
	if active(obj{"eventType": "e"}) != false || active(obj{"eventType": "e", "channels": []string{"eu"}}) != true || active(obj{"eventType": "e", "channels": nil}) != false {
		t.Error("channels are not looked at")
	}
	a.post("/app/"+app+"/msg/precheck/active", obj{}).want(422)
	a.post("/app/"+app+"/msg/precheck/active", obj{"eventType": "a b"}).want(422)
	a.post("/app/nobody/msg/precheck/active", obj{"eventType": "e"}).want(404)
}
