package docs_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

// What limits-and-fairness.md says about numbers and states of the code.
func TestLimitsAndFairnessNamesTheConstants(t *testing.T) {
	page := space.ReplaceAllString(readPage(t, "limits-and-fairness.md"), " ")
	b := webhook.DefaultBreaker
	want := []string{
		fmt.Sprintf("%d failed attempts in a row over at least %.0f seconds", b.Failures, b.Span.Seconds()),
		fmt.Sprintf("at most %.0f minutes", b.MaxWait.Minutes()),
		fmt.Sprintf("goes %d deliveries at first", webhook.RampStart),
		fmt.Sprintf("at most %d,000 deliveries with each call", store.MaxCanceled/1000),
		fmt.Sprintf("counted up to %d,000", store.MaxCounted/1000),
	}
	for _, state := range webhook.EndpointStates {
		want = append(want, "`"+string(state)+"`")
	}
	for _, text := range want {
		if !strings.Contains(page, text) {
			t.Errorf("limits-and-fairness.md does not say %q", text)
		}
	}
}
