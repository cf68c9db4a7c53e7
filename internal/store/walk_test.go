package store_test

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// estate is everything an application can have.
type estate struct {
	tenant    webhook.Tenant
	app       webhook.Application
	endpoint  webhook.Endpoint
	message   webhook.Message
	attempt   webhook.Attempt
	eventType webhook.EventType
	session   webhook.PortalSession
	task      webhook.Task
	key       [32]byte // of an idempotent request
}

func (w world) estate(t *testing.T, tenant webhook.Tenant, name string) (e estate) {
	t.Helper()
	e.tenant = tenant
	e.eventType = storetest.EventType(t, w.Store, tenant.ID, "type-"+name)
	view := w.View(webhook.Scope{Tenant: tenant.ID})
	app, _, err := view.CreateApplication(t.Context(), webhook.Application{Name: name, UID: "app-uid-" + name}, false)
	ok(t, err)
	e.app = app
	e.endpoint = must[webhook.Endpoint](t)(view.CreateEndpoint(t.Context(), app.ID.String(), store.NewEndpoint{
		Endpoint: webhook.Endpoint{URL: "https://example.com/" + name, UID: "ep-uid-" + name},
		Secret:   storetest.SigningKey(), Headers: map[string]string{"X-Name": name},
	}))
	e.message = w.putMessage(t, webhook.Message{
		TenantID: tenant.ID, ApplicationID: app.ID, EventID: "event-" + name, Payload: []byte(`{"of":"` + name + `"}`),
	})
	e.attempt = w.putAttempt(t, webhook.Attempt{
		TenantID: tenant.ID, ApplicationID: app.ID, MessageID: e.message.ID, EndpointID: e.endpoint.ID, Sent: true, Number: 1,
	})
	e.session = must[webhook.PortalSession](t)(view.CreatePortalSession(t.Context(), webhook.PortalSession{
		ApplicationID: app.ID, ID: webhook.NewSessionID(), Label: "label-" + name, ExpiresAt: time.Now().Add(time.Hour),
	}))
	e.task = must[webhook.Task](t)(view.CreateTask(t.Context(), newTask(app.ID.String(), e.endpoint.ID.String())))
	e.key = randomKey()
	_, _, err = view.Once(t.Context(), e.key, e.key, true, func(context.Context, store.View) (store.Response, error) {
		return store.Response{Status: 201, Body: []byte("of " + name)}, nil
	})
	ok(t, err)
	return e
}

func newTask(app, endpoint string) store.NewTask {
	return store.NewTask{Kind: webhook.TaskRecover, Application: app, Endpoint: endpoint, Since: time.Now().Add(-time.Hour), Until: time.Now()}
}

// rows is everything stored of an estate, as text.
func (w world) rows(t *testing.T, e estate, wholeTenant bool) map[string]string {
	t.Helper()
	where := map[string]string{
		"application": "id = $2", "endpoint": "app_id = $2", "message": "app_id = $2", "attempt": "app_id = $2", "event_id": "app_id = $2", "portal_session": "app_id = $2", "task": "app_id = $2",
		"endpoint_secret": "endpoint_id IN (SELECT id FROM endpoint WHERE tenant_id = $1 AND app_id = $2)",
	}
	if wholeTenant {
		for _, table := range []string{"event_type", "idempotency", "api_key", "delivery", "endpoint_wake", "endpoint_gate"} {
			where[table] = "$2::uuid IS NOT NULL"
		}
	}
	rows := map[string]string{}
	for table, condition := range where {
		rows[table] = one[string](t, w.sql, `SELECT COALESCE(string_agg(to_jsonb(t)::text, E'\n' ORDER BY to_jsonb(t)::text), '')
			FROM `+table+` t WHERE tenant_id = $1 AND `+condition, e.tenant.ID.UUID(), e.app.ID.UUID())
	}
	for _, table := range []string{"application", "endpoint", "message", "attempt", "event_id", "endpoint_secret", "portal_session", "task"} {
		if rows[table] == "" {
			t.Fatalf("the estate has no %s", table)
		}
	}
	return rows
}

// step is one call of a View method with somebody else's ids.
type step struct {
	say  string
	do   func(ctx context.Context, v store.View) error
	want webhook.Kind
}

var errSeen = errors.New("saw or did what belongs to somebody else")

