-- +goose Up
-- Who uses the installation: tenants and their credentials.

CREATE TABLE tenant (
    id         uuid PRIMARY KEY,
    uid        text COLLATE "C",
    name       text        NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    deleted_at timestamptz
);
CREATE UNIQUE INDEX tenant_uid ON tenant (uid) WHERE deleted_at IS NULL;

CREATE TABLE api_key (
    tenant_id    uuid        NOT NULL REFERENCES tenant (id),
    id           uuid        NOT NULL,
    uid          text COLLATE "C",
    name         text        NOT NULL,
    hint         text        NOT NULL,
    digest       bytea       NOT NULL,
    scopes       text[]      NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    PRIMARY KEY (tenant_id, id)
);
-- The one query by which a request finds its tenant.
CREATE UNIQUE INDEX api_key_digest ON api_key (digest);
CREATE UNIQUE INDEX api_key_uid ON api_key (tenant_id, uid);

-- Facts about the installation as a whole, for instance the queue's last known sentinel.
CREATE TABLE installation (
    name  text PRIMARY KEY,
    value text NOT NULL
);
