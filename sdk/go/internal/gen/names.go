package main

import (
	"strings"
	"unicode"
)

// What the document cannot say. Everything here is an exception; without an entry a name follows from
// the document.
var (
	// groups are operations of one noun that are called otherwise than its plural.
	groups = map[string]string{
		"message-attempt": "Attempts",
		"authentication":  "Authentication",
		"health":          "Health",
		"limits":          "Limits",
		"operator":        "Operator",
	}
	// groupDocs say what a group is for.
	groupDocs = map[string]string{
		"Client":          "Client calls one Posthaste with one key; make it with New. It may be used by many goroutines at once, and is best shared: it keeps connections.",
		"Applications":    "Applications are a tenant's customers.",
		"Endpoints":       "Endpoints are the URLs an application wants called.",
		"EventTypes":      "EventTypes are the named, documented kinds of messages.",
		"Messages":        "Messages are what is posted, once each.",
		"Attempts":        "Attempts are the HTTP requests by which messages are delivered.",
		"Authentication":  "Authentication makes and ends application tokens.",
		"Backlogs":        "Backlogs are what waits to be delivered.",
		"BackgroundTasks": "BackgroundTasks are replays and erasures that go on by themselves.",
		"Operator":        "Operator is what only the operator of an installation may do: its key is the operator's token.",
		"Tenants":         "Tenants are the companies that share an installation.",
		"APIKeys":         "APIKeys are the credentials of a tenant.",
		"Plans":           "Plans are named sets of limits that tenants are given.",
		"Limits":          "Limits are what a tenant may use.",
	}
	// arguments are path parameters that are called otherwise than themselves without _id.
	arguments = map[string]string{"msg_id": "message", "event_type_name": "name", "key_id": "apiKey", "plan_name": "name"}
	// typeNames are schemas that are called otherwise than themselves without Out.
	typeNames = map[string]string{"FieldOut": "FieldError", "LimitsOut": "LimitSet", "OperatorLimitsOut": "OperatorLimitSet"}
	// propertyTypes are of properties that the document leaves open; without an owner, of requests only.
	propertyTypes = map[string]string{
		"application":                  "*ApplicationIn",
		"transformationsParams":        "*TransformationsParams",
		"APIKey.scopes":                "[]Scope",
		"APIKeyCreated.scopes":         "[]Scope",
		"EndpointHeadersIn.headers":    "Headers",
		"EndpointHeadersPatch.headers": "Headers", // DeleteHeaders removes, so that values need no pointers
	}
	// plain are bodies of PATCH that need no null.
	plain = map[string]bool{"EndpointHeadersPatch": true}
	// zeroIsNull are numbers in answers whose zero means what null does: there is none.
	zeroIsNull = map[string]bool{
		"throttleRate": true, "throttleBurst": true, "deliverRate": true, "deliverBurst": true, "publishRate": true, "publishBurst": true,
		"keyRate": true, "keyBurst": true, "messagesPerDay": true, "maxEndpoints": true, "maxPayload": true, "weight": true,
	}
	// enums are the types of values that are one of a few, by the property's Go name and the values.
	enums = map[string]enum{
		"Status 0 1 2 3 4":                                             {name: "Status", doc: "what became of a delivery", values: []string{"Success", "Pending", "Fail", "Sending", "Canceled"}},
		"TriggerType 0 1":                                              {name: "TriggerType", doc: "why an attempt was made", values: []string{"Scheduled", "Manual"}},
		"StatusCodeClass 0 100 200 300 400 500":                        {name: "StatusCodeClass", doc: "the hundreds of an HTTP status", values: []string{"None", "1xx", "2xx", "3xx", "4xx", "5xx"}},
		"StatusText success pending fail sending canceled":             {name: "StatusText", doc: "the word for a Status"},
		"Order ascending descending":                                   {name: "Order", doc: "the order of a list, by age"},
		"State active paused open probing draining throttled disabled": {name: "EndpointState", doc: "how an endpoint's deliveries go"},
		"Ordering none fifo":                                           {name: "Ordering", doc: "whether an endpoint's messages go one after the other"},
		"OnExhausted block skip":                                       {name: "OnExhausted", doc: "what a message that has used up its attempts does to those behind it"},
		"Scopes read send write admin":                                 {name: "Scope", doc: "what an API key may do"},
		"SchemaValidation ignore warn reject":                          {name: "SchemaValidation", doc: "what becomes of a message that does not fit its event type's schemas"},
		"Capabilities ViewBase ViewEndpointSecret ManageEndpointSecret ManageTransformations CreateAttempts ManageEndpoint": {name: "Capability", doc: "what an application token may do"},
	}
	// typeDocs say what a type is where its operation does not.
	typeDocs = map[string]string{
		"Application":         "is one of a tenant's customers.",
		"Attempt":             "is one HTTP request of a delivery, or its visible end without one.",
		"AttemptDetail":       "is what is known about an attempt.",
		"APIKey":              "is a credential of a tenant, without what is secret of it.",
		"APIKeyCreated":       "is an API key with, once, its secret.",
		"Endpoint":            "is a URL that an application wants called.",
		"EndpointHeaders":     "are an endpoint's custom headers.",
		"EndpointMessage":     "is a message and what became of it at one endpoint.",
		"EndpointSecret":      "is what an endpoint's deliveries are verified with.",
		"EndpointStatus":      "is how an endpoint's deliveries go.",
		"CancelPending":       "is what came of canceling.",
		"Backlog":             "is what waits for all endpoints.",
		"EndpointStats":       "counts attempts by how they ended.",
		"EventType":           "is a named, documented kind of message.",
		"EventTypeFromImport": "is an event type as an import would leave it.",
		"EventTypeImport":     "says what an import changed.",
		"EventTypeImportData": "says what an import changed or would change.",
		"FieldError":          "says which field breaks which rule.",
		"Header":              "is one header of a request or an answer.",
		"LimitSet":            "are limits; zero is none.",
		"Message":             "is what was posted, once.",
		"MessageBatch":        "has a result for every message of a batch.",
		"MessageBatchError":   "says why one message of a batch was refused.",
		"MessageBatchResult":  "is what became of one message of a batch: an id or an error.",
		"MessageEndpoint":     "is an endpoint and what became of one message there.",
		"OperatorLimitSet":    "are limits as the operator sees them; zero is none.",
		"Plan":                "is a named set of limits that tenants are given.",
		"PortalAccess":        "is a way in for a customer.",
		"Task":                "is a long operation with its progress.",
		"TaskData":            "says what a task was asked to do.",
		"DryRun":              "says what a task would do.",
		"Tenant":              "is a company that shares an installation.",
		"TenantLimits":        "are what a tenant may use, and how much of it is used.",
		"TenantUsage":         "is how much of what is limited by number is used.",
		"Timings":             "are the phases of an attempt, in microseconds.",
	}
)