// none turns a list that must hold nothing foreign into an error if it does.
func none[T any](l store.List[T], err error, foreign func(T) bool) error {
	if err == nil && slices.ContainsFunc(l.Data, foreign) {
		return errSeen
	}
	return err
}

// nothing is what a step expects that is allowed, and must show or change nothing of others.
const nothing webhook.Kind = 255

// steps says for every method of View how it can be called with what belongs to theirs, by a caller
// who has mine. With apps, both are of one tenant and the caller's scope is one application.
func steps(mine, theirs estate, apps bool) map[string][]step {
	const nf, forbidden = webhook.KindNotFound, webhook.KindForbidden
	page := store.Page{Limit: 10}
	myApp := mine.app.ID.String()
	theirApps := []string{theirs.app.ID.String(), theirs.app.UID}
	theirEndpoints := []string{theirs.endpoint.ID.String(), theirs.endpoint.UID}
	theirMessages := []string{theirs.message.ID.String(), theirs.message.EventID}

	// byApp calls with a foreign application; byPair also with the caller's own and a foreign object.
	byApp := func(do func(context.Context, store.View, string) error) (list []step) {
		for _, app := range theirApps {
			list = append(list, step{app, func(ctx context.Context, v store.View) error { return do(ctx, v, app) }, nf})
		}
		return list
	}
	byPair := func(objects []string, do func(context.Context, store.View, string, string) error) (list []step) {
		for _, app := range append([]string{myApp}, theirApps...) {
			for _, object := range objects {
				list = append(list, step{app + " " + object, func(ctx context.Context, v store.View) error { return do(ctx, v, app, object) }, nf})
			}
		}
		return list
	}
	tenantOnly := func(want webhook.Kind, do func(context.Context, store.View) error) []step {
		if apps {
			want = forbidden
		}
		return []step{{"", do, want}}
	}
	name := theirs.eventType.Name
	newEndpoint := func() store.NewEndpoint {
		return store.NewEndpoint{Endpoint: webhook.Endpoint{URL: "https://example.com/new"}, Secret: storetest.SigningKey()}
	}

	m := map[string][]step{
		"Scope": {{"", func(_ context.Context, v store.View) error {
			if v.Scope().Tenant != mine.tenant.ID {
				return errSeen
			}
			return nil
		}, nothing}},
		"Usage": tenantOnly(nothing, func(ctx context.Context, v store.View) error {
			t, _, err := v.Usage(ctx)
			if err == nil && t.ID != mine.tenant.ID {
				return errSeen
			}
			return err
		}),
		"CreateApplication": tenantOnly(nothing, func(ctx context.Context, v store.View) error {
			// The uid is theirs, which is none of our business: each tenant has its own.
			a, created, err := v.CreateApplication(ctx, webhook.Application{Name: "x", UID: theirs.app.UID}, true)
			if err == nil && (!created || a.TenantID != mine.tenant.ID || a.ID == theirs.app.ID) {
				return errSeen
			}
			if err != nil {
				return err
			}
			return v.DeleteApplication(ctx, a.ID.String())
		}),
		"Application": byApp(func(ctx context.Context, v store.View, app string) error {
			_, err := v.Application(ctx, app)
			return err
		}),
		"Applications": {{"", func(ctx context.Context, v store.View) error {
			var err error
			for _, iterator := range []string{"", theirs.app.ID.String(), "-" + theirs.app.ID.String()} {
				l, e := v.Applications(ctx, store.Page{Iterator: iterator})
				err = errors.Join(err, none(l, e, func(a webhook.Application) bool { return a.ID == theirs.app.ID }))
			}
			return err
		}, nothing}},
		"PatchApplication": byApp(func(ctx context.Context, v store.View, app string) error {
			_, err := v.PatchApplication(ctx, app, func(a *webhook.Application) error { a.Name = "stolen"; return nil })
			return err
		}),
		"DeleteApplication": byApp(func(ctx context.Context, v store.View, app string) error { return v.DeleteApplication(ctx, app) }),

		"CreateEndpoint": append(byApp(func(ctx context.Context, v store.View, app string) error {
			_, err := v.CreateEndpoint(ctx, app, newEndpoint())
			return err
		}), step{"their event type", func(ctx context.Context, v store.View) error {
			e := newEndpoint()
			e.EventTypes = []string{name}
			made, err := v.CreateEndpoint(ctx, myApp, e)
			if apps && err == nil { // event types are the tenant's
				return v.DeleteEndpoint(ctx, myApp, made.ID.String())
			}
			return err
		}, map[bool]webhook.Kind{true: nothing, false: webhook.KindInvalid}[apps]}),
		"Endpoint": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			_, err := v.Endpoint(ctx, app, ep)
			return err
		}),
		"Endpoints": append(byApp(func(ctx context.Context, v store.View, app string) error {
			_, err := v.Endpoints(ctx, app, page)
			return err
		}), step{"iterator", func(ctx context.Context, v store.View) error {
			l, err := v.Endpoints(ctx, myApp, store.Page{Iterator: "-" + theirs.endpoint.ID.String()})
			return none(l, err, func(e webhook.Endpoint) bool { return e.ApplicationID != mine.app.ID })
		}, nothing}),
		"ReplaceEndpoint": append(byApp(func(ctx context.Context, v store.View, app string) error {
			_, _, err := v.ReplaceEndpoint(ctx, app, theirs.endpoint.ID.String(), newEndpoint())
			return err
		}), step{"their id in my application", func(ctx context.Context, v store.View) error {
			made, created, err := v.ReplaceEndpoint(ctx, myApp, theirs.endpoint.ID.String(), newEndpoint())
			if err == nil && (!created || made.ID == theirs.endpoint.ID || made.ApplicationID != mine.app.ID) {
				return errSeen
			}
			return err
		}, nothing}),
		"PatchEndpoint": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			_, err := v.PatchEndpoint(ctx, app, ep, func(e *store.NewEndpoint) error { e.URL = "https://evil.example"; return nil })
			return err
		}),
		"DeleteEndpoint": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			return v.DeleteEndpoint(ctx, app, ep)
		}),
		"EndpointSecret": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			_, err := v.EndpointSecret(ctx, app, ep)
			return err
		}),
		"SkipHead": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			_, _, err := v.SkipHead(ctx, app, ep, "")
			return err
		}),
		"RotateEndpointSecret": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			return v.RotateEndpointSecret(ctx, app, ep, storetest.SigningKey(), 0)
		}),
		"EndpointHeaders": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			_, err := v.EndpointHeaders(ctx, app, ep)
			return err
		}),
		"ReplaceEndpointHeaders": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			return v.ReplaceEndpointHeaders(ctx, app, ep, map[string]string{"X-Evil": "1"})
		}),
		"PatchEndpointHeaders": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			return v.PatchEndpointHeaders(ctx, app, ep, map[string]string{"X-Evil": "1"}, nil)
		}),

		"CreateEventType": tenantOnly(nothing, func(ctx context.Context, v store.View) error {
			e, err := v.CreateEventType(ctx, webhook.EventType{Name: name})
			if err != nil {
				return err
			}
			return v.DeleteEventType(ctx, e.Name, true)
		}),
		"EventTypes": {{"", func(ctx context.Context, v store.View) error {
			l, err := v.EventTypes(ctx, page, true)
			return none(l, err, func(e webhook.EventType) bool { return e.TenantID != mine.tenant.ID })
		}, nothing}},
		"ReplaceEventType": tenantOnly(nothing, func(ctx context.Context, v store.View) error {
			e, created, err := v.ReplaceEventType(ctx, name, webhook.EventType{Description: "mine"})
			if err != nil {
				return err
			}
			if !created || e.TenantID != mine.tenant.ID {
				return errSeen
			}
			return v.DeleteEventType(ctx, name, true)
		}),
		"ImportEventTypes": tenantOnly(nothing, func(ctx context.Context, v store.View) error {
			modified, err := v.ImportEventTypes(ctx, store.Import{EventTypes: []webhook.EventType{{Name: name, Description: "mine"}}, ReplaceAll: true})
			if err != nil {
				return err
			}
			for _, e := range modified {
				if e.Name != name && e.Name != mine.eventType.Name {
					return errSeen
				}
			}
			return v.DeleteEventType(ctx, name, true)
		}),
		"PatchEventType": tenantOnly(nf, func(ctx context.Context, v store.View) error {
			_, err := v.PatchEventType(ctx, name, func(e *webhook.EventType) error { e.Description = "stolen"; return nil })
			return err
		}),
		"DeleteEventType": tenantOnly(nf, func(ctx context.Context, v store.View) error { return v.DeleteEventType(ctx, name, true) }),

		"CreatePortalSession": {{"", func(ctx context.Context, v store.View) error {
			_, err := v.CreatePortalSession(ctx, webhook.PortalSession{
				ApplicationID: theirs.app.ID, ID: webhook.NewSessionID(), ExpiresAt: time.Now().Add(time.Hour),
			})
			return err
		}, map[bool]webhook.Kind{true: forbidden, false: nf}[apps]}},
		"ExpirePortalSessions": {{"their application", func(ctx context.Context, v store.View) error {
			return v.ExpirePortalSessions(ctx, theirs.app.ID.String(), nil, 0)
		}, map[bool]webhook.Kind{true: forbidden, false: nf}[apps]}, {"their label", func(ctx context.Context, v store.View) error {
			return v.ExpirePortalSessions(ctx, myApp, []string{theirs.session.Label}, 0)
		}, map[bool]webhook.Kind{true: forbidden, false: nothing}[apps]}},
		"EndPortalSession": {{"", func(ctx context.Context, v store.View) error {
			return v.EndPortalSession(ctx, theirs.session.ID)
		}, nf}},

		"Message": byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
			_, err := v.Message(ctx, app, msg)
			return err
		}),
		"Messages": append(byApp(func(ctx context.Context, v store.View, app string) error {
			_, err := v.Messages(ctx, app, store.MessageFilter{WithContent: true}, page)
			return err
		}), step{"iterator", func(ctx context.Context, v store.View) error {
			l, err := v.Messages(ctx, myApp, store.MessageFilter{}, store.Page{Iterator: "-" + theirs.message.ID.String()})
			return none(l, err, func(m webhook.Message) bool { return m.ID == theirs.message.ID })
		}, nothing}),
		"Attempt": append(byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
			_, err := v.Attempt(ctx, app, msg, theirs.attempt.ID)
			return err
		}), step{"my message", func(ctx context.Context, v store.View) error {
			_, err := v.Attempt(ctx, myApp, mine.message.ID.String(), theirs.attempt.ID)
			return err
		}, nf}),
		"AttemptsByEndpoint": byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
			_, err := v.AttemptsByEndpoint(ctx, app, ep, store.AttemptFilter{}, page)
			return err
		}),
		"AttemptsByMessage": append(byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
			_, err := v.AttemptsByMessage(ctx, app, msg, store.AttemptFilter{}, page)
			return err
		}), step{"their endpoint in the filter", func(ctx context.Context, v store.View) error {
			_, err := v.AttemptsByMessage(ctx, myApp, mine.message.ID.String(), store.AttemptFilter{EndpointRef: theirs.endpoint.ID.String()}, page)
			return err
		}, nf}),
	}

	m["AttemptedMessages"] = append(byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, err := v.AttemptedMessages(ctx, app, ep, store.AttemptedFilter{}, page)
		return err
	}), step{"iterator", func(ctx context.Context, v store.View) error {
		l, err := v.AttemptedMessages(ctx, myApp, mine.endpoint.ID.String(), store.AttemptedFilter{}, store.Page{Iterator: "-" + theirs.message.ID.String()})
		return none(l, err, func(m store.AttemptedMessage) bool { return m.Message.ID == theirs.message.ID })
	}, nothing})
	m["Destinations"] = append(byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
		_, err := v.Destinations(ctx, app, msg, page)
		return err
	}), step{"iterator", func(ctx context.Context, v store.View) error {
		l, err := v.Destinations(ctx, myApp, mine.message.ID.String(), store.Page{Iterator: "-" + theirs.endpoint.ID.String()})
		return none(l, err, func(d store.Destination) bool { return d.Endpoint.ID == theirs.endpoint.ID })
	}, nothing})

	m["CountAttempts"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, err := v.CountAttempts(ctx, app, ep, theirs.message.CreatedAt(), theirs.message.CreatedAt())
		return err
	})
	m["PauseEndpoint"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		return v.PauseEndpoint(ctx, app, ep, "mine")
	})
	m["EndpointStatus"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, err := v.EndpointStatus(ctx, app, ep)
		return err
	})
	m["CancelPending"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, _, err := v.CancelPending(ctx, app, ep)
		return err
	})
	backlog := step{"all", func(ctx context.Context, v store.View) error {
		_, err := v.TenantBacklog(ctx)
		return err
	}, nothing}
	if apps {
		backlog.want = forbidden
	}
	m["TenantBacklog"] = []step{backlog}
	m["ResumeEndpoint"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		return v.ResumeEndpoint(ctx, app, ep)
	})
	m["ExpungeMessage"] = byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
		return v.ExpungeMessage(ctx, app, msg)
	})
	m["ExpungeAttempt"] = append(byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
		return v.ExpungeAttempt(ctx, app, msg, theirs.attempt.ID)
	}), step{"my message", func(ctx context.Context, v store.View) error {
		return v.ExpungeAttempt(ctx, myApp, mine.message.ID.String(), theirs.attempt.ID)
	}, nf})
	m["SendExample"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, _, err := v.SendExample(ctx, app, ep, webhook.Message{ID: webhook.NewMessageID(), EventType: "e", ExpiresAt: theirs.message.ExpiresAt}, store.Release{})
		return err
	})

	m["ExpungeMessages"] = append(byApp(func(ctx context.Context, v store.View, app string) error {
		_, err := v.ExpungeMessages(ctx, app, theirMessages)
		return err
	}), step{"their messages", func(ctx context.Context, v store.View) error {
		found, err := v.ExpungeMessages(ctx, myApp, theirMessages)
		if len(found) > 0 {
			return errSeen
		}
		return err
	}, nothing})
	m["Wanted"] = byApp(func(ctx context.Context, v store.View, app string) error {
		_, err := v.Wanted(ctx, app, "user.created", nil)
		return err
	})
	m["CreateTask"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, err := v.CreateTask(ctx, newTask(app, ep))
		return err
	})
	m["PlanTask"] = byPair(theirEndpoints, func(ctx context.Context, v store.View, app, ep string) error {
		_, err := v.PlanTask(ctx, newTask(app, ep))
		return err
	})
	m["Task"] = []step{{"", func(ctx context.Context, v store.View) error {
		_, err := v.Task(ctx, theirs.task.ID)
		return err
	}, nf}}
	m["Tasks"] = []step{{"", func(ctx context.Context, v store.View) error {
		var err error
		for _, iterator := range []string{"", theirs.task.ID.String(), "-" + theirs.task.ID.String()} {
			l, e := v.Tasks(ctx, "", "", store.Page{Iterator: iterator})
			err = errors.Join(err, none(l, e, func(t webhook.Task) bool { return t.ID == theirs.task.ID }))
		}
		return err
	}, nothing}}
	m["PauseTask"] = []step{{"", func(ctx context.Context, v store.View) error {
		_, err := v.PauseTask(ctx, theirs.task.ID, true)
		return err
	}, nf}}
	m["CancelTask"] = []step{{"", func(ctx context.Context, v store.View) error {
		_, err := v.CancelTask(ctx, theirs.task.ID)
		return err
	}, nf}}

	// Each of the three in turn is theirs while the others are mine; then two are.
	m["Resend"] = byPair(theirMessages, func(ctx context.Context, v store.View, app, msg string) error {
		_, _, err := v.Resend(ctx, app, msg, mine.endpoint.ID.String(), store.Release{})
		return err
	})
	for _, endpoint := range theirEndpoints {
		m["Resend"] = append(m["Resend"], step{"their endpoint " + endpoint, func(ctx context.Context, v store.View) error {
			_, _, err := v.Resend(ctx, myApp, mine.message.ID.String(), endpoint, store.Release{})
			return err
		}, nf})
	}

	// A foreign id in a PUT is an unknown one, and a PUT of an unknown one creates.
	if apps {
		m["ReplaceApplication"] = byApp(func(ctx context.Context, v store.View, app string) error {
			_, _, err := v.ReplaceApplication(ctx, app, webhook.Application{Name: "stolen"})
			return err
		})
		m["EventType"] = []step{{"", func(ctx context.Context, v store.View) error {
			_, err := v.EventType(ctx, name)
			return err
		}, nothing}}
		m["Once"] = []step{{"the tenant's keys are hashed with the principal", func(context.Context, store.View) error { return nil }, nothing}}
		return m
	}
	m["ReplaceApplication"] = []step{{"", func(ctx context.Context, v store.View) error {
		for _, app := range theirApps {
			a, created, err := v.ReplaceApplication(ctx, app, webhook.Application{Name: "mine"})
			if err != nil {
				return err
			}
			if !created || a.TenantID != mine.tenant.ID || a.ID == theirs.app.ID {
				return errSeen
			}
			if err := v.DeleteApplication(ctx, a.ID.String()); err != nil {
				return err
			}
		}
		return nil
	}, nothing}}
	m["EventType"] = []step{{"", func(ctx context.Context, v store.View) error {
		_, err := v.EventType(ctx, name)
		return err
	}, nf}}
	m["Once"] = []step{{"their key", func(ctx context.Context, v store.View) error {
		r, replayed, err := v.Once(ctx, theirs.key, theirs.key, true, func(context.Context, store.View) (store.Response, error) {
			return store.Response{Status: 200, Body: []byte("mine")}, nil
		})
		if err == nil && (replayed || string(r.Body) != "mine") {
			return errSeen
		}
		return err
	}, nothing}}
	return m
}

