package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// startLimit bounds a whole start, crash recovery included, when the caller's context does not.
	startLimit = 2 * time.Minute
	// fastWait is how long an orderly stop may take, which writes a checkpoint.
	fastWait = 15 * time.Second
	// immediateWait is how long a stop without a checkpoint may take.
	immediateWait = 5 * time.Second
	// guestInterval is how often a guest looks whether the server it does not own still runs.
	guestInterval = 250 * time.Millisecond
	// superuser is the only role of a cluster made here.
	superuser = "postgres"
)

// PostgresOptions describe one Postgres server.
type PostgresOptions struct {
	// Dir is where the cluster lives; it is made when missing. One server runs in it at a time.
	Dir string
	// BinDir is looked into first for initdb and postgres; empty = only the usual places.
	BinDir string
	// BundleDirs are looked into last: folders of the npm bundle, see RepositoryBundle.
	BundleDirs []string
	// Durable keeps what is committed through a crash of the machine. Tests leave it off, which makes
	// everything that waits for the disk several times faster.
	Durable bool
	// MaxConnections is the server's limit; 0 = Postgres's own default of 100.
	MaxConnections int
	// Settings are further server settings by name; they win over those made here.
	Settings map[string]string
	// Listen is a loopback host:port to listen on besides the socket; port 0 picks a free one; empty =
	// socket only. Whoever reaches it is superuser without a password: it is for throw-away data.
	Listen string
	// Log gets the server's messages; nil = none. No statement and no value is ever among them.
	Log *slog.Logger
}

// Postgres is a running server, owned or attached to as a guest.
type Postgres struct {
	file    pidFile
	listen  string
	version string
	child   *child     // nil for a guest
	lock    *os.File   // nil for a guest
	temp    string     // socket directory to remove in the end; may be empty
	stopped func()     // ends the guest's watch
	mu      sync.Mutex // serialises stops
	done    chan struct{}
}

// StartPostgres starts the cluster in Dir, making it first when there is none, and returns once the
// server answers. When another process runs it already, the caller becomes its guest. ctx bounds the
// start only; the server runs until Stop.
//
// As root, which Postgres refuses to be, the server runs as the owner of existing data, else as user
// postgres, else nobody; that user must be able to enter every directory above Dir.
//
// The errors callers tell apart are ErrNoPostgres and ErrOtherMajor.
func StartPostgres(ctx context.Context, o PostgresOptions) (*Postgres, error) {
	return startPostgres(ctx, o, places{
		binDir:  o.BinDir,
		path:    filepath.SplitList(os.Getenv("PATH")),
		globs:   systemGlobs,
		bundles: o.BundleDirs,
	})
}

func startPostgres(ctx context.Context, o PostgresOptions, where places) (*Postgres, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := openCluster(o, where)
	if err != nil {
		return nil, fmt.Errorf("start postgres in %s: %w", o.Dir, err)
	}
	for {
		// An owner may be starting, stopping or dying while we look, so both questions are asked again
		// until one has an answer.
		lock, err := tryLock(filepath.Join(c.dir, "lock"))
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w: run as the user who made the directory, or use another", err)
		}
		if err != nil {
			return nil, fmt.Errorf("start postgres in %s: %w", o.Dir, err)
		}
		if lock != nil {
			p, err := c.start(ctx)
			if err != nil {
				lock.Close()
				return nil, fmt.Errorf("start postgres in %s: %w", o.Dir, err)
			}
			p.lock = lock
			return p, nil
		}
		if file, ok := readPidFile(c.data()); ok && file.ready() && serves(file.pid, c.data()) {
			return c.attach(file), nil
		}
		if !pause(ctx) {
			return nil, fmt.Errorf("start postgres in %s: another process holds its lock, and its server does not get ready: %w",
				o.Dir, context.Cause(ctx))
		}
	}
}

// cluster is a directory prepared for a server, and how to run it.
type cluster struct {
	dir   string // absolute, without links
	who   *account
	where places
	o     PostgresOptions
}

func (c cluster) data() string { return filepath.Join(c.dir, "data") }

