-- +goose Up
-- What a tenant configures. Every key starts with the tenant: a row can neither be found nor be
-- joined by another one, and tenants can be placed on several databases.

CREATE TABLE application (
    tenant_id     uuid        NOT NULL REFERENCES tenant (id),
    id            uuid        NOT NULL,
    uid           text COLLATE "C",
    name          text        NOT NULL,
    throttle_rate integer,
    metadata      jsonb       NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    deleted_at    timestamptz,
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX application_uid ON application (tenant_id, uid) WHERE deleted_at IS NULL;

CREATE TABLE endpoint (
    tenant_id     uuid        NOT NULL,
    id            uuid        NOT NULL,
    app_id        uuid        NOT NULL,
    uid           text COLLATE "C",
    url           text        NOT NULL,
    description   text        NOT NULL,
    disabled      boolean     NOT NULL DEFAULT false,
    event_types   text[],
    channels      text[],
    throttle_rate integer,
    metadata      jsonb       NOT NULL DEFAULT '{}',
    version       integer     NOT NULL DEFAULT 1,
    headers       bytea,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    deleted_at    timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, app_id) REFERENCES application (tenant_id, id)
);
-- Fan-out reads this for every accepted message.
CREATE INDEX endpoint_application ON endpoint (tenant_id, app_id, id) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX endpoint_uid ON endpoint (tenant_id, app_id, uid) WHERE deleted_at IS NULL;

CREATE TABLE endpoint_secret (
    tenant_id   uuid        NOT NULL,
    endpoint_id uuid        NOT NULL,
    id          uuid        NOT NULL,
    sealed      bytea       NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz,
    PRIMARY KEY (tenant_id, endpoint_id, id),
    FOREIGN KEY (tenant_id, endpoint_id) REFERENCES endpoint (tenant_id, id)
);
-- An endpoint has one current secret, whatever two rotations do at once.
CREATE UNIQUE INDEX endpoint_secret_current ON endpoint_secret (tenant_id, endpoint_id) WHERE expires_at IS NULL;

CREATE TABLE event_type (
    tenant_id     uuid              NOT NULL REFERENCES tenant (id),
    name          text COLLATE "C"  NOT NULL,
    description   text              NOT NULL,
    archived      boolean           NOT NULL DEFAULT false,
    deprecated    boolean           NOT NULL DEFAULT false,
    schemas       json,
    group_name    text,
    feature_flags text[],
    created_at    timestamptz       NOT NULL,
    updated_at    timestamptz       NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
