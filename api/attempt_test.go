package api

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestAttemptIsShownWithEverythingKnown(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint, message := a.endpoint(app), a.message(app)
	next, expiry := time.Now().Add(time.Minute).UTC().Truncate(time.Microsecond), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	id := a.attempt(app, endpoint, message, func(at *webhook.Attempt) {
		at.Number = 3
		at.Detail = webhook.AttemptDetail{
			Error: "the receiver answered 500", Timings: &webhook.Timings{DNS: 1, Connect: 2, TLS: 3, FirstByte: 4, Read: 5, Total: 15},
			RemoteIP: "203.0.113.7", Reused: true, TLSVersion: "TLS 1.3", CertExpiry: &expiry, NextAttempt: &next, RetryAfter: "120",
			RequestHeaders:  []webhook.Header{{Name: "X-Api-Key", Value: "***"}},
			ResponseHeaders: []webhook.Header{{Name: "Server", Value: "x"}}, ResponseTruncated: true, ContentType: "text/plain",
		}
	})
	f := a.get("/app/" + app + "/msg/" + message + "/attempt/" + id).want(200).fields()
	d := f["detail"].(obj)
	if f["id"] != id || f["msgId"] != message || f["endpointId"] != endpoint || f["response"] != "oops" || f["status"] != 2.0 ||
		f["statusText"] != "fail" || f["responseStatusCode"] != 500.0 || f["responseDurationMs"] != 12.0 || f["triggerType"] != 0.0 ||
		f["nextAttempt"] != next.Format(time.RFC3339Nano) {
		t.Fatal(f)
	}
	if d["number"] != 3.0 || d["errorClass"] != "server_error" || d["remoteIp"] != "203.0.113.7" || d["tlsVersion"] != "TLS 1.3" ||
		d["timings"].(obj)["totalUs"] != 15.0 || d["retryAfter"] != "120" || d["requestHeaders"].([]any)[0].(obj)["value"] != "***" ||
		d["certificateExpiry"] != expiry.Format(time.RFC3339Nano) || d["responseTruncated"] != true {
		t.Fatal(d)
	}
	for _, path := range []string{"/attempt/endpoint/" + endpoint, "/attempt/msg/" + message} {
		page := a.get("/app/" + app + path + "?with_content=false&with_msg=true").want(200)
		item := page.fields()["data"].([]any)[0].(obj)
		if item["id"] != id || item["response"] != "{}" || item["msg"].(obj)["id"] != message || len(item["msg"].(obj)["payload"].(obj)) != 0 {
			t.Fatalf("%s", page.body)
		}
	}
}

func TestCanceledIsShownOnlyToThoseWhoKnowIt(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint, message := a.endpoint(app), a.message(app)
	id := a.attempt(app, endpoint, message, func(at *webhook.Attempt) {
		at.Sent, at.Status, at.HTTPStatus, at.Class, at.Response = false, webhook.StatusCanceled, 0, webhook.ClassCanceled, nil
		at.Detail.Error = "the endpoint was deleted"
	})
	one := "/app/" + app + "/msg/" + message + "/attempt/" + id
	if f := a.get(one).want(200).fields(); f["status"] != 0.0 || f["statusText"] != "success" || f["detail"].(obj)["sent"] != false {
		t.Fatal(f)
	}
	if f := a.get(one + "?expanded_statuses=true").want(200).fields(); f["status"] != 4.0 || f["statusText"] != "canceled" || f["response"] != "the endpoint was deleted" {
		t.Fatal(f)
	}
}

func TestAttemptFilters(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	one, two := a.endpoint(app), a.endpoint(app)
	message := a.post("/app/"+app+"/msg", obj{"eventType": "a", "payload": obj{}, "channels": []string{"c"}, "tags": []string{"t"}}).want(202).str("id")
	failed := a.attempt(app, one, message)
	binary := string([]byte{0xff, 0xfe})
	good := a.attempt(app, two, message, func(at *webhook.Attempt) {
		at.Status, at.HTTPStatus, at.Class, at.Response = webhook.StatusSuccess, 204, webhook.ClassNone, []byte(binary)
	})
	byMessage := "/app/" + app + "/attempt/msg/" + message
	for _, c := range []struct{ path, want string }{
		{byMessage, good + "," + failed},
		{byMessage + "?status=2", failed},
		{byMessage + "?status=0", good},
		{byMessage + "?status=1", ""},
		{byMessage + "?status_code_class=200", good},
		{byMessage + "?status_code_class=500", failed},
		{byMessage + "?status_code_class=0", ""},
		{byMessage + "?endpoint_id=" + one, failed},
		{byMessage + "?event_types=a&channel=c&tag=t", good + "," + failed},
		{byMessage + "?event_types=b", ""},
		{"/app/" + app + "/attempt/endpoint/" + two, good},
		{"/app/" + app + "/attempt/endpoint/" + two + "?channel=other", ""},
	} {
		if got := strings.Join(listed(a.get(c.path).want(200), "id"), ","); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
	if f := a.get("/app/" + app + "/msg/" + message + "/attempt/" + good).want(200).fields(); f["response"] != base64.StdEncoding.EncodeToString([]byte(binary)) {
		t.Fatal(f)
	}
	for query, status := range map[string]int{
		"?status=9": 400, "?status=x": 400, "?status_code_class=404": 400, "?endpoint_id=nobody": 404, "?endpoint_id=%00": 404,
		"?iterator=atmpt_x": 422, "?iterator=" + message: 422,
	} {
		a.get(byMessage + query).want(status)
	}
	for _, path := range []string{"/attempt/atmpt_x", "/attempt/" + message} {
		a.get("/app/" + app + "/msg/" + message + path).want(404)
	}
}
