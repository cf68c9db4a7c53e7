package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// orphanLimit is how long a server that outlived its owner is waited for. On Linux it is already
// stopping when we look; it writes its last checkpoint.
const orphanLimit = 20 * time.Second

// pidFile is what a server writes into its data directory about itself.
type pidFile struct {
	pid    int
	port   int
	socket string // directory of the socket
	status string // "starting", "ready", "stopping", "standby"
}

// readPidFile reports false when there is none, or one that is still being written.
func readPidFile(data string) (pidFile, bool) {
	raw, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return pidFile{}, false
	}
	lines := strings.Split(string(raw), "\n")
	at := func(number int) string {
		if number > len(lines) {
			return ""
		}
		return strings.TrimSpace(lines[number-1])
	}
	pid, err := strconv.Atoi(at(1))
	if err != nil || pid <= 0 {
		return pidFile{}, false
	}
	port, _ := strconv.Atoi(at(4))
	return pidFile{pid: pid, port: port, socket: at(5), status: at(8)}, true
}

func (f pidFile) ready() bool { return f.status == "ready" }

// serves reports whether a process is a Postgres server on data, as far as can be seen.
func serves(pid int, data string) bool {
	program, dir, alive := inspect(pid)
	// Some systems wrap the program and rename it, so the name is not compared whole.
	postgres := strings.Contains(program, "postgres") || program == "postmaster"
	return alive && postgres && (dir == "" || dir == data)
}

// clearStale deals with the file a server left behind when it did not end in order. Only the owner of
// the lock may call it. Postgres itself replaces a file whose process is gone, after making sure that
// none of the old server's children still works on the data; but it gives up for ever when the number
// was since given to another process of the same user.
func clearStale(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, orphanLimit)
	defer cancel()
	for {
		file, ok := readPidFile(data)
		if !ok {
			return nil
		}
		if _, _, alive := inspect(file.pid); !alive {
			return nil
		}
		if !serves(file.pid, data) {
			if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("clear the stale pid file: %w", err)
			}
			return nil
		}
		if !pause(ctx) {
			return fmt.Errorf("another Postgres (process %d) runs on %s; stop it with: kill -INT %d", file.pid, data, file.pid)
		}
	}
}

// tryLock takes the lock on a directory; nil without an error means that another process has it. It is
// let go by closing the file, which the end of the process does too. Children do not inherit it.
func tryLock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", path, err)
}
