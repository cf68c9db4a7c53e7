package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// AttemptFilter narrows a list of attempts; zero fields do not.
type AttemptFilter struct {
	Status          *webhook.Status
	StatusCodeClass *int // 0 = no answer, 100, 200, … 500
	Channel, Tag    string
	EventTypes      []string
	EndpointRef     string    // of a list by message
	Before, After   time.Time // of the attempt's start, exclusive; a list spans at most 90 days
	WithContent     bool      // read the answers' bodies, and the messages' payloads
	WithMessages    bool      // read the messages
}

var attemptIDAt func(time.Time) webhook.AttemptID = webhook.IDAt

const (
	attemptColumns = `a.message_id, a.endpoint_id, a.id, a.trigger, a.number, a.sent, a.final, a.status, a.http_status,
		a.error_class, a.duration_ms, a.url, a.detail`
	attemptResponse        = `a.response`
	attemptWithoutResponse = `NULL::bytea`
)

// Attempt is one attempt of a message of an application, with the answer's body. The end of a delivery
// without a request is one too, with Sent false.
func (v View) Attempt(ctx context.Context, appRef, msgRef string, id webhook.AttemptID) (webhook.Attempt, error) {
	q := v.db.WithContext(ctx)
	app, msg, err := v.messageID(q, appRef, msgRef)
	if err != nil {
		return webhook.Attempt{}, failure("read attempt", err)
	}
	rows, err := q.Raw(`SELECT `+attemptColumns+`, `+attemptResponse+` FROM attempt a
		WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id = ?`, v.scope.Tenant, app, msg, id).Rows()
	if err != nil {
		return webhook.Attempt{}, failure("read attempt", err)
	}
	found, err := v.scanAttempts(rows, app)
	if err != nil {
		return webhook.Attempt{}, failure("read attempt", err)
	}
	if len(found) == 0 {
		return webhook.Attempt{}, webhook.ErrNotFound
	}
	return found[0], nil
}

// AttemptsByEndpoint lists an endpoint's attempts, newest first. A page with messages and their
// payloads ends early, and is not Done, once they exceed 16 MiB.
func (v View) AttemptsByEndpoint(ctx context.Context, appRef, endpointRef string, f AttemptFilter, p Page) (List[webhook.Attempt], error) {
	const doing = "list attempts by endpoint"
	q := v.db.WithContext(ctx)
	e, err := v.endpoint(q, appRef, endpointRef)
	if err != nil {
		return List[webhook.Attempt]{}, failure(doing, err)
	}
	return v.attempts(q, doing, e.ApplicationID, webhook.MessageID{}, f, p, func(s *selection) {
		s.where("a.tenant_id = ? AND a.app_id = ? AND a.endpoint_id = ?", e.TenantID, e.ApplicationID, e.ID)
	})
}

// AttemptsByMessage lists a message's attempts, newest first; pages end as in AttemptsByEndpoint.
func (v View) AttemptsByMessage(ctx context.Context, appRef, msgRef string, f AttemptFilter, p Page) (List[webhook.Attempt], error) {
	const doing = "list attempts by message"
	q := v.db.WithContext(ctx)
	app, msg, err := v.messageID(q, appRef, msgRef)
	if err != nil {
		return List[webhook.Attempt]{}, failure(doing, err)
	}
	var exists bool
	err = q.Raw(`SELECT EXISTS (SELECT FROM message WHERE tenant_id = ? AND app_id = ? AND id = ?)`,
		v.scope.Tenant, app, msg).Row().Scan(&exists)
	if err == nil && !exists {
		err = webhook.ErrNotFound
	}
	if err != nil {
		return List[webhook.Attempt]{}, failure(doing, err)
	}
	var endpoint webhook.Endpoint
	if f.EndpointRef != "" {
		if err := v.endpointCalled(q, app, f.EndpointRef).Select("id").Take(&endpoint).Error; err != nil {
			return List[webhook.Attempt]{}, failure(doing, err)
		}
	}
	return v.attempts(q, doing, app, msg, f, p, func(s *selection) {
		s.where("a.tenant_id = ? AND a.app_id = ? AND a.message_id = ?", v.scope.Tenant, app, msg)
		if f.EndpointRef != "" {
			s.where("a.endpoint_id = ?", endpoint.ID)
		}
	})
}

