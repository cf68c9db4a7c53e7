package api

import (
	"net/http"
	"reflect"

	"github.com/posthaste/posthaste/internal/auth"
)

// Paths that several routes share.
const (
	applicationsPath = basePath + "/app"
	oneApplication   = applicationsPath + "/{app_id}"
	endpointsPath    = oneApplication + "/endpoint"
	oneEndpoint      = endpointsPath + "/{endpoint_id}"
	messagesPath     = oneApplication + "/msg"
	oneMessage       = messagesPath + "/{msg_id}"
	oneDestination   = oneMessage + "/endpoint/{endpoint_id}"
	eventTypesPath   = basePath + "/event-type"
	oneEventType     = eventTypesPath + "/{event_type_name}"
	tasksPath        = basePath + "/background-task"
	oneTask          = tasksPath + "/{task_id}"
	authPath         = basePath + "/auth"
	tenantsPath      = operatorPath + "/tenant"
	oneTenant        = tenantsPath + "/{tenant_id}"
	apiKeysPath      = oneTenant + "/api-key"
	plansPath        = operatorPath + "/plan"
	onePlan          = plansPath + "/{plan_name}"
)

var (
	ok        = []int{http.StatusOK}
	created   = []int{http.StatusCreated}
	accepted  = []int{http.StatusAccepted}
	noContent = []int{http.StatusNoContent}
	upserted  = []int{http.StatusOK, http.StatusCreated}
)

