package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthaste/posthaste/internal/signature"
)

// secretVariable holds what the receiver verifies with, where it should not be on the command line.
const secretVariable = "WEBHOOK_SECRET"

// maxDelay is the longest that listen waits with an answer.
const maxDelay = time.Hour

func listenCommand(s streams) *cobra.Command {
	var o listenOptions
	cmd := &cobra.Command{
		Use:   "listen",
		Short: "Receive webhooks, verify them and print a line for each",
		Long: `Receive webhooks on an address of this machine, verify their signatures and print a line for each:
time, verdict, the payload's type, message id, size, and the time since the message was accepted.

The secret is an endpoint's: GET /api/v1/app/{app}/endpoint/{endpoint}/secret. During a rotation give
both, the flag may be repeated. A request whose signature is wrong is answered with 401.`,
		Example: `  posthaste listen --secret whsec_…
  WEBHOOK_SECRET=whsec_… posthaste listen --addr 127.0.0.1:9000
  posthaste listen --status 500                    # watch retries
  posthaste listen --fail-rate 0.2 --delay 300ms   # a receiver as they are`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.receiver(s)
			if err != nil {
				return err
			}
			listener, err := listenOn(o.addr, "--addr")
			if err != nil {
				return err
			}
			how := "without verifying: give --secret to check signatures"
			if len(r.keys) > 0 {
				how = "verifying signatures"
			}
			fmt.Fprintf(r.print.out, "Listening on http://%s, %s. Ctrl-C stops.\n", listener.Addr(), how)
			return serveHTTP(cmd.Context(), listener, r)
		},
	}
	cmd.Flags().StringVar(&o.addr, "addr", "127.0.0.1:8072", "host:port to listen on")
	cmd.Flags().StringArrayVar(&o.secrets, "secret", nil, "what to verify with: whsec_…, or whpk_… for Ed25519; may be repeated ($"+secretVariable+")")
	cmd.Flags().IntVar(&o.status, "status", 200, "status to answer with, 200 to 599")
	cmd.Flags().Float64Var(&o.failRate, "fail-rate", 0, "share of requests to answer with 500 instead, 0 to 1")
	cmd.Flags().DurationVar(&o.delay, "delay", 0, "how long to wait before answering, up to "+maxDelay.String())
	return cmd
}

type listenOptions struct {
	addr     string
	secrets  []string
	status   int
	failRate float64
	delay    time.Duration
}

// receiver checks the options and makes the receiver they describe.
func (o listenOptions) receiver(s streams) (*receiver, error) {
	secrets, from := o.secrets, "--secret"
	if len(secrets) == 0 {
		from = secretVariable
		for _, line := range s.environ {
			if text, ok := strings.CutPrefix(line, secretVariable+"="); ok && text != "" {
				secrets = strings.Fields(text)
			}
		}
	}
	var keys []signature.Verifier
	for _, text := range secrets {
		key, err := signature.ParseVerifier(text)
		if err != nil {
			return nil, usagef("%s: %v", from, err)
		}
		keys = append(keys, key)
	}
	switch {
	case o.status < 200 || o.status > 599:
		return nil, usagef("--status must be 200 to 599, not %d", o.status)
	case !(o.failRate >= 0 && o.failRate <= 1):
		return nil, usagef("--fail-rate must be 0 to 1, not %v", o.failRate)
	case o.delay < 0 || o.delay > maxDelay:
		return nil, usagef("--delay must be 0s to %s, not %s", maxDelay, o.delay)
	}
	r := newReceiver(&printer{&lockedWriter{out: s.out}, colourful(s.out, s.environ)}, keys...)
	r.status, r.failRate, r.delay = o.status, o.failRate, o.delay
	return r, nil
}
