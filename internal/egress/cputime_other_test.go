//go:build !unix

package egress

import "time"

// cpuTime is not known.
func cpuTime() time.Duration { return 0 }
