package storetest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/embedded"
)

const (
	// RedisVariable names the environment variable with the URL of a shared Redis, whose databases are
	// handed out one to a test.
	RedisVariable = "TEST_REDIS_URL"
	// counterKey, in database 0, is the number last handed out.
	counterKey = "storetest:last"
	// leasePrefix, in database 0, marks the databases in use.
	leasePrefix = "storetest:lease:"
	// leaseLimit gives back what a killed test process held; it is longer than any test runs.
	leaseLimit = time.Hour
)

// Redis is the URL of an empty Redis database that no other test uses: a whole Redis in memory, or
// one database of the shared real one when TEST_REDIS_URL is set.
//
// On the shared one, keys are isolated and nothing else is: pub/sub channels reach every database, and
// FLUSHALL empties every test's. Use FLUSHDB to play a loss.
func Redis(t testing.TB) string {
	t.Helper()
	shared := os.Getenv(RedisVariable)
	if shared == "" {
		server, err := embedded.StartRedis()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		return server.URL()
	}
	at, free, err := lease(t.Context(), shared)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanupLimit)
		defer cancel()
		if err := free(ctx); err != nil {
			t.Error(err)
		}
	})
	return at
}

// lease picks a database of the shared Redis, empties it, and gives its URL and how to give it back.
func lease(ctx context.Context, shared string) (at string, free func(context.Context) error, err error) {
	registry, err := openRedis(shared, 0)
	if err != nil {
		return "", nil, err
	}
	defer registry.Close()
	settings, err := registry.ConfigGet(ctx, "databases").Result()
	if err != nil {
		return "", nil, fmt.Errorf("ask redis how many databases it has: %w", err)
	}
	databases, err := strconv.Atoi(settings["databases"])
	if err != nil || databases < 2 {
		return "", nil, fmt.Errorf("redis has %q databases; tests need one each besides database 0", settings["databases"])
	}
	for range databases - 1 {
		turn, err := registry.Incr(ctx, counterKey).Result()
		if err != nil {
			return "", nil, fmt.Errorf("pick a redis database: %w", err)
		}
		number := 1 + int((turn-1)%int64(databases-1))
		err = registry.SetArgs(ctx, leaseKey(number), os.Getpid(), redis.SetArgs{Mode: "NX", TTL: leaseLimit}).Err()
		if errors.Is(err, redis.Nil) {
			continue // the counter came round to a test that still runs
		}
		if err != nil {
			return "", nil, fmt.Errorf("pick a redis database: %w", err)
		}
		if err := flush(ctx, shared, number); err != nil {
			return "", nil, err
		}
		return redisURL(shared, number), func(ctx context.Context) error { return giveBack(ctx, shared, number) }, nil
	}
	return "", nil, fmt.Errorf("all %d redis databases are in use by tests", databases-1)
}

func giveBack(ctx context.Context, shared string, number int) error {
	if err := flush(ctx, shared, number); err != nil {
		return err
	}
	registry, err := openRedis(shared, 0)
	if err != nil {
		return err
	}
	defer registry.Close()
	if err := registry.Del(ctx, leaseKey(number)).Err(); err != nil {
		return fmt.Errorf("give redis database %d back: %w", number, err)
	}
	return nil
}

func flush(ctx context.Context, shared string, number int) error {
	own, err := openRedis(shared, number)
	if err != nil {
		return err
	}
	defer own.Close()
	if err := own.FlushDB(ctx).Err(); err != nil {
		return fmt.Errorf("empty redis database %d: %w", number, err)
	}
	return nil
}

func leaseKey(number int) string { return leasePrefix + strconv.Itoa(number) }

func openRedis(shared string, number int) (*redis.Client, error) {
	options, err := redis.ParseURL(shared)
	if err != nil {
		// The parser's error may quote a password.
		return nil, fmt.Errorf("%s: must be a redis:// or unix:// URL", RedisVariable)
	}
	options.DB = number
	return redis.NewClient(options), nil
}

// redisURL is the URL of another database of the same server; shared has been parsed before.
func redisURL(shared string, number int) string {
	at, _ := url.Parse(shared)
	if at.Scheme == "unix" {
		query := at.Query()
		query.Set("db", strconv.Itoa(number))
		at.RawQuery = query.Encode()
	} else {
		at.Path = "/" + strconv.Itoa(number)
	}
	return at.String()
}
