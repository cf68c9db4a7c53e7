package app

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/auth"
	"github.com/posthaste/posthaste/internal/queue"
	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/task"
	"github.com/posthaste/posthaste/internal/telemetry"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Limits of the settings' values.
const (
	MaxRetries           = 30 // steps of a schedule
	MinRetryWait         = 10 * time.Millisecond
	MaxRetryWait         = 7 * day
	MinAttemptTimeout    = 100 * time.Millisecond
	MaxAttemptTimeout    = 5 * time.Minute
	MinMaxAge            = day
	MaxMaxAge            = 3650 * day
	MaxWorkerConcurrency = 65_536
	MaxTaskRate          = 100_000
	MinDBMaxConns        = 4
	MaxDBMaxConns        = 1_000
	MinStatementTimeout  = 100 * time.Millisecond
	MaxStatementTimeout  = 10 * time.Minute
	MinLimitTimeout      = time.Millisecond
	MaxLimitTimeout      = queue.DefaultTimeout // what takes longer is no queue either
	MaxDrainDelay        = 5 * time.Minute
	MaxShutdownTimeout   = time.Hour
	MinMemoryLimit       = 64 << 20 // bytes

	// ShutdownMargin is what a stop needs on top of the longest attempt: the worker tries for 10 s to
	// record results while Postgres is away.
	ShutdownMargin = 15 * time.Second

	day = 24 * time.Hour
)

// Setting is one variable of the environment. The list drives parsing, flags and the documentation, so
// that they cannot disagree.
type Setting struct {
	Name    string
	Default string // as one would write it; "" = unset
	Rule    string // what a value must be; completes "NAME must be …"
	Help    string // one or two sentences, in Markdown
	Flag    string // "" = the environment only
	Secret  bool   // its value is never repeated

	howTo   string // how to get a value, for when it is missing
	derived bool   // Default is prose: the value follows from other settings
	parse   func(*Config, string) error
}

// errRule stands for "the rule says it all".
var errRule = errors.New("against the rule")