// routes is the table of everything the API can do, and who may do it. Signing keys need admin, since
// who has one can sign as the tenant, and so do application tokens, which can show them. An application
// token may do what is wrapped in its customer's capability, within its application, and nothing else.
func (s *server) routes() []route {
	tenant := func(scope auth.Scope, method, path, id, summary string, success []int, handle binding) route {
		return route{class: classTenant, scope: scope, method: method, path: path, id: id, summary: summary, success: success, handle: handle}
	}
	operator := func(method, path, id, summary string, success []int, handle binding) route {
		return route{class: classOperator, method: method, path: path, id: id, summary: summary, success: success, handle: handle}
	}
	optional := func(r route) route {
		r.bodyOptional = true
		return r
	}
	customer := func(capability auth.Capability, r route) route {
		r.capability = capability
		return r
	}
	const get, post, put, patch, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete
	return []route{
		tenant(auth.Read, get, applicationsPath, "v1.application.list", "List applications", ok, handle(s.applicationList)),
		tenant(auth.Write, post, applicationsPath, "v1.application.create", "Create an application", upserted, handle(s.applicationCreate)),
		customer(auth.ViewBase, tenant(auth.Read, get, oneApplication, "v1.application.get", "Get an application", ok, handle(s.applicationGet))),
		tenant(auth.Write, put, oneApplication, "v1.application.update", "Replace or create an application", upserted, handle(s.applicationPut)),
		tenant(auth.Write, patch, oneApplication, "v1.application.patch", "Change parts of an application", ok, handle(s.applicationPatch)),
		tenant(auth.Write, del, oneApplication, "v1.application.delete", "Delete an application", noContent, handle(s.applicationDelete)),

		customer(auth.ViewBase, tenant(auth.Read, get, endpointsPath, "v1.endpoint.list", "List endpoints", ok, handle(s.endpointList))),
		customer(auth.ManageEndpoint, tenant(auth.Write, post, endpointsPath, "v1.endpoint.create", "Create an endpoint", created, handle(s.endpointCreate))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneEndpoint, "v1.endpoint.get", "Get an endpoint", ok, handle(s.endpointGet))),
		customer(auth.ManageEndpoint, tenant(auth.Write, put, oneEndpoint, "v1.endpoint.update", "Replace or create an endpoint", upserted, handle(s.endpointPut))),
		customer(auth.ManageEndpoint, tenant(auth.Write, patch, oneEndpoint, "v1.endpoint.patch", "Change parts of an endpoint", ok, handle(s.endpointPatch))),
		customer(auth.ManageEndpoint, tenant(auth.Write, del, oneEndpoint, "v1.endpoint.delete", "Delete an endpoint", noContent, handle(s.endpointDelete))),
		customer(auth.ViewEndpointSecret, tenant(auth.Admin, get, oneEndpoint+"/secret", "v1.endpoint.get-secret", "Get an endpoint's signing key", ok, handle(s.endpointSecretGet))),
		customer(auth.ManageEndpointSecret, optional(tenant(auth.Admin, post, oneEndpoint+"/secret/rotate", "v1.endpoint.rotate-secret", "Replace an endpoint's signing key", noContent, handle(s.endpointSecretRotate)))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneEndpoint+"/headers", "v1.endpoint.get-headers", "Get an endpoint's custom headers", ok, handle(s.endpointHeadersGet))),
		customer(auth.ManageEndpoint, tenant(auth.Write, put, oneEndpoint+"/headers", "v1.endpoint.update-headers", "Replace an endpoint's custom headers", noContent, handle(s.endpointHeadersPut))),
		customer(auth.ManageEndpoint, tenant(auth.Write, patch, oneEndpoint+"/headers", "v1.endpoint.patch-headers", "Change some of an endpoint's custom headers", noContent, handle(s.endpointHeadersPatch))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneEndpoint+"/stats", "v1.endpoint.get-stats", "Count the attempts to an endpoint", ok, handle(s.endpointStats))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneEndpoint+"/status", "v1.endpoint.get-status", "Get how an endpoint's deliveries go", ok, handle(s.endpointStatus))),
		customer(auth.ManageEndpoint, tenant(auth.Write, post, oneEndpoint+"/pause", "v1.endpoint.pause", "Hold back what an endpoint is owed", ok, handle(s.endpointPause))),
		customer(auth.ManageEndpoint, tenant(auth.Write, post, oneEndpoint+"/resume", "v1.endpoint.resume", "Let an endpoint's deliveries go on", ok, handle(s.endpointResume))),
		customer(auth.ManageEndpoint, tenant(auth.Write, post, oneEndpoint+"/cancel-pending", "v1.endpoint.cancel-pending", "End what an endpoint is owed and is not under way", ok, handle(s.endpointCancelPending))),
		tenant(auth.Read, get, basePath+"/backlog", "v1.backlog.get", "Count what all endpoints are owed", ok, handle(s.backlog)),
		customer(auth.CreateAttempts, optional(tenant(auth.Send, post, oneEndpoint+"/skip", "v1.endpoint.skip", "Skip the first message in an ordered endpoint's line", ok, handle(s.endpointSkip)))),
		tenant(auth.Send, post, oneEndpoint+"/send-example", "v1.endpoint.send-example", "Send an event type's example to an endpoint", ok, handle(s.sendExample)),

		customer(auth.ViewBase, tenant(auth.Read, get, eventTypesPath, "v1.event-type.list", "List event types", ok, handle(s.eventTypeList))),
		tenant(auth.Write, post, eventTypesPath, "v1.event-type.create", "Create an event type", created, handle(s.eventTypeCreate)),
		customer(auth.ViewBase, tenant(auth.Read, get, oneEventType, "v1.event-type.get", "Get an event type", ok, handle(s.eventTypeGet))),
		tenant(auth.Write, post, eventTypesPath+"/import/openapi", "v1.event-type.import-openapi", "Import event types from an OpenAPI document", ok, handle(s.eventTypeImport)),
		tenant(auth.Write, put, oneEventType, "v1.event-type.update", "Replace or create an event type", upserted, handle(s.eventTypePut)),
		tenant(auth.Write, patch, oneEventType, "v1.event-type.patch", "Change parts of an event type", ok, handle(s.eventTypePatch)),
		tenant(auth.Write, del, oneEventType, "v1.event-type.delete", "Archive or remove an event type", noContent, handle(s.eventTypeDelete)),

		customer(auth.ViewBase, tenant(auth.Read, get, messagesPath, "v1.message.list", "List messages", ok, handle(s.messageList))),
		tenant(auth.Send, post, messagesPath, "v1.message.create", "Publish a message", accepted, binding{
			input: reflect.TypeFor[messageCreate](), output: reflect.TypeFor[messageOut](), direct: (*server).publish,
		}),
		customer(auth.ViewBase, tenant(auth.Read, get, oneMessage, "v1.message.get", "Get a message", ok, handle(s.messageGet))),
		tenant(auth.Send, post, messagesPath+"/batch", "v1.message.create-batch", "Publish up to 1,000 messages together", accepted, binding{
			input: reflect.TypeFor[messageBatch](), output: reflect.TypeFor[messageBatchOut](), direct: (*server).publishBatch,
		}),

		customer(auth.ViewBase, tenant(auth.Read, get, oneApplication+"/attempt/endpoint/{endpoint_id}", "v1.message-attempt.list-by-endpoint", "List attempts to an endpoint", ok, handle(s.attemptsByEndpoint))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneApplication+"/attempt/msg/{msg_id}", "v1.message-attempt.list-by-msg", "List attempts of a message", ok, handle(s.attemptsByMessage))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneMessage+"/attempt/{attempt_id}", "v1.message-attempt.get", "Get an attempt", ok, handle(s.attemptGet))),

		optional(tenant(auth.Admin, post, authPath+"/app-portal-access/{app_id}", "v1.authentication.app-portal-access", "Make an application token", ok, handle(s.portalAccess))),
		tenant(auth.Admin, post, authPath+"/dashboard-access/{app_id}", "v1.authentication.dashboard-access", "Make an application token (deprecated)", ok, handle(s.dashboardAccess)),
		optional(tenant(auth.Write, post, authPath+"/app/{app_id}/expire-all", "v1.authentication.expire-all", "End application tokens", noContent, handle(s.sessionsExpire))),
		{class: classApplication, method: post, path: authPath + "/logout", id: "v1.authentication.logout", summary: "End the application token that is used", success: noContent, handle: handle(s.logout)},
		tenant(auth.Write, del, oneMessage+"/content", "v1.message.expunge-content", "Remove a message's payload", noContent, handle(s.messageExpunge)),
		tenant(auth.Write, del, oneMessage+"/attempt/{attempt_id}/content", "v1.message-attempt.expunge-content", "Remove the answer of an attempt", noContent, handle(s.attemptExpunge)),
		customer(auth.ViewBase, tenant(auth.Read, get, oneEndpoint+"/msg", "v1.message-attempt.list-attempted-messages", "List the messages that were owed to an endpoint", ok, handle(s.attemptedMessages))),
		customer(auth.ViewBase, tenant(auth.Read, get, oneMessage+"/endpoint", "v1.message-attempt.list-attempted-destinations", "List the endpoints that a message was owed to", ok, handle(s.destinations))),
		customer(auth.CreateAttempts, tenant(auth.Send, post, oneDestination+"/resend", "v1.message-attempt.resend", "Send a message to an endpoint once more", accepted, handle(s.messageResend))),

		customer(auth.CreateAttempts, tenant(auth.Send, post, oneEndpoint+"/recover", "v1.endpoint.recover", "Send an endpoint what it failed to take", accepted, handle(s.endpointRecover))),
		customer(auth.CreateAttempts, tenant(auth.Send, post, oneEndpoint+"/recover/dry-run", "v1.endpoint.recover-dry-run", "Count what recover would send", ok, handle(s.endpointRecoverDryRun))),
		customer(auth.CreateAttempts, tenant(auth.Send, post, oneEndpoint+"/replay-missing", "v1.endpoint.replay-missing", "Send an endpoint what it was never owed", accepted, handle(s.replayMissing))),
		customer(auth.CreateAttempts, tenant(auth.Send, post, oneEndpoint+"/replay-missing/dry-run", "v1.endpoint.replay-missing-dry-run", "Count what replay-missing would send", ok, handle(s.replayMissingDryRun))),
		customer(auth.CreateAttempts, tenant(auth.Send, post, oneEndpoint+"/bulk-replay", "v1.endpoint.bulk-replay", "Send an endpoint what a filter selects once more", accepted, handle(s.bulkReplay))),
		customer(auth.CreateAttempts, tenant(auth.Send, post, oneEndpoint+"/bulk-replay/dry-run", "v1.endpoint.bulk-replay-dry-run", "Count what bulk-replay would send", ok, handle(s.bulkReplayDryRun))),
		tenant(auth.Send, post, messagesPath+"/precheck/active", "v1.message.precheck", "Ask whether any endpoint wants a message", ok, handle(s.messagePrecheck)),
		tenant(auth.Write, post, messagesPath+"/bulk-expunge", "v1.message.bulk-expunge-content", "Remove the payloads of some messages", ok, handle(s.messagesExpunge)),
		tenant(auth.Write, post, messagesPath+"/expunge-all-contents", "v1.message.expunge-all-contents", "Remove the payloads of all messages", accepted, handle(s.applicationExpunge)),
		tenant(auth.Read, get, tasksPath, "v1.background-task.list", "List background tasks", ok, handle(s.taskList)),
		tenant(auth.Read, get, oneTask, "v1.background-task.get", "Get a background task", ok, handle(s.taskGet)),
		tenant(auth.Write, post, oneTask+"/pause", "v1.background-task.pause", "Make a background task rest", ok, handle(s.taskPause)),
		tenant(auth.Write, post, oneTask+"/resume", "v1.background-task.resume", "Let a background task go on", ok, handle(s.taskResume)),
		tenant(auth.Write, post, oneTask+"/cancel", "v1.background-task.cancel", "End a background task", ok, handle(s.taskCancel)),

		tenant(auth.Read, get, basePath+"/limits", "v1.limits.get", "Get what you may use and how much of it is used", ok, handle(s.limitsGet)),

		operator(get, tenantsPath, "v1.operator.tenant.list", "List tenants", ok, handle(s.tenantList)),
		operator(post, tenantsPath, "v1.operator.tenant.create", "Create a tenant", upserted, handle(s.tenantCreate)),
		operator(get, oneTenant, "v1.operator.tenant.get", "Get a tenant", ok, handle(s.tenantGet)),
		operator(patch, oneTenant, "v1.operator.tenant.patch", "Change a tenant's name, rules, plan and limits", ok, handle(s.tenantPatch)),
		operator(del, oneTenant, "v1.operator.tenant.delete", "Delete a tenant", noContent, handle(s.tenantDelete)),
		operator(get, apiKeysPath, "v1.operator.api-key.list", "List a tenant's API keys", ok, handle(s.apiKeyList)),
		operator(post, apiKeysPath, "v1.operator.api-key.create", "Create an API key", upserted, handle(s.apiKeyCreate)),
		optional(operator(post, apiKeysPath+"/{key_id}/expire", "v1.operator.api-key.expire", "End an API key", noContent, handle(s.apiKeyExpire))),
		operator(get, plansPath, "v1.operator.plan.list", "List plans", ok, handle(s.planList)),
		operator(get, onePlan, "v1.operator.plan.get", "Get a plan", ok, handle(s.planGet)),
		operator(put, onePlan, "v1.operator.plan.update", "Replace or create a plan", upserted, handle(s.planPut)),
		operator(del, onePlan, "v1.operator.plan.delete", "Delete a plan", noContent, handle(s.planDelete)),
	}
}
