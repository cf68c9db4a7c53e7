package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/app"
	"github.com/posthaste/posthaste/internal/embedded"
	"github.com/posthaste/posthaste/internal/telemetry"
)

const (
	// devData is where dev keeps its data, in the current directory.
	devData = ".posthaste"
	// loopback is what dev opens to deliveries and nothing else does.
	loopback = "127.0.0.0/8,::1/128"
	// sampleWait is how long dev waits for its first message to arrive.
	sampleWait = 20 * time.Second
	// postgresStop is how long Postgres may take to stop.
	postgresStop = 20 * time.Second
)

func devCommand(s streams) *cobra.Command {
	o := devOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine, with a receiver and a first message",
		Long: `Run the whole platform on this machine, with nothing to install or configure: a Postgres of its own, a
queue in memory, API and worker in one process, and a receiver that prints what is delivered to it.

The first start makes a tenant, an API key, event types, the application "sample-app" with an endpoint at
the receiver, sends a message, and shows its verified delivery. Later starts reuse the data.

It opens http and the loopback addresses to deliveries, as serve does not: it is for your own machine.
DATABASE_URL and REDIS_URL, where set, are used instead of the private Postgres and the queue in memory.`,
		Example: `  posthaste dev
  posthaste dev --no-receiver      # with your own on 127.0.0.1:8072, for instance: posthaste listen
  posthaste dev --addr 127.0.0.1:9000 --data /tmp/posthaste`,
		Args: noArgs,
	}
	flags := settingFlags(cmd, "POSTHASTE_ADDR", "POSTHASTE_LOG_LEVEL", "POSTHASTE_ALLOW_NETWORKS", "POSTHASTE_ALLOW_PORTS", "POSTHASTE_PUBLIC_URL")
	cmd.Flags().StringVar(&o.data, "data", "", "directory for the data (default "+devData+" in the current directory)")
	cmd.Flags().StringVar(&o.receiver, "receiver", "127.0.0.1:8072", "host:port of the receiver")
	cmd.Flags().BoolVar(&o.noReceiver, "no-receiver", false, "do not run the receiver: you run your own on its address")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		o.flags = flags()
		o.moveReceiver = cmd.Flags().Changed("receiver")
		return o.run(cmd.Context())
	}
	return cmd
}

type devOptions struct {
	streams
	flags        map[string]string // settings given as flags
	data         string
	receiver     string
	moveReceiver bool // point the sample endpoint at the receiver, wherever it points
	noReceiver   bool
}

// run starts everything, and stops it in the opposite order when ctx ends.
func (o devOptions) run(ctx context.Context) (err error) {
	up := false
	defer func() {
		if !up && ctx.Err() != nil {
			err = nil // stopped while starting, as asked
		}
	}()
	out := &lockedWriter{out: o.out}
	show := &printer{out, colourful(o.out, o.environ)}

	// Ports first: what is taken is known before anything is started.
	receiverAt, err := o.listenReceiver()
	if err != nil {
		return err
	}
	if receiverAt != nil {
		defer receiverAt.Close()
	}
	data, err := openDevData(o.data)
	if err != nil {
		return err
	}
	config, err := o.settings(data)
	if err != nil {
		return err
	}
	probe, err := listenOn(config.Addr, "--addr")
	if err != nil {
		return err
	}
	probe.Close()
	log := telemetry.NewLogger(o.err, config.LogLevel, config.LogFormat)

	servers, err := o.startServers(ctx, data, log, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.stop()) }()
	for name, value := range servers.urls {
		o.flags[name] = value
	}
	if config, err = o.settings(data); err != nil {
		return err
	}
	a, err := app.New(ctx, app.Options{
		Config: config, Role: app.RoleAll, Version: versionText(), Logger: log, Quiet: true, PrivateQueue: servers.redis != nil,
	})
	if err != nil {
		return err
	}
	running := startPart(ctx, a.Run)
	defer func() {
		running.cancel()
		err = errors.Join(err, <-running.ended)
	}()

	sample := &sample{api: newClient("http://" + reachable(a.Addr())), data: data, receiver: "http://" + o.receiver, move: o.moveReceiver}
	if receiverAt != nil {
		sample.receiver = "http://" + receiverAt.Addr().String()
	}
	if err := sample.prepare(ctx, config); err != nil {
		return err
	}
	up = true
	arrived := make(chan receivedAt, 1)
	if receiverAt != nil {
		receiver := newReceiver(show, sample.key)
		receiver.seen = func(d receivedAt) {
			select {
			case arrived <- d:
			default: // only the first matters
			}
		}
		// It outlives the platform, so that what is being delivered at the end still arrives.
		serving := startPart(context.WithoutCancel(ctx), func(ctx context.Context) error { return serveHTTP(ctx, receiverAt, receiver) })
		defer func() {
			running.cancel()
			running.wait()
			serving.cancel()
			err = errors.Join(err, <-serving.ended)
		}()
	}
	o.show(show, a, sample, data, servers)
	if sample.fresh {
		if err := o.first(ctx, show, sample, arrived); err != nil && ctx.Err() == nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(out, "\nStopping.")
		return nil
	case <-running.over:
		return errors.New("the platform stopped by itself")
	case <-servers.failed():
		return errors.New("the private Postgres stopped by itself")
	}
}

