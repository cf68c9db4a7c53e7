package chaos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthaste/posthaste/cmd/lab/ledger"
	"github.com/posthaste/posthaste/cmd/lab/rig"
	"github.com/posthaste/posthaste/internal/webhook"
)

// The guests of the fault, by their place in the list.
const (
	poisonPanicBefore = iota
	poisonPanicAfter
	poisonSecret
	poisonHeaders
	poisonDeleted
)

// poisoned are receivers to which nothing can be delivered, for reasons inside the product; and one that
// is deleted while it refuses.
func poisoned() []*manner {
	refuses := func(conn net.Conn) {
		time.Sleep(refusalTakes) // so that some are under way whenever something happens
		say(conn, "HTTP/1.1 500 Planned\r\nConnection: close\r\nContent-Length: 7\r\n\r\nplanned")
	}
	// Some messages of every guest expire.
	internal := []webhook.ErrorClass{webhook.ClassInternal, webhook.ClassExpired}
	secret := []webhook.ErrorClass{webhook.ClassSecret, webhook.ClassExpired}
	return []*manner{
		poisonPanicBefore: {name: "panic before the request", hidden: true, classes: internal},
		poisonPanicAfter:  {name: "panic after the request", status: 500, answer: refuses, classes: internal},
		poisonSecret:      {name: "sealed secret spoilt", hidden: true, classes: secret},
		poisonHeaders:     {name: "sealed headers spoilt", hidden: true, classes: secret},
		// What waits when it is deleted, because it refused so much before, is never sent.
		poisonDeleted: {name: "refused until deleted", hidden: true, status: 500, answer: refuses,
			classes: []webhook.ErrorClass{webhook.ClassServerError, webhook.ClassCanceled, webhook.ClassExpired}},
	}
}

// poisonRule makes workers panic at two of the guests.
func poisonRule() string {
	rule := func(point string, guest int) string {
		return fmt.Sprintf("%s=panic:of=%s%d", point, endpointPath, tenants*endpointsPerTenant+guest)
	}
	return rule("worker.before_send", poisonPanicBefore) + ";" + rule("worker.after_send", poisonPanicAfter)
}

const (
	// refusalTakes is how long a guest that refuses takes for it.
	refusalTakes = 300 * time.Millisecond
	// poisonRetries are the waits of the fault's schedule: long enough to delete or expire something
	// between two attempts.
	poisonRetries = "2s,2s"
	// expireLast is how many of the last messages expire before they have ended.
	expireLast = 20
)

// poison posts messages of which each delivery is spoilt in its own way, some while it waits.
func poison(ctx context.Context, s *stage) error {
	conn, err := s.rig.Connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	restore, err := s.spoil(ctx, conn)
	if err != nil {
		return err
	}
	err = s.whileGuests(ctx, func() error {
		// The last ones have been refused once and wait for the next attempt.
		if err := rig.Pause(ctx, 2*refusalTakes); err != nil {
			return err
		}
		if err := s.expire(ctx, conn); err != nil {
			return err
		}
		from := s.guests.senders[0]
		api := rig.NewAPI(s.apis[0].Address, from.key)
		defer api.Close()
		return api.DeleteEndpoint(from.application, from.ids[poisonDeleted])
	})
	return errors.Join(err, restore())
}

// spoil overwrites what is sealed of two guests; restore puts it back.
func (s *stage) spoil(ctx context.Context, conn *pgx.Conn) (restore func() error, err error) {
	var secret, headers []byte
	var ids [2][16]byte
	for i, guest := range []int{poisonSecret, poisonHeaders} {
		id, err := webhook.ParseID[webhook.EndpointID](s.guests.senders[0].ids[guest])
		if err != nil {
			return nil, fmt.Errorf("read an endpoint's id: %w", err)
		}
		ids[i] = id
	}
	if err := conn.QueryRow(ctx, "SELECT sealed FROM endpoint_secret WHERE endpoint_id = $1", ids[0]).Scan(&secret); err != nil {
		return nil, fmt.Errorf("read a sealed secret: %w", err)
	}
	set := func(secret, headers []byte) error {
		_, errSecret := conn.Exec(ctx, "UPDATE endpoint_secret SET sealed = $2 WHERE endpoint_id = $1", ids[0], secret)
		_, errHeaders := conn.Exec(ctx, "UPDATE endpoint SET headers = $2 WHERE id = $1", ids[1], headers)
		if err := errors.Join(errSecret, errHeaders); err != nil {
			return fmt.Errorf("change what is sealed: %w", err)
		}
		return nil
	}
	return func() error { return set(secret, headers) }, set([]byte("spoilt"), []byte("spoilt"))
}

// expire ends the life of the last messages' payloads.
func (s *stage) expire(ctx context.Context, conn *pgx.Conn) error {
	messages, _ := s.guests.snapshot()
	var ids [][16]byte
	for _, m := range messages {
		if m.Outcome != ledger.Accepted || m.Seq < guestFirst+s.fault.invitation.messages-expireLast {
			continue
		}
		id, err := webhook.ParseID[webhook.MessageID](m.IDs[0])
		if err != nil {
			return fmt.Errorf("read a message's id: %w", err)
		}
		ids = append(ids, id)
	}
	if _, err := conn.Exec(ctx, "UPDATE message SET expires_at = now() WHERE id = ANY ($1)", ids); err != nil {
		return fmt.Errorf("expire messages: %w", err)
	}
	return nil
}

// judgePoison looks, besides what every guest is judged by, at how often it was tried in vain.
func judgePoison(s *stage, run ledger.Run) {
	judgeGuests(s, run)
	most := strings.Count(poisonRetries, ",") + 2
	rows := make(map[ledger.Pair]int)
	for _, row := range run.Rows {
		switch webhook.ErrorClass(row.Class) {
		case webhook.ClassCanceled, webhook.ClassExpired: // an end without an attempt
		default:
			rows[row.Pair]++
		}
	}
	for pair, n := range rows {
		if n > most {
			s.found(ledger.Class, "%s was tried %d times at endpoint %d; at most %d are allowed", pair.Message, n, pair.Endpoint, most)
		}
	}
}
