package worker

import (
	"testing"
	"time"

	"github.com/posthaste/posthaste/internal/webhook"
)

// One round does all that is due, in as many steps as it takes, and leaves what is not.
func TestRetentionDoesAllOfItsWork(t *testing.T) {
	p := assemble(t)
	message := p.publish(`{"a":1}`)
	kept := p.publish(`{"b":2}`)
	tenant, app := p.app.TenantID.UUID(), p.app.ID.UUID()
	const ended = retainBatch + 1 // more than one step removes
	p.exec(`INSERT INTO portal_session (tenant_id, app_id, id, created_at, expires_at)
		SELECT $1, $2, gen_random_uuid(), now() - interval '2 hours', now() - interval '1 second' FROM generate_series(1, $3)`, tenant, app, ended)
	for _, key := range []string{"old", "new"} {
		p.exec(`INSERT INTO idempotency (tenant_id, key, body_hash, created_at) VALUES ($1, $2, '', now() - $3::interval)`,
			tenant, []byte(key), map[string]time.Duration{"old": webhook.IdempotencyRetention + time.Minute}[key])
	}
	session, err := p.view.CreatePortalSession(t.Context(), webhook.PortalSession{
		ApplicationID: p.app.ID, ID: webhook.NewSessionID(), ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.exec(`UPDATE message SET expires_at = now() - interval '1 second' WHERE id = $1`, message.ID.UUID())
	p.exec(`DROP TABLE ` + time.Now().UTC().AddDate(0, 0, 8).Format("message_p20060102"))
	p.exec(`CREATE TABLE message_p20200101 PARTITION OF message FOR VALUES FROM ('016f5d9b-c000-0000-0000-000000000000') TO ('016f62c2-1c00-0000-0000-000000000000')`)

	done, err := p.worker.retainOnce(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if done.sessions != ended || done.keys != 1 || done.payloads != 1 || done.made != 1 ||
		len(done.dropped.Partitions) != 1 || done.dropped.Partitions[0] != "message_p20200101" {
		t.Errorf("%+v", done)
	}
	for _, left := range []string{"portal_session", "idempotency", "message WHERE payload IS NOT NULL"} {
		var n int
		if err := p.sql.QueryRow(t.Context(), `SELECT count(*) FROM `+left).Scan(&n); err != nil || n != 1 {
			t.Errorf("%s: %d are left, want 1 (%v)", left, n, err)
		}
	}
	if _, err := p.store.PortalSession(t.Context(), webhook.Scope{Tenant: p.app.TenantID, Application: p.app.ID}, session.ID); err != nil {
		t.Error(err)
	}
	if m, err := p.view.Message(t.Context(), p.app.ID.String(), kept.ID.String()); err != nil || m.Payload == nil {
		t.Errorf("%+v, %v", m, err)
	}
	if again, err := p.worker.retainOnce(t.Context(), time.Now()); err != nil ||
		again.sessions+again.keys+again.payloads+again.made+len(again.dropped.Partitions) != 0 {
		t.Errorf("a second round did %+v, %v", again, err)
	}
}
