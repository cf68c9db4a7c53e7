package webhook

import (
	"strings"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"":                               0,
		"0":                              0,
		"120":                            2 * time.Minute,
		" 7 ":                            7 * time.Second,
		"604800":                         maxRetryAfter,
		"604801":                         maxRetryAfter,
		strings.Repeat("9", 400):         maxRetryAfter,
		"-5":                             0,
		"1.5":                            0,
		"1e300":                          0,
		"inf":                            0,
		"NaN":                            0,
		"soon":                           0,
		"٣":                              0,
		"Sun, 01 Mar 2026 12:05:00 GMT":  5 * time.Minute,
		"Sun, 01 Mar 2026 11:00:00 GMT":  0,
		"Fri, 31 Dec 9999 23:59:59 GMT":  maxRetryAfter,
		"Sunday, 01-Mar-26 12:05:00 GMT": 5 * time.Minute,
	} {
		if got := RetryAfter(text, now); got != want {
			t.Errorf("%.40q asks for %v, want %v", text, got, want)
		}
	}
}
