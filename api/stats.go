package api

import (
	"context"
	"net/http"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// maxStatsRange is how much time statistics may span, and statsSlack how much more, and how far into
// the future, they may reach: a caller's clock is not ours, and its "28 days ago" was a moment ago.
const (
	maxStatsRange = 28 * 24 * time.Hour
	statsSlack    = 5 * time.Minute
)

type endpointStatsOut struct {
	Success  int64 `json:"success"`
	Pending  int64 `json:"pending" doc:"Deliveries that wait for their first attempt, of messages accepted in that time; of more than 20,000, a part."`
	Sending  int64 `json:"sending" doc:"Deliveries that failed so far and will be attempted again, likewise."`
	Fail     int64 `json:"fail"`
	Canceled int64 `json:"canceled" doc:"Deliveries that ended because the endpoint was disabled or deleted."`
}

// statsRange is the time that statistics are wanted of: 28 days up to now unless said otherwise.
func statsRange(since, until, now time.Time) (from, to time.Time, err error) {
	refuse := func(detail string) (time.Time, time.Time, error) {
		return from, to, &webhook.Error{Kind: webhook.KindBadRequest, Code: "invalid_range", Detail: detail}
	}
	if until.IsZero() {
		until = now
	}
	if since.IsZero() {
		since = until.Add(-maxStatsRange)
	}
	switch {
	case until.After(now.Add(statsSlack)):
		return refuse("until must not be in the future")
	case since.After(until):
		return refuse("since must not be later than until")
	case until.Sub(since) > maxStatsRange+statsSlack:
		return refuse("since and until must not be more than 28 days apart")
	}
	return since, until, nil
}

func (s *server) endpointStats(ctx context.Context, who call, in struct {
	endpointPath
	Since time.Time `query:"since" doc:"From then on; 28 days before until, if it is not given."`
	Until time.Time `query:"until" doc:"Before then; now, if it is not given. At most 28 days after since."`
}) (int, endpointStatsOut, error) {
	since, until, err := statsRange(in.Since, in.Until, s.now())
	if err != nil {
		return 0, endpointStatsOut{}, err
	}
	c, err := who.view.CountAttempts(ctx, in.App, in.Endpoint, since, until)
	return http.StatusOK, endpointStatsOut{Success: c.Success, Pending: c.Pending, Sending: c.Sending, Fail: c.Fail, Canceled: c.Canceled}, err
}
