package api

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/ratelimit"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// limiting makes an API whose publish limits are kept in the Redis of a URL.
func limiting(t *testing.T, url string) func(*Options) {
	t.Helper()
	q, err := queue.Open(queue.Options{URL: url, ScriptTimeout: time.Minute, Timeout: 250 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return func(o *Options) { o.Limiter = ratelimit.New(q) }
}

// limited is a tenant with limits of its own, which every key of it knows.
func (r *rig) limited(limits obj) tenant {
	r.t.Helper()
	a := r.tenant()
	r.do("PATCH", tenantsPath+"/"+a.id.String(), operatorToken, obj{"limits": limits}).want(200)
	return a
}

func TestPlansByTheOperator(t *testing.T) {
	t.Parallel()
	r := setup(t)
	operate := func(method, path string, body any) result {
		return r.do(method, operatorPath+path, operatorToken, body)
	}
	made := operate("PUT", "/plan/pro", obj{"limits": obj{"deliverRate": 100, "maxEndpoints": 7, "weight": 3}}).want(201)
	if got := operate("GET", "/plan/pro", nil).want(200); string(got.body) != string(made.body) {
		t.Errorf("%s", got.body)
	}
	operate("PUT", "/plan/basic", obj{"limits": obj{}}).want(201)
	if names := listed(operate("GET", "/plan", nil).want(200), "name"); fmt.Sprint(names) != "[basic pro]" {
		t.Error(names)
	}
	a := r.tenant()
	path := "/tenant/" + a.id.String()
	var out struct {
		Plan            *string
		Limits          map[string]*int
		EffectiveLimits map[string]*int
	}
	see := func(got result) {
		t.Helper()
		out.Plan, out.Limits, out.EffectiveLimits = nil, nil, nil
		got.want(200).into(&out)
	}
	see(operate("PATCH", path, obj{"plan": "pro", "limits": obj{"maxEndpoints": 9}}))
	if *out.Plan != "pro" || *out.Limits["maxEndpoints"] != 9 || out.Limits["deliverRate"] != nil || *out.EffectiveLimits["deliverRate"] != 100 || *out.EffectiveLimits["maxEndpoints"] != 9 {
		t.Errorf("%+v", out)
	}
	see(operate("PATCH", path, obj{"name": "other"}))
	if *out.Plan != "pro" || *out.EffectiveLimits["maxEndpoints"] != 9 {
		t.Errorf("after another change: %+v", out)
	}
	see(operate("PATCH", path, obj{"limits": obj{}}))
	if *out.EffectiveLimits["maxEndpoints"] != 7 {
		t.Errorf("%+v", out)
	}
	operate("PUT", "/plan/pro", obj{"limits": obj{"deliverRate": 5}}).want(200)
	see(operate("GET", path, nil))
	if *out.EffectiveLimits["deliverRate"] != 5 || out.EffectiveLimits["maxEndpoints"] != nil || *out.EffectiveLimits["weight"] != 1 {
		t.Errorf("after the plan changed: %+v", out)
	}
	if got := operate("DELETE", "/plan/pro", nil).want(409); got.str("code") != "plan_in_use" {
		t.Errorf("%s", got.body)
	}
	if got := operate("PATCH", path, obj{"plan": "nothing"}).want(422); locOf(got) != "body.plan" {
		t.Errorf("%s", got.body)
	}
	see(operate("PATCH", path, obj{"plan": nil}))
	if out.Plan != nil || out.EffectiveLimits["deliverRate"] != nil {
		t.Errorf("%+v", out)
	}
	operate("DELETE", "/plan/pro", nil).want(204)
	operate("DELETE", "/plan/pro", nil).want(404)
}

// Each limit may be what it may be, and not one more.
func TestLimitsAtTheirLimits(t *testing.T) {
	t.Parallel()
	r := setup(t)
	for name, most := range map[string]int{
		"deliverRate": webhook.MaxRate, "deliverBurst": webhook.MaxRate, "publishRate": webhook.MaxRate, "publishBurst": webhook.MaxRate,
		"keyRate": webhook.MaxRate, "keyBurst": webhook.MaxRate, "messagesPerDay": webhook.MaxMessagesPerDay,
		"maxEndpoints": webhook.MaxTenantEndpoints, "maxPayload": webhook.MaxPayload, "weight": webhook.MaxWeight,
	} {
		for value, status := range map[int]int{0: 422, 1: 200, most: 200, most + 1: 422} {
			for _, spelling := range []string{name, strings.ToUpper(name)} {
				got := r.do("PUT", plansPath+"/p", operatorToken, obj{"limits": obj{spelling: value}})
				if got.status == 201 {
					got.status = 200
				}
				if got.status != status || status == 422 && locOf(got) != "body.limits."+name {
					t.Errorf("%s %d: %d %s", spelling, value, got.status, got.body)
				}
			}
		}
	}
	a := r.tenant()
	app := a.app()
	for _, path := range []string{"/app/" + app, "/app/" + app + "/endpoint/e"} {
		in := obj{"name": "n", "url": "http://127.0.0.1:8072/", "throttleRate": 9}
		for value, status := range map[int]int{0: 422, 1: 200, webhook.MaxThrottleRate: 200, webhook.MaxThrottleRate + 1: 422} {
			in["throttleBurst"] = value
			if got := a.put(path, in); got.status != status && got.status != status+1 {
				t.Errorf("%s with burst %d: %d %s", path, value, got.status, got.body)
			}
		}
		in["throttleBurst"] = 3
		if got := a.put(path, in).want(200); got.fields()["throttleBurst"] != 3.0 {
			t.Errorf("%s", got.body)
		}
		if got := a.patch(path, obj{"throttleRate": nil}).want(200); got.fields()["throttleBurst"] != nil {
			t.Errorf("the burst outlived its rate: %s", got.body)
		}
		if got := a.patch(path, obj{"throttleBurst": 3}).want(422); locOf(got) != "body.throttleBurst" {
			t.Errorf("%s", got.body)
		}
		if got := a.patch(path, obj{"throttleBurst": 3, "throttleRate": 4}).want(200); got.fields()["throttleBurst"] != 3.0 {
			t.Errorf("%s", got.body)
		}
		delete(in, "throttleRate")
		if got := a.put(path, in).want(422); locOf(got) != "body.throttleBurst" {
			t.Errorf("%s", got.body)
		}
	}
}

func TestPublishRates(t *testing.T) {
	t.Parallel()
	r := setup(t, limiting(t, storetest.Redis(t)))
	publish := func(a tenant, app string) result { return a.post("/app/"+app+"/msg", envelope(`{}`, "")) }
	for name, c := range map[string]struct {
		limits      obj
		detail      string
		otherPasses bool // another key of the tenant
	}{
		"of a tenant": {obj{"publishRate": 1, "publishBurst": 2}, "The tenant's limit is 1 messages per second", false},
		"of a key":    {obj{"keyRate": 1, "keyBurst": 2}, "The limit is 1 messages per second of one API key", true},
		"of both":     {obj{"keyRate": 1, "keyBurst": 2, "publishRate": 1000}, "The tenant's limit is 1000 messages per second, and 1 of one API key", true},
	} {
		a := r.limited(c.limits)
		app, other := a.app(), r.keyOf(a.id)
		publish(a, app).want(202)
		publish(a, app).want(202)
		got := publish(a, app)
		for start := time.Now(); got.status == 202 && time.Since(start) < 30*time.Second; { // the machine took a second for two
			got = publish(a, app)
		}
		got.want(429)
		if got.str("code") != "rate_limited" || got.str("detail") != c.detail || got.header.Get("Retry-After") != "1" {
			t.Errorf("%s: %s, retry after %s", name, got.body, got.header.Get("Retry-After"))
		}
		if c.otherPasses {
			publish(other, app).want(202)
		}
		publish(r.tenant(), app).want(404) // another tenant is not held back
	}
}

// A batch counts as many as it has messages. It may be larger than any burst, once: what comes after it
// waits until the rate has made up for it.
func TestABatchCountsItsMessages(t *testing.T) {
	t.Parallel()
	r := setup(t, limiting(t, storetest.Redis(t)))
	a := r.limited(obj{"publishRate": 1})
	path := "/app/" + a.app() + "/msg"
	var messages []obj
	for range 100 {
		messages = append(messages, obj{"eventType": "a", "payload": obj{}})
	}
	a.post(path+"/batch", obj{"messages": messages}).want(202)
	got := a.post(path, envelope(`{}`, "")).want(429)
	if after, err := strconv.Atoi(got.header.Get("Retry-After")); err != nil || after < 50 || after > 100 {
		t.Errorf("retry after %q", got.header.Get("Retry-After"))
	}
}

// Accepting does not depend on Redis.
func TestWithoutRedisPublishRatesLetThrough(t *testing.T) {
	t.Parallel()
	r := setup(t, limiting(t, "redis://127.0.0.1:1/0"))
	a := r.limited(obj{"publishRate": 1, "keyRate": 1})
	app := a.app()
	for range 5 {
		a.post("/app/"+app+"/msg", envelope(`{}`, "")).want(202)
	}
}

func TestPayloadsOfATenantAreLimited(t *testing.T) {
	t.Parallel()
	a := setup(t).limited(obj{"maxPayload": 20})
	path := "/app/" + a.app() + "/msg"
	fits, large := `{"a":"`+strings.Repeat("x", 12)+`"}`, `{"a":"`+strings.Repeat("x", 13)+`"}`
	a.post(path, envelope(fits, "")).want(202)
	if got := a.post(path, envelope(large, "")).want(413); got.str("code") != "payload_too_large" || !strings.Contains(got.str("detail"), "limit of 20 bytes") {
		t.Errorf("%s", got.body)
	}
	got := a.post(path+"/batch", `{"messages":[{"eventType":"a","payload":`+large+`},{"eventType":"a","payload":`+fits+`}]}`).want(202)
	var out struct {
		Data []struct {
			ID    *string
			Error *struct{ Code string }
		}
	}
	if got.into(&out); out.Data[0].Error == nil || out.Data[0].Error.Code != "payload_too_large" || out.Data[1].ID == nil {
		t.Errorf("%s", got.body)
	}
}

func TestEndpointsAndMessagesOfATenantAreLimited(t *testing.T) {
	t.Parallel()
	a := setup(t).limited(obj{"maxEndpoints": 1, "messagesPerDay": 2})
	app := a.app()
	a.endpoint(app)
	for _, got := range []result{
		a.post("/app/"+app+"/endpoint", obj{"url": "http://127.0.0.1:8072/two"}), a.put("/app/"+app+"/endpoint/two", obj{"url": "http://127.0.0.1:8072/two"}),
	} {
		if got.want(409).str("code") != "limit_reached" || got.str("detail") != "The tenant's limit is 1 endpoints" {
			t.Errorf("%s", got.body)
		}
	}
	a.message(app)
	a.message(app)
	got := a.post("/app/"+app+"/msg", envelope(`{}`, ""))
	_, midnight := webhook.Day(time.Now())
	after, err := strconv.Atoi(got.header.Get("Retry-After"))
	if got.status != 429 || got.str("code") != "quota_exceeded" || err != nil || time.Duration(after)*time.Second < time.Until(midnight) || after > 24*3600 {
		t.Errorf("%d %s, retry after %d", got.status, got.body, after)
	}
	a.post("/app/"+app+"/msg/batch", obj{"messages": []obj{{"eventType": "a", "payload": obj{}}}}).want(429)
	var out struct {
		Plan   *string
		Limits map[string]*int
		Usage  struct {
			MessagesToday, Endpoints int
			ResetsAt                 time.Time
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; { // what was accepted is added a moment later
		a.get("/limits").want(200).into(&out)
		if out.Usage.MessagesToday == 2 || time.Now().After(deadline) {
			break
		}
	}
	if out.Plan != nil || *out.Limits["messagesPerDay"] != 2 || out.Usage.MessagesToday != 2 || out.Usage.Endpoints != 1 || !out.Usage.ResetsAt.Equal(midnight) {
		t.Errorf("%+v", out)
	}
}
