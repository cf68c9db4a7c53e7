package api

import (
	"encoding/json"

	"github.com/posthaste/posthaste/internal/webhook"
)

// The cast of the examples: a customer called Acme with one endpoint and one invoice. Their ids are like
// real ones, of one morning.
var (
	exampleTenant      = webhook.TenantID(exampleBytes(1)).String()
	exampleApplication = webhook.ApplicationID(exampleBytes(2)).String()
	exampleEndpoint    = webhook.EndpointID(exampleBytes(3)).String()
	exampleMessage     = webhook.MessageID(exampleBytes(4)).String()
	exampleAttempt     = webhook.AttemptID(exampleBytes(5)).String()
	exampleKey         = webhook.APIKeyID(exampleBytes(6)).String()
)

func exampleBytes(n byte) [16]byte {
	return [16]byte{0x01, 0x9c, 0xad, 0xd9, 0x5b, n, 0x7a, 0x31, 0x9f, 0x0c, 0x3e, 0x52, 0xb8, 0xd4, 0x61, 0x70 + n}
}

// parameterExamples are values of path parameters.
var parameterExamples = map[string]string{
	"app_id": "acme", "endpoint_id": "main", "msg_id": "invoice-1043-paid", "attempt_id": exampleAttempt,
	"event_type_name": "invoice.paid", "tenant_id": "shop", "key_id": "billing", "plan_name": "pro",
}

// bodyExamples are whole requests, by schema. A test sends each of them.
var bodyExamples = map[string]string{
	"ApplicationIn":          `{"name": "Acme", "uid": "acme", "metadata": {"plan": "pro"}}`,
	"ApplicationPatch":       `{"name": "Acme Inc.", "throttleRate": null}`,
	"EndpointIn":             `{"url": "https://acme.example/webhooks", "uid": "main", "description": "Billing", "eventTypes": ["invoice.paid"]}`,
	"EndpointUpdate":         `{"url": "https://acme.example/webhooks", "description": "Billing", "eventTypes": ["invoice.paid"]}`,
	"EndpointPatch":          `{"disabled": true, "eventTypes": null}`,
	"EndpointHeadersIn":      `{"headers": {"x-gateway-token": "s3cret"}}`,
	"EndpointHeadersPatch":   `{"headers": {"x-gateway-token": "n3w", "x-old": null}}`,
	"EndpointSecretRotateIn": `{"gracePeriodSeconds": 86400}`,
	"EndpointSkipIn":         `{"msgId": "invoice-1043-paid"}`,
	"ExampleIn":              `{"eventType": "svix.ping"}`,
	"EventTypeIn":            `{"name": "invoice.paid", "description": "An invoice is paid in full.", "schemas": {"1": {"type": "object", "required": ["id"], "examples": [{"id": "in_1043", "amount": 4900}]}}}`,
	"EventTypeUpdate":        `{"description": "An invoice is paid in full.", "schemas": {"1": {"type": "object", "required": ["id"]}}}`,
	"EventTypePatch":         `{"archived": true}`,
	"EventTypeImportIn":      `{"dryRun": true, "spec": {"openapi": "3.1.0", "info": {"title": "Shop", "version": "1"}, "webhooks": {"invoice.paid": {"post": {"description": "An invoice is paid in full."}}}}}`,
	"MessageIn":              `{"eventType": "invoice.paid", "eventId": "invoice-1043-paid", "payload": {"type": "invoice.paid", "id": "in_1043", "amount": 4900}}`,
	"MessageBatchIn":         `{"messages": [{"eventType": "invoice.paid", "payload": {"id": "in_1043", "amount": 4900}}, {"eventType": "invoice.paid", "payload": {"id": "in_1044", "amount": 1250}}]}`,
	"PortalAccessIn":         `{"application": {"name": "Acme", "uid": "acme"}, "capabilities": ["ViewBase", "ManageEndpoint"], "expiry": 86400}`,
	"SessionsExpireIn":       `{"expiry": 60}`,
	"RangeIn":                `{"since": "2026-03-02T09:00:00Z", "until": "2026-03-02T10:30:00Z"}`,
	"BulkReplayIn":           `{"since": "2026-03-02T09:00:00Z", "eventTypes": ["invoice.paid"], "status": 2}`,
	"BulkExpungeIn":          `{"ids": ["invoice-1043-paid", "invoice-1044-paid"]}`,
	"PrecheckIn":             `{"eventType": "invoice.paid", "channels": ["eu"]}`,
	"TenantIn":               `{"name": "Shop", "uid": "shop"}`,
	"TenantPatch":            `{"schemaValidation": "warn", "limits": {"messagesPerDay": 5000000}}`,
	"PlanIn":                 `{"limits": {"publishRate": 500, "keyRate": 200, "deliverRate": 1000, "messagesPerDay": 1000000, "maxEndpoints": 2000, "weight": 4}}`,
	"ApiKeyIn":               `{"name": "billing service", "uid": "billing", "scopes": ["send"]}`,
	"ApiKeyExpireIn":         `{"at": null}`,
}

