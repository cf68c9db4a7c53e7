package main

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// The document lies in the repository of the server, not in the module.
const spec = "../../../../api/openapi.json"

func TestGeneratedFilesAreTheDocument(t *testing.T) {
	if _, err := os.Stat("../../../../go.mod"); err != nil {
		t.Skip("the document is in the repository only")
	}
	text, err := os.ReadFile(spec)
	if err != nil {
		t.Fatal(err)
	}
	files, err := generate(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		if got, err := os.ReadFile("../../" + name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what api/openapi.json says (%v); run go generate ./... in sdk/go", name, err)
		}
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	operations, err := doc.operations()
	if err != nil || len(operations) < 50 {
		t.Fatalf("%d operations, %v", len(operations), err)
	}
	for _, op := range operations {
		groups := op.groups()
		method := regexp.MustCompile(`\nfunc \(g ` + groups[len(groups)-1] + `\) ` + op.name() + `\(`)
		if found := method.FindAllIndex(files["operations.gen.go"], -1); len(found) != 1 {
			t.Errorf("%s has %d methods %s", op.ID, len(found), op.full())
		}
	}
}

// small is a document with one operation and one schema.
func small(operation, schemas string) []byte {
	return []byte(`{"paths":{"/api/v1/thing/{thing_id}":{` + operation + `}},"components":{"schemas":{` + schemas + `}}}`)
}

const takes = `"requestBody":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/ThingIn"}}}}`
const answers = `"responses":{"200":{"content":{"application/json":{"schema":{"$ref":"#/components/schemas/ThingOut"}}}}}`

func op(method, more string) string {
	return `"` + method + `":{"operationId":"v1.thing.do-it","summary":"Try or watch a thing","parameters":[{"name":"thing_id","in":"path"}],` + more + `}`
}

func TestWhatIsAbsentIsWrittenAsItsUseNeeds(t *testing.T) {
	const properties = `"properties":{
		"a":{"type":["string","null"]},"b":{"type":"integer","minimum":0,"default":5},"c":{"type":"integer","minimum":1},"d":{"type":"boolean","default":true},
		"e":{"type":["integer","null"]},"f":{"type":"object","additionalProperties":true},"g":{"type":"array","items":{"type":"string","enum":["x-y","z"]}},
		"h":{"type":"string","format":"date-time"},"i":{"type":"string","deprecated":true},"j":{"$ref":"#/components/schemas/PartOut"},"k":{"type":"string"}}`
	for _, c := range []struct {
		name, operation, owner string
		want, not              []string
	}{
		{"sent", op("post", takes), "ThingIn", []string{
			"A string `json:\"a,omitzero\"`", "B Optional[int] `json:\"b,omitzero\"`", "C int `json:\"c,omitzero\"`", "D Optional[bool] `json:\"d,omitzero\"`",
			"F any `json:\"f,omitzero\"`", "G []ThingInG `json:\"g,omitzero\"`", "H time.Time `json:\"h,omitzero\"`", "K string `json:\"k\"`", "ThingInGXY ThingInG = \"x-y\"",
			"func (g Things) DoIt(ctx context.Context, thing string, in ThingIn) error", "// DoIt tries or watches a thing.",
		}, []string{"deprecated", " I "}},
		{"patched", op("patch", takes), "ThingIn", []string{
			"A Nullable[string] `json:\"a,omitzero\"`", "C Optional[int] `json:\"c,omitzero\"`", "E Nullable[int] `json:\"e,omitzero\"`", "K string `json:\"k\"`",
		}, nil},
		{"answered", op("get", answers), "ThingOut", []string{
			"A string `json:\"a\"`", "B int `json:\"b\"`", "E *int `json:\"e\"`", "F json.RawMessage `json:\"f\"`", "J *Part `json:\"j\"`",
			"func (g Things) DoIt(ctx context.Context, thing string) (Thing, error)", "type Thing struct",
		}, []string{"omitzero"}},
	} {
		files, err := generate(small(c.operation, `"`+c.owner+`":{"type":"object","required":["k"],`+properties+`},"PartOut":{"type":"object","properties":{"x":{"type":"string"}}}`))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		text := regexp.MustCompile(`[ \t]+`).ReplaceAllString(string(files["types.gen.go"])+string(files["operations.gen.go"]), " ")
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s", c.name, want)
			}
		}
		for _, not := range c.not {
			if strings.Contains(text, not) {
				t.Errorf("%s: there is %s", c.name, not)
			}
		}
	}
}

func TestWhatHasNoPlaceIsRefused(t *testing.T) {
	const thing = `"ThingIn":{"type":"object","properties":{"a":{"type":"string"}}},"ThingOut":{"type":"object","properties":{"a":{"type":"string"}}}`
	for name, text := range map[string][]byte{
		"no JSON":           []byte("openapi: 3.1.0"),
		"no operations":     []byte(`{"paths":{}}`),
		"a method":          small(`"trace":{"operationId":"v1.thing.do"}`, ""),
		"an id":             small(`"get":{"operationId":"doThing","summary":"Do it"}`, ""),
		"no summary":        small(`"get":{"operationId":"v1.thing.do"}`, ""),
		"two types":         small(op("get", answers), `"ThingOut":{"type":["object","string"]}`),
		"an unknown type":   small(op("get", answers), `"ThingOut":{"type":"object","properties":{"a":{"type":"tuple"}}}`),
		"a header":          small(`"get":{"operationId":"v1.thing.do","summary":"Do it","parameters":[{"name":"x-y","in":"header"}]}`, ""),
		"both ways":         small(op("post", takes+","+strings.ReplaceAll(answers, "ThingOut", "ThingIn")), thing),
		"a name for two":    small(op("post", takes+","+answers), strings.Replace(thing, `"a":{"type":"string"}`, `"a":{"$ref":"#/components/schemas/Thing"}`, 1)+`,"Thing":{"type":"object","properties":{"a":{"type":"string"}}}`),
		"a nameless object": small(op("get", `"responses":{"200":{"content":{"application/json":{"schema":{"type":"object","properties":{"a":{"type":"string"}}}}}}}`), ""),
	} {
		if _, err := generate(text); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNamesAreGo(t *testing.T) {
	for name, want := range map[string]string{
		"id": "ID", "msgId": "MsgID", "to_modify": "ToModify", "event-type": "EventType", "remoteIp": "RemoteIP", "tlsUs": "TLSUs", "sessionIds": "SessionIDs",
		"ApiKeyCreated": "APIKeyCreated", "APIKeyOut": "APIKeyOut", "import-openapi": "ImportOpenAPI", "2xx": "2xx",
	} {
		if got := exported(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for summary, want := range map[string]string{
		"Publish a message": "publishes a message", "Replace or create an X": "replaces or creates an X", "Apply it": "applies it", "Pay a bill": "pays a bill", "Count": "counts",
	} {
		if got := does(summary); got != want {
			t.Errorf("%s: %s, want %s", summary, got, want)
		}
	}
	for noun, want := range map[string]string{"application": "Applications", "api-key": "APIKeys", "message-attempt": "Attempts", "policy": "Policies", "background-task": "BackgroundTasks"} {
		if got := groupName(noun); got != want {
			t.Errorf("%s: %s, want %s", noun, got, want)
		}
	}
}