// Settings is every setting, in the order of the documentation.
var Settings = []Setting{
	{
		Name: "DATABASE_URL", Secret: true,
		Rule:  "a Postgres connection string, for instance postgres://user:password@host:5432/posthaste",
		Help:  "The database, Postgres 15 or later. Everything that must not be lost is in it.",
		howTo: "`posthaste dev` needs none: it brings its own",
		parse: func(c *Config, text string) error {
			if _, err := pgconn.ParseConfig(text); err != nil {
				return errRule // pgconn's text repeats parts of the URL
			}
			c.DatabaseURL = webhook.NewSecret(text)
			return nil
		},
	},
	{
		Name: "REDIS_URL", Secret: true,
		Rule:  "a Redis URL: redis://, rediss:// or unix://, for instance redis://:password@host:6379/0",
		Help:  "The queue, Redis 7 or later (or Valkey), with `maxmemory-policy noeviction`. It holds nothing that is not also in Postgres and needs no persistence.",
		howTo: "`posthaste dev` needs none: it brings its own",
		parse: func(c *Config, text string) error {
			if _, err := redis.ParseURL(text); err != nil {
				return errRule
			}
			c.RedisURL = webhook.NewSecret(text)
			return nil
		},
	},
	{
		Name: "POSTHASTE_MASTER_KEY", Secret: true,
		Rule:  "32 random bytes in base64, or several such keys separated by commas",
		Help:  "Seals the secrets in the database (signing keys, custom headers). Whoever has the database but not this key cannot read them; whoever loses this key cannot either. Of several, the first seals and all open. Keep it apart from the database's backups.",
		howTo: "Make one with `openssl rand -base64 32` (or `head -c 32 /dev/urandom | base64`) and keep it safe: without it the secrets in the database are lost",
		parse: func(c *Config, text string) (err error) {
			c.MasterKey, err = seal.ParseKeyset(text)
			return err
		},
	},
	{
		Name: "POSTHASTE_OPERATOR_TOKEN", Secret: true,
		Rule: fmt.Sprintf("%d to %d printable ASCII characters without spaces", auth.MinOperatorToken, auth.MaxOperatorToken),
		Help: "Opens the operator routes (`/api/v1/operator/…`: tenants and their API keys) to whoever sends it as a bearer token. Unset, those routes are off. Make one with `openssl rand -hex 32`.",
		parse: func(c *Config, text string) (err error) {
			if c.OperatorToken, err = auth.ParseOperatorToken(text); err != nil {
				return errRule
			}
			return nil
		},
	},
	{
		Name: "POSTHASTE_ADDR", Default: "127.0.0.1:8071", Flag: "addr",
		Rule: "host:port, for instance 0.0.0.0:8071",
		Help: "Where the process listens: API, health and metrics; a worker serves health and metrics only.",
		parse: func(c *Config, text string) (err error) {
			c.Addr = text
			return checkAddr(text)
		},
	},
	{
		Name: "POSTHASTE_PUBLIC_URL", Default: "http:// and `POSTHASTE_ADDR`", Flag: "public-url", derived: true,
		Rule: "an http or https URL without path, query or user, for instance https://webhooks.example.com",
		Help: "Where clients reach this installation.",
		parse: func(c *Config, text string) error {
			u, err := url.Parse(text)
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
				strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
				return errRule
			}
			c.PublicURL = u.Scheme + "://" + u.Host
			return nil
		},
	},
	{
		Name: "POSTHASTE_AUTO_MIGRATE", Default: "false", Flag: "auto-migrate",
		Rule:  "true or false",
		Help:  "Brings the database's schema up to date at start. Otherwise a process whose schema is behind refuses to start and names `posthaste migrate up`.",
		parse: flagOf(func(c *Config) *bool { return &c.AutoMigrate }),
	},
	{
		Name: "POSTHASTE_ALLOW_NETWORKS", Flag: "allow-networks",
		Rule:  "networks in CIDR form, separated by commas, for instance 10.20.0.0/16,fd12::/32",
		Help:  "Networks that deliveries may reach besides public addresses. Whoever may create an endpoint can then make this machine call anything in them.",
		parse: prefixesOf(func(c *Config) *[]netip.Prefix { return &c.AllowNetworks }, false),
	},
	{
		Name: "POSTHASTE_ALLOW_HTTP", Default: "false", Flag: "allow-http",
		Rule:  "true or false",
		Help:  "Lets endpoints use `http://`; otherwise only `https://`.",
		parse: flagOf(func(c *Config) *bool { return &c.AllowHTTP }),
	},
	{
		Name: "POSTHASTE_ALLOW_PORTS", Flag: "allow-ports",
		Rule: "ports from 1 to 65535, separated by commas",
		Help: "Opens ports that are closed because other services than web servers listen there (mail, databases, …).",
		parse: func(c *Config, text string) error {
			for _, part := range strings.Split(text, ",") {
				port, err := strconv.ParseUint(strings.TrimSpace(part), 10, 16)
				if err != nil || port == 0 {
					return errRule
				}
				c.AllowPorts = append(c.AllowPorts, uint16(port))
			}
			return nil
		},
	},
	{
		Name: "POSTHASTE_NAME_SERVER",
		Rule: "an address and a port, for instance 10.0.0.2:53 or [fd00::53]:53",
		Help: "The DNS server that is asked for the names of receivers. Unset, those of the machine are. What names may lead to does not depend on it.",
		parse: func(c *Config, text string) error {
			server, err := netip.ParseAddrPort(text)
			if err != nil || server.Port() == 0 || server.Addr().IsUnspecified() {
				return errRule
			}
			c.NameServer = server.String()
			return nil
		},
	},
	{
		Name:  "POSTHASTE_TRUSTED_PROXIES",
		Rule:  "addresses or networks, separated by commas, for instance 10.0.0.5,192.168.0.0/16",
		Help:  "Proxies whose `X-Forwarded-For` is believed. Unset, nobody's is.",
		parse: prefixesOf(func(c *Config) *[]netip.Prefix { return &c.TrustedProxies }, true),
	},
	{
		Name: "POSTHASTE_RETRY_SCHEDULE", Default: "5s,5m,30m,2h,5h,10h,10h",
		Rule: fmt.Sprintf("1 to %d waits of %s to %s, separated by commas, for instance 5s,5m,2h", MaxRetries, MinRetryWait, showDuration(MaxRetryWait)),
		Help: "The wait after the first failed attempt, after the second, and so on; one attempt more than there are waits. Each is moved by up to ±20 % at random.",
		parse: func(c *Config, text string) error {
			parts := strings.Split(text, ",")
			if len(parts) > MaxRetries {
				return errRule
			}
			for _, part := range parts {
				wait, err := parseDuration(strings.TrimSpace(part))
				if err != nil || wait < MinRetryWait || wait > MaxRetryWait {
					return errRule
				}
				c.RetrySchedule = append(c.RetrySchedule, wait)
			}
			return nil
		},
	},
	durationSetting("POSTHASTE_ATTEMPT_TIMEOUT", "15s", MinAttemptTimeout, MaxAttemptTimeout,
		"How long one attempt may take in all: name lookup, connecting, TLS, and the whole answer.",
		func(c *Config) *time.Duration { return &c.AttemptTimeout }),
	durationSetting("POSTHASTE_MAX_AGE", "90d", MinMaxAge, MaxMaxAge,
		"How long messages and attempts are kept; a delivery still open by then ends as expired. Payloads may go earlier, by the message's own retention.",
		func(c *Config) *time.Duration { return &c.MaxAge }),
	numberSetting("POSTHASTE_WORKER_CONCURRENCY", "512", 1, MaxWorkerConcurrency,
		"Attempts under way at once in one worker process. Those that last for more than a second leave their place to others, up to three times as many.",
		func(c *Config) *int { return &c.WorkerConcurrency }),
	derivedSetting(numberSetting("POSTHASTE_HOST_CONCURRENCY", "`POSTHASTE_WORKER_CONCURRENCY`", 1, MaxWorkerConcurrency,
		"Attempts under way at once to one destination (scheme, host and port) in one worker process, whichever tenants and endpoints they are for.",
		func(c *Config) *int { return &c.HostConcurrency })),
	numberSetting("POSTHASTE_TASK_RATE", strconv.Itoa(task.DefaultRate), 1, MaxTaskRate,
		"Deliveries that background tasks (recoveries, replays) hand out in a second, all together. Raise it on machines that have room beside what is live.",
		func(c *Config) *int { return &c.TaskRate }),
	numberSetting("POSTHASTE_DB_MAX_CONNS", "12", MinDBMaxConns, MaxDBMaxConns,
		"Connections to Postgres of one process. All processes together must stay below the server's `max_connections`.",
		func(c *Config) *int { return &c.DBMaxConns }),
	durationSetting("POSTHASTE_STATEMENT_TIMEOUT", "10s", MinStatementTimeout, MaxStatementTimeout,
		"How long Postgres may take over one statement; after it the request is answered with 503.",
		func(c *Config) *time.Duration { return &c.StatementTimeout }),
	durationSetting("POSTHASTE_LIMIT_TIMEOUT", queue.DefaultScriptTimeout.String(), MinLimitTimeout, MaxLimitTimeout,
		"How long Redis may take to say how many may go under a rate. Without an answer, deliveries with a limit wait and messages are accepted. Raise it if Redis is far away: with one that always takes longer, what is limited never goes.",
		func(c *Config) *time.Duration { return &c.LimitTimeout }),
	durationSetting("POSTHASTE_DRAIN_DELAY", "0s", 0, MaxDrainDelay,
		"How long a process that was told to stop goes on answering while `/health/ready` already says no. Set it above the interval at which your load balancer asks.",
		func(c *Config) *time.Duration { return &c.DrainDelay }),
	derivedSetting(durationSetting("POSTHASTE_SHUTDOWN_TIMEOUT", fmt.Sprintf("`POSTHASTE_ATTEMPT_TIMEOUT` + %s", ShutdownMargin), time.Second, MaxShutdownTimeout,
		"How long a process that was told to stop waits for requests and attempts in flight. Give whatever stops it (systemd, Docker, Kubernetes) more than this and the drain delay.",
		func(c *Config) *time.Duration { return &c.ShutdownTimeout })),
	{
		Name: "POSTHASTE_MEMORY_LIMIT", Default: fmt.Sprintf("%d %% of the container's or machine's memory", memoryShare), derived: true,
		Rule: fmt.Sprintf("a size of at least %s, for instance 512MiB or 2GiB", showBytes(MinMemoryLimit)),
		Help: "From here on memory is collected more eagerly. Go's own `GOMEMLIMIT` and `GOGC` win where they are set.",
		parse: func(c *Config, text string) (err error) {
			if c.MemoryLimit, err = parseBytes(text); err != nil || c.MemoryLimit < MinMemoryLimit {
				return errRule
			}
			return nil
		},
	},
	{
		Name: "POSTHASTE_LOG_LEVEL", Default: "info", Flag: "log-level",
		Rule: "debug, info, warn or error",
		Help: "The least important lines that are logged. No level logs payloads or secrets.",
		parse: func(c *Config, text string) error {
			level, err := telemetry.ParseLevel(strings.ToLower(text))
			if err != nil {
				return errRule
			}
			c.LogLevel = level
			return nil
		},
	},
	{
		Name: "POSTHASTE_LOG_FORMAT", Default: "json", Flag: "log-format",
		Rule: "json or text",
		Help: "How log lines look; they go to standard error.",
		parse: func(c *Config, text string) error {
			format, err := telemetry.ParseFormat(strings.ToLower(text))
			if err != nil {
				return errRule
			}
			c.LogFormat = format
			return nil
		},
	},
	{
		Name: "POSTHASTE_PPROF", Default: "false",
		Rule:  "true or false",
		Help:  "Serves profiles of the running process under `/debug/pprof/` on `POSTHASTE_ADDR`, to anyone who reaches it: for measuring, not for a public address.",
		parse: flagOf(func(c *Config) *bool { return &c.Pprof }),
	},
}

