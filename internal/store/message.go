package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// MessageFilter narrows a list of messages; zero fields do not.
type MessageFilter struct {
	Channel, Tag  string
	EventTypes    []string
	Before, After time.Time // of the message, exclusive; a list spans at most 90 days
	WithContent   bool      // read the payloads
}

// maxPageBytes is where a page of messages with their payloads ends early: 250 payloads of 1 MiB
// would be too much to hold for one request.
const maxPageBytes = 16 << 20

var messageIDAt func(time.Time) webhook.MessageID = webhook.IDAt

// A payload past its time is not shown, even before retention has come by to remove it.
const (
	messageColumns        = `m.id, m.event_type, m.event_id, m.channels, m.tags, m.expires_at, m.content_type, m.deliver_at`
	messagePayload        = `CASE WHEN m.expires_at > now() THEN m.payload END`
	messageWithoutPayload = `NULL::bytea`
)

// Message is the message of an application that ref, its id or its event id, names. Its payload is
// nil once it has expired or was expunged.
func (v View) Message(ctx context.Context, appRef, ref string) (webhook.Message, error) {
	q := v.db.WithContext(ctx)
	app, id, err := v.messageID(q, appRef, ref)
	if err != nil {
		return webhook.Message{}, failure("read message", err)
	}
	rows, err := q.Raw(`SELECT `+messageColumns+`, `+messagePayload+` FROM message m
		WHERE m.tenant_id = ? AND m.app_id = ? AND m.id = ?`, v.scope.Tenant, app, id).Rows()
	if err != nil {
		return webhook.Message{}, failure("read message", err)
	}
	found, _, err := v.scanMessages(rows, app, 1)
	if err != nil {
		return webhook.Message{}, failure("read message", err)
	}
	if len(found) == 0 {
		return webhook.Message{}, webhook.ErrNotFound
	}
	return found[0], nil
}

// messageID resolves a message's ref without touching the messages. An id is believed: whether there
// is such a message, the query that it is for finds out.
func (v View) messageID(q *gorm.DB, appRef, ref string) (app webhook.ApplicationID, id webhook.MessageID, err error) {
	if app, err = v.applicationID(q, appRef); err != nil {
		return app, id, err
	}
	if id, err = webhook.ParseID[webhook.MessageID](ref); err == nil {
		return app, id, nil
	}
	if !storable(ref) {
		return app, id, webhook.ErrNotFound
	}
	err = q.Raw(`SELECT message_id FROM event_id WHERE tenant_id = ? AND app_id = ? AND event_id = ?`,
		v.scope.Tenant, app, ref).Row().Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = webhook.ErrNotFound
	}
	return app, id, err
}

// Messages lists an application's messages, newest first. A page with payloads ends early, and is not
// Done, once they exceed 16 MiB.
func (v View) Messages(ctx context.Context, appRef string, f MessageFilter, p Page) (List[webhook.Message], error) {
	text, backwards := p.position()
	var cursor webhook.MessageID
	if text != "" {
		var err error
		if cursor, err = webhook.ParseID[webhook.MessageID](text); err != nil {
			return List[webhook.Message]{}, badIterator()
		}
	}
	q := v.db.WithContext(ctx)
	app, err := v.applicationID(q, appRef)
	if err != nil {
		return List[webhook.Message]{}, failure("list messages", err)
	}
	w := windowOf(f.Before, f.After, timeOf(cursor), backwards, v.store.now())
	stmt := newSelect(messageColumns, payloadIf(f.WithContent), `message m`)
	stmt.where("m.tenant_id = ? AND m.app_id = ?", v.scope.Tenant, app)
	stmt.within("m.id", messageIDAt(w.from), messageIDAt(w.to))
	if !cursor.IsZero() {
		stmt.beyond("m.id", cursor, backwards)
	}
	stmt.wherePublished(f.Channel, f.Tag, f.EventTypes)
	rows, err := stmt.rows(q, "m.id", w.ascending, p.limit()+1)
	if err != nil {
		return List[webhook.Message]{}, failure("list messages", err)
	}
	found, more, err := v.scanMessages(rows, app, p.limit())
	if err != nil {
		return List[webhook.Message]{}, failure("list messages", err)
	}
	l := cut(found, p.limit(), w.ascending)
	l.Done = !more
	return l, nil
}

func payloadIf(wanted bool) string {
	if wanted {
		return messagePayload
	}
	return messageWithoutPayload
}

// timeOf is an id's time; zero for none.
func timeOf[I interface {
	IsZero() bool
	Time() time.Time
}](id I) time.Time {
	if id.IsZero() {
		return time.Time{}
	}
	return id.Time()
}

// scanMessages reads at most limit messages, and says whether there are more.
func (v View) scanMessages(rows *sql.Rows, app webhook.ApplicationID, limit int) (found []webhook.Message, more bool, err error) {
	defer func() { _ = rows.Close() }()
	types := pgtype.NewMap()
	for bytes := 0; rows.Next(); {
		if len(found) == limit || bytes > maxPageBytes {
			return found, true, nil
		}
		m := webhook.Message{TenantID: v.scope.Tenant, ApplicationID: app}
		var eventID, contentType sql.NullString
		var deliverAt sql.NullTime
		err := rows.Scan(&m.ID, &m.EventType, &eventID, types.SQLScanner(&m.Channels), types.SQLScanner(&m.Tags), &m.ExpiresAt, &contentType, &deliverAt, &m.Payload)
		if err != nil {
			return nil, false, fmt.Errorf("scan message: %w", err)
		}
		m.EventID, m.ContentType, m.DeliverAt = eventID.String, contentType.String, deliverAt.Time
		bytes += len(m.Payload)
		found = append(found, m)
	}
	return found, false, rows.Err()
}

// selection is a SELECT put together from conditions, for the lists that may be filtered.
type selection struct {
	text strings.Builder
	args []any
	and  string
}

func newSelect(columns, more, from string) *selection {
	s := &selection{and: " WHERE "}
	s.text.WriteString("SELECT " + columns + ", " + more + " FROM " + from)
	return s
}

func (s *selection) where(condition string, args ...any) {
	s.text.WriteString(s.and + condition)
	s.and = " AND "
	s.args = append(s.args, args...)
}

// within bounds the ids, and with them the partitions, from ≤ id < to.
func (s *selection) within(column string, from, to any) {
	s.where(column+" >= ? AND "+column+" < ?", from, to)
}

// beyond goes on from a cursor in a list that is newest first.
func (s *selection) beyond(column string, cursor any, backwards bool) {
	if backwards {
		s.where(column+" > ?", cursor)
	} else {
		s.where(column+" < ?", cursor)
	}
}

// wherePublished narrows to messages (m) by what they were published with.
func (s *selection) wherePublished(channel, tag string, eventTypes []string) {
	if channel != "" {
		s.where("?::text = ANY (m.channels)", channel)
	}
	if tag != "" {
		s.where("?::text = ANY (m.tags)", tag)
	}
	if len(eventTypes) > 0 {
		s.where("m.event_type IN ?", eventTypes)
	}
}

// rows runs it through gorm, where tests watch for a missing tenant.
func (s *selection) rows(q *gorm.DB, order string, ascending bool, limit int) (*sql.Rows, error) {
	if !ascending {
		order += " DESC"
	}
	return q.Raw(s.text.String()+" ORDER BY "+order+" LIMIT ?", append(s.args, limit)...).Rows()
}
