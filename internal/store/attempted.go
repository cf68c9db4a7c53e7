package store

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgtype"
	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// AttemptedMessage is a message and how it stands with the endpoint that was asked about.
type AttemptedMessage struct {
	webhook.Message
	webhook.Standing
}

// Destination is an endpoint, perhaps deleted since, and how the message that was asked about stands
// with it.
type Destination struct {
	webhook.Endpoint
	webhook.Standing
}

// AttemptedFilter narrows a list of attempted messages; zero fields do not.
type AttemptedFilter struct {
	MessageFilter
	Status *webhook.Status
}

// Limits of one page of attempted messages. The application's messages are looked at one batch after
// the other, each in the index, so that the cost of a page is bounded however few of them concern the
// endpoint: a page ends early, with its List.Reached, when maxLooked have been looked at.
const (
	lookBatch = 250
	maxLooked = 2000
)

// AttemptedMessages lists the messages that were ever owed to an endpoint, newest first. A page may
// end early, and then tells where in List.Reached.
func (v View) AttemptedMessages(ctx context.Context, appRef, endpointRef string, f AttemptedFilter, p Page) (List[AttemptedMessage], error) {
	fail := func(err error) (List[AttemptedMessage], error) {
		return List[AttemptedMessage]{}, failure("list attempted messages", err)
	}
	text, backwards := p.position()
	var cursor webhook.MessageID
	if text != "" {
		var err error
		if cursor, err = webhook.ParseID[webhook.MessageID](text); err != nil {
			return List[AttemptedMessage]{}, badIterator()
		}
	}
	q := v.db.WithContext(ctx)
	e, err := v.endpoint(q, appRef, endpointRef)
	if err != nil {
		return fail(err)
	}
	w := windowOf(f.Before, f.After, timeOf(cursor), backwards, v.store.now())
	found := make(map[webhook.MessageID]webhook.Standing)
	var ids []webhook.MessageID // in the direction walked
	reached, ended := cursor, false
	for looked := 0; len(ids) <= p.limit() && looked < maxLooked && !ended; looked += lookBatch {
		seen, wanted, err := v.candidates(q, e.ApplicationID, f.MessageFilter, w, reached)
		if err != nil {
			return fail(err)
		}
		standings, err := v.standings(q, e.ID, wanted)
		if err != nil {
			return fail(err)
		}
		for _, id := range wanted {
			if s, ok := standings[id]; ok && (f.Status == nil || s.Status == *f.Status) {
				found[id] = s
				ids = append(ids, id)
			}
		}
		if ended = len(seen) < lookBatch; !ended {
			reached = seen[len(seen)-1]
		}
	}
	l := List[AttemptedMessage]{Data: []AttemptedMessage{}, Done: ended && len(ids) <= p.limit()}
	ids = ids[:min(len(ids), p.limit())]
	messages, read, err := v.messagesOf(q, e.ApplicationID, ids, f.WithContent)
	if err != nil {
		return fail(err)
	}
	for _, id := range ids[:read] {
		if m, ok := messages[id]; ok {
			l.Data = append(l.Data, AttemptedMessage{m, found[id]})
		}
	}
	switch {
	case read < len(ids): // more than a page may hold
		l.Done = false
	case !l.Done && len(ids) < p.limit():
		l.Reached = reached.String()
		if w.ascending {
			l.Reached = "-" + l.Reached
		}
	}
	if w.ascending {
		slices.Reverse(l.Data)
	}
	return l, nil
}

// candidates are the next messages of an application beyond a cursor, in the direction walked: all
// that were looked at, and those of them that were published as the filter says.
func (v View) candidates(q *gorm.DB, app webhook.ApplicationID, f MessageFilter, w window, cursor webhook.MessageID,
) (seen, wanted []webhook.MessageID, err error) {
	published := &selection{}
	published.wherePublished(f.Channel, f.Tag, f.EventTypes)
	if len(published.args) == 0 {
		published.where("true")
	}
	stmt := newSelect("m.id", "COALESCE("+published.text.String()+", false)", "message m")
	stmt.args = published.args
	stmt.where("m.tenant_id = ? AND m.app_id = ?", v.scope.Tenant, app)
	stmt.within("m.id", messageIDAt(w.from), messageIDAt(w.to))
	if !cursor.IsZero() {
		stmt.beyond("m.id", cursor, w.ascending)
	}
	rows, err := stmt.rows(q, "m.id", w.ascending, lookBatch)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id webhook.MessageID
		var is bool
		if err := rows.Scan(&id, &is); err != nil {
			return nil, nil, fmt.Errorf("scan message: %w", err)
		}
		seen = append(seen, id)
		if is {
			wanted = append(wanted, id)
		}
	}
	return seen, wanted, rows.Err()
}

