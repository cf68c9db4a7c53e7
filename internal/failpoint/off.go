//go:build !failpoint

package failpoint

import (
	"fmt"
	"os"
)

// Enabled reports whether this binary has failpoints.
const Enabled = false

// Hit does nothing in this binary.
func Hit(Point) {}

// HitOf does nothing in this binary.
func HitOf(Point, string) {}

// Error is nil in this binary.
func Error(Point) error { return nil }

// Configure refuses failpoints in a binary that has none, so that a test which asks for faults never
// passes because there were none.
func Configure() error {
	if os.Getenv(EnvPoints) != "" {
		return fmt.Errorf("%s is set, but this binary is built without failpoints (go build -tags failpoint)", EnvPoints)
	}
	return nil
}
