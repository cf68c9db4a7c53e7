package api

import (
	"testing"

	"github.com/posthaste/posthaste/internal/webhook"
)

func TestAnEndpointIsPausedResumedAndCanceled(t *testing.T) {
	t.Parallel()
	a := setup(t).tenant()
	app := a.app()
	endpoint := a.endpoint(app)
	at := "/app/" + app + "/endpoint/" + endpoint
	state := func(want string, got result) result {
		t.Helper()
		if got.want(200).str("state") != want {
			t.Errorf("state %q, want %q: %s", got.str("state"), want, got.body)
		}
		return got
	}
	if got := state("active", a.get(at+"/status")); got.fields()["reason"] != nil || got.fields()["since"] != nil || got.fields()["oldestAt"] != nil {
		t.Errorf("%s", got.body)
	}
	if got := state("paused", a.post(at+"/pause", nil)); got.str("reason") != pauses[pausedByKey] || got.fields()["since"] == nil || got.fields()["nextWakeAt"] != nil {
		t.Errorf("%s", got.body)
	}
	state("paused", a.post(at+"/pause", obj{}))
	a.message(app)
	a.message(app)
	if got := state("paused", a.get(at+"/status")); got.fields()["waiting"] != 2.0 || got.fields()["oldestAt"] == nil {
		t.Errorf("%s", got.body)
	}
	if got := a.get("/backlog").want(200); got.fields()["waiting"] != 2.0 || got.fields()["pausedEndpoints"] != 1.0 || got.fields()["openEndpoints"] != 0.0 {
		t.Errorf("%s", got.body)
	}
	if got := a.post(at+"/cancel-pending", nil).want(200); got.fields()["canceled"] != 2.0 || got.fields()["more"] != false {
		t.Errorf("%s", got.body)
	}
	if got := a.get(at + "/stats").want(200); got.fields()["canceled"] != 2.0 || got.fields()["pending"] != 0.0 {
		t.Errorf("%s", got.body)
	}
	state("draining", a.post(at+"/resume", nil))
	customer := a.customer(app, obj{"capabilities": []string{"ViewBase", "ManageEndpoint"}})
	if got := state("paused", customer.post(at+"/pause", nil)); got.str("reason") != pauses[pausedByCustomer] {
		t.Errorf("%s", got.body)
	}
}

// Whatever can open a breaker has words for its owner, and nothing else has.
func TestEveryFailureHasItsWords(t *testing.T) {
	for _, class := range webhook.ErrorClasses {
		if bad := webhook.HealthOf(class) == webhook.HealthBad; bad != (failures[class] != "") {
			t.Errorf("%s: %q", class, failures[class])
		}
	}
}