// standingsSQL looks each message up by its key, in what is owed and in what happened. The bounds on
// the attempts' ids let Postgres leave out the days before the oldest of the messages. The endpoint is
// compared behind a fence and the attempts are asked for in their order, as taskFactsSQL explains.
const standingsSQL = `
SELECT t.message_id, d.open, d.next, a.ids, a.statuses
FROM unnest(?::text::uuid[]) AS t(message_id)
CROSS JOIN LATERAL (
	SELECT count(*) > 0 AS open, min(d.due_at) FILTER (WHERE d.state = 2) AS next FROM delivery d
	WHERE d.tenant_id = ? AND d.message_id = t.message_id AND d.endpoint_id = ? OFFSET 0
) d
CROSS JOIN LATERAL (
	SELECT array_agg(a.id::text) AS ids, array_agg(a.status) AS statuses FROM (
		SELECT * FROM attempt a WHERE a.tenant_id = ? AND a.message_id = t.message_id AND a.id >= ? AND a.id < ? ORDER BY a.id OFFSET 0
	) a WHERE a.endpoint_id = ?
) a
WHERE d.open OR a.ids IS NOT NULL`

// standings says how messages stand with an endpoint; those that never concerned it are missing.
func (v View) standings(q *gorm.DB, endpoint webhook.EndpointID, messages []webhook.MessageID) (map[webhook.MessageID]webhook.Standing, error) {
	found := make(map[webhook.MessageID]webhook.Standing, len(messages))
	if len(messages) == 0 {
		return found, nil
	}
	from, to := v.attemptsOf(messages)
	rows, err := q.Raw(standingsSQL, uuids(messages), v.scope.Tenant, endpoint, v.scope.Tenant, from, to, endpoint).Rows()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	types := pgtype.NewMap()
	for rows.Next() {
		var (
			id       webhook.MessageID
			open     bool
			next     sql.NullTime
			ids      []string
			statuses []int16
		)
		if err := rows.Scan(&id, &open, &next, types.SQLScanner(&ids), types.SQLScanner(&statuses)); err != nil {
			return nil, fmt.Errorf("scan standing: %w", err)
		}
		attempts := make([]made, len(ids))
		for i := range ids {
			attempts[i] = made{ids[i], webhook.Status(statuses[i])}
		}
		found[id] = standing(open, next, attempts)
	}
	return found, rows.Err()
}

// made is one attempt, as far as it matters to what its message came to.
type made struct {
	id     string // in an order that is that of time
	status webhook.Status
}

func standing(open bool, next sql.NullTime, attempts []made) webhook.Standing {
	slices.SortFunc(attempts, func(a, b made) int { return strings.Compare(a.id, b.id) })
	ended := make([]webhook.Status, len(attempts))
	for i, a := range attempts {
		ended[i] = a.status
	}
	s := webhook.Standing{Status: webhook.StatusOf(open, ended)}
	if next.Valid {
		at := next.Time.UTC()
		s.NextAttempt = &at
	}
	return s
}

// attemptsOf bounds the ids of the attempts that some messages can have.
func (v View) attemptsOf(messages []webhook.MessageID) (from, to webhook.AttemptID) {
	oldest := slices.MinFunc(messages, func(a, b webhook.MessageID) int { return bytes.Compare(a[:], b[:]) })
	// Another process's clock may be behind that of the one that accepted the message.
	return attemptIDAt(oldest.Time().Add(-clockAhead)), attemptIDAt(v.store.now().Add(clockAhead))
}

// uuids writes ids as the text of an array, since gorm makes a list of a slice.
func uuids[I ~[16]byte](ids []I) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = pgtype.UUID{Bytes: id, Valid: true}.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// messagesOfSQL reads messages by their keys in the order asked for.
const messagesOfSQL = ` FROM unnest(?::text::uuid[]) WITH ORDINALITY AS t(message_id, ord)
CROSS JOIN LATERAL (
	SELECT * FROM message m WHERE m.tenant_id = ? AND m.app_id = ? AND m.id = t.message_id AND m.id BETWEEN ? AND ? OFFSET 0
) m ORDER BY t.ord`

