package rig

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/posthaste/posthaste/internal/embedded"
)

// StartRedis starts the server; after the first time always at the same address. It holds what
// SnapshotRedis has written since the last DropSnapshot, and else nothing.
func (r *Rig) StartRedis(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	listen := r.redisAt
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	server, err := embedded.StartRedisServer(ctx, embedded.RedisServerOptions{
		Listen: listen, Log: r.log, Settings: map[string]string{"dir": r.options.Dir, "dbfilename": snapshotName},
	})
	if err != nil {
		return err
	}
	r.redis, r.redisAt = server, server.Addr()
	return nil
}

// snapshotName is the file that Redis writes when it is told to, and reads when it starts.
const snapshotName = "snapshot.rdb"

// SnapshotRedis has Redis write down what it holds at this moment.
func (r *Rig) SnapshotRedis(ctx context.Context) error {
	answer, err := r.askRedis(ctx, "SAVE")
	if err != nil {
		return err
	}
	if answer != "+OK" {
		return fmt.Errorf("take a snapshot of redis: it answered %q", answer)
	}
	return nil
}

// DropSnapshot removes what SnapshotRedis wrote.
func (r *Rig) DropSnapshot() error {
	if err := os.Remove(filepath.Join(r.options.Dir, snapshotName)); err != nil {
		return fmt.Errorf("drop the snapshot of redis: %w", err)
	}
	return nil
}

// KillRedis kills the server; of its data nothing is kept but a snapshot.
func (r *Rig) KillRedis() { r.redis.Kill() }

// Weather changes the way between the product and Redis, and returns what the last weather did. It is
// for rigs with a RedisProxy.
func (r *Rig) Weather(w Weather) Counts { return r.proxy.Set(w) }

// FlushRedis empties every Redis database.
func (r *Rig) FlushRedis(ctx context.Context) error {
	answer, err := r.askRedis(ctx, "FLUSHALL")
	if err != nil {
		return err
	}
	if answer != "+OK" {
		return fmt.Errorf("flush redis: it answered %q", answer)
	}
	return nil
}

// QueuedTasks is how many tasks the queue holds, whatever their state.
func (r *Rig) QueuedTasks(ctx context.Context) (int, error) {
	answer, err := r.askRedis(ctx, "KEYS asynq:{*}:t:*")
	if err != nil {
		return 0, err
	}
	count, err := strconv.Atoi(strings.TrimPrefix(answer, "*"))
	if err != nil {
		return 0, fmt.Errorf("count tasks in redis: it answered %q", answer)
	}
	return count, nil
}

// ConfigureRedis changes a setting of the running server; it does not outlive it.
func (r *Rig) ConfigureRedis(ctx context.Context, setting, value string) error {
	answer, err := r.askRedis(ctx, "CONFIG SET "+setting+" "+value)
	if err != nil {
		return err
	}
	if answer != "+OK" {
		return fmt.Errorf("configure redis: it answered %q", answer)
	}
	return nil
}

// RedisRefusals is how many commands Redis has refused because it had no memory left for them.
func (r *Rig) RedisRefusals(ctx context.Context) (int, error) {
	statistics, err := r.askRedis(ctx, "INFO errorstats")
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(statistics, "errorstat_OOM:count=")
	if !found {
		return 0, nil
	}
	number, _, _ := strings.Cut(rest, "\r")
	count, err := strconv.Atoi(number)
	if err != nil {
		return 0, fmt.Errorf("count what redis refused: it answered %q", number)
	}
	return count, nil
}

// askRedis sends one inline command and returns the first line of the answer, or the text if it is one.
func (r *Rig) askRedis(ctx context.Context, command string) (string, error) {
	dialer := net.Dialer{Timeout: redisWait}
	conn, err := dialer.DialContext(ctx, "tcp", r.redisAt)
	if err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(redisWait)); err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	if _, err := conn.Write([]byte(command + "\r\n")); err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	reader := bufio.NewReader(conn)
	line, err := reader.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	line = strings.TrimSpace(line)
	length, isText := strings.CutPrefix(line, "$")
	if !isText {
		return line, nil
	}
	size, err := strconv.Atoi(length)
	if err != nil || size < 0 {
		return "", fmt.Errorf("ask redis: it answered %q", line)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(reader, text); err != nil {
		return "", fmt.Errorf("ask redis: %w", err)
	}
	return string(text), nil
}
