package posthaste_test

import (
	"encoding/json"
	"testing"

	"github.com/posthaste/posthaste/sdk/go"
)

func TestAbsentNullAndValueAreThreeThings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   any
		want string
	}{
		{posthaste.EndpointPatch{}, `{}`},
		{posthaste.EndpointPatch{UID: posthaste.Null[string](), EventTypes: posthaste.Null[[]string](), ThrottleRate: posthaste.Null[int]()}, `{"eventTypes":null,"throttleRate":null,"uid":null}`},
		{posthaste.EndpointPatch{
			URL: posthaste.Set("https://a.example/<>&"), Disabled: posthaste.Set(false), Description: posthaste.Set(""), ThrottleRate: posthaste.Set(0),
			EventTypes: posthaste.Set([]string{"a"}), Metadata: posthaste.Set(map[string]string{}),
		}, `{"description":"","disabled":false,"eventTypes":["a"],"metadata":{},"throttleRate":0,"url":"https://a.example/<>&"}`},
		{posthaste.EndpointSecretRotateIn{}, `{}`},
		{posthaste.EndpointSecretRotateIn{GracePeriodSeconds: posthaste.Set(0)}, `{"gracePeriodSeconds":0}`},
		{posthaste.PortalAccessIn{}, `{}`},
		// No capability at all is not the same as all of them.
		{posthaste.PortalAccessIn{Capabilities: []posthaste.Capability{}}, `{"capabilities":[]}`},
		{posthaste.EndpointHeadersPatch{DeleteHeaders: []string{"X-Plan"}}, `{"headers":{},"deleteHeaders":["X-Plan"]}`},
		{posthaste.EndpointHeadersIn{Headers: map[string]string{"X": "<1>"}}, `{"headers":{"X":"<1>"}}`},
		{posthaste.APIKeyExpireIn{}, `{}`},
		{posthaste.MessageIn{EventType: "a", Payload: json.RawMessage(`{"n": 1e999, "n": 12345678901234567890}`)}, `{"eventType":"a","payload":{"n":1e999,"n":12345678901234567890}}`},
		{posthaste.MessageIn{EventType: "a", Payload: struct{}{}, TransformationsParams: &posthaste.TransformationsParams{RawPayload: "x", Headers: map[string]string{"content-type": "text/plain"}}},
			`{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":"x","headers":{"content-type":"text/plain"}}}`},
	} {
		if got := sent(t, c.in); got != c.want {
			t.Errorf("%T: %s\nwant %s", c.in, got, c.want)
		}
	}
}

// sent is a value as a client writes it: as the payload of a message.
func sent(t *testing.T, v any) string {
	t.Helper()
	s, c, _ := serve(t, says(202, `{}`))
	if _, err := c.Messages.Create(t.Context(), "a", posthaste.MessageIn{EventType: "a", Payload: v}); err != nil {
		t.Fatal(err)
	}
	var body struct{ Payload json.RawMessage }
	if err := json.Unmarshal([]byte(s.requests()[0].body), &body); err != nil {
		t.Fatal(err)
	}
	return string(body.Payload)
}

func TestValuesOfAYoungerServerAreKept(t *testing.T) {
	t.Parallel()
	_, c, _ := serve(t, says(200, `{"id":"atmpt_1","status":9,"statusText":"paused","triggerType":7,"detail":{"errorClass":"new","timings":null},"msg":null}`))
	a, err := c.Attempts.Get(t.Context(), "a", "m", "t")
	if err != nil || a.Status != 9 || a.StatusText != "paused" || a.TriggerType != 7 || a.Detail.ErrorClass != "new" || a.Detail.Timings != nil || a.Msg != nil {
		t.Errorf("%+v, %v", a, err)
	}
}
