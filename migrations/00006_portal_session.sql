-- +goose Up
-- What application tokens stand on. The token itself is not kept: who can read this table can neither
-- make nor repeat one.

CREATE TABLE portal_session (
    tenant_id  uuid        NOT NULL,
    app_id     uuid        NOT NULL,
    id         uuid        NOT NULL,
    label      text COLLATE "C",
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, app_id, id),
    FOREIGN KEY (tenant_id, app_id) REFERENCES application (tenant_id, id)
);
-- Retention looks for ended ones without knowing the tenant.
CREATE INDEX portal_session_expiry ON portal_session (expires_at);
