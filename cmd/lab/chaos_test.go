package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/posthaste/posthaste/cmd/lab/chaos"
	"github.com/posthaste/posthaste/cmd/lab/rig"
)

const (
	// testDeliveries is enough for each fault to bite many times.
	testDeliveries = 2000
	// testReplays is as many deliveries as make a replay of 2,000.
	testReplays = 1000
	// testAttemptTimeout shortens leases, which is what a killed process's deliveries wait for.
	testAttemptTimeout = 5 * time.Second
)

// TestNothingAcceptedIsLost kills, empties and restarts parts of a real installation under load.
func TestNothingAcceptedIsLost(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	place, err := directory("", "posthaste-chaos-test-") // passable for the user Postgres runs as
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(place, "posthaste-failpoint")
	if err := rig.Build(t.Context(), binary, "failpoint"); err != nil {
		t.Fatal(err)
	}
	options := chaos.Options{
		Binary: binary, Dir: place, Deliveries: testDeliveries, AttemptTimeout: testAttemptTimeout,
		Seed: uint64(time.Now().UnixNano()) % 1_000_000,
	}
	faults, err := chosenFaults("F1,F2,F4,F7,F9,F10,F11,F16,F21,F22,F25,F26,F30")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range faults {
		t.Run(fault.ID, func(t *testing.T) {
			options := options
			if fault.ID == "F30" {
				options.Deliveries = testReplays
			}
			result, err := chaos.Execute(t.Context(), options, fault)
			if err != nil {
				t.Fatal(err)
			}
			t.Log(result.Line())
			for _, finding := range result.Report.Findings {
				t.Errorf("%s: %s", finding.Invariant, finding.Text)
			}
			if !result.Passed() {
				t.Logf("logs and evidence are in %s", result.Dir)
			}
		})
	}
	if !t.Failed() {
		if err := os.RemoveAll(place); err != nil {
			t.Error(err)
		}
	}
}
