package webhook

import (
	"testing"
	"time"
)

func TestStateOf(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	wake := func(in time.Duration, take int) *Wake { return &Wake{DueAt: now.Add(in), Take: take} }
	for _, c := range []struct {
		disabled bool
		gate     GateState
		wake     *Wake
		want     EndpointState
	}{
		{false, GateNone, nil, EndpointActive},
		{false, GateNone, wake(-time.Second, 0), EndpointActive},
		{false, GateNone, &Wake{DueAt: now.Add(time.Hour), Resting: true, Take: 8}, EndpointActive},
		{false, GateNone, wake(50*time.Millisecond, 0), EndpointThrottled},
		{false, GateNone, wake(250*time.Millisecond, 16), EndpointDraining},
		{false, GateNone, wake(-time.Second, 8), EndpointDraining},
		{false, GateNone, wake(drainPace, 8), EndpointThrottled},
		{true, GateNone, nil, EndpointDisabled},
		{true, GateNone, wake(time.Minute, 0), EndpointDisabled},
		{true, GatePaused, nil, EndpointPaused},
		{false, GatePaused, &Wake{}, EndpointPaused},
		{false, GateOpen, wake(time.Minute, 0), EndpointOpen},
		{false, GateProbing, wake(time.Minute, 0), EndpointProbing},
	} {
		if got := StateOf(c.disabled, c.gate, c.wake, now); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}
