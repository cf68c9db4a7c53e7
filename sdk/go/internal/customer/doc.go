// Package customer uses the SDK as a program of a customer does, against a Posthaste that runs: every
// method of the client, through to a delivery that is verified.
//
//	POSTHASTE_TEST_URL=http://127.0.0.1:8071 POSTHASTE_TEST_OPERATOR_TOKEN=… go test ./internal/customer
//
// It makes a tenant of its own and removes it. The installation has to deliver to 127.0.0.1.
package customer
