// Package posthaste is the client of Posthaste, which delivers webhooks: it sends messages, manages who
// gets them, and verifies those that arrive.
//
//	client, err := posthaste.New(key, posthaste.WithURL("https://webhooks.example.com"))
//	message, err := client.Messages.Create(ctx, "customer-42", posthaste.MessageIn{
//		EventType: "invoice.paid",
//		Payload:   map[string]any{"id": "in_1043", "amount": 4900},
//	})
//
// # Names and values
//
// Wherever an argument names something, its id and a uid of your own are both good. What the API answers
// as null is the zero value here. In what is sent, the zero value leaves a field to the server; fields
// whose zero says something are Optional and take [Set]. Fields of a change (…Patch) are left as they are
// unless [Set], and those that are Nullable can be emptied with [Null].
//
// # Lists
//
// Every list is an iterator, which asks for the next page when it is reached:
//
//	for endpoint, err := range client.Endpoints.List(ctx, "customer-42") {
//		if err != nil {
//			return err
//		}
//		…
//	}
//
// # Failures
//
// What the API refuses is an [*Error]; errors.Is finds its kind, as in errors.Is(err, posthaste.ErrNotFound).
// A call that got no answer, a 5xx, or a 429 that says when to come back is repeated, unless that could do
// something twice. Calls that create have an idempotency key, which stays the same over the repeats. A
// Delete that is repeated after its answer was lost finds nothing any more, and says so: ErrNotFound.
package posthaste

//go:generate go run ./internal/gen -spec ../../api/openapi.json