func openCluster(o PostgresOptions, where places) (cluster, error) {
	if o.Dir == "" {
		return cluster{}, errors.New("no directory given")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return cluster{}, err
	}
	who, err := postgresAccount(filepath.Join(dir, "data"))
	if err != nil {
		return cluster{}, err
	}
	if err := who.reach(filepath.Dir(dir)); err != nil {
		return cluster{}, fmt.Errorf("%w, and Postgres does not run as root: use a directory elsewhere, such as %s", err, stateDir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return cluster{}, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return cluster{}, err
	}
	if who != nil {
		info, err := os.Stat(dir)
		if err != nil {
			return cluster{}, err
		}
		// The directory is ours, so it may be opened for passing through; those above it are not.
		if err := os.Chmod(dir, info.Mode().Perm()|0o711); err != nil {
			return cluster{}, err
		}
	}
	if err := who.reach(dir); err != nil {
		return cluster{}, err
	}
	return cluster{dir: dir, who: who, where: where, o: o}, nil
}

// start runs the server on the data; the caller holds the lock.
func (c cluster) start(ctx context.Context) (*Postgres, error) {
	want, err := c.dataMajor()
	if err != nil {
		return nil, err
	}
	found, err := c.where.choose(ctx, c.who, want, filepath.Join(c.dir, "bundle"), c.o.Log)
	if err != nil {
		return nil, err
	}
	if want == 0 {
		if err := c.initialise(ctx, found); err != nil {
			return nil, err
		}
	}
	if err := c.who.own(c.data()); err != nil {
		return nil, err
	}
	if err := clearStale(ctx, c.data()); err != nil {
		return nil, err
	}
	socket, temporary, err := c.socketDir()
	if err != nil {
		return nil, err
	}
	p, err := c.launch(ctx, found, socket)
	if err != nil {
		if temporary {
			os.Remove(socket)
		}
		return nil, err
	}
	p.version = found.version
	if temporary {
		p.temp = socket
	}
	return p, nil
}

// dataMajor is the major version that made the data; 0 when there is no data yet.
func (c cluster) dataMajor() (int, error) {
	raw, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if err == nil {
		major, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil || major <= 0 {
			return 0, fmt.Errorf("%s/PG_VERSION does not hold a version; the data is left as it is", c.data())
		}
		return major, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return 0, err
	}
	if entries, err := os.ReadDir(c.data()); err == nil && len(entries) > 0 {
		return 0, fmt.Errorf("%s holds files but no cluster; it is left as it is", c.data())
	}
	return 0, nil
}

// initialise makes the cluster beside its place and moves it there when it is whole, so that one that
// was interrupted is never taken for a cluster.
func (c cluster) initialise(ctx context.Context, found installation) error {
	unfinished := c.data() + ".init"
	if err := os.RemoveAll(unfinished); err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	if err := c.who.own(unfinished); err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	args := []string{"-D", unfinished, "-U", superuser, "-A", "trust", "--locale=C", "-E", "UTF8", "--no-instructions"}
	if !c.o.Durable {
		args = append(args, "--no-sync")
	}
	err := runChild(ctx, childSpec{
		path:          filepath.Join(found.bin, "initdb"),
		args:          args,
		account:       c.who,
		onParentDeath: syscall.SIGTERM,
	})
	if err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	if err := os.Rename(unfinished, c.data()); err != nil {
		return fmt.Errorf("make a cluster: %w", err)
	}
	return nil
}

// launch runs the server until it is ready.
func (c cluster) launch(ctx context.Context, found installation, socket string) (*Postgres, error) {
	host, port, err := listenAddress(c.o.Listen)
	if err != nil {
		return nil, err
	}
	for {
		server, err := startChild(childSpec{
			path:    filepath.Join(found.bin, "postgres"),
			args:    c.arguments(socket, host, port),
			account: c.who,
			line:    func(line string) { logLine(c.o.Log, line) },
			// Fast shutdown. SIGTERM would wait for clients to leave, SIGQUIT would skip the checkpoint.
			onParentDeath: syscall.SIGINT,
		})
		if err != nil {
			return nil, err
		}
		file, err := c.awaitReady(ctx, server)
		if err == nil {
			p := &Postgres{file: file, child: server, done: server.done}
			if c.o.Listen != "" {
				p.listen = joinHostPort(host, port)
			}
			return p, nil
		}
		// Children of a server that was killed work on for a moment, and the next one refuses to
		// start beside them.
		if !strings.Contains(server.out.tail(), "pre-existing shared memory block") || !pause(ctx) {
			return nil, err
		}
	}
}

// awaitReady waits for what the server says of itself in its pid file, which is also what pg_ctl does:
// connecting instead could reach another server. A server that does not get ready is stopped.
func (c cluster) awaitReady(ctx context.Context, server *child) (pidFile, error) {
	for {
		if file, ok := readPidFile(c.data()); ok && file.pid == server.pid() && file.ready() {
			return file, nil
		}
		if server.exited() {
			return pidFile{}, server.failure()
		}
		if !pause(ctx) {
			stopped := server.stop(context.Background(), rung{syscall.SIGINT, immediateWait}, rung{syscall.SIGQUIT, immediateWait})
			return pidFile{}, errors.Join(fmt.Errorf("wait for the server to get ready: %w", context.Cause(ctx)), stopped)
		}
	}
}

// attach makes the caller a guest of a server that another process owns.
func (c cluster) attach(file pidFile) *Postgres {
	watch, stop := context.WithCancel(context.Background())
	p := &Postgres{file: file, done: make(chan struct{}), stopped: stop}
	go func() {
		defer close(p.done)
		ticker := time.NewTicker(guestInterval)
		defer ticker.Stop()
		for serves(file.pid, c.data()) {
			select {
			case <-watch.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	return p
}

// URL is how to connect to a database, as the superuser, through the socket.
func (p *Postgres) URL(database string) string {
	query := url.Values{
		"host":    {p.file.socket},
		"port":    {strconv.Itoa(p.file.port)},
		"sslmode": {"disable"},
	}
	// As in libpq, a plus sign in a connection URL is a plus sign.
	encoded := strings.ReplaceAll(query.Encode(), "+", "%20")
	return (&url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: encoded}).String()
}

// Address is the host:port the server listens on besides its socket; empty when it does not, and for a
// guest.
func (p *Postgres) Address() string { return p.listen }

// Version is the server's version, such as "15.4"; empty for a guest.
func (p *Postgres) Version() string { return p.version }

// Guest reports whether another process owns the server; Stop then leaves it running.
func (p *Postgres) Guest() bool { return p.child == nil }

// PID is the process id of the server.
func (p *Postgres) PID() int { return p.file.pid }

// Done is closed when the server has ended, whoever ended it; for a guest also by Stop.
func (p *Postgres) Done() <-chan struct{} { return p.done }

// Err says how the server ended, once Done is closed: nil after an orderly end.
func (p *Postgres) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	if p.child == nil || p.child.err == nil {
		return nil
	}
	return fmt.Errorf("postgres ended: %w", p.child.err)
}

// Stop ends the server in order: clients are disconnected and everything is written. The end of ctx
// turns it into StopImmediate. It returns when the server has gone, with an error when that took force.
// A server that ended by itself is no error here, see Err. Stop may be called more than once.
func (p *Postgres) Stop(ctx context.Context) error {
	return p.stop(ctx, rung{syscall.SIGINT, fastWait}, rung{syscall.SIGQUIT, immediateWait})
}

// StopImmediate ends the server as a crash would, without a checkpoint; the next start recovers what
// was committed.
func (p *Postgres) StopImmediate(ctx context.Context) error {
	return p.stop(ctx, rung{syscall.SIGQUIT, immediateWait})
}

func (p *Postgres) stop(ctx context.Context, ladder ...rung) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.child == nil {
		p.stopped()
		<-p.done
		return nil
	}
	err := p.child.stop(ctx, ladder...)
	if p.temp != "" {
		os.RemoveAll(p.temp)
		p.temp = ""
	}
	if p.lock != nil {
		p.lock.Close()
		p.lock = nil
	}
	return err
}
