package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// customerMay is what the contract lets an application token do, and with which capability. What is
// not here it may not; no route is excused from being in one group or the other.
var customerMay = map[string]auth.Capability{
	"v1.application.get":                             auth.ViewBase,
	"v1.endpoint.list":                               auth.ViewBase,
	"v1.endpoint.get":                                auth.ViewBase,
	"v1.endpoint.get-headers":                        auth.ViewBase,
	"v1.endpoint.create":                             auth.ManageEndpoint,
	"v1.endpoint.update":                             auth.ManageEndpoint,
	"v1.endpoint.patch":                              auth.ManageEndpoint,
	"v1.endpoint.delete":                             auth.ManageEndpoint,
	"v1.endpoint.update-headers":                     auth.ManageEndpoint,
	"v1.endpoint.patch-headers":                      auth.ManageEndpoint,
	"v1.endpoint.get-secret":                         auth.ViewEndpointSecret,
	"v1.endpoint.rotate-secret":                      auth.ManageEndpointSecret,
	"v1.event-type.list":                             auth.ViewBase,
	"v1.event-type.get":                              auth.ViewBase,
	"v1.message.list":                                auth.ViewBase,
	"v1.message.get":                                 auth.ViewBase,
	"v1.message-attempt.list-by-endpoint":            auth.ViewBase,
	"v1.message-attempt.list-by-msg":                 auth.ViewBase,
	"v1.message-attempt.get":                         auth.ViewBase,
	"v1.endpoint.get-stats":                          auth.ViewBase,
	"v1.message-attempt.list-attempted-messages":     auth.ViewBase,
	"v1.message-attempt.list-attempted-destinations": auth.ViewBase,
	"v1.message-attempt.resend":                      auth.CreateAttempts,
	"v1.endpoint.get-status":                         auth.ViewBase,
	"v1.endpoint.pause":                              auth.ManageEndpoint,
	"v1.endpoint.resume":                             auth.ManageEndpoint,
	"v1.endpoint.cancel-pending":                     auth.ManageEndpoint,
	"v1.endpoint.recover":                            auth.CreateAttempts,
	"v1.endpoint.recover-dry-run":                    auth.CreateAttempts,
	"v1.endpoint.replay-missing":                     auth.CreateAttempts,
	"v1.endpoint.replay-missing-dry-run":             auth.CreateAttempts,
	"v1.endpoint.bulk-replay":                        auth.CreateAttempts,
	"v1.endpoint.skip":                               auth.CreateAttempts,
	"v1.endpoint.bulk-replay-dry-run":                auth.CreateAttempts,
}

// customer is the tenant's caller, but with an application token.
func (a tenant) customer(app string, in obj) tenant {
	a.t.Helper()
	a.key = a.post("/auth/app-portal-access/"+app, in).want(200).str("token")
	return a
}

// beside is another server over the same database, as a second process would be.
func (r *rig) beside(o Options) *rig {
	r.t.Helper()
	o.Store = storetest.OpenAt(r.t, storetest.Options(r.t, r.db)) // its master key opens nothing, and need not
	handler, err := New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewServer(handler)
	r.t.Cleanup(server.Close)
	other := *r
	other.url = server.URL
	return &other
}

// Every operation is called with a token of no capability, of each one alone, and of all.
func TestCustomersMayDoWhatTheContractListsAndNothingElse(t *testing.T) {
	t.Parallel()
	r := setup(t)
	owner := r.tenant()
	values := owner.objects()
	owner.patch("/app/"+values["app_id"], obj{"uid": "by-uid"}).want(200)
	sets := [][]string{{}, auth.CapabilitiesOf(auth.AllCapabilities...).Names()}
	for _, c := range auth.AllCapabilities {
		sets = append(sets, []string{string(c)})
	}
	unmet := maps.Clone(customerMay)
	for _, set := range sets {
		customer := owner.customer(values["app_id"], obj{"capabilities": set})
		for _, op := range operations(golden(t)) {
			id := op.doc["operationId"].(string)
			if op.isApplication() {
				continue // it ends the token, whatever its capabilities; see below
			}
			needed, listed := customerMay[id]
			if said, _ := op.doc["x-capability"].(string); said != string(needed) {
				t.Errorf("%s: the document says it needs %q, the contract %q", id, said, needed)
			}
			delete(unmet, id)
			for _, app := range []string{values["app_id"], "by-uid"} {
				in := maps.Clone(values)
				in["app_id"] = app
				in["tenant_id"], in["key_id"], in["plan_name"] = owner.id.String(), "nobody", "nothing"
				if id == "v1.endpoint.delete" {
					in["endpoint_id"] = owner.endpoint(app)
				}
				got := customer.do(op.method, fill(op.path, in), customer.key, bodyOf(t, op))
				switch may := listed && slices.Contains(set, string(needed)); {
				case op.isOperator():
					if got.status != 401 {
						t.Errorf("%s with %v: %d %s", id, set, got.status, got.body)
					}
				case may && got.status >= 300 && got.status != 400: // 400: too many replaced secrets
					t.Errorf("%s with %v is refused: %d %s", id, set, got.status, got.body)
				case !may && (got.status != 403 || got.str("code") != "insufficient access"):
					t.Errorf("%s with %v: %d %s", id, set, got.status, got.body)
				}
			}
		}
	}
	for id := range unmet {
		t.Errorf("%s is in the contract, but there is no such operation", id)
	}
}

