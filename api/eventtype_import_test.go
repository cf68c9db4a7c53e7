package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

const specYAML = `
openapi: 3.1.0
info: {title: Shop, version: "1"}
webhooks:
  order.shipped:
    post:
      summary: An order was shipped.
      requestBody:
        content:
          application/json:
            schema: {$ref: '#/components/schemas/Order'}
  order.cancelled:
    post: {description: An order was cancelled., deprecated: true}
components:
  schemas:
    Order:
      type: object
      required: [id]
      properties:
        id: {type: string}
        parts: {type: array, items: {$ref: '#/components/schemas/Order'}}
    Unused: {type: string}
`

func TestEventTypesAreImportedFromOpenAPI(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	const path = "/event-type/import/openapi"
	a.put("/event-type/other", obj{"description": "d"}).want(201)
	a.put("/event-type/order.shipped", obj{"description": "d", "groupName": "g", "schemas": obj{"2": obj{"title": "kept"}}}).want(201)
	dry := a.post(path, obj{"specRaw": specYAML, "dryRun": true, "replaceAll": true}).want(200)
	var out eventTypeImportOut
	dry.into(&out)
	if len(out.Data.Modified) != 0 || len(out.Data.ToModify) != 3 || !out.Data.ToModify[2].Archived {
		t.Fatalf("%s", dry.body)
	}
	a.get("/event-type/order.cancelled").want(404)

	if got := a.post(path, obj{"specRaw": specYAML}).want(200); !strings.Contains(string(got.body), `"modified":["order.cancelled","order.shipped"]`) {
		t.Fatalf("%s", got.body)
	}
	f := a.get("/event-type/order.shipped").want(200).fields()
	schemas := f["schemas"].(obj)
	if f["description"] != "An order was shipped." || f["groupName"] != "g" || schemas["2"] == nil || strings.Contains(fmt.Sprint(schemas), "Unused") {
		t.Fatal(f)
	}
	if f := a.get("/event-type/order.cancelled").want(200).fields(); f["deprecated"] != true {
		t.Fatal(f)
	}
	if got := a.post(path, obj{"specRaw": specYAML}).want(200); !strings.Contains(string(got.body), `"modified":[]`) {
		t.Fatalf("the same again changes something: %s", got.body)
	}
	if got := a.post(path, obj{"specRaw": specYAML, "replaceAll": true}).want(200); !strings.Contains(string(got.body), `"modified":["other"]`) {
		t.Fatalf("%s", got.body)
	}
	if f := a.get("/event-type/other").want(200).fields(); f["archived"] != true {
		t.Fatal(f)
	}

	// What was imported acts: the references came along.
	checked := a.rules(obj{"schemaValidation": "reject"})
	a.patch("/event-type/order.shipped", obj{"schemas": obj{"1": schemas["1"]}}).want(200)
	messages := "/app/" + a.app() + "/msg"
	checked.post(messages, `{"eventType":"order.shipped","payload":{"id":"1","parts":[{"id":"2"}]}}`).want(202)
	if got := checked.post(messages, `{"eventType":"order.shipped","payload":{"id":"1","parts":[{}]}}`).want(422); locOf(got) != "body.payload.parts.[0]" {
		t.Fatalf("%s", got.body)
	}
}

func TestImportOfOlderSpecifications(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	spec := obj{"openapi": "3.0.3", "x-webhooks": obj{"a": obj{"post": obj{"requestBody": obj{"content": obj{"application/json": obj{
		"schema": obj{"properties": obj{"x": obj{"type": "string", "nullable": true}, "y": obj{"$ref": "#/components/schemas/Y"}}},
	}}}}}}, "components": obj{"schemas": obj{"Y": obj{"type": "integer"}}}}
	a.post("/event-type/import/openapi", obj{"spec": spec}).want(200)
	text, err := json.Marshal(a.get("/event-type/a").want(200).fields()["schemas"])
	if err != nil || !strings.Contains(string(text), `"type":["string","null"]`) || !strings.Contains(string(text), `"definitions":{"Y":{"type":"integer"}}`) {
		t.Fatalf("%s %v", text, err)
	}
}

func TestHostileSpecifications(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	hook := func(item string) string { return `{"openapi":"3.1.0","webhooks":{"a":` + item + `}}` }
	schema := func(text string) string {
		return hook(`{"post":{"requestBody":{"content":{"application/json":{"schema":` + text + `}}}}}`)
	}
	bomb := "openapi: 3.1.0\na: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("%c: &%c [%s]\n", 'b'+i, 'b'+i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 9), ","))
	}
	for what, raw := range map[string]string{
		"nothing": "", "a text": "x", "no webhooks": `{"openapi":"3.1.0"}`, "swagger": `{"swagger":"2.0","webhooks":{}}`, "null": "null",
		"tabs": "\t- a", "two documents": "a: 1\n---\nb: 2", "bomb": bomb, "flow": strings.Repeat("[", 4_900), "block": strings.Repeat("- ", 4_900),
		"keys": strings.Repeat("? ", 4_900), "too many": strings.Repeat("[", maxYAMLMarks+1), "maps": strings.Repeat("{a: ", 4_900),
		"name": `{"openapi":"3.1.0","webhooks":{"a b":{"post":{}}}}`, "no operation": hook(`{}`), "bad schema": schema(`{"type":7}`),
		"remote": schema(`{"$ref":"http://127.0.0.1:1/x"}`), "nowhere": schema(`{"$ref":"#/components/schemas/X"}`), "wrong shape": hook(`7`),
		"deep": schema(strings.Repeat(`{"not":`, 100) + "{}" + strings.Repeat("}", 100)), "very deep": strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000),
	} {
		start := time.Now()
		got := a.post("/event-type/import/openapi", obj{"specRaw": raw})
		if got.status != 422 || len(got.body) > 4096 {
			t.Errorf("%s: %d %.300s", what, got.status, got.body)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s took %v", what, took)
		}
	}
	many := func(n int) obj { // n webhooks that refer to one schema, which takes 50,000 bytes for each
		hooks := obj{}
		for i := range n {
			hooks[fmt.Sprint("w", i)] = obj{"post": obj{"requestBody": obj{"content": obj{"application/json": obj{"schema": obj{"$ref": "#/components/schemas/Large"}}}}}}
		}
		return obj{"openapi": "3.1.0", "webhooks": hooks, "components": obj{"schemas": obj{"Large": obj{"title": strings.Repeat("t", 50_000)}}}}
	}
	a.post("/event-type/import/openapi", obj{"spec": many(maxImported / 51_000), "dryRun": true}).want(200)
	a.post("/event-type/import/openapi", obj{"spec": many(maxImported/50_000 + 1)}).want(422)
	a.post("/event-type/import/openapi", obj{"spec": obj{}, "specRaw": ""}).want(422)
	a.post("/event-type/import/openapi", obj{}).want(422)
	if got := listed(a.get("/event-type").want(200), "name"); len(got) != 0 {
		t.Errorf("half of something was kept: %v", got)
	}
}