// propertyExamples are values of fields in answers, by name, or by schema and name where the name alone
// does not say enough.
var propertyExamples = map[string]any{
	"id": exampleMessage, "msgId": exampleMessage, "endpointId": exampleEndpoint,
	"ApplicationOut.id": exampleApplication, "EndpointOut.id": exampleEndpoint, "MessageEndpointOut.id": exampleEndpoint,
	"AttemptOut.id": exampleAttempt, "TenantOut.id": exampleTenant, "APIKeyOut.id": exampleKey, "ApiKeyCreatedOut.id": exampleKey,

	"uid": "acme", "EndpointOut.uid": "main", "MessageEndpointOut.uid": "main", "TenantOut.uid": "shop", "APIKeyOut.uid": "billing", "ApiKeyCreatedOut.uid": "billing",
	"name": "Acme", "TenantOut.name": "Shop", "APIKeyOut.name": "billing service", "ApiKeyCreatedOut.name": "billing service",
	"EventTypeOut.name": "invoice.paid", "EventTypeFromImport.name": "invoice.paid", "HeaderOut.name": "content-type", "HeaderOut.value": "application/json",
	"url": "https://acme.example/webhooks", "description": "Billing", "EventTypeOut.description": "An invoice is paid in full.",
	"EventTypeFromImport.description": "An invoice is paid in full.",
	"PortalAccessOut.url":             "https://hooks.example.com/login#key=eyJh…", "token": "eyJhbGciOiJFZERTQSJ9…",
	"createdAt": "2026-03-02T09:26:53.117Z", "updatedAt": "2026-03-02T09:26:53.117Z", "timestamp": "2026-03-02T09:31:12.480Z", "lastUsedAt": "2026-03-02T09:31:00Z",
	"metadata": json.RawMessage(`{"plan": "pro"}`), "EndpointOut.metadata": json.RawMessage(`{}`),
	"channels": json.RawMessage(`["eu"]`), "tags": json.RawMessage(`["billing"]`),

	"eventType": "invoice.paid", "eventId": "invoice-1043-paid", "payload": json.RawMessage(`{"type": "invoice.paid", "id": "in_1043", "amount": 4900}`),
	"eventTypes": json.RawMessage(`["invoice.paid"]`), "filterTypes": json.RawMessage(`["invoice.paid"]`), "groupName": "billing",
	"schemas": json.RawMessage(`{"1": {"type": "object", "required": ["id"]}}`),
	"headers": json.RawMessage(`{"x-gateway": "blue"}`), "sensitive": json.RawMessage(`["authorization"]`),
	"EndpointSecretOut.key": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "ApiKeyCreatedOut.key": "phk_…", "hint": "phk_8vT1",
	"scopes": json.RawMessage(`["send"]`), "schemaValidation": "warn",

	"response": `{"ok": true}`, "responseStatusCode": 200, "responseDurationMs": 84, "responseContentType": "application/json",
	"status": 0, "statusText": "success", "triggerType": 0, "number": 1, "sent": true, "final": true, "errorClass": "", "remoteIp": "203.0.113.17",
	"tlsVersion": "TLS 1.3", "certificateExpiry": "2026-09-01T00:00:00Z", "reusedConnection": false, "signedWith": json.RawMessage(`["sec_0ERdNLVPMCog7ELvhDox8JCc1UT"]`),
	"dnsUs": 1180, "connectUs": 9420, "tlsUs": 21050, "firstByteUs": 83110, "readUs": 240, "totalUs": 84020,
	"success": 4817, "fail": 12, "pending": 0, "sending": 1, "canceled": 0,

	"plan": "pro", "PlanOut.name": "pro", "deliverRate": 1000, "deliverBurst": 100, "publishRate": 500, "publishBurst": 50, "keyRate": 200, "keyBurst": 20,
	"messagesPerDay": 1000000, "maxEndpoints": 2000, "maxPayload": 262144, "weight": 4,
	"messagesToday": 48170, "resetsAt": "2026-03-03T00:00:00Z", "endpoints": 312,

	"done": true, "code": "not_found", "ErrorOut.detail": "Entity not found", "requestId": "req_4f1c0e9a7b52d8363e0a9c41b7f5d281",
	"loc": json.RawMessage(`["body", "url"]`), "msg": "url must be an absolute URL", "FieldOut.type": "value_error",
	"MessageBatchError.detail": "Validation error", "MessageBatchError.code": "validation_error",
	"modified": json.RawMessage(`["invoice.paid"]`),
}