// A token is for its application: another one, of the same tenant or a stranger, is not there.
func TestCustomersSeeNoOtherApplication(t *testing.T) {
	t.Parallel()
	r := setup(t)
	owner, stranger := r.tenant(), r.tenant()
	own, foreign := owner.objects(), stranger.objects()
	sibling := maps.Clone(own)
	sibling["app_id"] = owner.app()
	sibling["endpoint_id"], sibling["msg_id"] = owner.endpoint(sibling["app_id"]), owner.message(sibling["app_id"])
	sibling["attempt_id"] = owner.attempt(sibling["app_id"], sibling["endpoint_id"], sibling["msg_id"])
	owner.patch("/app/"+sibling["app_id"], obj{"uid": "sibling"}).want(200)
	// With its own application in the path and the sibling's things behind it, and the other way round.
	byUID, mixed, crossed := maps.Clone(sibling), maps.Clone(sibling), maps.Clone(own)
	byUID["app_id"], mixed["app_id"], crossed["app_id"] = "sibling", own["app_id"], sibling["app_id"]
	customer := owner.customer(own["app_id"], obj{})
	before := snapshot(t, r.db, stranger.id)
	siblings := owner.get("/app/" + sibling["app_id"] + "/endpoint").want(200).body
	walked := 0
	for _, op := range operations(golden(t)) {
		if customerMay[op.doc["operationId"].(string)] == "" || !strings.Contains(op.path, "{app_id}") {
			continue
		}
		for what, in := range map[string]map[string]string{"sibling": sibling, "by uid": byUID, "mixed": mixed, "crossed": crossed, "foreign": foreign} {
			if what == "mixed" && (!strings.Contains(strings.Replace(op.path, "{app_id}", "", 1), "{") || op.path == oneEndpoint && op.method == "PUT") {
				continue // nothing of the sibling's in it; and a PUT of a free name creates
			}
			walked++
			if got := customer.do(op.method, fill(op.path, in), customer.key, bodyOf(t, op)); got.status != 404 || got.str("code") != "not_found" {
				t.Errorf("%s, %s: %d %s", op.doc["operationId"], what, got.status, got.body)
			}
		}
	}
	if walked < 60 {
		t.Fatalf("only %d calls were walked", walked)
	}
	if after := snapshot(t, r.db, stranger.id); after != before {
		t.Error("a stranger's rows changed")
	}
	if after := owner.get("/app/" + sibling["app_id"] + "/endpoint").want(200).body; string(after) != string(siblings) {
		t.Error("the sibling's endpoints changed")
	}
}

func TestCustomersSeeTheEventTypesOfTheirFlags(t *testing.T) {
	t.Parallel()
	owner := setup(t).tenant()
	app := owner.app()
	for name, flags := range map[string][]string{"open": nil, "beta": {"beta"}, "gamma": {"gamma", "delta"}} {
		owner.put("/event-type/"+name, obj{"description": "d", "featureFlags": flags}).want(201)
	}
	for _, c := range []struct {
		flags, see, not []string
	}{
		{nil, []string{"open"}, []string{"beta", "gamma"}},
		{[]string{"delta", "x"}, []string{"gamma", "open"}, []string{"beta"}},
		{[]string{"beta", "gamma"}, []string{"beta", "gamma", "open"}, nil},
	} {
		customer := owner.customer(app, obj{"featureFlags": c.flags})
		if have := listed(customer.get("/event-type"), "name"); !slices.Equal(have, c.see) {
			t.Errorf("%v sees %v, want %v", c.flags, have, c.see)
		}
		for _, name := range c.see {
			customer.get("/event-type/" + name).want(200)
		}
		for _, name := range c.not {
			customer.get("/event-type/" + name).want(404)
		}
	}
}

