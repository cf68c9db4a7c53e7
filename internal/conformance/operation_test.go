package conformance_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/contracttest"
)

// operation is one that the open-source server and the clients share.
type operation struct {
	request string // as contracttest has it
	// plain: no client calls it and the OpenAPI document does not have it.
	plain bool
}

var operations = []operation{
	{request: "GET /api/v1/app"},
	{request: "POST /api/v1/app"},
	{request: "GET /api/v1/app/{app_id}"},
	{request: "PUT /api/v1/app/{app_id}"},
	{request: "PATCH /api/v1/app/{app_id}"},
	{request: "DELETE /api/v1/app/{app_id}"},

	{request: "GET /api/v1/app/{app_id}/endpoint"},
	{request: "POST /api/v1/app/{app_id}/endpoint"},
	{request: "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}"},
	{request: "PUT /api/v1/app/{app_id}/endpoint/{endpoint_id}"},
	{request: "PATCH /api/v1/app/{app_id}/endpoint/{endpoint_id}"},
	{request: "DELETE /api/v1/app/{app_id}/endpoint/{endpoint_id}"},
	{request: "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/headers"},
	{request: "PUT /api/v1/app/{app_id}/endpoint/{endpoint_id}/headers"},
	{request: "PATCH /api/v1/app/{app_id}/endpoint/{endpoint_id}/headers"},
	{request: "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/secret"},
	{request: "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/secret/rotate"},
	{request: "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/stats"},
	{request: "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/recover"},
	{request: "POST /api/v1/app/{app_id}/endpoint/{endpoint_id}/send-example"},

	{request: "GET /api/v1/app/{app_id}/msg"},
	{request: "POST /api/v1/app/{app_id}/msg"},
	{request: "GET /api/v1/app/{app_id}/msg/{msg_id}"},
	{request: "DELETE /api/v1/app/{app_id}/msg/{msg_id}/content"},

	{request: "GET /api/v1/app/{app_id}/attempt/endpoint/{endpoint_id}"},
	{request: "GET /api/v1/app/{app_id}/attempt/msg/{msg_id}"},
	{request: "GET /api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}"},
	{request: "DELETE /api/v1/app/{app_id}/msg/{msg_id}/attempt/{attempt_id}/content"},
	{request: "GET /api/v1/app/{app_id}/endpoint/{endpoint_id}/msg"},
	{request: "GET /api/v1/app/{app_id}/msg/{msg_id}/endpoint"},
	{request: "POST /api/v1/app/{app_id}/msg/{msg_id}/endpoint/{endpoint_id}/resend"},

	{request: "GET /api/v1/event-type"},
	{request: "POST /api/v1/event-type"},
	{request: "GET /api/v1/event-type/{event_type_name}"},
	{request: "PUT /api/v1/event-type/{event_type_name}"},
	{request: "PATCH /api/v1/event-type/{event_type_name}"},
	{request: "DELETE /api/v1/event-type/{event_type_name}"},

	{request: "POST /api/v1/auth/app-portal-access/{app_id}"},
	{request: "POST /api/v1/auth/logout"},

	{request: "GET /api/v1/health"},
	{request: "HEAD /api/v1/health", plain: true},
	{request: "GET /api/v1/health/ping", plain: true},
	{request: "HEAD /api/v1/health/ping", plain: true},
}

// present are the operations that this server has, those of the hosted service included.
func present(t *testing.T, p product) (list []string) {
	t.Helper()
	status, text := p.call(t, http.MethodGet, "/api/v1/openapi.json", "", "")
	var document struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal(text, &document); status != http.StatusOK || err != nil {
		t.Fatalf("openapi.json: %d, %v", status, err)
	}
	for _, request := range contracttest.Operations() {
		method, path, _ := strings.Cut(request, " ")
		_, ok := document.Paths[path][strings.ToLower(method)]
		if ok || strings.HasPrefix(path, "/api/v1/health") {
			list = append(list, request)
		}
	}
	return list
}

// covered fails for every operation that the server has and that the client behind the front did not
// bring to a success. lacks are those that the client has no method for.
func covered(t *testing.T, p product, present []string, lacks ...string) {
	t.Helper()
	for _, request := range present {
		plain := slices.ContainsFunc(operations, func(o operation) bool { return o.plain && o.request == request })
		if !plain && !slices.Contains(lacks, request) && !p.front.succeeded(request) {
			t.Errorf("%s exists, but was not called with success: add a step for it", request)
		}
	}
}

// bulkExpunge is younger than the clients before 2.0.
const bulkExpunge = "POST /api/v1/app/{app_id}/msg/bulk-expunge"

func TestOperationsAreThose(t *testing.T) {
	t.Parallel()
	if len(operations) != 43 {
		t.Errorf("%d operations", len(operations))
	}
	p := start(t)
	has := map[string]bool{}
	for _, request := range present(t, p) {
		has[request] = true
	}
	for _, o := range operations {
		method, path, _ := strings.Cut(o.request, " ")
		if known, _ := contracttest.Operation(method, path); known != o.request {
			t.Errorf("there are no facts about %s", o.request)
		}
		if !has[o.request] {
			t.Errorf("%s is missing", o.request)
		}
		if o.plain {
			if status, body := p.call(t, method, path, "", ""); status != http.StatusNoContent && (method != http.MethodHead || status != http.StatusOK) {
				t.Errorf("%s: %d %s", o.request, status, body)
			}
		}
	}
}
