-- +goose Up
-- What agents look for without knowing the tenant.

-- Payloads whose time has come. A partition older than the longest retention is dropped whole, so
-- that only what was kept for less is ever found here.
CREATE INDEX message_expiry ON message (expires_at) WHERE payload IS NOT NULL;

-- Keys in use are noted by id alone.
CREATE UNIQUE INDEX api_key_id ON api_key (id);
