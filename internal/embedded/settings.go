package embedded

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// stateDir is where root's clusters go when the directory asked for is closed to the server.
	stateDir = "/var/lib/posthaste"
	// socketPathLimit is the longest path of a socket, in bytes, that every system takes: macOS has 104
	// with the final zero, Linux 108.
	socketPathLimit = 103
	// defaultPort names the socket; without Listen nothing listens on it.
	defaultPort = 5432
)

// DataDir is the directory to keep a cluster in when preferred is the one asked for: that very one,
// except for root when the server's user could not enter a directory above it, as in a checkout below
// root's home. Then it is one of its own below /var/lib/posthaste.
func DataDir(preferred string) (string, error) {
	dir, err := filepath.Abs(preferred)
	if err != nil {
		return "", fmt.Errorf("find a data directory: %w", err)
	}
	who, err := postgresAccount(filepath.Join(dir, "data"))
	if err != nil {
		return "", fmt.Errorf("find a data directory: %w", err)
	}
	if who.reach(filepath.Dir(dir)) == nil {
		return dir, nil
	}
	return filepath.Join(stateDir, filepath.Base(dir)+"-"+pathHash(dir)), nil
}

func pathHash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}

// arguments are the server's command line.
func (c cluster) arguments(socket, host string, port int) []string {
	settings := map[string]string{
		"unix_socket_directories": `"` + strings.ReplaceAll(socket, `"`, `""`) + `"`,
		"unix_socket_permissions": "0700",
		"listen_addresses":        host,
		"port":                    strconv.Itoa(port),
		"cluster_name":            "posthaste",
		"logging_collector":       "off",
		"log_destination":         "stderr",
		"log_line_prefix":         "",
		// A client's error quotes the value it is about, its details the row, its context the
		// statement. The client is told; the log is not.
		"log_min_messages":        "log",
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
	}
	if c.o.MaxConnections > 0 {
		settings["max_connections"] = strconv.Itoa(c.o.MaxConnections)
	}
	if !c.o.Durable {
		settings["fsync"] = "off"
		settings["synchronous_commit"] = "off"
		settings["full_page_writes"] = "off"
	}
	maps.Copy(settings, c.o.Settings)
	args := []string{"-D", c.data()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// socketDir is a directory only the server and we can enter, with a path short enough for a socket.
// One outside Dir has a name made from Dir's, so that a crash leaves one directory and not many;
// nobody else's is used, since in the temporary directory anybody may have made it.
func (c cluster) socketDir() (dir string, temporary bool, err error) {
	name := "posthaste-" + pathHash(c.dir)
	for _, dir := range []string{filepath.Join(c.dir, "sock"), filepath.Join(os.TempDir(), name), filepath.Join("/tmp", name)} {
		// A comma would separate two hosts in a connection URL.
		unfit := len(filepath.Join(dir, ".s.PGSQL.65535")) > socketPathLimit || strings.Contains(dir, ",")
		if unfit || c.who.reach(filepath.Dir(dir)) != nil {
			continue
		}
		if err := c.who.own(dir); err != nil {
			return "", false, fmt.Errorf("make a directory for the socket: %w", err)
		}
		return dir, filepath.Dir(dir) != c.dir, nil
	}
	return "", false, fmt.Errorf("%s and the temporary directory are unfit for a socket, whose path is at most %d bytes without a comma: use another directory", c.dir, socketPathLimit)
}

// listenAddress splits a host:port and picks the port when it is 0, as Postgres cannot. The port could
// be taken before it is used; the server then fails to start and says so.
func listenAddress(listen string) (host string, port int, err error) {
	if listen == "" {
		return "", defaultPort, nil
	}
	host, text, err := net.SplitHostPort(listen)
	if err != nil {
		return "", 0, fmt.Errorf("listen address %q: %w", listen, err)
	}
	// There is no password.
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, fmt.Errorf("listen address %q: the host must be a loopback address", listen)
	}
	if text == "0" {
		port, err = freePort(host)
	} else {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("listen address %q: the port must be a number from 0 to 65535", listen)
	}
	return host, port, nil
}

func freePort(host string) (int, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func joinHostPort(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// logLine passes one line of the server's on, at a level that leaves its routine out of sight.
func logLine(log *slog.Logger, line string) {
	severity, text, ok := strings.Cut(line, ":  ")
	if !ok {
		severity, text = "", line
	}
	switch severity {
	case "FATAL", "WARNING":
		log.Warn("postgres: " + text)
	case "PANIC":
		log.Error("postgres: " + text)
	default:
		log.Debug("postgres: " + text)
	}
}
