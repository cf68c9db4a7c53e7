package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// RedisDatabases is how many databases a RedisServer has, so that tests can have one each.
	RedisDatabases = 1024
	// redisWait is how long an orderly stop may take; with nothing to save it takes milliseconds.
	redisWait = 5 * time.Second
	// portTries is how often another free port is tried when somebody took the one that was picked.
	portTries = 5
	// replyLimit bounds one question to a starting server.
	replyLimit = time.Second
)

// ErrNoRedis means that neither valkey-server nor redis-server was found.
var ErrNoRedis = errors.New("no valkey-server or redis-server found on PATH")

// RedisServerOptions describe one real Redis or Valkey server.
type RedisServerOptions struct {
	// Bin is the program; empty = valkey-server, else redis-server, from PATH.
	Bin string
	// Listen is a loopback host:port; port 0 picks a free one.
	Listen string
	// Socket is the path of a Unix socket, readable by us only. Exactly one of Listen and Socket is set.
	Socket string
	// Settings are further directives by name, such as maxmemory; they win over those made here.
	Settings map[string]string
	// Log gets the server's messages at debug level; nil = none.
	Log *slog.Logger
}

// RedisServer is a running redis-server or valkey-server that keeps nothing on disk and never evicts.
type RedisServer struct {
	child  *child
	listen string
	socket string
}

// StartRedisServer starts a server and returns once it answers. ctx bounds the start only; the server
// runs until Stop. It is ErrNoRedis when the machine has none.
func StartRedisServer(ctx context.Context, o RedisServerOptions) (*RedisServer, error) {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	bin, err := redisProgram(o.Bin)
	if err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	if (o.Listen == "") == (o.Socket == "") {
		return nil, errors.New("start redis: give either an address to listen on or the path of a socket")
	}
	if len(o.Socket) > socketPathLimit {
		return nil, fmt.Errorf("start redis: the socket's path is longer than %d bytes", socketPathLimit)
	}
	for try := 1; ; try++ {
		r, err := startRedis(ctx, bin, o)
		if err == nil {
			return r, nil
		}
		picked := strings.HasSuffix(o.Listen, ":0")
		if !picked || try == portTries || !strings.Contains(err.Error(), "Address already in use") {
			return nil, fmt.Errorf("start redis: %w", err)
		}
	}
}

func redisProgram(bin string) (string, error) {
	names := []string{"valkey-server", "redis-server"}
	if bin != "" {
		names = []string{bin}
	}
	var missing error
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err == nil {
			return filepath.Abs(path) // the child runs in another working directory
		}
		missing = err
	}
	if bin != "" {
		return "", missing
	}
	return "", ErrNoRedis
}

func startRedis(ctx context.Context, bin string, o RedisServerOptions) (*RedisServer, error) {
	settings := map[string]string{
		"port":             "0",
		"save":             "",
		"appendonly":       "no",
		"maxmemory-policy": "noeviction",
		"databases":        strconv.Itoa(RedisDatabases),
		"daemonize":        "no",
	}
	r := &RedisServer{}
	if o.Socket != "" {
		path, err := filepath.Abs(o.Socket)
		if err != nil {
			return nil, err
		}
		r.socket = path
		settings["unixsocket"], settings["unixsocketperm"] = path, "700"
	} else {
		host, port, err := listenAddress(o.Listen)
		if err != nil {
			return nil, err
		}
		r.listen = joinHostPort(host, port)
		settings["bind"], settings["port"] = host, strconv.Itoa(port)
	}
	maps.Copy(settings, o.Settings)
	var args []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "--"+name, settings[name])
	}
	log := o.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	server, err := startChild(childSpec{
		path:          bin,
		args:          args,
		line:          func(line string) { log.Debug("redis: " + line) },
		onParentDeath: syscall.SIGTERM,
	})
	if err != nil {
		return nil, err
	}
	r.child = server
	for !r.answers(ctx) {
		if server.exited() {
			return nil, server.failure()
		}
		if !pause(ctx) {
			server.kill()
			return nil, fmt.Errorf("wait for the server to get ready: %w", context.Cause(ctx))
		}
	}
	return r, nil
}

// answers asks the server for its process id: on a port that was taken meanwhile, another server would
// answer a plain ping.
func (r *RedisServer) answers(ctx context.Context) bool {
	network, address := "tcp", r.listen
	if r.socket != "" {
		network, address = "unix", r.socket
	}
	dialer := net.Dialer{Timeout: replyLimit}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(replyLimit)); err != nil {
		return false
	}
	if _, err := conn.Write([]byte("INFO server\r\nPING\r\n")); err != nil {
		return false
	}
	mine := "process_id:" + strconv.Itoa(r.child.pid())
	lines := bufio.NewScanner(conn)
	found := false
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == mine:
			found = true
		case line == "+PONG" || strings.HasPrefix(line, "-"):
			return found && line == "+PONG"
		}
	}
	return false
}

// URL is how to connect to one of the databases, as a redis:// or unix:// URL.
func (r *RedisServer) URL(database int) string {
	if r.socket != "" {
		query := url.Values{"db": {strconv.Itoa(database)}}
		return (&url.URL{Scheme: "unix", Path: r.socket, RawQuery: query.Encode()}).String()
	}
	return (&url.URL{Scheme: "redis", Host: r.listen, Path: "/" + strconv.Itoa(database)}).String()
}

// Addr is the host:port it listens on, or the path of its socket.
func (r *RedisServer) Addr() string {
	if r.socket != "" {
		return r.socket
	}
	return r.listen
}

// PID is the process id of the server.
func (r *RedisServer) PID() int { return r.child.pid() }

// Done is closed when the server has ended, whoever ended it.
func (r *RedisServer) Done() <-chan struct{} { return r.child.done }

// Stop ends the server and returns when it has gone, with an error when that took force. The end of ctx
// turns it into Kill. It may be called more than once.
func (r *RedisServer) Stop(ctx context.Context) error {
	err := r.child.stop(ctx, rung{syscall.SIGTERM, redisWait})
	r.removeSocket()
	return err
}

// Kill ends the server as a crash would, and returns when it has gone.
func (r *RedisServer) Kill() {
	r.child.kill()
	r.removeSocket()
}

// removeSocket removes what a killed server leaves behind.
func (r *RedisServer) removeSocket() {
	if r.socket != "" {
		_ = os.Remove(r.socket)
	}
}
