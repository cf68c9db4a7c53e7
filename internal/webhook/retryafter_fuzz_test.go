package webhook

import (
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzRetryAfter: whatever a receiver writes, the wait is within its bounds, and is what the header says
// when it is read the slow way.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{
		"", "0", "-0", "+5", "120", "00120", "604800", "604801", "18446744073709551617", "1.5", "1e9", "٣", " 5", "5 ", "5, 6", "0x10",
		"Mon, 23 Nov 2026 12:00:07 GMT", "Monday, 23-Nov-26 12:00:07 GMT", "Mon Nov 23 12:00:07 2026", "Fri, 31 Dec 9999 23:59:59 GMT", "never", "\xff",
	} {
		f.Add(seed)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		got := RetryAfter(text, now)
		if got < 0 || got > maxRetryAfter {
			t.Fatalf("%q: %v", text, got)
		}
		var want time.Duration
		trimmed := strings.TrimSpace(text)
		if seconds, ok := new(big.Int).SetString(trimmed, 10); ok && strings.Trim(trimmed, "0123456789") == "" {
			want = maxRetryAfter
			if seconds.Cmp(big.NewInt(int64(maxRetryAfter/time.Second))) < 0 {
				want = time.Duration(seconds.Int64()) * time.Second
			}
		} else if at, err := http.ParseTime(trimmed); err == nil && at.After(now) {
			want = min(at.Sub(now), maxRetryAfter)
		}
		if got != want {
			t.Fatalf("%q: %v, want %v", text, got, want)
		}
	})
}