// Whatever ends a token ends it in every process within a second.
func TestEndedTokensAreRefusedEverywhereWithinASecond(t *testing.T) {
	t.Parallel()
	var o Options
	r := setup(t, func(options *Options) { o = *options })
	other := r.beside(o)
	for what, end := range map[string]func(owner, customer tenant, app string){
		"logout": func(_, customer tenant, _ string) { customer.post("/auth/logout", nil).want(204) },
		"logout with a body": func(_, customer tenant, _ string) {
			customer.post("/auth/logout", obj{}, "Idempotency-Key", "auto_x").want(204)
		},
		"expire-all":          func(owner, _ tenant, app string) { owner.post("/auth/app/"+app+"/expire-all", obj{}).want(204) },
		"expire-all, no body": func(owner, _ tenant, app string) { owner.post("/auth/app/"+app+"/expire-all", nil).want(204) },
		"expire-all of the label": func(owner, _ tenant, app string) {
			owner.post("/auth/app/"+app+"/expire-all", obj{"sessionIds": []string{"x", "ann@corp"}, "expiry": 0}).want(204)
		},
		"application deleted": func(owner, _ tenant, app string) { owner.delete("/app/" + app).want(204) },
		"tenant deleted": func(owner, _ tenant, _ string) {
			r.do("DELETE", tenantsPath+"/"+owner.id.String(), operatorToken, nil).want(204)
		},
	} {
		t.Run(what, func(t *testing.T) {
			owner := r.tenant()
			app := owner.app()
			in := obj{"sessionId": "ann@corp", "capabilities": []string{"ViewBase"}}
			customer := owner.customer(app, in)
			path := basePath + "/app/" + app
			elsewhere := func() int { return other.do("GET", path, customer.key, nil).status }
			customer.get("/app/" + app).want(200)
			if elsewhere() != 200 {
				t.Fatal("one process does not take what another made")
			}
			end(owner, customer, app)
			ended := time.Now()
			for _, status := range []func() int{func() int { return customer.get("/app/" + app).status }, elsewhere} {
				for status() != 401 {
					if time.Since(ended) > time.Second {
						t.Fatal("still let in after a second")
					}
				}
			}
			customer.post("/auth/logout", nil).want(401)
		})
	}
}

// Under way in two processes at once, a token that ends is let in for a second at most, and never again.
func TestTokenEndsWhileItIsUsed(t *testing.T) {
	t.Parallel()
	var o Options
	r := setup(t, func(options *Options) { o = *options })
	owner := r.tenant()
	app := owner.app()
	customer := owner.customer(app, obj{})
	var ended atomic.Pointer[time.Time]
	var all, used sync.WaitGroup
	for i, server := range []*rig{r, r.beside(o), r, r.beside(o)} {
		used.Add(1)
		all.Go(func() {
			get := func() int { return server.do("GET", basePath+"/app/"+app, customer.key, nil).status }
			first := get()
			used.Done()
			for began := time.Now(); ; began = time.Now() {
				status := get()
				if status == 401 {
					break
				}
				if at := ended.Load(); status != 200 || at != nil && began.Sub(*at) > time.Second {
					t.Errorf("server %d: %d at first, then %d", i, first, status)
					return
				}
			}
			for range 50 {
				if status := get(); status != 401 {
					t.Errorf("server %d: refused once, then %d", i, status)
				}
			}
		})
	}
	used.Wait()
	owner.post("/auth/app/"+app+"/expire-all", obj{}).want(204)
	now := time.Now()
	ended.Store(&now)
	all.Wait()
}

