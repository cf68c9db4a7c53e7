package posthaste_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/posthaste/posthaste/sdk/go"
)

// A client is made once and shared.
func ExampleNew() {
	client, err := posthaste.New(os.Getenv("POSTHASTE_API_KEY"),
		posthaste.WithURL("https://webhooks.example.com"),
		posthaste.WithUserAgent("billing/1.4"),
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(client)
}

// The first message: a customer, where it is to go, and what is to be said.
func Example() {
	ctx := context.Background()
	client, err := posthaste.New(os.Getenv("POSTHASTE_API_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Applications.Create(ctx,
		posthaste.ApplicationIn{Name: "Acme GmbH", UID: "customer-42"},
		posthaste.ApplicationCreateOptions{GetIfExists: true})
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Endpoints.Update(ctx, "customer-42", "main", posthaste.EndpointUpdate{URL: "https://acme.example/hooks"})
	if err != nil {
		log.Fatal(err)
	}
	message, err := client.Messages.Create(ctx, "customer-42", posthaste.MessageIn{
		EventType: "invoice.paid",
		EventID:   "in_1043-paid",
		Payload:   map[string]any{"type": "invoice.paid", "id": "in_1043", "amount": 4900},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(message.ID)
}

// A receiver of webhooks.
func ExampleWebhook_Read() {
	webhook, err := posthaste.NewWebhook(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /hooks", func(w http.ResponseWriter, r *http.Request) {
		delivery, err := webhook.Read(r)
		if err != nil {
			http.Error(w, "not a delivery", http.StatusBadRequest)
			return
		}
		var event struct {
			Type string
			ID   string
		}
		if err := json.Unmarshal(delivery.Body, &event); err != nil {
			http.Error(w, "not an event", http.StatusBadRequest)
			return
		}
		// A delivery may come twice, and has the same ID then: remember it with what you do.
		log.Print(delivery.ID, event.Type, event.ID)
		w.WriteHeader(http.StatusNoContent)
	})
}

// Frameworks that have read the body already.
func ExampleWebhook_Verify() {
	webhook, err := posthaste.NewWebhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		log.Fatal(err)
	}
	header := http.Header{}
	body := []byte(`{"type":"invoice.paid"}`)
	if err := webhook.Sign(header, "msg_1", time.Now(), body); err != nil { // as a test of a receiver does
		log.Fatal(err)
	}
	fmt.Println(webhook.Verify(header, body))
	fmt.Println(webhook.Verify(header, []byte(`{"type":"invoice.lost"}`)))
	// Output:
	// <nil>
	// posthaste: no signature is by one of the secrets
}

// While a secret is replaced, both are good.
func ExampleNewWebhook() {
	webhook, err := posthaste.NewWebhook(os.Getenv("NEW_SECRET"), os.Getenv("OLD_SECRET"))
	if err != nil {
		log.Fatal(err)
	}
	webhook.Tolerance = time.Minute
}

// What failed in the last hour; pages are asked for as the loop reaches them.
func ExampleAttempts_ListByEndpoint() {
	client, err := posthaste.New(os.Getenv("POSTHASTE_API_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	failed := client.Attempts.ListByEndpoint(context.Background(), "customer-42", "main", posthaste.AttemptListByEndpointOptions{
		Status: posthaste.Set(posthaste.StatusFail),
		After:  time.Now().Add(-time.Hour),
	})
	for attempt, err := range failed {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(attempt.MsgID, attempt.Detail.ErrorClass)
	}
}

// Fields that are not named stay as they are.
func ExampleEndpoints_Patch() {
	client, err := posthaste.New(os.Getenv("POSTHASTE_API_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Endpoints.Patch(context.Background(), "customer-42", "main", posthaste.EndpointPatch{
		Disabled:   posthaste.Set(false),
		EventTypes: posthaste.Set([]string{"invoice.paid"}),
		Channels:   posthaste.Null[[]string](),
	})
	if err != nil {
		log.Fatal(err)
	}
}

// The same key makes the call safe to repeat for 12 hours, in another process too.
func ExampleMessages_Create_idempotencyKey() {
	client, err := posthaste.New(os.Getenv("POSTHASTE_API_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Messages.Create(context.Background(), "customer-42",
		posthaste.MessageIn{EventType: "invoice.paid", Payload: json.RawMessage(`{"id":"in_1043"}`)},
		posthaste.MessageCreateOptions{IdempotencyKey: "in_1043-paid"})
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleError() {
	client, err := posthaste.New(os.Getenv("POSTHASTE_API_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	_, err = client.Endpoints.Create(context.Background(), "customer-42", posthaste.EndpointIn{URL: "http://10.0.0.1/"})
	var refused *posthaste.Error
	switch {
	case errors.Is(err, posthaste.ErrNotFound):
		fmt.Println("there is no such customer")
	case errors.As(err, &refused):
		for _, field := range refused.Fields {
			fmt.Println(field.Loc, field.Msg)
		}
		fmt.Println("the server's log knows it as", refused.RequestID)
	case err != nil:
		fmt.Println("no answer:", err)
	}
}
