package embedded

import (
	"fmt"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a Redis in this process's memory, on a free loopback port. It holds nothing unique: what is
// in it is made again from Postgres, so its end with the process is what FLUSHALL is to a real one. It
// is for development and tests: it has one lock, and it sorts a sorted set anew on every read.
type Redis struct {
	server *miniredis.Miniredis
}

// StartRedis starts an empty Redis.
func StartRedis() (*Redis, error) {
	server := miniredis.NewMiniRedis()
	// Else keys never expire by themselves.
	server.ClockTTL(true)
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("start the in-process redis: %w", err)
	}
	return &Redis{server: server}, nil
}

// Addr is the host:port it listens on.
func (r *Redis) Addr() string { return r.server.Addr() }

// URL is the address as a redis:// URL, database 0.
func (r *Redis) URL() string { return "redis://" + r.server.Addr() }

// Close drops everything and every connection.
func (r *Redis) Close() { r.server.Close() }