// walk calls every method of View there is, so that a new one cannot be forgotten.
func walk(t *testing.T, v store.View, table map[string][]step) {
	t.Helper()
	methods := map[string]bool{}
	for method := range reflect.TypeFor[store.View]().Methods() {
		methods[method.Name] = true
		if len(table[method.Name]) == 0 {
			t.Errorf("View.%s: say in steps how it could be called with somebody else's ids", method.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if !methods[name] {
			t.Errorf("View.%s does not exist", name)
		}
		for _, s := range table[name] {
			err := s.do(t.Context(), v)
			switch {
			case s.want == nothing && err != nil:
				t.Errorf("View.%s (%s): %v", name, s.say, err)
			case s.want != nothing && (err == nil || webhook.KindOf(err) != s.want):
				t.Errorf("View.%s (%s): error %v, want one of kind %d", name, s.say, err, s.want)
			case s.want == webhook.KindNotFound && !errors.Is(err, webhook.ErrNotFound):
				t.Errorf("View.%s (%s): %v is not the answer for what does not exist", name, s.say, err)
			}
		}
	}
}

func TestNoViewReachesAnotherTenant(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := w.estate(t, w.tenant, "mine")
	theirs := w.estate(t, storetest.Tenant(t, w.Store), "theirs")
	before := w.rows(t, theirs, true)
	walk(t, w.view, steps(mine, theirs, false))
	if after := w.rows(t, theirs, true); !reflect.DeepEqual(before, after) {
		t.Errorf("rows of the other tenant changed:\n%v\n%v", before, after)
	}
}

func TestNoApplicationViewReachesAnotherApplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := w.estate(t, w.tenant, "mine")
	sibling := w.estate(t, w.tenant, "sibling")
	stranger := w.estate(t, storetest.Tenant(t, w.Store), "stranger")
	beforeSibling, beforeStranger := w.rows(t, sibling, false), w.rows(t, stranger, true)
	types := one[int](t, w.sql, `SELECT count(*) FROM event_type`)
	v := w.View(webhook.Scope{Tenant: w.tenant.ID, Application: mine.app.ID})
	walk(t, v, steps(mine, sibling, true))
	if after := w.rows(t, sibling, false); !reflect.DeepEqual(beforeSibling, after) {
		t.Errorf("rows of the other application changed:\n%v\n%v", beforeSibling, after)
	}
	table := steps(mine, stranger, true)
	delete(table, "EventType") // a stranger's are not there at all
	table["EventType"] = steps(mine, stranger, false)["EventType"]
	table["CreateEndpoint"] = steps(mine, stranger, false)["CreateEndpoint"]
	walk(t, v, table)
	if after := w.rows(t, stranger, true); !reflect.DeepEqual(beforeStranger, after) {
		t.Errorf("rows of the other tenant changed:\n%v\n%v", beforeStranger, after)
	}
	if now := one[int](t, w.sql, `SELECT count(*) FROM event_type`); now != types {
		t.Errorf("an application changed its tenant's event types")
	}
	// What it may see, it sees.
	if _, err := v.Endpoint(t.Context(), mine.app.UID, mine.endpoint.UID); err != nil {
		t.Error(err)
	}
}
