package webhook

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLimitsOverAPlan(t *testing.T) {
	t.Parallel()
	plan := Limits{DeliverRate: 100, DeliverBurst: 50, PublishRate: 10, KeyRate: 5, KeyBurst: 5, MessagesPerDay: 1000, MaxEndpoints: 3, Weight: 4}
	for name, c := range map[string]struct{ own, plan, want Limits }{
		"nothing said":            {Limits{}, Limits{}, Limits{Weight: 1}},
		"only the plan":           {Limits{}, plan, plan},
		"only the tenant":         {Limits{MaxPayload: 9, Weight: 2}, Limits{}, Limits{MaxPayload: 9, Weight: 2}},
		"one limit of its own":    {Limits{MaxEndpoints: 7}, Limits{MaxEndpoints: 3, MaxPayload: 8}, Limits{MaxEndpoints: 7, MaxPayload: 8, Weight: 1}},
		"a rate drops the burst":  {Limits{DeliverRate: 7}, plan, Limits{DeliverRate: 7, PublishRate: 10, KeyRate: 5, KeyBurst: 5, MessagesPerDay: 1000, MaxEndpoints: 3, Weight: 4}},
		"a burst keeps the rate":  {Limits{KeyBurst: 9}, Limits{KeyRate: 5, KeyBurst: 5}, Limits{KeyRate: 5, KeyBurst: 9, Weight: 1}},
		"a day's messages differ": {Limits{MessagesPerDay: 1}, Limits{MessagesPerDay: 2}, Limits{MessagesPerDay: 1, Weight: 1}},
	} {
		if got := c.own.Over(c.plan); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestDay(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	east := time.FixedZone("east", 5*3600)
	for _, at := range []time.Time{midnight, midnight.Add(24*time.Hour - 1), midnight.Add(time.Hour).In(east)} {
		if begin, end := Day(at); !begin.Equal(midnight) || !end.Equal(midnight.AddDate(0, 0, 1)) {
			t.Errorf("the day of %v is %v to %v", at, begin, end)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "at"), 0)
		if begin, end := Day(at); at.Before(begin) || !at.Before(end) || begin.UTC().Hour() != 0 {
			t.Errorf("the day of %v is %v to %v", at, begin, end)
		}
	})
}
