package api

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// groups are what the document's operations are about, in the order of a first reading. An operation's
// group is the second part of its id.
var groups = []struct{ id, name, description string }{
	{"application", "Application", "An application is one of your customers. Give it a `uid` of your own, and you need not store ours: wherever a path has an id, the uid may stand."},
	{"endpoint", "Endpoint", "An endpoint is a URL that a customer wants called, with filters and a signing key. It takes part in every message that is posted after it was made."},
	{"event-type", "Event type", "Event types name what you send. Endpoints filter by them, and their JSON Schemas can be checked when a message is posted."},
	{"message", "Message", "A message is posted once, to an application. It becomes one delivery for every endpoint that wants it at that moment."},
	{"message-attempt", "Message attempt", "An attempt is one HTTP request of a delivery, with what came back. Deliveries that ended without a request are listed, too."},
	{"backlog", "Backlog", "What waits to be delivered."},
	{"background-task", "Background task", "Long operations run in the background; a task shows how far one has come."},
	{"authentication", "Authentication", "Application tokens let a customer's browser manage that one customer's endpoints, and nothing else."},
	{"limits", "Limits", "What a tenant may use, and how much of it is used."},
	{"health", "Health", "Whether the installation can be used."},
	{"operator", "Operator", "Tenants, their API keys and plans. These take the operator's token, and are there only if the installation has one."},
}

// descriptions say what the summary and the fields of an operation do not.
var descriptions = map[string]string{
	"v1.application.create":      "A `uid` that is taken is answered with 409, unless `get_if_exists` is set: then the application that has it is returned as it is, and the call may be repeated.",
	"v1.application.update":      "Under a uid that does not exist yet, the application is created.",
	"v1.application.patch":       "What is absent stays as it is; null takes a value away where that is possible.",
	"v1.application.delete":      "Its endpoints go with it, its tokens end, and nothing that was still owed to it is sent.",
	"v1.endpoint.create":         "The URL has to be `https` and lead to a public address, unless the operator has opened more. A signing key is made if none is given.",
	"v1.endpoint.update":         "Under a uid that does not exist yet, the endpoint is created.",
	"v1.endpoint.patch":          "What is absent stays as it is; null takes a value away where that is possible.",
	"v1.endpoint.delete":         "What was still owed to it is not sent any more, and is shown as canceled.",
	"v1.endpoint.get-secret":     "Receivers verify deliveries with it. Who has it can sign as you, so an API key needs the scope `admin`.",
	"v1.endpoint.rotate-secret":  "The old key goes on signing beside the new one for the grace period, so that receivers can change over without missing anything.",
	"v1.endpoint.get-headers":    "Values of headers that usually hold a credential are not shown; `sensitive` names them.",
	"v1.endpoint.get-status":     "An endpoint that failed many times in a row is left alone: one delivery at a time is tried until one is taken. Nothing it is owed spends an attempt meanwhile.",
	"v1.endpoint.pause":          "What it is owed, and what is posted from then on, waits for it until it is resumed, as long as messages are kept. What is being sent already is sent.",
	"v1.endpoint.resume":         "What has gathered is sent a few at a time at first. Of an endpoint that is left alone because it fails, one delivery is tried at once.",
	"v1.endpoint.cancel-pending": "At most 10,000 deliveries with each call, the oldest first; each is shown as canceled. Those that are being sent, or about to be, are left: pause the endpoint first to have as few of them as can be.",
	"v1.backlog.get":             "Over all applications. Counting ends at 10,000 of a kind.",
	"v1.endpoint.send-example":   "The message is a real one: it is stored, signed and delivered, to this endpoint only.",
	"v1.event-type.update":       "An event type that does not exist yet is created.",
	"v1.event-type.patch":        "What is absent stays as it is; null takes a value away where that is possible.",
	"v1.event-type.delete":       "It is archived, and can be brought back by creating it again; with `expunge` it is removed.",
	"v1.event-type.import-openapi": "Every entry of `webhooks` (before OpenAPI 3.1: `x-webhooks`) becomes an event type, and the schema of its JSON body version `1` of its schemas. " +
		"Give either `spec` or `specRaw`.",
	"v1.message.create": "202 means durable: the message and one delivery for every endpoint that matches are committed, on disk, before the answer. " +
		"The payload is delivered byte for byte as it was posted. If there is no answer, or 429 or a 5xx, post again with the same `idempotency-key`.",
	"v1.message.create-batch":                        "Each message has its own result, in order. Those that are valid are committed together; the others say what is wrong with them.",
	"v1.message.list":                                "The newest first, at most 90 days at a time.",
	"v1.message.expunge-content":                     "The message itself stays, with its attempts. What was still owed of it cannot be sent any more.",
	"v1.message-attempt.list-by-endpoint":            "The newest first, at most 90 days at a time.",
	"v1.message-attempt.list-by-msg":                 "The newest first.",
	"v1.message-attempt.resend":                      "One attempt, at once, whatever became of the delivery so far and whatever the endpoint's filters. A success ends the retries that are still planned; a failure leaves them.",
	"v1.message-attempt.expunge-content":             "The attempt stays, without what the receiver answered: `response` reads `EXPUNGED`.",
	"v1.message-attempt.list-attempted-messages":     "Each with what became of it at this endpoint.",
	"v1.message-attempt.list-attempted-destinations": "Each with what became of the message there.",
	"v1.authentication.app-portal-access": "Call it from your server when a customer opens your settings page, and hand the token to the page. " +
		"It may do what its capabilities say, within this application, until it expires or is ended.",
	"v1.authentication.expire-all": "They stop working everywhere within a second.",
	"v1.authentication.logout":     "It stops working everywhere within a second.",
	"v1.operator.tenant.delete":    "Everything the tenant has goes with it.",
	"v1.limits.get":                "They come from the plan and from what the operator has set beside it. A rate that is exceeded is answered with 429.",
	"v1.operator.plan.update":      "Its limits are replaced as a whole, and hold within a second for every tenant that has the plan.",
	"v1.operator.plan.delete":      "A plan that a tenant has is not deleted; the answer is 409.",
	"v1.operator.tenant.patch":     "What is absent stays as it is. `limits` is replaced as a whole; each that is set there takes the place of the plan's.",
	"v1.operator.api-key.create":   "The key itself is in this answer, and never shown again.",
}