func TestOnlyTheNamedTokensEnd(t *testing.T) {
	t.Parallel()
	r := setup(t)
	owner := r.tenant()
	app, sibling := owner.app(), owner.app()
	ann, bob := owner.customer(app, obj{"sessionId": "ann"}), owner.customer(app, obj{"sessionId": "bob"})
	other := owner.customer(sibling, obj{"sessionId": "ann"})
	owner.post("/auth/app/"+app+"/expire-all", obj{"sessionIds": []string{"ann"}}).want(204)
	owner.post("/auth/app/"+app+"/expire-all", obj{"sessionIds": []string{"bob"}, "expiry": 3600}).want(204)
	start := time.Now()
	for ann.get("/app/"+app).status != 401 {
		if time.Since(start) > time.Second {
			t.Fatal("ann is still let in after a second")
		}
	}
	bob.get("/app/" + app).want(200)
	other.get("/app/" + sibling).want(200)
	// A logout is one person's.
	again := owner.customer(app, obj{"sessionId": "bob"})
	again.post("/auth/logout", nil).want(204)
	again.get("/app/" + app).want(401)
	bob.get("/app/" + app).want(200)
	// An API key has no session to end.
	if got := owner.post("/auth/logout", nil).want(403); got.str("code") != "insufficient access" {
		t.Errorf("%s", got.body)
	}
	owner.get("/app/" + app).want(200)
}

