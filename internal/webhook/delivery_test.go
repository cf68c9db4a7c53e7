package webhook

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestAfterFollowsTheSchedule(t *testing.T) {
	p := Policy{Schedule: []time.Duration{10 * time.Second, 100 * time.Second}}
	const half = 0.5 // no jitter
	tests := []struct {
		name       string
		success    bool
		trigger    Trigger
		made       int
		retryAfter time.Duration
		jitter     float64
		want       Outcome
	}{
		{"success ends it", true, TriggerScheduled, 1, 0, half, Outcome{Final: true}},
		{"first failure waits the first step", false, TriggerScheduled, 1, 0, half, Outcome{Wait: 10 * time.Second}},
		{"second failure waits the second", false, TriggerScheduled, 2, 0, half, Outcome{Wait: 100 * time.Second}},
		{"after the last step it is over", false, TriggerScheduled, 3, 0, half, Outcome{Final: true}},
		{"a manual send is never repeated", false, TriggerManual, 1, 0, half, Outcome{Final: true}},
		{"jitter at its least", false, TriggerScheduled, 1, 0, 0, Outcome{Wait: 8 * time.Second}},
		{"Retry-After under the step is the step", false, TriggerScheduled, 1, time.Second, 0, Outcome{Wait: 10 * time.Second}},
		{"Retry-After within the bounds is obeyed", false, TriggerScheduled, 1, 15 * time.Second, 0, Outcome{Wait: 15 * time.Second}},
		{"Retry-After at twice the step", false, TriggerScheduled, 1, 20 * time.Second, half, Outcome{Wait: 20 * time.Second}},
		{"Retry-After over twice the step is cut", false, TriggerScheduled, 1, 365 * 24 * time.Hour, half, Outcome{Wait: 20 * time.Second}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := p.After(test.success, test.trigger, test.made, test.retryAfter, test.jitter); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestEveryWaitIsWithinItsBounds(t *testing.T) {
	p := Policy{Schedule: DefaultSchedule}
	rapid.Check(t, func(t *rapid.T) {
		made := rapid.IntRange(1, len(p.Schedule)).Draw(t, "made")
		retryAfter := time.Duration(rapid.Int64Range(0, int64(100*24*time.Hour)).Draw(t, "retryAfter"))
		jitter := rapid.Float64Range(0, 1).Draw(t, "jitter")
		step := p.Schedule[made-1]
		got := p.After(false, TriggerScheduled, made, retryAfter, jitter)
		low, high := scale(step, 1-Jitter), scale(step, 1+Jitter)
		if retryAfter > 0 {
			low, high = step, 2*step
		}
		if got.Final || got.Wait < low || got.Wait > high {
			t.Fatalf("attempt %d, Retry-After %v: %+v, want %v to %v", made, retryAfter, got, low, high)
		}
	})
}

func TestDefaultScheduleMakesEightAttemptsInAboutADay(t *testing.T) {
	p := Policy{Schedule: DefaultSchedule}
	var total time.Duration
	for _, step := range p.Schedule {
		total += step
	}
	if p.Attempts() != 8 || total.Round(time.Hour) != 28*time.Hour {
		t.Errorf("%d attempts over %v", p.Attempts(), total)
	}
}

func TestStatusClasses(t *testing.T) {
	for status, want := range map[int]ErrorClass{
		100: ClassUnexpectedStatus, 101: ClassUnexpectedStatus, 199: ClassUnexpectedStatus, 200: ClassNone, 204: ClassNone,
		299: ClassNone, 300: ClassRedirect, 399: ClassRedirect, 400: ClassClientError, 401: ClassUnauthorized,
		403: ClassUnauthorized, 404: ClassNotFound, 410: ClassGone, 413: ClassPayloadTooLarge, 429: ClassRateLimited,
		499: ClassClientError, 500: ClassServerError, 599: ClassServerError, 600: ClassUnexpectedStatus, 999: ClassUnexpectedStatus,
	} {
		if got := ClassOfStatus(status); got != want {
			t.Errorf("%d is %q, want %q", status, got, want)
		}
	}
}
