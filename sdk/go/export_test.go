package posthaste

import (
	"context"
	"time"
)

// SetSleep makes a client's waits be noted instead of taken.
func SetSleep(c *Client, sleep func(context.Context, time.Duration) error) { c.c.sleep = sleep }

// SetNow gives a verifier another clock.
func SetNow(w *Webhook, now time.Time) { w.now = func() time.Time { return now } }

// Sleep is what a client waits with.
var Sleep = sleep

// Limits that tests are made from.
const (
	MaxSignatures = maxSignatures
	LongestAsked  = longestAsked
	LongestWait   = longestWait
)
