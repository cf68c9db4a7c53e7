package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"gorm.io/gorm"

	"github.com/posthaste/posthaste/internal/seal"
	"github.com/posthaste/posthaste/internal/webhook"
)

// Response is an answer that was given once and is given again to the same request.
type Response struct {
	Status int // of HTTP
	Body   []byte
}

// Once runs do unless a request with the same key has succeeded in the last
// webhook.IdempotencyRetention; then its response is replayed and do is not run. do must use the View
// it is given: what it writes, the key and the response are one transaction, so that either all of it
// happened or none, and an error of do leaves the key free. A concurrent request with the same key
// waits for the first.
//
// With checkBody, a key that comes back with another body is KindInvalid "idempotency_key_reused".
// key is a hash of principal, route and the caller's key.
func (v View) Once(ctx context.Context, key, bodyHash [32]byte, checkBody bool,
	do func(ctx context.Context, v View) (Response, error),
) (r Response, replayed bool, err error) {
	for range raceTries {
		err = v.transaction(ctx, "handle request once", func(tx *gorm.DB) error {
			r, replayed, err = v.once(ctx, tx, key, bodyHash, checkBody, do)
			return err
		})
		if !errors.Is(err, errRaced) {
			break
		}
	}
	if err != nil {
		return Response{}, false, err
	}
	return r, replayed, nil
}

func (v View) once(ctx context.Context, tx *gorm.DB, key, bodyHash [32]byte, checkBody bool,
	do func(ctx context.Context, v View) (Response, error),
) (Response, bool, error) {
	// A row of a transaction under way makes this wait for its end: that is how a duplicate waits.
	res := tx.Exec(`INSERT INTO idempotency (tenant_id, key, body_hash) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`,
		v.scope.Tenant, key[:], bodyHash[:])
	if res.Error != nil {
		return Response{}, false, res.Error
	}
	if res.RowsAffected == 0 {
		first, err := v.firstResponse(tx, key)
		if err != nil {
			return Response{}, false, err
		}
		if !first.expired {
			if checkBody && !bytes.Equal(first.bodyHash, bodyHash[:]) {
				return Response{}, false, errKeyReused
			}
			r, err := v.openResponse(key, first.sealed)
			return r, true, err
		}
		err = tx.Exec(`UPDATE idempotency SET body_hash = ?, response = NULL, message_id = NULL, app_id = NULL, created_at = now()
			WHERE tenant_id = ? AND key = ?`, bodyHash[:], v.scope.Tenant, key[:]).Error
		if err != nil {
			return Response{}, false, err
		}
	}
	r, err := do(ctx, View{store: v.store, scope: v.scope, db: tx})
	if err != nil {
		return Response{}, false, err
	}
	sealed, err := v.sealResponse(key, r)
	if err != nil {
		return Response{}, false, err
	}
	return r, false, tx.Exec(`UPDATE idempotency SET response = ? WHERE tenant_id = ? AND key = ?`,
		sealed, v.scope.Tenant, key[:]).Error
}

type firstResponse struct {
	bodyHash, sealed []byte
	expired          bool
}

// firstResponse locks the key's row, so that of two requests that find it expired one runs.
func (v View) firstResponse(tx *gorm.DB, key [32]byte) (f firstResponse, err error) {
	rows, err := tx.Raw(`SELECT body_hash, response, created_at < now() - make_interval(secs => ?) FROM idempotency
		WHERE tenant_id = ? AND key = ? FOR UPDATE`, webhook.IdempotencyRetention.Seconds(), v.scope.Tenant, key[:]).Rows()
	if err != nil {
		return f, err
	}
	defer func() { _ = rows.Close() }()
	if !rows.Next() {
		if err := rows.Err(); err != nil {
			return f, err
		}
		return f, errRaced // expired and removed since it stood in the way
	}
	if err := rows.Scan(&f.bodyHash, &f.sealed, &f.expired); err != nil {
		return f, err
	}
	return f, rows.Err()
}

func responsePlace(tenant webhook.TenantID, key [32]byte) seal.AD {
	return seal.AD{Table: "idempotency", Column: "response", Tenant: tenant, Row: [16]byte(key[:16])}
}

// sealResponse keeps the response from whoever reads the table: it may hold a secret just made. Its
// plain form is the status in two bytes, then the body.
func (v View) sealResponse(key [32]byte, r Response) ([]byte, error) {
	plain := append(binary.BigEndian.AppendUint16(nil, uint16(r.Status)), r.Body...)
	sealed, err := v.store.keys.Seal(plain, responsePlace(v.scope.Tenant, key))
	if err != nil {
		return nil, fmt.Errorf("seal response: %w", err)
	}
	return sealed, nil
}

func (v View) openResponse(key [32]byte, sealed []byte) (Response, error) {
	plain, err := v.store.keys.Open(sealed, responsePlace(v.scope.Tenant, key))
	if err != nil {
		return Response{}, fmt.Errorf("open first response: %w", err)
	}
	if len(plain) < 2 {
		return Response{}, errors.New("open first response: too short")
	}
	return Response{Status: int(binary.BigEndian.Uint16(plain)), Body: plain[2:]}, nil
}
