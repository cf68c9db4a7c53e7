package api

import (
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// rules sets a tenant's and gives it a key that was never seen without them.
func (a tenant) rules(patch obj) tenant {
	a.t.Helper()
	a.do("PATCH", tenantsPath+"/"+a.id.String(), operatorToken, patch).want(200)
	return a.keyOf(a.id)
}

func TestSchemasAct(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	a.put("/event-type/user.created", obj{"description": "d", "schemas": obj{"1": obj{
		"required": []string{"id"}, "properties": obj{"list": obj{"items": obj{"type": "integer"}}},
	}}}).want(201)
	a.put("/event-type/old", obj{"description": "d", "archived": true}).want(201)
	good, bad := envelope(`{"id":1,"list":[1]}`, ""), envelope(`{"id":1,"list":[1,"secret-value"]}`, "")
	unknown := `{"eventType":"nobody.knows","payload":{}}`
	archived := `{"eventType":"old","payload":{}}`

	for _, body := range []string{good, bad, unknown, archived} {
		if got := a.post(path, body).want(202); strings.Contains(string(got.body), "warnings") {
			t.Errorf("ignored: %s", got.body)
		}
	}
	warned := a.rules(obj{"schemaValidation": "warn"})
	for _, body := range []string{good, unknown, archived} {
		if got := warned.post(path, body).want(202); strings.Contains(string(got.body), "warnings") {
			t.Errorf("nothing to warn of: %s", got.body)
		}
	}
	got := warned.post(path, bad).want(202)
	var out messageOut
	got.into(&out)
	if len(out.Warnings) != 1 || out.Warnings[0] != "payload.list.[1] must be of type integer, not string" {
		t.Errorf("%s", got.body)
	}
	if read := warned.get(path + "/" + out.ID.String()).want(200); strings.Contains(string(read.body), "warnings") {
		t.Errorf("%s", read.body)
	}
	results := warned.post(path+"/batch", batchOf(good, bad)).want(202).results()
	if results[0].Warnings != nil || len(results[1].Warnings) != 1 || results[1].ID == nil {
		t.Errorf("%+v", results)
	}

	rejecting := a.rules(obj{"schemaValidation": "reject"})
	rejecting.post(path, good).want(202)
	rejecting.post(path, unknown).want(202)
	if got := rejecting.post(path, bad).want(422); locOf(got) != "body.payload.list.[1]" || strings.Contains(string(got.body), "secret-value") {
		t.Errorf("%s", got.body)
	}
	if got := rejecting.post(path, envelope(`{}`, "")).want(422); locOf(got) != "body.payload" {
		t.Errorf("%s", got.body)
	}
	before := a.count("message WHERE tenant_id = $1", a.id.UUID())
	results = rejecting.post(path+"/batch", batchOf(bad, good)).want(202).results()
	if results[0].Error == nil || strings.Join(results[0].Error.Fields[0].Loc, ".") != "body.messages.[0].payload.list.[1]" || results[1].ID == nil {
		t.Errorf("%+v", results)
	}
	if n := a.count("message WHERE tenant_id = $1", a.id.UUID()) - before; n != 1 {
		t.Errorf("%d messages are stored", n)
	}
	// A new schema counts for the very next message.
	a.patch("/event-type/user.created", obj{"schemas": obj{"1": obj{"required": []string{"other"}}}}).want(200)
	rejecting.post(path, good).want(422)
	rejecting.post(path, envelope(`{"other":1}`, "")).want(202)

	strict := a.rules(obj{"schemaValidation": "ignore", "strictEventTypes": true})
	strict.post(path, bad).want(202)
	for _, body := range []string{unknown, archived} {
		if got := strict.post(path, body).want(422); locOf(got) != "body.eventType" {
			t.Errorf("%s", got.body)
		}
	}
	// Somebody else's event type of that name is nobody's business.
	b := a.tenant()
	b.put("/event-type/nobody.knows", obj{"description": "d"}).want(201)
	strict.post(path, unknown).want(422)
}

// What was answered once is answered again, whatever has become of the rules and of what they look at.
func TestARepeatIsAnsweredAsTheFirstDespiteTodaysRules(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	body := envelope(`{"id":"x"}`, "")
	schema := func(typ string) {
		a.put("/event-type/user.created", obj{"description": "d", "schemas": obj{"1": obj{"properties": obj{"id": obj{"type": typ}}}}})
	}
	schema("integer")
	first := map[string]result{"plain": a.post(path, body, "Idempotency-Key", "plain").want(202)}
	batch := a.post(path+"/batch", batchOf(body), "Idempotency-Key", "batch").want(202)
	warned := a.rules(obj{"schemaValidation": "warn"})
	first["warned"] = warned.post(path, body, "Idempotency-Key", "warned").want(202)
	if !strings.Contains(string(first["warned"].body), "must be of type integer") || strings.Contains(string(first["plain"].body), "warnings") {
		t.Fatalf("%s %s", first["warned"].body, first["plain"].body)
	}
	same := func(caller tenant) {
		t.Helper()
		for key, was := range first {
			if got := caller.post(path, body, "Idempotency-Key", key).want(202); string(got.body) != string(was.body) {
				t.Errorf("%s: %s, at first %s", key, got.body, was.body)
			}
		}
		if got := caller.post(path+"/batch", batchOf(body), "Idempotency-Key", "batch").want(202); string(got.body) != string(batch.body) {
			t.Errorf("%s, at first %s", got.body, batch.body)
		}
	}
	same(warned)
	schema("string")
	same(warned) // nothing to warn of today
	schema("array")
	same(warned)
	rejecting := a.rules(obj{"schemaValidation": "reject", "strictEventTypes": true})
	same(rejecting)
	a.delete("/event-type/user.created?expunge=true").want(204)
	same(rejecting)
	if got := rejecting.post(path, envelope(`{"id":"y"}`, ""), "Idempotency-Key", "plain").want(422); got.str("code") != "idempotency_key_reused" {
		t.Errorf("another body: %s", got.body)
	}
	if got := rejecting.post(path, body, "Idempotency-Key", "new").want(422); locOf(got) != "body.eventType" {
		t.Errorf("a new key: %s", got.body)
	}
	a.exec(`UPDATE idempotency SET created_at = now() - interval '13 hours' WHERE tenant_id = $1`, a.id.UUID())
	rejecting.post(path, body, "Idempotency-Key", "plain").want(422)
	if n := a.count("message WHERE tenant_id = $1", a.id.UUID()); n != 3 {
		t.Errorf("%d messages are stored", n)
	}
}

// A tenant's rules hold everywhere within a second, as a revocation does.
func TestRulesHoldWithinASecond(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := "/app/" + a.app() + "/msg"
	a.post(path, envelope(`{}`, "")).want(202)
	a.rules(obj{"strictEventTypes": true})
	for start := time.Now(); a.post(path, envelope(`{}`, "")).status == 202; {
		if time.Since(start) > time.Second {
			t.Fatal("a rule does not hold after a second")
		}
	}
}

func TestExpensiveSchemasStopNobodyElse(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a, b := r.tenant(), r.tenant()
	definitions := obj{"d40": obj{"type": "string"}}
	for i := range 40 {
		next := obj{"$ref": "#/definitions/d" + string(rune('0'+(i+1)/10)) + string(rune('0'+(i+1)%10))}
		definitions["d"+string(rune('0'+i/10))+string(rune('0'+i%10))] = obj{"anyOf": []obj{next, next}}
	}
	a.put("/event-type/user.created", obj{"description": "d", "schemas": obj{"1": obj{"definitions": definitions, "$ref": "#/definitions/d00"}}}).want(201)
	hostile := a.rules(obj{"schemaValidation": "reject"})
	path := "/app/" + a.app() + "/msg"
	if got := hostile.post(path, envelope(`{}`, "")).want(422); !strings.Contains(string(got.body), "within the limits") {
		t.Errorf("%s", got.body)
	}
	hostile.post(path+"/batch", batchOf(strings.TrimSuffix(strings.Repeat(envelope(`{}`, "")+",", webhook.MaxBatch), ","))).want(202)
	start := time.Now()
	b.post("/app/"+b.app()+"/msg", envelope(`{}`, "")).want(202)
	if took := time.Since(start); took > time.Second {
		t.Errorf("the next message took %v", took)
	}
}

func TestOperatorSetsRules(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	path := tenantsPath + "/" + a.id.String()
	f := a.do("GET", path, operatorToken, nil).want(200).fields()
	if f["schemaValidation"] != "ignore" || f["strictEventTypes"] != false {
		t.Fatal(f)
	}
	f = a.do("PATCH", path, operatorToken, obj{"name": "New", "schemaValidation": "warn", "strictEventTypes": true}).want(200).fields()
	if f["schemaValidation"] != "warn" || f["strictEventTypes"] != true || f["name"] != "New" {
		t.Fatal(f)
	}
	if f = a.do("PATCH", path, operatorToken, obj{}).want(200).fields(); f["schemaValidation"] != "warn" || f["name"] != "New" {
		t.Fatal(f)
	}
	for _, bad := range []obj{{"schemaValidation": "perhaps"}, {"schemaValidation": nil}, {"strictEventTypes": "yes"}, {"name": ""}, {"name": strings.Repeat("n", webhook.MaxName+1)}} {
		a.do("PATCH", path, operatorToken, bad).want(422)
	}
	a.do("PATCH", tenantsPath+"/nobody", operatorToken, obj{"name": "n"}).want(404)
	a.do("PATCH", path, a.key, obj{"name": "n"}).want(401)
}
