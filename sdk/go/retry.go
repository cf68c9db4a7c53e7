package posthaste

import (
	"context"
	"crypto/tls"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// How calls are repeated.
const (
	defaultRetries = 3
	firstWait      = 100 * time.Millisecond // doubled by every repeat
	longestWait    = 5 * time.Second        // between two tries, if the server does not say
	// longestAsked is up to which Retry-After is waited for; after a longer one the caller gets the error.
	longestAsked = 30 * time.Second
)

// again says whether a call that failed is to be tried once more, and how long after.
func again(r request, tries, retries int, err error) (wait time.Duration, ok bool) {
	if tries > retries {
		return 0, false
	}
	var refused *Error
	if !errors.As(err, &refused) {
		var certificate *tls.CertificateVerificationError
		var stays final
		// Nobody knows whether a request without an answer was carried out.
		return backoff(tries), r.safe() && !errors.As(err, &stays) && !errors.As(err, &certificate)
	}
	switch {
	case refused.Status == http.StatusTooManyRequests && refused.RetryAfter > 0: // nothing was done
	case refused.Status >= 500 && r.safe():
	default:
		return 0, false
	}
	if refused.RetryAfter > longestAsked {
		return 0, false
	}
	// Never earlier than asked, and not everybody at once.
	return max(backoff(tries), refused.RetryAfter+rand.N(firstWait)), true
}

// backoff is half to all of a wait that doubles.
func backoff(tries int) time.Duration {
	full := min(firstWait<<min(tries-1, 16), longestWait)
	return full/2 + rand.N(full/2+1)
}

// retryAfter is how long an answer asks to wait, in seconds or until a time.
func retryAfter(header http.Header, now time.Time) time.Duration {
	text := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// sleep waits, unless the caller's time is over first.
func sleep(ctx context.Context, d time.Duration) error {
	if until, ok := ctx.Deadline(); ok && time.Until(until) < d {
		return context.DeadlineExceeded // there is no use in waiting for it
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
