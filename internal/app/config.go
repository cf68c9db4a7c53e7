package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Config is how one process behaves; Settings says what each part means. Secrets hide themselves when
// printed.
type Config struct {
	DatabaseURL       webhook.Secret     // it may hold a password
	RedisURL          webhook.Secret     // it may hold a password
	Addr              string             // host:port to listen on
	PublicURL         string             // without a slash at the end
	MasterKey         *seal.Keyset       // nil = none given
	OperatorToken     auth.OperatorToken // zero = operator routes are off
	AutoMigrate       bool
	AllowNetworks     []netip.Prefix
	AllowHTTP         bool
	AllowPorts        []uint16
	NameServer        string // host:port; "" = the machine's
	TrustedProxies    []netip.Prefix
	RetrySchedule     []time.Duration
	AttemptTimeout    time.Duration
	MaxAge            time.Duration
	WorkerConcurrency int
	HostConcurrency   int // 0 = WorkerConcurrency
	TaskRate          int // deliveries a second
	DBMaxConns        int
	StatementTimeout  time.Duration
	LimitTimeout      time.Duration // 0 = queue.DefaultScriptTimeout
	DrainDelay        time.Duration
	ShutdownTimeout   time.Duration
	MemoryLimit       int64 // bytes; 0 = a share of what the machine or container has
	LogLevel          slog.Level
	LogFormat         telemetry.Format
	Pprof             bool
}

// Source is where settings come from. A flag wins over the environment, which wins over the default.
type Source struct {
	Environ []string          // as os.Environ gives it
	Flags   map[string]string // what was given on the command line, by the setting's name
	Needed  []string          // names without which the command cannot work
}

// ConfigError lists everything that is wrong with the settings, one line each. No line contains a
// value that may be secret.
type ConfigError struct{ Problems []string }

// Error is one line per problem.
func (e *ConfigError) Error() string { return strings.Join(e.Problems, "\n") }

// Load reads the settings. An empty value counts as unset, because that is what compose files and
// shells make of a variable nobody gave. Warnings are for a person and name no value; the error is a
// *ConfigError and covers every wrong setting at once.
func Load(s Source) (c Config, warnings []string, err error) {
	given := map[string]string{}
	for _, line := range s.Environ {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		if strings.HasPrefix(name, ownPrefix) && !known(name) {
			warnings = append(warnings, unknownWarning(name))
		}
		if value != "" {
			given[name] = value
		}
	}
	for name, value := range s.Flags {
		given[name] = value
	}
	slices.Sort(warnings)

	var problems []string
	for _, setting := range Settings {
		text, ok := given[setting.Name]
		switch {
		case ok:
		case slices.Contains(s.Needed, setting.Name):
			problems = append(problems, missing(setting))
			continue
		case setting.derived || setting.Default == "":
			continue
		default:
			text = setting.Default
		}
		if err := setting.parse(&c, text); err != nil {
			problems = append(problems, wrong(setting, text, err))
		}
	}
	problems = append(problems, c.derive()...)
	if len(problems) > 0 {
		return Config{}, warnings, &ConfigError{problems}
	}
	return c, warnings, nil
}

// wrong says which setting breaks which rule. The value is repeated, quoted, only where it cannot be
// a secret.
func wrong(s Setting, text string, cause error) string {
	line := s.Name + " must be " + s.Rule
	if !s.Secret {
		line += fmt.Sprintf(", not %q", text)
	}
	if !errors.Is(cause, errRule) {
		line += " (" + cause.Error() + ")"
	}
	return line
}

func missing(s Setting) string {
	line := s.Name + " is not set; it must be " + s.Rule
	if s.howTo != "" {
		line += ". " + s.howTo
	}
	return line
}

// derive fills what depends on other settings and checks what only holds between them.
func (c *Config) derive() (problems []string) {
	least := c.AttemptTimeout + ShutdownMargin
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = least
	}
	if c.ShutdownTimeout < least {
		problems = append(problems, fmt.Sprintf("POSTHASTE_SHUTDOWN_TIMEOUT must be at least %s longer than "+
			"POSTHASTE_ATTEMPT_TIMEOUT, so that sends in flight can end and be recorded; it is %s, which is less than %s",
			ShutdownMargin, c.ShutdownTimeout, least))
	}
	return problems
}

// Notices are the lines to print, loudly, at every start: what the operator opened.
func (c Config) Notices() (lines []string) {
	if len(c.AllowNetworks) > 0 {
		lines = append(lines, fmt.Sprintf("deliveries may reach these networks besides public addresses: %v (POSTHASTE_ALLOW_NETWORKS)", c.AllowNetworks))
	}
	if c.AllowHTTP {
		lines = append(lines, "endpoints may use http: payloads then travel unencrypted (POSTHASTE_ALLOW_HTTP)")
	}
	if len(c.AllowPorts) > 0 {
		lines = append(lines, fmt.Sprintf("deliveries may reach these ports, which are closed by default: %v (POSTHASTE_ALLOW_PORTS)", c.AllowPorts))
	}
	return lines
}
