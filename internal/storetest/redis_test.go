package storetest

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/posthaste/posthaste/internal/embedded"
)

func client(t *testing.T, at string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(at)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sharedRedis starts a server of this test's own and shares it through the environment.
func sharedRedis(t *testing.T, o embedded.RedisServerOptions) {
	t.Helper()
	server, err := embedded.StartRedisServer(t.Context(), o)
	if errors.Is(err, embedded.ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Setenv(RedisVariable, server.URL(0))
}

func TestRedisInMemoryIsPerTest(t *testing.T) {
	t.Setenv(RedisVariable, "")
	one, two := client(t, Redis(t)), client(t, Redis(t))
	if err := one.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := two.DBSize(t.Context()).Val(); n != 0 {
		t.Fatalf("%d keys of another test", n)
	}
}

func TestSharedRedisHandsOutDatabases(t *testing.T) {
	for name, o := range map[string]embedded.RedisServerOptions{
		"port":   {Listen: "127.0.0.1:0"},
		"socket": {Socket: t.TempDir() + "/s"},
	} {
		t.Run(name, func(t *testing.T) {
			o.Settings = map[string]string{"databases": "3"}
			sharedRedis(t, o)
			seen := map[int]bool{}
			t.Run("two at once", func(t *testing.T) {
				for range 2 {
					at := Redis(t)
					c := client(t, at)
					number := c.Options().DB
					if number == 0 || seen[number] {
						t.Errorf("given database %d, after %v", number, seen)
					}
					seen[number] = true
					if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
						t.Fatal(err)
					}
				}
				if at, _, err := lease(t.Context(), os.Getenv(RedisVariable)); err == nil || !strings.Contains(err.Error(), "all 2 redis databases") {
					t.Errorf("a third was given %s, %v", at, err)
				}
			})
			if t.Failed() {
				return
			}
			t.Run("given back and empty", func(t *testing.T) {
				for range 2 {
					if n := client(t, Redis(t)).DBSize(t.Context()).Val(); n != 0 {
						t.Errorf("%d keys of an earlier test", n)
					}
				}
			})
		})
	}
}

// What a killed test leaves in a database is not the next one's.
func TestSharedRedisIsEmptiedFirst(t *testing.T) {
	sharedRedis(t, embedded.RedisServerOptions{Listen: "127.0.0.1:0", Settings: map[string]string{"databases": "2"}})
	left := client(t, redisURL(os.Getenv(RedisVariable), 1))
	if err := left.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := client(t, Redis(t)).DBSize(t.Context()).Val(); n != 0 {
		t.Fatalf("%d keys of a killed test", n)
	}
}

func TestBadRedisURLIsNotQuoted(t *testing.T) {
	for _, at := range []string{"http://:hunter2@h", "redis://:hunter2@h:x/1", "redis://:hunter2@h/one"} {
		if _, _, err := lease(t.Context(), at); err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), RedisVariable) {
			t.Errorf("%s: error %v", at, err)
		}
	}
}
