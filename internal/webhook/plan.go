package webhook

import (
	"cmp"
	"time"
)

// Limits are what a tenant may use; zero is unsaid. What a plan leaves unsaid and a tenant, too, is not
// limited.
type Limits struct {
	DeliverRate    int   `json:"deliverRate,omitempty" gorm:"serializer:zeronull"`  // deliveries per second, over all applications
	DeliverBurst   int   `json:"deliverBurst,omitempty" gorm:"serializer:zeronull"` // at once after a pause, as of every rate; zero = as Rate says
	PublishRate    int   `json:"publishRate,omitempty" gorm:"serializer:zeronull"`  // messages per second that are accepted
	PublishBurst   int   `json:"publishBurst,omitempty" gorm:"serializer:zeronull"`
	KeyRate        int   `json:"keyRate,omitempty" gorm:"serializer:zeronull"` // the same for each of the tenant's API keys
	KeyBurst       int   `json:"keyBurst,omitempty" gorm:"serializer:zeronull"`
	MessagesPerDay int64 `json:"messagesPerDay,omitempty" gorm:"serializer:zeronull"` // of a day in UTC
	MaxEndpoints   int   `json:"maxEndpoints,omitempty" gorm:"serializer:zeronull"`   // over all applications
	MaxPayload     int   `json:"maxPayload,omitempty" gorm:"serializer:zeronull"`     // bytes of one message's payload
	Weight         int   `json:"weight,omitempty"`                                    // its share of what is free, against other tenants'; unsaid = 1
}

// Publish is the rate at which messages are accepted of all the tenant's keys together.
func (l Limits) Publish() Rate { return Rate{l.PublishRate, l.PublishBurst} }

// Key is the rate at which messages are accepted of one key.
func (l Limits) Key() Rate { return Rate{l.KeyRate, l.KeyBurst} }

// Over are the limits of a tenant that differs so from a plan: what it says itself, else what the plan
// says. A burst belongs to the rate beside it: with a rate of its own, a tenant has not the plan's burst.
func (l Limits) Over(plan Limits) Limits {
	rate := func(own, burst, planned, plannedBurst int) (int, int) {
		if own != 0 {
			return own, burst
		}
		return planned, cmp.Or(burst, plannedBurst)
	}
	var e Limits
	e.DeliverRate, e.DeliverBurst = rate(l.DeliverRate, l.DeliverBurst, plan.DeliverRate, plan.DeliverBurst)
	e.PublishRate, e.PublishBurst = rate(l.PublishRate, l.PublishBurst, plan.PublishRate, plan.PublishBurst)
	e.KeyRate, e.KeyBurst = rate(l.KeyRate, l.KeyBurst, plan.KeyRate, plan.KeyBurst)
	e.MessagesPerDay = cmp.Or(l.MessagesPerDay, plan.MessagesPerDay)
	e.MaxEndpoints = cmp.Or(l.MaxEndpoints, plan.MaxEndpoints)
	e.MaxPayload = cmp.Or(l.MaxPayload, plan.MaxPayload)
	e.Weight = cmp.Or(l.Weight, plan.Weight, 1)
	return e
}

// Plan is a named set of limits that the operator gives to tenants.
type Plan struct {
	Name      string `gorm:"primaryKey"`
	Limits    Limits `gorm:"serializer:json"`
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Usage is how much a tenant uses of what is limited by number.
type Usage struct {
	MessagesToday int64 // accepted since midnight in UTC
	Endpoints     int
}

// Day is when the day in UTC that a time is in begins, and when it ends.
func Day(t time.Time) (begin, end time.Time) {
	begin = t.UTC().Truncate(24 * time.Hour)
	return begin, begin.Add(24 * time.Hour)
}
