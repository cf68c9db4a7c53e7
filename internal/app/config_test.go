package app_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/auth"
)

// goodKey is a master key.
const goodKey = "sRxSaTTVTpLVstnNCDOEXCqIl1bvieRUrq7l/Mk4Hoo="

func load(env ...string) (app.Config, []string, error) {
	return app.Load(app.Source{Environ: env})
}

func TestDefaultsAreClosed(t *testing.T) {
	c, warnings, err := load()
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if c.AllowHTTP || c.AutoMigrate || c.AllowNetworks != nil || c.AllowPorts != nil || c.TrustedProxies != nil || !c.OperatorToken.IsZero() {
		t.Errorf("something is open by default: %+v", c)
	}
	if c.Addr != "127.0.0.1:8071" || c.PublicURL != "" {
		t.Errorf("listens on %s as %s", c.Addr, c.PublicURL)
	}
	want := []time.Duration{5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 10 * time.Hour}
	if !slices.Equal(c.RetrySchedule, want) {
		t.Errorf("retries after %v", c.RetrySchedule)
	}
	if c.AttemptTimeout != 15*time.Second || c.ShutdownTimeout != 30*time.Second || c.MaxAge != 90*24*time.Hour || c.WorkerConcurrency != 512 {
		t.Errorf("defaults: %+v", c)
	}
	if lines := c.Notices(); len(lines) > 0 {
		t.Errorf("notices about nothing: %q", lines)
	}
}

// Each value stands at a limit, or just over it.
func TestSettingsKeepTheirRules(t *testing.T) {
	repeat := func(n int, part string) string { return strings.TrimSuffix(strings.Repeat(part+",", n), ",") }
	for _, c := range []struct {
		name      string
		good, bad []string
	}{
		{"DATABASE_URL", []string{"postgres://u:p@localhost:5432/x", "postgres:///x?host=/tmp", "host=/tmp dbname=x"}, []string{"mysql://u@h/x", "postgres://u:sesame@h:port/x"}},
		{"REDIS_URL", []string{"redis://localhost:6379/3", "rediss://:p@h:1", "unix:///tmp/r.sock"}, []string{"http://h", "localhost:6379", "redis://:sesame@h/x"}},
		{"POSTHASTE_MASTER_KEY", []string{goodKey}, []string{"sesame", goodKey[:40], goodKey + "AAAA", strings.Repeat("A", 43) + "="}},
		{"POSTHASTE_OPERATOR_TOKEN", []string{strings.Repeat("~", auth.MinOperatorToken), strings.Repeat("!", auth.MaxOperatorToken)},
			[]string{strings.Repeat("x", auth.MinOperatorToken-1), strings.Repeat("x", auth.MaxOperatorToken+1), strings.Repeat("x", 32) + " sesame", strings.Repeat("x", 32) + "sésame"}},
		{"POSTHASTE_ADDR", []string{":8071", "[::1]:0", "0.0.0.0:65535"}, []string{"8071", "localhost", "::1:80", "h:65536", "h:http"}},
		{"POSTHASTE_PUBLIC_URL", []string{"https://h", "http://h:1/"}, []string{"h", "ftp://h", "https://h/path", "https://u@h", "https://h?q", "https://"}},
		{"POSTHASTE_AUTO_MIGRATE", []string{"true", "0", "TRUE"}, []string{"yes", "2"}},
		{"POSTHASTE_ALLOW_NETWORKS", []string{"127.0.0.0/8, ::1/128", "0.0.0.0/0"}, []string{"127.0.0.1", "10.1.2.3/8", "10.0.0.0/33", "10.0.0.0/8,", "x"}},
		{"POSTHASTE_ALLOW_HTTP", []string{"false", "1"}, []string{"on"}},
		{"POSTHASTE_ALLOW_PORTS", []string{"1,65535", "25"}, []string{"0", "65536", "1-5", "1,,2"}},
		{"POSTHASTE_NAME_SERVER", []string{"10.0.0.2:53", "[fd00::53]:5353"}, []string{"10.0.0.2", "dns.example:53", "10.0.0.2:0", "0.0.0.0:53", "10.0.0.2:65536"}},
		{"POSTHASTE_TRUSTED_PROXIES", []string{"10.0.0.5,::1", "10.0.0.0/8"}, []string{"*", "fe80::1%lo", "proxy", "10.0.0.5/8"}},
		{"POSTHASTE_RETRY_SCHEDULE", []string{"10ms", "7d", repeat(app.MaxRetries, "1s"), "1s, 2s"}, []string{"9ms", "169h", repeat(app.MaxRetries+1, "1s"), "1s,", "5", "-1s"}},
		{"POSTHASTE_ATTEMPT_TIMEOUT", []string{"100ms", "5m"}, []string{"99ms", "5m1ms", "15"}},
		{"POSTHASTE_MAX_AGE", []string{"1d", "3650d", "24h"}, []string{"23h59m", "3651d", "d", "-1d", "99999999d"}},
		{"POSTHASTE_WORKER_CONCURRENCY", []string{"1", "65536"}, []string{"0", "65537", "many"}},
		{"POSTHASTE_DB_MAX_CONNS", []string{"4", "1000"}, []string{"3", "1001"}},
		{"POSTHASTE_LIMIT_TIMEOUT", []string{"1ms", "20ms", "250ms"}, []string{"0s", "999us", "251ms"}},
		{"POSTHASTE_STATEMENT_TIMEOUT", []string{"100ms", "10m"}, []string{"99ms", "601s"}},
		{"POSTHASTE_DRAIN_DELAY", []string{"0s", "5m"}, []string{"-1s", "301s"}},
		{"POSTHASTE_SHUTDOWN_TIMEOUT", []string{"30s", "1h"}, []string{"29s", "61m"}},
		{"POSTHASTE_MEMORY_LIMIT", []string{"64MiB", "67108864B", "2GiB"}, []string{"63MiB", "1G", "64", "-1GiB", "99999999999TiB"}},
		{"POSTHASTE_LOG_LEVEL", []string{"debug", "WARN"}, []string{"trace", "0"}},
		{"POSTHASTE_LOG_FORMAT", []string{"json", "text"}, []string{"xml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, value := range c.good {
				if _, _, err := load(c.name + "=" + value); err != nil {
					t.Errorf("%q: %v", value, err)
				}
			}
			for _, value := range c.bad {
				_, _, err := load(c.name + "=" + value)
				var wrong *app.ConfigError
				if !errors.As(err, &wrong) || len(wrong.Problems) != 1 {
					t.Errorf("%q: %v, want one problem", value, err)
					continue
				}
				line := wrong.Problems[0]
				if !strings.HasPrefix(line, c.name+" must be ") || strings.Contains(line, "\n") {
					t.Errorf("%q: %s", value, line)
				}
				if strings.Contains(line, "sesame") {
					t.Errorf("the value is shown: %s", line)
				}
			}
		})
	}
}

