package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/posthaste/posthaste/internal/signature"
	"github.com/posthaste/posthaste/internal/webhook"
)

const (
	// maxShownType is how much of a payload's "type" a line has room for, in characters.
	maxShownType = 32
	// receiverStop is how long requests in progress are waited for when the receiver stops.
	receiverStop = time.Second
	// headerTime bounds how long a sender may take over its headers.
	headerTime = 10 * time.Second
)

// receiver is a webhook receiver for the eyes: it verifies what arrives and prints a line for each.
type receiver struct {
	keys     []signature.Verifier // none = nothing is verified
	status   int                  // the answer to what is verified, or needs not be
	failRate float64              // share of requests answered 500 instead, 0 to 1
	delay    time.Duration        // before the answer
	print    *printer
	now      func() time.Time
	random   func() float64   // in [0, 1)
	seen     func(receivedAt) // told of every request after its line; may be nil
}

// receivedAt is what a receiver knows of one request.
type receivedAt struct {
	time      time.Time
	id        string // webhook-id
	eventType string // the payload's own "type"; receivers are told no other
	size      int    // bytes of the body
	verified  bool
	problem   error // why it is not verified; nil if it is, or if there was no key to verify with
	answer    int   // status
}

func newReceiver(print *printer, keys ...signature.Verifier) *receiver {
	return &receiver{keys: keys, status: http.StatusOK, print: print, now: time.Now, random: rand.Float64}
}

// ServeHTTP takes one delivery.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "This is a webhook receiver: POST to it.", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, webhook.MaxBody))
	if err != nil {
		http.Error(w, "The body could not be read.", http.StatusRequestEntityTooLarge)
		return
	}
	d := receivedAt{time: r.now(), id: webhookID(req.Header), eventType: payloadType(body), size: len(body), answer: r.status}
	if len(r.keys) > 0 {
		d.problem = signature.Verify(r.keys, req.Header, body, d.time)
		d.verified = d.problem == nil
	}
	switch {
	case d.problem != nil:
		d.answer = http.StatusUnauthorized // as a receiver should
	case r.failRate > 0 && r.random() < r.failRate:
		d.answer = http.StatusInternalServerError
	}
	if r.delay > 0 {
		timer := time.NewTimer(r.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done(): // the sender gave up, or we stop
		}
	}
	// The line first: whoever waits for the answer finds it printed.
	r.print.line(d)
	if r.seen != nil {
		r.seen(d)
	}
	w.WriteHeader(d.answer)
}

func webhookID(h http.Header) string {
	if id := h.Get("webhook-id"); id != "" {
		return id
	}
	return h.Get("svix-id")
}

// payloadType is what most payloads call their own kind; "" if this one does not.
func payloadType(body []byte) string {
	var named struct {
		Type      any `json:"type"`
		EventType any `json:"eventType"`
		Event     any `json:"event"`
	}
	if json.Unmarshal(body, &named) != nil {
		return ""
	}
	for _, value := range []any{named.Type, named.EventType, named.Event} {
		if text, ok := value.(string); ok {
			return text
		}
	}
	return ""
}

// printer writes one line per delivery.
type printer struct {
	out    *lockedWriter
	colour bool
}

const (
	plain  = "\x1b[0m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	faint  = "\x1b[2m"
	bold   = "\x1b[1m"
)

func (p *printer) paint(colour, text string) string {
	if !p.colour || text == "" {
		return text
	}
	return colour + text + plain
}

// line prints what is known of a delivery: time, verdict, answer if it is not a success, kind, id,
// size, and the time since the message was accepted if its id tells.
func (p *printer) line(d receivedAt) {
	verdict := p.paint(yellow, "? unverified")
	switch {
	case d.verified:
		verdict = p.paint(green, "✓ verified  ")
	case d.problem != nil:
		verdict = p.paint(red, "✗ refused   ")
	}
	kind := printable(d.eventType, maxShownType)
	if kind == "" {
		kind = "–"
	}
	id := printable(d.id, 64)
	if id == "" {
		id = "(no webhook-id)"
	}
	parts := []string{p.paint(faint, d.time.Format("15:04:05.000")), verdict, fmt.Sprintf("%-16s", kind), id, fmt.Sprintf("%d B", d.size)}
	if since, ok := sinceAccepted(d); ok {
		parts = append(parts, showLatency(since))
	}
	if d.answer < 200 || d.answer > 299 {
		parts = append(parts, p.paint(yellow, fmt.Sprintf("answered %d", d.answer)))
	}
	if d.problem != nil {
		parts = append(parts, p.paint(red, d.problem.Error()))
	}
	fmt.Fprintln(p.out, strings.Join(parts, "  "))
}

// sinceAccepted is the age of the message, which its id tells to the millisecond. Another sender's id
// tells nothing.
func sinceAccepted(d receivedAt) (time.Duration, bool) {
	id, err := webhook.ParseID[webhook.MessageID](d.id)
	if err != nil {
		return 0, false
	}
	return max(d.time.Sub(id.Time()), 0), true
}

func showLatency(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// printable makes a stranger's text safe for a terminal, which obeys control characters, and no longer
// than most characters.
func printable(text string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range text {
		if n == most {
			b.WriteRune('…')
			break
		}
		if !unicode.IsGraphic(r) {
			r = '�'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}

// serveHTTP serves until ctx ends, then waits a moment for requests in progress.
func serveHTTP(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTime, BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	within, cancel := context.WithTimeout(context.WithoutCancel(ctx), receiverStop)
	defer cancel()
	if err := server.Shutdown(within); err != nil {
		server.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}