func TestSessionIsBelievedForLessThanASecond(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	clock := &clock{at: time.Now()}
	k := newSessions(s, clock.now)
	tenant := storetest.Tenant(t, s)
	app := storetest.Application(t, s, tenant.ID)
	view := s.View(webhook.Scope{Tenant: tenant.ID})
	scope := webhook.Scope{Tenant: tenant.ID, Application: app.ID}
	session, err := view.CreatePortalSession(t.Context(), webhook.PortalSession{ApplicationID: app.ID, ID: webhook.NewSessionID(), ExpiresAt: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	check := func() error { return k.check(t.Context(), scope, session.ID) }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	if err := view.ExpirePortalSessions(t.Context(), app.ID.String(), nil, 0); err != nil {
		t.Fatal(err)
	}
	clock.add(keyLife - time.Millisecond)
	if err := check(); err != nil {
		t.Fatal("believed for as long as said", err)
	}
	clock.add(time.Millisecond)
	if err := check(); webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Fatal("an ended session is let in", err)
	}
	k.store = nil // whoever asks the database now, panics
	if err := check(); webhook.KindOf(err) != webhook.KindUnauthorized {
		t.Fatal(err)
	}
	for range maxSessions {
		k.end(scope, webhook.NewSessionID())
	}
	if len(k.known) > maxSessions {
		t.Fatalf("%d sessions are remembered", len(k.known))
	}
}

func TestTokenIsNowhereButInItsAnswer(t *testing.T) {
	t.Parallel()
	r := setup(t, func(o *Options) { o.PublicURL = "https://hooks.example.com/" })
	owner := r.tenant()
	app := owner.app()
	made := owner.post("/auth/app-portal-access/"+app, obj{"sessionId": "canary-label"}, "Idempotency-Key", "portal-1").want(200)
	token := made.str("token")
	if again := owner.post("/auth/app-portal-access/"+app, obj{"sessionId": "canary-label"}, "Idempotency-Key", "portal-1").want(200); again.str("token") != token {
		t.Error("a repeat made another token")
	}
	encoded, ok := strings.CutPrefix(made.str("url"), "https://hooks.example.com/login#key=")
	if !ok {
		t.Fatal(made.str("url"))
	}
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var key struct{ AppID, Token string }
	if err := json.Unmarshal(text, &key); err != nil || key.AppID != app || key.Token != token {
		t.Fatalf("%s: %v", text, err)
	}
	customer := owner
	customer.key = token
	customer.get("/app/" + app).want(200)
	customer.get("/app/nobody").want(404)
	customer.post("/app", obj{"name": "n"}).want(403)
	customer.post("/app/"+app+"/endpoint", `{"`+token).want(422)
	customer.do("GET", basePath+"/app/"+app, token+"x", nil).want(401)
	customer.post("/auth/logout", nil).want(204)

	conn, err := pgx.Connect(t.Context(), r.db)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	rows, err := conn.Query(t.Context(), `SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var dump strings.Builder
	for _, table := range tables {
		var rows string
		if err := conn.QueryRow(t.Context(), `SELECT COALESCE(string_agg(x::text, E'\n'), '') FROM `+table+` x`).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		dump.WriteString(rows)
	}
	if !strings.Contains(dump.String(), "canary-label") || !strings.Contains(r.logs.String(), "request_id") {
		t.Fatal("the dump or the log does not show what it should")
	}
	parts := strings.Split(token, ".")
	for _, part := range []string{parts[1], parts[2]} {
		for _, form := range []string{part, fmt.Sprintf("%x", part), base64.StdEncoding.EncodeToString([]byte(part))[:40]} {
			if strings.Contains(dump.String(), form) {
				t.Errorf("%.20s… is in a table", form)
			}
			if strings.Contains(r.logs.String(), form) {
				t.Errorf("%.20s… is in the log", form)
			}
		}
	}
}

// claimsOf reads a token without believing it.
func claimsOf(t *testing.T, token string) (c struct {
	Iat, Exp     int64
	Capabilities []string
	FeatureFlags []string
}) {
	t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestWhatATokenIsAskedFor(t *testing.T) {
	t.Parallel()
	owner := setup(t).tenant()
	app := owner.app()
	all := auth.CapabilitiesOf(auth.AllCapabilities...).Names()
	flag := func(n int) string { return strings.Repeat("f", n) }
	flags := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("flag-%d", i))
		}
		return list
	}
	labels := func(n int) []string { return slices.Repeat([]string{"label"}, n) }
	const week, hour, grace = int(webhook.MaxSessionLife / time.Second), int(webhook.MinSessionLife / time.Second), int(webhook.MaxSessionGrace / time.Second)
	for _, c := range []struct {
		in   any
		life int
		can  []string
	}{
		{nil, week, all}, {"", week, all}, {obj{}, week, all},
		{obj{"expiry": nil, "capabilities": nil, "featureFlags": nil, "readOnly": nil, "sessionId": nil, "application": nil}, week, all},
		{obj{"expiry": hour}, hour, all}, {obj{"expiry": week}, week, all}, {obj{"capabilities": []string{}}, week, []string{}},
		{obj{"capabilities": []string{"ManageEndpoint", "ViewBase", "ViewBase"}}, week, []string{"ViewBase", "ManageEndpoint"}},
		{obj{"readOnly": true}, week, []string{"ViewBase"}}, {obj{"readOnly": false}, week, all},
		{obj{"readOnly": true, "capabilities": []string{"ManageEndpoint"}}, week, []string{}},
		{obj{"featureFlags": flags(webhook.MaxFeatureFlags)}, week, all}, {obj{"featureFlags": []string{}}, week, all},
		{obj{"sessionId": flag(webhook.MaxSessionLabel)}, week, all}, {obj{"sessionId": "a@B_c-1"}, week, all}, {obj{"unknown": 1}, week, all},
	} {
		got := claimsOf(t, owner.post("/auth/app-portal-access/"+app, c.in).want(200).str("token"))
		if int(got.Exp-got.Iat) != c.life || !slices.Equal(got.Capabilities, c.can) {
			t.Errorf("%v: %+v", c.in, got)
		}
	}
	longest := []string{flag(256), "g" + flag(255), "h" + flag(255), "i" + flag(255), "j" + flag(255), "k" + flag(255), "l" + flag(255), "m" + flag(255)}
	customer := owner.customer(app, obj{"featureFlags": longest, "sessionId": flag(webhook.MaxSessionLabel)})
	customer.get("/event-type").want(200)
	for field, inputs := range map[string][]any{
		"expiry":       {hour - 1, week + 1, -1, 0, "3600", 1e30},
		"capabilities": {[]string{"Fly"}, []string{""}, "ViewBase", []any{1}},
		"featureFlags": {flags(webhook.MaxFeatureFlags + 1), append(longest, "n"), []string{"a b"}, []string{flag(257)}},
		"sessionId":    {flag(webhook.MaxSessionLabel + 1), "", "a b", "a.b", 1},
		"readOnly":     {"yes"},
		"application":  {obj{}, 1},
	} {
		for _, value := range inputs {
			ref := app
			if field == "application" {
				ref = "nobody-yet"
			}
			if got := owner.post("/auth/app-portal-access/"+ref, obj{field: value}).want(422); !strings.Contains(string(got.body), `"`+field) {
				t.Errorf("%.60v: %s", value, got.body)
			}
		}
	}
	expire := "/auth/app/" + app + "/expire-all"
	for _, in := range []any{obj{"expiry": grace}, obj{"sessionIds": labels(webhook.MaxSessionLabels)}, obj{"expiry": nil, "sessionIds": nil}} {
		owner.post(expire, in).want(204)
	}
	for _, in := range []any{obj{"expiry": grace + 1}, obj{"expiry": -1}, obj{"sessionIds": labels(webhook.MaxSessionLabels + 1)}, obj{"sessionIds": []string{"a.b"}}, obj{"sessionIds": "a"}} {
		owner.post(expire, in).want(422)
	}
	owner.post("/auth/app/nobody/expire-all", obj{}).want(404)
	owner.post("/auth/app-portal-access/nobody", obj{}).want(404)

	// The older form.
	old := owner.post("/auth/dashboard-access/"+app, nil).want(200)
	if got := claimsOf(t, old.str("token")); int(got.Exp-got.Iat) != week || !strings.Contains(old.str("url"), "/login#key=") {
		t.Errorf("%s", old.body)
	}
}