// enum is a type with a few known values.
type enum struct {
	name, doc string
	values    []string // names of constants, for values that are no words

	goType string
	of     []any
}

// initialisms are written in capitals.
var initialisms = map[string]string{
	"id": "ID", "ids": "IDs", "uid": "UID", "url": "URL", "api": "API", "ip": "IP", "tls": "TLS", "dns": "DNS", "http": "HTTP", "json": "JSON", "openapi": "OpenAPI", "eta": "ETA",
}

// exported is a Go name for one in any spelling: event-type, to_modify, remoteIp.
func exported(name string) string {
	var b strings.Builder
	for _, word := range words(name) {
		if whole, ok := initialisms[strings.ToLower(word)]; ok {
			b.WriteString(whole)
			continue
		}
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}

// words takes a name apart at what is no letter and before capitals.
func words(name string) (list []string) {
	var word []rune
	end := func() {
		if len(word) > 0 {
			list = append(list, string(word))
		}
		word = nil
	}
	runes := []rune(name)
	for i, r := range runes {
		switch {
		case !unicode.IsLetter(r) && !unicode.IsDigit(r):
			end()
			continue
		case unicode.IsUpper(r) && i > 0 && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])):
			end()
		}
		word = append(word, r)
	}
	end()
	return list
}

// typeName is the Go name of a schema. What is answered is the thing itself: ApplicationOut is an
// Application.
func typeName(schema string) string {
	if name, ok := typeNames[schema]; ok {
		return name
	}
	return exported(strings.TrimSuffix(schema, "Out"))
}

// groupName is the Go name of an operation's noun.
func groupName(noun string) string {
	if name, ok := groups[noun]; ok {
		return name
	}
	name := exported(noun)
	if stem, ok := strings.CutSuffix(name, "y"); ok && !strings.HasSuffix(name, "Key") {
		return stem + "ies"
	}
	return name + "s"
}

// argument is the Go name of a path parameter.
func argument(parameter string) string {
	if name, ok := arguments[parameter]; ok {
		return name
	}
	name := exported(strings.TrimSuffix(parameter, "_id"))
	return strings.ToLower(name[:1]) + name[1:]
}

// does is a summary as a sentence about the operation: "Replace or create an X" → "replaces or creates an X".
func does(summary string) string {
	list := strings.Fields(summary)
	list[0] = third(strings.ToLower(list[0][:1]) + list[0][1:])
	if len(list) > 2 && list[1] == "or" {
		list[2] = third(list[2])
	}
	return strings.Join(list, " ")
}

func third(verb string) string {
	for _, end := range []string{"s", "x", "sh", "ch"} {
		if strings.HasSuffix(verb, end) {
			return verb + "es"
		}
	}
	if stem, ok := strings.CutSuffix(verb, "y"); ok && !strings.ContainsAny(stem[len(stem)-1:], "aeou") {
		return stem + "ies"
	}
	return verb + "s"
}
