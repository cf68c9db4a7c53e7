package app

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseDuration reads Go's durations and whole days ("90d").
func parseDuration(text string) (time.Duration, error) {
	if digits, ok := strings.CutSuffix(text, "d"); ok {
		days, err := strconv.ParseUint(digits, 10, 16)
		if err != nil {
			return 0, errRule
		}
		return time.Duration(days) * day, nil
	}
	return time.ParseDuration(text)
}

// showDuration writes a duration as one would: 3d rather than 72h0m0s.
func showDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

var byteUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"B", 1}}

// parseBytes reads a size: digits and one of B, KiB, MiB, GiB, TiB, as GOMEMLIMIT takes them.
func parseBytes(text string) (int64, error) {
	for _, unit := range byteUnits {
		digits, ok := strings.CutSuffix(text, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
			return 0, errRule
		}
		return n * unit.bytes, nil
	}
	return 0, errRule
}

func showBytes(n int64) string { return fmt.Sprintf("%dMiB", n>>20) }