func TestEverySettingHasATestedRule(t *testing.T) {
	for _, s := range app.Settings {
		_, _, err := load(s.Name + "=\x00 no value of anything")
		if err == nil {
			t.Errorf("%s takes anything", s.Name)
		}
		if s.Help == "" || s.Rule == "" {
			t.Errorf("%s is not explained", s.Name)
		}
	}
}

func TestAllMistakesAreListedAtOnce(t *testing.T) {
	_, _, err := load("POSTHASTE_ADDR=x", "POSTHASTE_ALLOW_HTTP=x", "DATABASE_URL=postgres://u:sesame@h:x/")
	var wrong *app.ConfigError
	if !errors.As(err, &wrong) || len(wrong.Problems) != 3 {
		t.Fatalf("%v, want 3 problems", err)
	}
}

func TestMissingSettingsSayHowToGetThem(t *testing.T) {
	_, _, err := app.Load(app.Source{Needed: []string{"POSTHASTE_MASTER_KEY", "DATABASE_URL"}, Environ: []string{"DATABASE_URL="}})
	var wrong *app.ConfigError
	if !errors.As(err, &wrong) || len(wrong.Problems) != 2 {
		t.Fatalf("%v, want 2 problems", err)
	}
	for _, part := range []string{"POSTHASTE_MASTER_KEY is not set", "openssl rand -base64 32", "head -c 32 /dev/urandom | base64"} {
		if !strings.Contains(wrong.Error(), part) {
			t.Errorf("%q is not in: %s", part, wrong)
		}
	}
}

func TestFlagsWinOverTheEnvironment(t *testing.T) {
	c, _, err := app.Load(app.Source{Environ: []string{"POSTHASTE_ADDR=:1"}, Flags: map[string]string{"POSTHASTE_ADDR": ":2"}})
	if err != nil || c.Addr != ":2" {
		t.Fatal(c.Addr, err)
	}
}

func TestUnknownSettingsAreNamedWithTheNearest(t *testing.T) {
	_, warnings, err := load("POSTHASTE_ALOW_HTTP=sesame", "POSTHASTE_TRUSTED_PROXY=1", "OTHER=1")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"POSTHASTE_ALOW_HTTP is not a setting and is ignored; did you mean POSTHASTE_ALLOW_HTTP?",
		"POSTHASTE_TRUSTED_PROXY is not a setting and is ignored; did you mean POSTHASTE_TRUSTED_PROXIES?",
	}
	if !slices.Equal(warnings, want) {
		t.Errorf("warnings %q", warnings)
	}
}

func TestWhatIsOpenedIsAnnounced(t *testing.T) {
	c, _, err := load("POSTHASTE_ALLOW_HTTP=true", "POSTHASTE_ALLOW_NETWORKS=10.0.0.0/8", "POSTHASTE_ALLOW_PORTS=25")
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(c.Notices(), "\n")
	for _, name := range []string{"POSTHASTE_ALLOW_HTTP", "POSTHASTE_ALLOW_NETWORKS", "POSTHASTE_ALLOW_PORTS", "10.0.0.0/8", "25"} {
		if !strings.Contains(all, name) {
			t.Errorf("%s is not announced:\n%s", name, all)
		}
	}
}

func TestConfigPrintsNoSecret(t *testing.T) {
	c, _, err := load("DATABASE_URL=postgres://u:sesame@h/x", "REDIS_URL=redis://:sesame@h", "POSTHASTE_OPERATOR_TOKEN=sesame"+strings.Repeat("x", 32), "POSTHASTE_MASTER_KEY="+goodKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, c); strings.Contains(text, "sesame") {
			t.Errorf("%s shows a secret: %s", verb, text)
		}
	}
}
