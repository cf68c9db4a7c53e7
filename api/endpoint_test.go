package api

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/webhook"
)

const hookURL = "http://127.0.0.1:8072/hook"

func TestEndpointTakesAndShowsBothSpellings(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := "/app/" + a.app() + "/endpoint"
	for _, name := range []string{"user.created", "user.deleted"} {
		a.post("/event-type", obj{"name": name, "description": "d"}).want(201)
	}
	check := func(r result, types int, rate any) {
		t.Helper()
		f := r.fields()
		newer, _ := f["eventTypes"].([]any)
		older, _ := f["filterTypes"].([]any)
		if len(newer) != types || len(older) != types || f["throttleRate"] != rate || f["rateLimit"] != rate || f["version"] != 1.0 {
			t.Fatalf("%s", r.body)
		}
	}
	both := []string{"user.created", "user.deleted"}
	check(a.post(app, obj{"url": hookURL, "eventTypes": both, "throttleRate": 5}).want(201), 2, 5.0)
	made := a.post(app, obj{"url": hookURL, "filterTypes": both, "rateLimit": 6, "version": 1}).want(201)
	check(made, 2, 6.0)
	one := app + "/" + made.str("id")
	check(a.patch(one, obj{"filterTypes": []string{"user.created"}, "rateLimit": 7}).want(200), 1, 7.0)
	check(a.patch(one, obj{"eventTypes": []string{}, "throttleRate": nil}).want(200), 0, nil)
	check(a.put(one, obj{"url": hookURL, "filterTypes": both}).want(200), 2, nil)
	check(a.put(one, obj{"url": hookURL, "eventTypes": nil, "channels": []string{}}).want(200), 0, nil)
}

func TestEndpointRules(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/endpoint"
	a.post("/event-type", obj{"name": "live", "description": "d"}).want(201)
	a.post("/event-type", obj{"name": "old", "description": "d"}).want(201)
	a.delete("/event-type/old").want(204)
	secret := func(size int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, size)) }
	manyHeaders := func(n int) obj {
		h := obj{}
		for i := range n {
			h[fmt.Sprint("x-h-", i)] = "v"
		}
		return h
	}
	channels := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint("c", i))
		}
		return out
	}
	for _, c := range []struct {
		what   string
		body   obj
		status int
		loc    string
	}{
		{"no url", obj{}, 422, "body.url"},
		{"relative url", obj{"url": "/hook"}, 422, "body.url"},
		{"another scheme", obj{"url": "ftp://127.0.0.1/"}, 422, "body.url"},
		{"a refused address is refused early", obj{"url": "http://169.254.169.254/"}, 422, "body.url"},
		{"url at the limit", obj{"url": hookURL + "?" + strings.Repeat("q", webhook.MaxURLLength-len(hookURL)-1)}, 201, ""},
		{"url over it", obj{"url": hookURL + "?" + strings.Repeat("q", webhook.MaxURLLength-len(hookURL))}, 422, "body.url"},
		{"known type", obj{"url": hookURL, "eventTypes": []string{"live", "live"}}, 201, ""},
		{"unknown type", obj{"url": hookURL, "eventTypes": []string{"none"}}, 422, "body.eventTypes"},
		{"archived type", obj{"url": hookURL, "filterTypes": []string{"old"}}, 422, "body.eventTypes"},
		{"channels at the limit", obj{"url": hookURL, "channels": channels(webhook.MaxChannels)}, 201, ""},
		{"channels over it", obj{"url": hookURL, "channels": channels(webhook.MaxChannels + 1)}, 422, "body.channels"},
		{"channel at the limit", obj{"url": hookURL, "channels": []string{strings.Repeat("c", webhook.MaxChannelLength)}}, 201, ""},
		{"channel over it", obj{"url": hookURL, "channels": []string{"ok", strings.Repeat("c", webhook.MaxChannelLength+1)}}, 422, "body.channels.[1]"},
		{"channel of the wider alphabet", obj{"url": hookURL, "channels": []string{"a:b+c"}}, 201, ""},
		{"channel with a space", obj{"url": hookURL, "channels": []string{"a b"}}, 422, "body.channels.[0]"},
		{"concurrency at the limit", obj{"url": hookURL, "concurrency": webhook.MaxConcurrency}, 201, ""},
		{"concurrency over it", obj{"url": hookURL, "concurrency": webhook.MaxConcurrency + 1}, 422, "body.concurrency"},
		{"concurrency 0", obj{"url": hookURL, "concurrency": 0}, 422, "body.concurrency"},
		{"shortest secret", obj{"url": hookURL, "secret": secret(signature.MinHMACKey)}, 201, ""},
		{"too short a secret", obj{"url": hookURL, "secret": secret(signature.MinHMACKey - 1)}, 422, "body.secret"},
		{"longest secret", obj{"url": hookURL, "secret": secret(signature.MaxHMACKey)}, 201, ""},
		{"too long a secret", obj{"url": hookURL, "secret": secret(signature.MaxHMACKey + 1)}, 422, "body.secret"},
		{"public key as secret", obj{"url": hookURL, "secret": "whpk_" + base64.StdEncoding.EncodeToString(make([]byte, 32))}, 422, "body.secret"},
		{"headers at the limit", obj{"url": hookURL, "headers": manyHeaders(webhook.MaxHeaders)}, 201, ""},
		{"headers over it", obj{"url": hookURL, "headers": manyHeaders(webhook.MaxHeaders + 1)}, 422, "body.headers"},
		{"reserved header", obj{"url": hookURL, "headers": obj{"Webhook-Id": "x"}}, 422, "body.headers"},
		{"header with a line break", obj{"url": hookURL, "headers": obj{"x-a": "b\r\nc: d"}}, 422, "body.headers"},
		{"uid like an id", obj{"url": hookURL, "uid": "ep_x"}, 422, "body.uid"},
	} {
		got := a.post(path, c.body)
		if got.status != c.status {
			t.Errorf("%s: %d, want %d: %.300s", c.what, got.status, c.status, got.body)
		} else if c.loc != "" && locOf(got) != c.loc {
			t.Errorf("%s: at %s, want %s", c.what, locOf(got), c.loc)
		}
	}
}

