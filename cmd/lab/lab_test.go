package main

import (
	"errors"
	"flag"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/posthaste/posthaste/cmd/lab/bench"
	"github.com/posthaste/posthaste/cmd/lab/chaos"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWrongUsageIsRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"nothing"}, {"chaos", "-faults", "F99"}, {"bench", "-profile", "memory"}, {"report"}, {"report", "-nothing"}, {"sink", "extra"}, {"load", "-nothing"}, {"soak", "-only", "nothing"}, {"limits", "-rates", "10,x"}, {"limits", "-workers", "0"}, {"limits", "-overload", "1"}, {"limits", "-duration", "5s"}} {
		if err := run(t.Context(), args, t.Output()); !errors.Is(err, errUsage) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if err := run(t.Context(), []string{"bench", "-help"}, t.Output()); !errors.Is(err, flag.ErrHelp) {
		t.Error(err)
	}
}

func TestReportsAreTables(t *testing.T) {
	kept, err := filepath.Glob("../../docs/measurements/*.json")
	if err != nil || len(kept) == 0 {
		t.Fatal(kept, err)
	}
	var out strings.Builder
	if err := run(t.Context(), append([]string{"report"}, kept...), &out); err != nil {
		t.Fatal(err)
	}
	for _, path := range kept {
		if !strings.Contains(out.String(), "Raw figures: ["+filepath.Base(path)+"]") {
			t.Errorf("%s is missing", path)
		}
	}
	if err := run(t.Context(), []string{"report", "/does/not/exist"}, &out); err == nil || errors.Is(err, errUsage) {
		t.Error(err)
	}
}

func TestFaultsAreChosenByName(t *testing.T) {
	faults, err := chosenFaults("f10, F1")
	if err != nil || len(faults) != 2 || faults[0].ID != "F10" || faults[1].ID != "F1" {
		t.Errorf("%v %v", faults, err)
	}
	all, err := chosenFaults("")
	if err != nil || len(all) != len(chaos.Faults()) {
		t.Errorf("%d faults, %v", len(all), err)
	}
	var names []string
	for _, fault := range all {
		names = append(names, fault.ID)
	}
	if _, err := chosenFaults("F99"); err == nil || !strings.Contains(err.Error(), strings.Join(names, ", ")) {
		t.Error(err)
	}
}

func TestNumbersAreRead(t *testing.T) {
	if got, err := numbers("100, 5,100"); err != nil || len(got) != 2 || got[0] != 5 || got[1] != 100 {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"", "1,", "-1", "0", "x"} {
		if _, err := numbers(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestStagesAreChosenByName(t *testing.T) {
	stages, err := chosenStages("dead, backlog")
	if err != nil || len(stages) != 2 || stages[0].Name != "dead" || stages[1].Name != "backlog" {
		t.Errorf("%v %v", stages, err)
	}
	if all, err := chosenStages(""); err != nil || len(all) != 4 {
		t.Errorf("%d stages, %v", len(all), err)
	}
}

func TestScenariosAreChosenByName(t *testing.T) {
	names := func(only string) (list []string) {
		for _, s := range chosen(bench.Scenarios(1, 1), only) {
			list = append(list, s.Name)
		}
		return list
	}
	if got := names("idle,open"); strings.Join(got, "|") != "open 100/s|idle" {
		t.Error(got)
	}
	if got := names(""); len(got) != 10 {
		t.Error(got)
	}
}
