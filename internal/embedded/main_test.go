package embedded

import (
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// helperVariable turns the test binary into another program that owns a server in the directory it
// names, so that tests can kill it.
const helperVariable = "EMBEDDED_TEST_HELPER"

// bundleVariable tells it of the bundle, as it does not run in the repository.
const bundleVariable = "EMBEDDED_TEST_BUNDLE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperVariable); dir != "" {
		os.Exit(ownServer(dir))
	}
	goleak.VerifyTestMain(m)
}

// ownServer starts a server, prints its process id and stops it when its input ends.
func ownServer(dir string) int {
	var pid int
	var stop func(context.Context) error
	if os.Getenv(helperVariable+"_REDIS") != "" {
		r, err := StartRedisServer(context.Background(), RedisServerOptions{Socket: dir + "/s"})
		if err != nil {
			fmt.Println("error:", err)
			return 1
		}
		pid, stop = r.PID(), r.Stop
	} else {
		p, err := StartPostgres(context.Background(), PostgresOptions{Dir: dir, BundleDirs: []string{os.Getenv(bundleVariable)}})
		if err != nil {
			fmt.Println("error:", err)
			return 1
		}
		pid, stop = p.PID(), p.Stop
	}
	fmt.Println("pid:", pid)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := stop(context.Background()); err != nil {
		fmt.Println("error:", err)
		return 1
	}
	return 0
}
