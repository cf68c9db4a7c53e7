package store_test

import (
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/store"
	"github.com/posthaste/posthaste/internal/storetest"
	"github.com/posthaste/posthaste/internal/webhook"
)

// BenchmarkHotPath is what the database costs per delivery in batches as they come under load, one
// statement after the other.
func BenchmarkHotPath(b *testing.B) {
	s, _ := storetest.OpenURL(b)
	app := storetest.Application(b, s, storetest.Tenant(b, s).ID)
	storetest.Endpoint(b, s, app, "https://example.com/")
	const batch = 25
	payload := make([]byte, 500)
	var accept, jobs, record time.Duration
	for b.Loop() {
		in := make([]store.Accept, batch)
		for i := range in {
			in[i] = store.Accept{Application: app.ID.String(), Message: webhook.Message{
				TenantID: app.TenantID, ID: webhook.NewMessageID(), EventType: "e", Payload: payload, ExpiresAt: time.Now().Add(time.Hour),
			}}
		}
		start := time.Now()
		var deliveries []webhook.Delivery
		for _, a := range s.Accept(b.Context(), in, released) {
			if a.Err != nil {
				b.Fatal(a.Err)
			}
			deliveries = append(deliveries, a.Deliveries...)
		}
		accept += time.Since(start)

		start = time.Now()
		if _, err := s.Jobs(b.Context(), deliveries); err != nil {
			b.Fatal(err)
		}
		jobs += time.Since(start)

		results := make([]store.Recorded, batch)
		for i, d := range deliveries {
			results[i] = store.Recorded{Delivery: d, Outcome: over, Attempt: webhook.Attempt{
				TenantID: d.Tenant, ApplicationID: app.ID, MessageID: d.Message, EndpointID: d.Endpoint, ID: webhook.NewAttemptID(),
				Number: 1, Sent: true, HTTPStatus: 200, URL: "https://example.com/",
			}}
		}
		start = time.Now()
		if err := s.Record(b.Context(), results); err != nil {
			b.Fatal(err)
		}
		record += time.Since(start)
	}
	per := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N*batch) }
	b.ReportMetric(per(accept), "µs-accept/delivery")
	b.ReportMetric(per(jobs), "µs-jobs/delivery")
	b.ReportMetric(per(record), "µs-record/delivery")
}