func (o devOptions) listenReceiver() (net.Listener, error) {
	if o.noReceiver {
		return nil, nil
	}
	return listenOn(o.receiver, "--receiver, or run your own there and give --no-receiver")
}

// settings are the environment's, with what dev decides put over them.
func (o devOptions) settings(data devDirectory) (app.Config, error) {
	flags := map[string]string{"POSTHASTE_AUTO_MIGRATE": "true", "POSTHASTE_ALLOW_HTTP": "true"}
	networks := o.variable("POSTHASTE_ALLOW_NETWORKS")
	for name, value := range o.flags {
		flags[name] = value
		if name == "POSTHASTE_ALLOW_NETWORKS" {
			networks = value
		}
	}
	flags["POSTHASTE_ALLOW_NETWORKS"] = strings.TrimSuffix(loopback+","+networks, ",")
	if o.variable("POSTHASTE_LOG_FORMAT") == "" {
		flags["POSTHASTE_LOG_FORMAT"] = string(telemetry.Text)
	}
	// Deliveries are the news here, not that the process has started.
	if _, given := flags["POSTHASTE_LOG_LEVEL"]; !given && o.variable("POSTHASTE_LOG_LEVEL") == "" {
		flags["POSTHASTE_LOG_LEVEL"] = "warn"
	}
	if o.variable("POSTHASTE_MASTER_KEY") == "" {
		key, err := data.masterKey()
		if err != nil {
			return app.Config{}, err
		}
		flags["POSTHASTE_MASTER_KEY"] = key.Reveal()
	}
	config, _, err := app.Load(app.Source{Environ: o.environ, Flags: flags})
	return config, err
}

// variable is a variable of the environment.
func (s streams) variable(name string) string {
	for _, line := range s.environ {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return value
		}
	}
	return ""
}

// devServers are the servers that dev brought itself.
type devServers struct {
	postgres *embedded.Postgres // nil when DATABASE_URL is set
	redis    *embedded.Redis    // nil when REDIS_URL is set
	urls     map[string]string  // settings that name them
	stopping *atomic.Bool       // Postgres is being stopped, and complains of clients that are
}

// hushed is a log that says nothing from some moment on.
type hushed struct {
	slog.Handler
	now *atomic.Bool
}

func (h hushed) Enabled(ctx context.Context, level slog.Level) bool {
	return !h.now.Load() && h.Handler.Enabled(ctx, level)
}