// messagesOf reads an application's messages in one go; those there are not are missing. read is how
// many of the ids were dealt with: with payloads it ends where the page's bytes do.
func (v View) messagesOf(q *gorm.DB, app webhook.ApplicationID, ids []webhook.MessageID, withContent bool,
) (messages map[webhook.MessageID]webhook.Message, read int, err error) {
	messages = make(map[webhook.MessageID]webhook.Message, len(ids))
	if len(ids) == 0 {
		return messages, 0, nil
	}
	compare := func(a, b webhook.MessageID) int { return bytes.Compare(a[:], b[:]) }
	rows, err := q.Raw(`SELECT `+messageColumns+`, `+payloadIf(withContent)+messagesOfSQL,
		uuids(ids), v.scope.Tenant, app, slices.MinFunc(ids, compare), slices.MaxFunc(ids, compare)).Rows()
	if err != nil {
		return nil, 0, err
	}
	found, more, err := v.scanMessages(rows, app, len(ids))
	if err != nil {
		return nil, 0, err
	}
	for _, m := range found {
		messages[m.ID] = m
	}
	if !more {
		return messages, len(ids), nil
	}
	return messages, slices.Index(ids, found[len(found)-1].ID) + 1, nil
}

// destinationsSQL reads, at one moment, what a message owes and all that happened to it.
const destinationsSQL = `
SELECT x.endpoint_id, x.attempt, x.status, x.next FROM (
	SELECT d.endpoint_id, NULL::text AS attempt, NULL::smallint AS status, CASE WHEN d.state = 2 THEN d.due_at END AS next FROM delivery d
	WHERE d.tenant_id = ? AND d.message_id = ?
	UNION ALL
	SELECT a.endpoint_id, a.id::text, a.status, NULL FROM attempt a
	WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id >= ? AND a.id < ?
) x`

// Destinations lists the endpoints that a message was ever owed to, deleted ones too, by id. All of
// one message's attempts are looked at for each page: there are a few to each endpoint.
func (v View) Destinations(ctx context.Context, appRef, msgRef string, p Page) (List[Destination], error) {
	fail := func(err error) (List[Destination], error) {
		return List[Destination]{}, failure("list destinations", err)
	}
	text, backwards := p.position()
	var cursor webhook.EndpointID
	if text != "" {
		var err error
		if cursor, err = webhook.ParseID[webhook.EndpointID](text); err != nil {
			return List[Destination]{}, badIterator()
		}
	}
	q := v.db.WithContext(ctx)
	app, msg, err := v.messageID(q, appRef, msgRef)
	if err != nil {
		return fail(err)
	}
	if _, err := v.payloadKept(q, app, msg); err != nil {
		return fail(err)
	}
	standings, err := v.destinations(q, app, msg, cursor, backwards)
	if err != nil {
		return fail(err)
	}
	ids := make([]webhook.EndpointID, 0, len(standings))
	for id := range standings {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b webhook.EndpointID) int { return bytes.Compare(a[:], b[:]) })
	if backwards {
		slices.Reverse(ids)
	}
	page := cut(ids, p.limit(), backwards)
	var endpoints []webhook.Endpoint
	err = q.Where("tenant_id = ? AND app_id = ? AND id IN ?", v.scope.Tenant, app, page.Data).Order("id").Find(&endpoints).Error
	if err != nil {
		return fail(err)
	}
	l := List[Destination]{Data: make([]Destination, len(endpoints)), Done: page.Done}
	for i, e := range endpoints {
		l.Data[i] = Destination{e, standings[e.ID]}
	}
	return l, nil
}

func (v View) destinations(q *gorm.DB, app webhook.ApplicationID, msg webhook.MessageID, cursor webhook.EndpointID, backwards bool,
) (map[webhook.EndpointID]webhook.Standing, error) {
	from, to := v.attemptsOf([]webhook.MessageID{msg})
	query, args := destinationsSQL, []any{v.scope.Tenant, msg, v.scope.Tenant, app, msg, from, to}
	switch {
	case cursor.IsZero():
	case backwards:
		query, args = query+" WHERE x.endpoint_id < ?", append(args, cursor)
	default:
		query, args = query+" WHERE x.endpoint_id > ?", append(args, cursor)
	}
	rows, err := q.Raw(query, args...).Rows()
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	type progress struct {
		open     bool
		next     sql.NullTime
		attempts []made
	}
	all := make(map[webhook.EndpointID]*progress)
	for rows.Next() {
		var (
			id      webhook.EndpointID
			attempt sql.NullString
			status  sql.NullInt16
			next    sql.NullTime
		)
		if err := rows.Scan(&id, &attempt, &status, &next); err != nil {
			return nil, fmt.Errorf("scan destination: %w", err)
		}
		one := all[id]
		if one == nil {
			one = &progress{}
			all[id] = one
		}
		if attempt.Valid {
			one.attempts = append(one.attempts, made{attempt.String, webhook.Status(status.Int16)})
			continue
		}
		one.open = true
		if next.Valid {
			one.next = next
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	standings := make(map[webhook.EndpointID]webhook.Standing, len(all))
	for id, one := range all {
		standings[id] = standing(one.open, one.next, one.attempts)
	}
	return standings, nil
}