// groupOf is the tag of an operation.
func groupOf(id string) string {
	parts := strings.Split(id, ".")
	for _, g := range groups {
		if len(parts) > 1 && g.id == parts[1] {
			return g.name
		}
	}
	return parts[min(1, len(parts)-1)]
}

// describe gives the document its groups, and examples to what it has.
func (d *document) describe() {
	api := d.api.OpenAPI()
	used := map[string]bool{}
	for _, item := range api.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			used[op.Tags[0]] = true
			for _, p := range op.Parameters {
				if example, ok := parameterExamples[p.Name]; ok && p.In == "path" {
					p.Example = example
				}
			}
		}
	}
	for _, g := range groups {
		if used[g.name] {
			api.Tags = append(api.Tags, &huma.Tag{Name: g.name, Description: g.description})
		}
	}
	for name, schema := range d.registry.Map() {
		if text, ok := bodyExamples[name]; ok {
			schema.Examples = []any{json.RawMessage(text)}
		}
		for property, s := range schema.Properties {
			example, ok := propertyExamples[name+"."+property]
			if !ok {
				example, ok = propertyExamples[property]
			}
			if ok && s.Ref == "" && len(s.Enum) == 0 && slices.Contains(jsonTypes(example), s.Type) {
				s.Examples = []any{example}
			}
		}
	}
}

// jsonTypes are the types that a schema of an example may have.
func jsonTypes(example any) []string {
	switch example.(type) {
	case string:
		return []string{huma.TypeString}
	case int:
		return []string{huma.TypeInteger}
	case bool:
		return []string{huma.TypeBoolean}
	case json.RawMessage:
		return []string{huma.TypeObject, huma.TypeArray}
	}
	return nil
}