func (o devOptions) startServers(ctx context.Context, data devDirectory, log *slog.Logger, out io.Writer) (s devServers, err error) {
	s.urls, s.stopping = map[string]string{}, new(atomic.Bool)
	if o.variable("DATABASE_URL") == "" {
		if data.new {
			fmt.Fprintf(out, "First start: making a database in %s\n", data.path)
		}
		s.postgres, err = embedded.StartPostgres(ctx, embedded.PostgresOptions{
			Dir: data.file("postgres"), BundleDirs: embedded.RepositoryBundle(), Durable: true, Log: slog.New(hushed{log.Handler(), s.stopping}),
		})
		if err != nil {
			return s, err
		}
		s.urls["DATABASE_URL"] = s.postgres.URL("postgres")
	}
	if o.variable("REDIS_URL") == "" {
		if s.redis, err = embedded.StartRedis(); err != nil {
			return s, errors.Join(err, s.stop())
		}
		s.urls["REDIS_URL"] = s.redis.URL()
	}
	return s, nil
}

func (s devServers) stop() error {
	if s.redis != nil {
		s.redis.Close()
	}
	if s.postgres == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), postgresStop)
	defer cancel()
	s.stopping.Store(true)
	return s.postgres.Stop(ctx)
}

// failed is closed when a server has ended by itself; nil when there is none that could.
func (s devServers) failed() <-chan struct{} {
	if s.postgres == nil {
		return nil
	}
	return s.postgres.Done()
}

// show prints what one needs to go on.
func (o devOptions) show(p *printer, a *app.App, sample *sample, data devDirectory, servers devServers) {
	row := func(name, value, note string) string {
		if note != "" {
			note = "  " + p.paint(faint, note)
		}
		return fmt.Sprintf("  %-9s  %s%s\n", name, value, note)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s is running.\n\n", p.paint(bold, "Posthaste "+versionText()))
	b.WriteString(row("API", a.PublicURL()+"/api/v1", ""))
	b.WriteString(row("Reference", a.PublicURL()+"/docs", "everything the API can do"))
	b.WriteString(row("API key", sample.token.Reveal(), "kept in "+data.file(keyFile)))
	note := "the endpoint of application " + sampleApplication
	if o.noReceiver {
		note = "yours: the endpoint of application " + sampleApplication
	}
	b.WriteString(row("Receiver", sample.receiver, note))
	note = "the queue is in memory and is filled from the database"
	if servers.redis == nil {
		note = ""
	}
	b.WriteString(row("Data", data.path, note))
	fmt.Fprintf(&b, "\nSend a message:\n\n%s\n", sample.curl(a.PublicURL()))
	if o.noReceiver {
		fmt.Fprintf(&b, "Verify it:\n\n  posthaste listen --addr %s --secret %s\n\nCtrl-C stops everything.\n", o.receiver, sample.secret.Reveal())
	} else {
		b.WriteString("Deliveries appear here. Ctrl-C stops everything.\n\n")
	}
	fmt.Fprint(p.out, b.String())
}

// first sends the first message and waits until the receiver has shown it.
func (o devOptions) first(ctx context.Context, p *printer, sample *sample, arrived <-chan receivedAt) error {
	id, err := sample.send(ctx)
	if err != nil {
		return err
	}
	if o.noReceiver {
		fmt.Fprintf(p.out, "A first message is on its way: %s\n", id)
		return nil
	}
	timer := time.NewTimer(sampleWait)
	defer timer.Stop()
	select {
	case <-arrived: // its line is printed
	case <-ctx.Done():
	case <-timer.C:
		fmt.Fprintf(p.out, "The first message has not arrived after %s. What is known about it: posthaste admin trace %s\n", sampleWait, id)
	}
	return nil
}

// partOf is something that runs beside the command until it is cancelled.
type partOf struct {
	cancel context.CancelFunc
	ended  chan error    // its one result
	over   chan struct{} // closed with it
}

func startPart(ctx context.Context, run func(context.Context) error) partOf {
	ctx, cancel := context.WithCancel(ctx)
	p := partOf{cancel, make(chan error, 1), make(chan struct{})}
	go func() {
		defer close(p.over)
		p.ended <- run(ctx)
	}()
	return p
}

func (p partOf) wait() { <-p.over }
