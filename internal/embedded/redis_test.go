package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func client(t *testing.T, url string) *redis.Client {
	t.Helper()
	options, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	options.MaxRetries = -1
	c := redis.NewClient(options)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func startServer(t *testing.T, o RedisServerOptions) *RedisServer {
	t.Helper()
	r, err := StartRedisServer(t.Context(), o)
	if errors.Is(err, ErrNoRedis) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestInProcessRedisExpiresKeys(t *testing.T) {
	t.Parallel()
	r, err := StartRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if r.URL() != "redis://"+r.Addr() || !strings.HasPrefix(r.Addr(), "127.0.0.1:") {
		t.Fatalf("at %s, %s", r.Addr(), r.URL())
	}
	c := client(t, r.URL())
	if err := c.Set(t.Context(), "short", 1, 20*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(t.Context(), "long", 1, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	await(t, "the key to expire", func() bool { return c.Exists(t.Context(), "short").Val() == 0 })
	if c.Exists(t.Context(), "long").Val() != 1 {
		t.Fatal("the other key is gone too")
	}
	r.Close()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Fatal("answers after Close")
	}
}

func TestRedisServerOnPortAndSocket(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(workDir(t), "s")
	for name, o := range map[string]RedisServerOptions{
		"port":   {Listen: "127.0.0.1:0"},
		"socket": {Socket: socket},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.Settings = map[string]string{"maxmemory": "64mb"}
			r := startServer(t, o)
			c := client(t, r.URL(RedisDatabases-1))
			for setting, want := range map[string]string{
				"maxmemory-policy": "noeviction", "save": "", "appendonly": "no", "databases": "1024", "maxmemory": "67108864",
			} {
				if got := c.ConfigGet(t.Context(), setting).Val()[setting]; got != want {
					t.Errorf("%s is %q, want %q", setting, got, want)
				}
			}
			if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			if n := client(t, r.URL(0)).DBSize(t.Context()).Val(); n != 0 {
				t.Errorf("database 0 holds %d keys of another", n)
			}
			if err := client(t, r.URL(RedisDatabases)).Ping(t.Context()).Err(); err == nil {
				t.Error("there is one database too many")
			}
			if !processExists(r.PID()) {
				t.Error("PID names no process")
			}
			if err := r.Stop(t.Context()); err != nil {
				t.Fatal(err)
			}
			awaitDone(t, r.Done())
			if processExists(r.PID()) {
				t.Error("runs after Stop")
			}
		})
	}
}

func TestKilledRedisServerStartsAgainEmpty(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(workDir(t), "s")
	r := startServer(t, RedisServerOptions{Socket: socket})
	if err := client(t, r.URL(0)).Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.Kill()
	awaitDone(t, r.Done())
	r = startServer(t, RedisServerOptions{Socket: socket})
	if n := client(t, r.URL(0)).DBSize(t.Context()).Val(); n != 0 {
		t.Fatalf("%d keys survived, want none", n)
	}
}

func TestRedisServerDiesWithItsOwner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has death signals")
	}
	owner, pid := anotherOwner(t, workDir(t), nil, helperVariable+"_REDIS=1")
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, "the server to go", func() bool {
		program, _, alive := inspect(pid)
		return !alive || program == ""
	})
}

func TestRedisServerRefusals(t *testing.T) {
	t.Parallel()
	taken := startServer(t, RedisServerOptions{Listen: "127.0.0.1:0"})
	long := "/tmp/" + strings.Repeat("s", socketPathLimit-len("/tmp/")+1)
	for name, test := range map[string]struct {
		o    RedisServerOptions
		want string
	}{
		"neither":         {RedisServerOptions{}, "either an address"},
		"both":            {RedisServerOptions{Listen: "127.0.0.1:0", Socket: "/tmp/s"}, "either an address"},
		"open address":    {RedisServerOptions{Listen: "0.0.0.0:0"}, "loopback"},
		"taken port":      {RedisServerOptions{Listen: taken.Addr()}, "Address already in use"},
		"long socket":     {RedisServerOptions{Socket: long}, "longer than 103 bytes"},
		"unknown setting": {RedisServerOptions{Listen: "127.0.0.1:0", Settings: map[string]string{"maxmemry": "1"}}, "maxmemry"},
		"no program":      {RedisServerOptions{Listen: "127.0.0.1:0", Bin: "/nonexistent/redis"}, "/nonexistent/redis"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := StartRedisServer(t.Context(), test.o)
			if err == nil {
				r.Kill()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
		})
	}
	fits := long[:socketPathLimit]
	t.Cleanup(func() { _ = os.Remove(fits) })
	r := startServer(t, RedisServerOptions{Socket: fits})
	if err := client(t, r.URL(0)).Ping(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

func TestFrozenRedisServerIsKilled(t *testing.T) {
	t.Parallel()
	r := startServer(t, RedisServerOptions{Listen: "127.0.0.1:0"})
	if err := syscall.Kill(r.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Stop(ctx); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("error %v", err)
	}
}
