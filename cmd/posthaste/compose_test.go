package main

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/posthaste/posthaste/internal/app"
)

type composeFile struct {
	Services map[string]struct {
		Image       string
		Command     []string
		Environment map[string]string
		Healthcheck struct {
			Test    []string
			Disable bool
		}
		User     string
		Networks []string
	}
	Networks map[string]struct{ Internal bool }
}

func readCompose(t *testing.T) composeFile {
	t.Helper()
	raw, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var c composeFile
	// What a service says itself stands beside what it takes over by "<<".
	if err := yaml.UnmarshalWithOptions(raw, &c, yaml.AllowDuplicateMapKey()); err != nil {
		t.Fatal(err)
	}
	return c
}

// accepts reports whether the binary knows a command line, without running it.
func accepts(t *testing.T, args []string) error {
	t.Helper()
	cmd, rest, err := rootCommand(streams{io.Discard, io.Discard, nil}).Find(args)
	if err != nil {
		return err
	}
	return cmd.ValidateArgs(rest)
}

func TestComposeRunsCommandsThatExist(t *testing.T) {
	seen := 0
	for name, s := range readCompose(t).Services {
		if s.Image != "posthaste" {
			continue
		}
		seen++
		if err := accepts(t, s.Command); err != nil {
			t.Errorf("%s runs %q: %v", name, s.Command, err)
		}
		if s.Healthcheck.Disable {
			continue
		}
		if len(s.Healthcheck.Test) < 3 || s.Healthcheck.Test[1] != "/posthaste" {
			t.Fatalf("%s checks its health by %q", name, s.Healthcheck.Test)
		}
		if err := accepts(t, s.Healthcheck.Test[2:]); err != nil {
			t.Errorf("%s checks its health by %q: %v", name, s.Healthcheck.Test, err)
		}
	}
	if seen != 3 {
		t.Errorf("%d services of ours, want api, worker and migrate", seen)
	}
	if accepts(t, []string{"serve", "everything"}) == nil || accepts(t, []string{"migrate", "up", "now"}) == nil {
		t.Error("this test cannot fail")
	}
}

func TestComposeSetsOnlyKnownSettings(t *testing.T) {
	known := []string{"PGPASSWORD"} // Postgres's own
	for _, s := range app.Settings {
		known = append(known, s.Name)
	}
	services := readCompose(t).Services
	for name, s := range services {
		if s.Image != "posthaste" {
			continue
		}
		for variable := range s.Environment {
			if !slices.Contains(known, variable) {
				t.Errorf("%s sets %s, which is no setting", name, variable)
			}
		}
		for _, needed := range []string{"DATABASE_URL", "REDIS_URL", "POSTHASTE_MASTER_KEY"} {
			if s.Environment[needed] == "" {
				t.Errorf("%s does not set %s", name, needed)
			}
		}
	}
	if policy := strings.Join(services["redis"].Command, " "); !strings.Contains(policy, "--maxmemory-policy noeviction") || !strings.Contains(policy, "--save ") {
		t.Errorf("redis runs %s", policy)
	}
}

func TestComposeHasNoDefaultSecret(t *testing.T) {
	raw, err := os.ReadFile("../../docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"POSTHASTE_MASTER_KEY", "POSTGRES_PASSWORD"} {
		uses := regexp.MustCompile(`\$\{`+secret+`(.)?(.)?`).FindAllStringSubmatch(string(raw), -1)
		if len(uses) == 0 {
			t.Errorf("%s is not used", secret)
		}
		for _, use := range uses {
			if use[1]+use[2] != ":?" {
				t.Errorf("%s may be left out", use[0])
			}
		}
	}
	compose := readCompose(t)
	for _, name := range []string{"postgres", "redis"} {
		s := compose.Services[name]
		if len(s.Healthcheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
		for _, network := range s.Networks {
			if !compose.Networks[network].Internal {
				t.Errorf("%s is on %s, which reaches outside", name, network)
			}
		}
	}
}

func TestImageIsSmallAndUnprivileged(t *testing.T) {
	raw, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	final := text[strings.LastIndex(text, "\nFROM "):]
	for _, line := range []string{"FROM scratch", "USER 65532:65532", `HEALTHCHECK`, `CMD ["/posthaste", "health"]`, `ENTRYPOINT ["/posthaste"]`, "ca-certificates.crt", "zoneinfo"} {
		if !strings.Contains(final, line) {
			t.Errorf("the final image lacks %s", line)
		}
	}
	// A folder that is not copied would only be missed by whoever builds the image.
	for _, match := range regexp.MustCompile(`(?m)^COPY ([a-z]+) \./`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat("../../" + match[1]); err != nil {
			t.Error(err)
		}
	}
	for _, folder := range []string{"api", "cmd", "internal", "migrations", "worker"} {
		if !strings.Contains(text, "COPY "+folder+" ./"+folder) {
			t.Errorf("%s is not built into the image", folder)
		}
	}
}