// attempts reads a page of the attempts that key selects; msg is the message they all belong to, zero
// if there are several.
func (v View) attempts(q *gorm.DB, doing string, app webhook.ApplicationID, msg webhook.MessageID, f AttemptFilter, p Page,
	key func(*selection),
) (List[webhook.Attempt], error) {
	text, backwards := p.position()
	var cursor webhook.AttemptID
	if text != "" {
		var err error
		if cursor, err = webhook.ParseID[webhook.AttemptID](text); err != nil {
			return List[webhook.Attempt]{}, badIterator()
		}
	}
	w := windowOf(f.Before, f.After, timeOf(cursor), backwards, v.store.now())
	if !msg.IsZero() {
		// Another process's clock may be behind that of the one that accepted the message.
		w.from = later(w.from, msg.Time().Add(-clockAhead))
	}
	columns, published := attemptWithoutResponse, f.Channel != "" || f.Tag != "" || len(f.EventTypes) > 0
	if f.WithContent {
		columns = attemptResponse
	}
	from := `attempt a`
	if published {
		from += ` JOIN message m ON m.tenant_id = a.tenant_id AND m.app_id = a.app_id AND m.id = a.message_id`
	}
	stmt := newSelect(attemptColumns, columns, from)
	key(stmt)
	stmt.within("a.id", attemptIDAt(w.from), attemptIDAt(w.to))
	if !cursor.IsZero() {
		stmt.beyond("a.id", cursor, backwards)
	}
	if published {
		if msg.IsZero() {
			// A message is accepted before its attempts, and attempted only while its payload is kept.
			stmt.within("m.id", messageIDAt(w.from.Add(-maxWindow-clockAhead)), messageIDAt(w.to.Add(clockAhead)))
		} else {
			stmt.where("m.id = ?", msg)
		}
		stmt.wherePublished(f.Channel, f.Tag, f.EventTypes)
	}
	if f.Status != nil {
		stmt.where("a.status = ?", int16(*f.Status))
	}
	if f.StatusCodeClass != nil {
		stmt.where("a.http_status BETWEEN ? AND ?", *f.StatusCodeClass, *f.StatusCodeClass+99)
	}
	rows, err := stmt.rows(q, "a.id", w.ascending, p.limit()+1)
	if err != nil {
		return List[webhook.Attempt]{}, failure(doing, err)
	}
	found, err := v.scanAttempts(rows, app)
	if err != nil {
		return List[webhook.Attempt]{}, failure(doing, err)
	}
	more := len(found) > p.limit()
	found = found[:min(len(found), p.limit())]
	if f.WithMessages {
		kept, err := v.attachMessages(q, app, found, f.WithContent)
		if err != nil {
			return List[webhook.Attempt]{}, failure(doing, err)
		}
		more = more || kept < len(found)
		found = found[:kept]
	}
	l := cut(found, p.limit(), w.ascending)
	l.Done = !more
	return l, nil
}

// attachMessages gives attempts their messages, all read in one go, and says how many attempts have
// been dealt with: with payloads a page ends where its bytes do.
func (v View) attachMessages(q *gorm.DB, app webhook.ApplicationID, attempts []webhook.Attempt, withContent bool) (kept int, err error) {
	at := make(map[webhook.MessageID]int, len(attempts))
	var ids []webhook.MessageID
	for _, a := range attempts {
		if !has(at, a.MessageID) {
			at[a.MessageID] = len(ids)
			ids = append(ids, a.MessageID)
		}
	}
	messages, read, err := v.messagesOf(q, app, ids, withContent)
	if err != nil {
		return 0, err
	}
	for i := range attempts {
		a := &attempts[i]
		if at[a.MessageID] >= read {
			return i, nil
		}
		if m, ok := messages[a.MessageID]; ok {
			a.Message = &m
		}
	}
	return len(attempts), nil
}

func (v View) scanAttempts(rows *sql.Rows, app webhook.ApplicationID) (found []webhook.Attempt, err error) {
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		a := webhook.Attempt{TenantID: v.scope.Tenant, ApplicationID: app}
		var milliseconds int64
		var detail []byte
		err := rows.Scan(&a.MessageID, &a.EndpointID, &a.ID, &a.Trigger, &a.Number, &a.Sent, &a.Final, &a.Status, &a.HTTPStatus,
			&a.Class, &milliseconds, &a.URL, &detail, &a.Response)
		if err != nil {
			return nil, fmt.Errorf("scan attempt: %w", err)
		}
		a.Duration = time.Duration(milliseconds) * time.Millisecond
		if len(detail) > 0 {
			if err := json.Unmarshal(detail, &a.Detail); err != nil {
				return nil, fmt.Errorf("decode attempt %s: %w", a.ID, err)
			}
		}
		found = append(found, a)
	}
	return found, rows.Err()
}