func TestTokenForAnApplicationThatIsBroughtAlong(t *testing.T) {
	t.Parallel()
	r := setup(t)
	owner := r.tenant()
	ask := func(ref string, application any) result {
		return owner.post("/auth/app-portal-access/"+ref, obj{"application": application})
	}
	if got := ask("new", obj{"name": "New"}).want(422); !strings.Contains(string(got.body), typeUIDMissing) {
		t.Errorf("%s", got.body)
	}
	if got := ask("new", obj{"name": "New", "uid": "newer"}).want(422); !strings.Contains(string(got.body), typeUIDOther) {
		t.Errorf("%s", got.body)
	}
	owner.get("/app/new").want(404)
	customer := owner
	customer.key = ask("new", obj{"name": "New", "uid": "new"}).want(200).str("token")
	if got := customer.get("/app/new").want(200); got.str("name") != "New" {
		t.Errorf("%s", got.body)
	}
	ask("new", obj{"name": "Other", "uid": "other"}).want(200)
	if got := customer.get("/app/new").want(200); got.str("name") != "New" {
		t.Errorf("an application that exists was changed: %s", got.body)
	}
}

// Who may change endpoints may not, on the way, learn or choose what signs for them.
func TestSigningKeyNeedsItsOwnCapability(t *testing.T) {
	t.Parallel()
	owner := setup(t).tenant()
	app := owner.app()
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	endpoints := "/app/" + app + "/endpoint"
	with := obj{"url": "http://127.0.0.1:8072/", "secret": secret}
	manager := owner.customer(app, obj{"capabilities": []string{"ManageEndpoint"}})
	manager.post(endpoints, with).want(403)
	id := manager.post(endpoints, obj{"url": "http://127.0.0.1:8072/", "secret": nil}).want(201).str("id")
	manager.patch(endpoints+"/"+id, obj{"secret": secret}).want(403)
	manager.patch(endpoints+"/"+id, obj{"description": "d"}).want(200)
	if owner.get(endpoints+"/"+id+"/secret").want(200).str("key") == secret {
		t.Error("the key was set")
	}
	both := owner.customer(app, obj{"capabilities": []string{"ManageEndpoint", "ManageEndpointSecret"}})
	both.post(endpoints, with).want(201)
	both.patch(endpoints+"/"+id, obj{"secret": secret}).want(200)
	if owner.get(endpoints+"/"+id+"/secret").want(200).str("key") != secret {
		t.Error("the key was not set")
	}
}

// An idempotency key is its principal's: no application replays what its tenant or another was answered.
func TestIdempotencyKeysAreTheApplicationsOwn(t *testing.T) {
	t.Parallel()
	owner := setup(t).tenant()
	app := owner.app()
	post := func(a tenant) string {
		return a.post("/app/"+app+"/endpoint", obj{"url": "http://127.0.0.1:8072/"}, "Idempotency-Key", "one").want(201).str("id")
	}
	ann, bob := owner.customer(app, obj{}), owner.customer(app, obj{})
	first := post(ann)
	if post(ann) != first || post(bob) != first {
		t.Error("a repeat by the same application made another endpoint")
	}
	if post(owner) == first {
		t.Error("the tenant was given its application's answer")
	}
}

// Making and ending tokens are an API key's to do, with the scope for it.
func TestTokensNeedAnAdminKey(t *testing.T) {
	t.Parallel()
	r := setup(t)
	owner := r.tenant()
	app := owner.app()
	for _, scope := range []string{"read", "send", "write"} {
		key := r.keyOf(owner.id, scope)
		key.post("/auth/app-portal-access/"+app, obj{}).want(403)
		key.post("/auth/dashboard-access/"+app, nil).want(403)
	}
	r.keyOf(owner.id, "write").post("/auth/app/"+app+"/expire-all", obj{}).want(204)
}
