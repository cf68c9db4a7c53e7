package publish

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/posthaste/posthaste/internal/groupcommit"
	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// maxCounted is how many days of tenants one statement adds to, and maxCounting how many wait.
	maxCounted  = 256
	maxCounting = 8192
	// maxDays is how many days of tenants are remembered; beyond it those go that nothing is under way of.
	maxDays = 10_000
	// countTimeout bounds one statement that adds what was used.
	countTimeout = 5 * time.Second
)

// quotas keep tenants to their messages a day, without a write in the way of any message: what is
// accepted is added to the tenant's day afterwards, many at a time. One process alone never exceeds a
// quota. Several may by what the others accepted since a process last added something of its own, and a
// process that is killed forgets what it had not yet added: both are what a moment's traffic is.
type quotas struct {
	store  *store.Store
	log    *slog.Logger
	now    func() time.Time
	flight singleflight.Group
	group  *groupcommit.Group[*day]

	mu   sync.Mutex
	days map[webhook.TenantID]*day // the current one of each
}

// day is what a tenant has used of a day. Its fields are under the lock of quotas.
type day struct {
	tenant webhook.TenantID
	begin  time.Time
	total  int64 // as the database says
	open   int64 // not yet in the total: under way, or accepted
	owed   int64 // of those, accepted and yet to be added
}

func newQuotas(s *store.Store, log *slog.Logger) *quotas {
	q := &quotas{store: s, log: log, now: time.Now, days: make(map[webhook.TenantID]*day)}
	q.group = groupcommit.New(groupcommit.Options{
		BatchItems: maxCounted, BatchSize: maxCounted, WaitingItems: maxCounting, WaitingSize: maxCounting,
	}, q.add)
	return q
}

// reserve takes n messages out of a tenant's quota, KindRateLimited if there are not as many left today.
// The caller then says, once, how many of them were accepted; a quota of 0 is none.
func (q *quotas) reserve(ctx context.Context, tenant webhook.TenantID, quota int64, n int) (accepted func(int), err error) {
	if quota == 0 || n == 0 {
		return func(int) {}, nil
	}
	begin, end := webhook.Day(q.now())
	if err := q.load(ctx, tenant, begin); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.days[tenant]
	if d == nil || !d.begin.Equal(begin) { // forgotten since, for room; its day is read again by the next one
		return nil, webhook.Unavailable(nil, "The tenant's quota could not be read; try again")
	}
	if left := quota - d.total - d.open; int64(n) > left {
		return nil, webhook.TooMany(end.Sub(q.now()), "quota_exceeded",
			"The tenant's limit is %d messages a day, of which %d are left until midnight in UTC", quota, max(left, 0))
	}
	d.open += int64(n)
	return func(accepted int) { q.settle(d, n, accepted) }, nil
}

// load makes sure that the tenant's day is known.
func (q *quotas) load(ctx context.Context, tenant webhook.TenantID, begin time.Time) error {
	known := func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		d := q.days[tenant]
		return d != nil && d.begin.Equal(begin)
	}
	if known() {
		return nil
	}
	_, err, _ := q.flight.Do(string(tenant[:]), func() (any, error) {
		if known() {
			return nil, nil
		}
		// Not the caller's context: others wait for the same answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), countTimeout)
		defer cancel()
		total, err := q.store.MessagesOn(ctx, tenant, begin)
		if err != nil {
			return nil, err
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.days) >= maxDays {
			for t, d := range q.days {
				if d.open == 0 {
					delete(q.days, t)
				}
			}
		}
		q.days[tenant] = &day{tenant: tenant, begin: begin, total: total}
		return nil, nil
	})
	return err
}

func (q *quotas) settle(d *day, n, accepted int) {
	q.mu.Lock()
	d.open -= int64(n - accepted)
	d.owed += int64(accepted)
	q.mu.Unlock()
	if accepted > 0 {
		_ = q.group.Add(d, 1) // if too many wait, the day's next message sees to it
	}
}

// add adds what is owed of days to the database.
func (q *quotas) add(batch []*day) {
	var used []store.Used
	var days []*day
	q.mu.Lock()
	for _, d := range batch { // each as often as it had messages, of which the first finds them all
		if d.owed > 0 {
			used = append(used, store.Used{Tenant: d.tenant, Day: d.begin, Messages: d.owed})
			days = append(days, d)
			d.owed = 0
		}
	}
	q.mu.Unlock()
	if len(used) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), countTimeout)
	defer cancel()
	totals, err := q.store.AddUsage(ctx, used)
	if err != nil {
		q.log.Warn("messages of a quota are not yet counted", "tenants", len(used), "error", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, d := range days {
		if err != nil { // with the day's next message
			d.owed += used[i].Messages
			continue
		}
		d.total = max(d.total, totals[i])
		d.open -= used[i].Messages
	}
}