func TestConcurrencyOfAnEndpoint(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/endpoint"
	check := func(got result, want any) {
		t.Helper()
		if c, ok := got.fields()["concurrency"]; !ok || c != want {
			t.Errorf("concurrency %v, want %v", c, want)
		}
	}
	one := path + "/" + a.post(path, obj{"url": hookURL, "concurrency": 5}).want(201).str("id")
	check(a.get(one).want(200), 5.0)
	check(a.patch(one, obj{"description": "d"}).want(200), 5.0)
	check(a.patch(one, obj{"concurrency": 6}).want(200), 6.0)
	check(a.patch(one, obj{"concurrency": nil}).want(200), nil)
	check(a.put(one, obj{"url": hookURL, "concurrency": 7}).want(200), 7.0)
	check(a.put(one, obj{"url": hookURL}).want(200), nil)
	check(a.get(one).want(200), nil)
}

func TestEndpointsPerApplicationAreLimited(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/endpoint"
	for range webhook.MaxEndpoints {
		a.post(path, obj{"url": hookURL}).want(201)
	}
	if got := a.post(path, obj{"url": hookURL}); got.status != 409 || got.str("code") != "limit_reached" {
		t.Fatalf("%d %s", got.status, got.body)
	}
}

func TestCredentialsInAURLBecomeAHeader(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/endpoint"
	made := a.post(path, obj{"url": "http://user:pass-canary@127.0.0.1:8072/hook", "uid": "e"}).want(201)
	if made.str("url") != hookURL {
		t.Fatalf("%s", made.body)
	}
	headers := a.get(path + "/e/headers").want(200)
	if s := headers.fields()["sensitive"].([]any); len(s) != 1 || s[0] != "Authorization" || len(headers.fields()["headers"].(obj)) != 0 {
		t.Fatalf("%s", headers.body)
	}
	stored, err := a.store.View(webhook.Scope{Tenant: a.id}).EndpointHeaders(t.Context(), pathApp(path), "e")
	if want := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:pass-canary")); err != nil || stored["Authorization"] != want {
		t.Fatal(stored, err)
	}
	a.patch(path+"/e", obj{"url": "http://other:canary-two@127.0.0.1:8072/hook"}).want(200)
	if strings.Contains(a.logs.String(), "canary") {
		t.Fatal("a password is in the log")
	}
}

func pathApp(path string) string { return strings.Split(path, "/")[2] }

func TestEndpointHeaders(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	path := "/app/" + app + "/endpoint/" + a.endpoint(app) + "/headers"
	if got := a.get(path).want(200); string(got.body) != `{"headers":{},"sensitive":[]}` {
		t.Fatalf("%s", got.body)
	}
	a.put(path, obj{"headers": obj{"X-One": "1", "X-Api-Key": "canary", "x-two": "2"}}).want(204)
	got := a.get(path).want(200)
	if h := got.fields()["headers"].(obj); len(h) != 2 || h["X-One"] != "1" || strings.Contains(string(got.body), "canary") {
		t.Fatalf("%s", got.body)
	}
	a.patch(path, `{"headers":{"x-one":null,"x-three":"3"},"deleteHeaders":["X-TWO"]}`).want(204)
	if h := a.get(path).want(200).fields()["headers"].(obj); len(h) != 1 || h["x-three"] != "3" {
		t.Fatal(h)
	}
	a.patch(path, obj{"headers": obj{"content-length": "1"}}).want(422)
	a.put(path, `{}`).want(422)
}

func TestSigningKeyIsShownAndRotated(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	path := "/app/" + app + "/endpoint/" + a.endpoint(app) + "/secret"
	old := a.get(path).want(200).str("key")
	if _, err := signature.Parse(old); err != nil {
		t.Fatal(old, err)
	}
	a.post(path+"/rotate", nil).want(204)
	if next := a.get(path).want(200).str("key"); next == old {
		t.Fatal("not rotated")
	}
	given := signature.Generate(signature.Ed25519)
	a.post(path+"/rotate", obj{"key": given.Secret().Reveal(), "gracePeriodSeconds": 0}).want(204)
	if shown := a.get(path).want(200).str("key"); shown != given.Shown() || !strings.HasPrefix(shown, "whpk_") {
		t.Fatal("an asymmetric key must be shown as its public half", shown)
	}
	grace := int(webhook.MaxSecretGrace.Seconds())
	a.post(path+"/rotate", obj{"gracePeriodSeconds": grace + 1}).want(422)
	for range webhook.MaxOldSecrets - 1 { // the first rotation left one
		a.post(path+"/rotate", obj{"gracePeriodSeconds": grace}).want(204)
	}
	if got := a.post(path+"/rotate", `{}`); got.status != 400 || got.str("code") != "limit_reached" {
		t.Fatalf("%d %s", got.status, got.body)
	}
	a.post(path+"/rotate", obj{"key": "whsec_short"}).want(422)
}