func flagOf(at func(*Config) *bool) func(*Config, string) error {
	return func(c *Config, text string) error {
		value, err := strconv.ParseBool(strings.ToLower(text))
		if err != nil {
			return errRule
		}
		*at(c) = value
		return nil
	}
}

func numberSetting(name, byDefault string, least, most int, help string, at func(*Config) *int) Setting {
	return Setting{
		Name: name, Default: byDefault, Help: help,
		Rule: fmt.Sprintf("a number from %d to %d", least, most),
		parse: func(c *Config, text string) (err error) {
			if *at(c), err = strconv.Atoi(text); err != nil || *at(c) < least || *at(c) > most {
				return errRule
			}
			return nil
		},
	}
}

func durationSetting(name, byDefault string, least, most time.Duration, help string, at func(*Config) *time.Duration) Setting {
	return Setting{
		Name: name, Default: byDefault, Help: help,
		Rule: fmt.Sprintf("a duration from %s to %s, for instance 250ms, 15s, 5m, 2h or 3d", showDuration(least), showDuration(most)),
		parse: func(c *Config, text string) (err error) {
			if *at(c), err = parseDuration(text); err != nil || *at(c) < least || *at(c) > most {
				return errRule
			}
			return nil
		},
	}
}

func derivedSetting(s Setting) Setting { s.derived = true; return s }

// prefixesOf reads networks. Host bits that are set are refused: whoever writes 10.1.2.3/8 meant
// something else than what it would open.
func prefixesOf(at func(*Config) *[]netip.Prefix, addresses bool) func(*Config, string) error {
	return func(c *Config, text string) error {
		for _, part := range strings.Split(text, ",") {
			part = strings.TrimSpace(part)
			if addr, err := netip.ParseAddr(part); addresses && err == nil && addr.Zone() == "" {
				*at(c) = append(*at(c), netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
				continue
			}
			prefix, err := netip.ParsePrefix(part)
			if err != nil {
				return errRule
			}
			if prefix != prefix.Masked() {
				return fmt.Errorf("%s has bits set behind its length; %s is the network", prefix, prefix.Masked())
			}
			*at(c) = append(*at(c), prefix)
		}
		return nil
	}
}

func checkAddr(text string) error {
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return errRule
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return errRule
	}
	return nil
}
