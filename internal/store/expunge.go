package store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/webhook"
)

// Expunged stands for the answer's body of an attempt that was removed on demand.
const Expunged = "EXPUNGED"

// ExpungeMessage removes a message's payload for good, which is in no other place. What is still owed
// ends as expired, unless it is being sent at this moment. Doing it again changes nothing.
func (v View) ExpungeMessage(ctx context.Context, appRef, ref string) error {
	q := v.db.WithContext(ctx)
	app, id, err := v.messageID(q, appRef, ref)
	if err != nil {
		return failure("expunge message", err)
	}
	done := q.Exec(`UPDATE message m SET payload = NULL WHERE m.tenant_id = ? AND m.app_id = ? AND m.id = ?`, v.scope.Tenant, app, id)
	if err = done.Error; err == nil && done.RowsAffected == 0 {
		err = webhook.ErrNotFound
	}
	return failure("expunge message", err)
}

// ExpungeMessages removes the payloads of messages, each named by its id or event id, and says which of
// them there are. Doing it again changes nothing.
func (v View) ExpungeMessages(ctx context.Context, appRef string, refs []string) (found map[string]bool, err error) {
	err = v.transaction(ctx, "expunge messages", func(tx *gorm.DB) error {
		app, err := v.applicationID(tx, appRef)
		if err != nil {
			return err
		}
		found = make(map[string]bool, len(refs))
		named, err := v.messagesCalled(tx, app, refs)
		if err != nil || len(named) == 0 {
			return err
		}
		ids := slices.SortedFunc(maps.Keys(named), func(a, b webhook.MessageID) int { return bytes.Compare(a[:], b[:]) })
		var there []webhook.MessageID
		err = tx.Raw(`UPDATE message m SET payload = NULL
			WHERE m.tenant_id = ? AND m.app_id = ? AND m.id = ANY (?::text::uuid[]) AND m.id BETWEEN ? AND ? RETURNING m.id`,
			v.scope.Tenant, app, uuids(ids), ids[0], ids[len(ids)-1]).Scan(&there).Error
		for _, id := range there {
			for _, ref := range named[id] {
				found[ref] = true
			}
		}
		return err
	})
	return found, err
}

// messagesCalled resolves messages' refs as messageID does; several may name one message.
func (v View) messagesCalled(q *gorm.DB, app webhook.ApplicationID, refs []string) (map[webhook.MessageID][]string, error) {
	named := make(map[webhook.MessageID][]string, len(refs))
	var events []string
	for _, ref := range refs {
		if id, err := webhook.ParseID[webhook.MessageID](ref); err == nil {
			named[id] = append(named[id], ref)
		} else if storable(ref) {
			events = append(events, ref)
		}
	}
	if len(events) == 0 {
		return named, nil
	}
	var rows []struct {
		EventID   string
		MessageID webhook.MessageID
	}
	err := q.Raw(`SELECT event_id, message_id FROM event_id WHERE tenant_id = ? AND app_id = ? AND event_id = ANY (?)`,
		v.scope.Tenant, app, array[string](events)).Scan(&rows).Error
	for _, r := range rows {
		named[r.MessageID] = append(named[r.MessageID], r.EventID)
	}
	return named, err
}

// ExpungeAttempt removes the body and the headers of an attempt's answer for good and puts Expunged in
// place of the body. What stays is what happened: status, timings, address, what was sent. Doing it
// again changes nothing.
func (v View) ExpungeAttempt(ctx context.Context, appRef, msgRef string, id webhook.AttemptID) error {
	const doing = "expunge attempt"
	return v.transaction(ctx, doing, func(tx *gorm.DB) error {
		app, msg, err := v.messageID(tx, appRef, msgRef)
		if err != nil {
			return err
		}
		rows, err := tx.Raw(`SELECT `+attemptColumns+`, `+attemptWithoutResponse+` FROM attempt a
			WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id = ? FOR UPDATE`, v.scope.Tenant, app, msg, id).Rows()
		if err != nil {
			return err
		}
		found, err := v.scanAttempts(rows, app)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return webhook.ErrNotFound
		}
		detail, err := json.Marshal(found[0].Detail.WithoutContent())
		if err != nil {
			return fmt.Errorf("encode attempt: %w", err)
		}
		return tx.Exec(`UPDATE attempt a SET response = convert_to(?::text, 'UTF8'), detail = ?
			WHERE a.tenant_id = ? AND a.app_id = ? AND a.message_id = ? AND a.id = ?`, Expunged, detail, v.scope.Tenant, app, msg, id).Error
	})
}

// The bounds on the ids leave out the days that cannot match.
const (
	erasePayloadsSQL = `UPDATE message SET payload = NULL
	WHERE tenant_id = $1 AND app_id = $2 AND id = ANY ($3) AND id BETWEEN $4 AND $5 AND payload IS NOT NULL`
	answersSQL = `SELECT message_id, id, detail FROM attempt
	WHERE tenant_id = $1 AND app_id = $2 AND message_id = ANY ($3) AND id >= $4 AND id < $5 AND sent FOR UPDATE`
	eraseAnswersSQL = `UPDATE attempt a
	SET response = CASE WHEN a.response IS NOT NULL THEN convert_to($6::text, 'UTF8') END, detail = u.detail
	FROM unnest($3::uuid[], $4::uuid[], $5::bytea[]) AS u(message_id, id, detail)
	WHERE a.tenant_id = $1 AND a.app_id = $2 AND a.message_id = u.message_id AND a.id = u.id AND a.id >= $7 AND a.id < $8`
)

// erase removes the payloads of a task's messages, which are in order, and what was answered to them. What
// is being sent at this moment may still bring an answer.
func (s *Store) erase(ctx context.Context, tx pgx.Tx, t webhook.Task, messages []webhook.MessageID) error {
	ids := make([][16]byte, len(messages))
	for i, id := range messages {
		ids[i] = id
	}
	_, err := tx.Exec(ctx, erasePayloadsSQL, t.TenantID.UUID(), t.ApplicationID.UUID(), ids, ids[0], ids[len(ids)-1])
	if err != nil {
		return fmt.Errorf("erase %d payloads: %w", len(ids), err)
	}
	// Another process's clock may be behind that of the one that accepted the message.
	from, to := attemptIDAt(messages[0].Time().Add(-clockAhead)).UUID(), attemptIDAt(s.now().Add(clockAhead)).UUID()
	rows, err := tx.Query(ctx, answersSQL, t.TenantID.UUID(), t.ApplicationID.UUID(), ids, from, to)
	if err != nil {
		return fmt.Errorf("read answers of %d messages: %w", len(ids), err)
	}
	var (
		of, attempts [][16]byte
		details      [][]byte
		message, id  [16]byte
		detail       []byte
	)
	_, err = pgx.ForEachRow(rows, []any{&message, &id, &detail}, func() error {
		var kept []byte
		if len(detail) > 0 {
			var d webhook.AttemptDetail
			if err := json.Unmarshal(detail, &d); err != nil {
				return fmt.Errorf("decode attempt: %w", err)
			}
			d = d.WithoutContent()
			kept = d.AppendJSON(nil)
		}
		of, attempts, details = append(of, message), append(attempts, id), append(details, kept)
		return nil
	})
	if err == nil && len(attempts) > 0 {
		_, err = tx.Exec(ctx, eraseAnswersSQL, t.TenantID.UUID(), t.ApplicationID.UUID(), of, attempts, details, Expunged, from, to)
	}
	if err != nil {
		return fmt.Errorf("erase answers of %d messages: %w", len(ids), err)
	}
	return nil
}
