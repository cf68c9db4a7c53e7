-- +goose Up
-- The way of a message. Hot tables: no foreign keys, no triggers, no updated_at.

-- What was posted, append-only; partitions are days of the id's time, made ahead by an agent. There
-- is no default partition: it would make every later partition wait for a scan.
CREATE TABLE message (
    tenant_id  uuid        NOT NULL,
    app_id     uuid        NOT NULL,
    id         uuid        NOT NULL,
    event_type text        NOT NULL,
    event_id   text,
    channels   text[],
    tags       text[],
    payload    bytea,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, app_id, id)
) PARTITION BY RANGE (id);
ALTER TABLE message ALTER COLUMN payload SET STORAGE EXTERNAL;

-- What is still owed, and nothing else: inserted at accept, deleted when it ends. The planner's idea
-- of its size is always wrong (vacuum finds it empty), so queries on it are written to need none.
CREATE TABLE delivery (
    tenant_id   uuid     NOT NULL,
    message_id  uuid     NOT NULL,
    endpoint_id uuid     NOT NULL,
    trigger     smallint NOT NULL,
    attempt     smallint NOT NULL DEFAULT 0, -- attempts made
    feed        smallint NOT NULL DEFAULT 0, -- handings-out since the last attempt
    lost        smallint NOT NULL DEFAULT 0, -- leases that ended without a word since the last attempt
    state       smallint NOT NULL,           -- 1 released, 2 waiting, 3 parked, 4 fifo
    due_at      timestamptz,
    PRIMARY KEY (tenant_id, message_id, endpoint_id, trigger)
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_vacuum_insert_scale_factor = 0.5,
    autovacuum_analyze_scale_factor = 10,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX delivery_due ON delivery (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX delivery_parked ON delivery (tenant_id, endpoint_id, message_id) WHERE state = 3;

-- When an endpoint's parked deliveries are to be looked at. Whoever parks makes sure in the same
-- transaction that there is a wake. A wake with nothing left to do rests first: whoever parks next
-- wakes it, and it is removed only when every transaction that saw it awake must have ended.
CREATE TABLE endpoint_wake (
    tenant_id     uuid        NOT NULL,
    endpoint_id   uuid        NOT NULL,
    due_at        timestamptz NOT NULL,
    resting_since timestamptz,
    PRIMARY KEY (tenant_id, endpoint_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX endpoint_wake_due ON endpoint_wake (due_at);

-- What happened, append-only. The last row of a delivery is marked final; sent = false says how it
-- ended without a request.
CREATE TABLE attempt (
    tenant_id        uuid     NOT NULL,
    app_id           uuid     NOT NULL,
    message_id       uuid     NOT NULL,
    endpoint_id      uuid     NOT NULL,
    id               uuid     NOT NULL, -- its time is the start of the attempt
    trigger          smallint NOT NULL,
    number           smallint NOT NULL, -- 1 for the first
    sent             boolean  NOT NULL,
    final            boolean  NOT NULL,
    status           smallint NOT NULL, -- 0 success, 2 fail, 4 canceled
    http_status      smallint NOT NULL, -- 0 = no answer
    error_class      text     NOT NULL, -- '' = success
    duration_ms      integer  NOT NULL,
    url              text     NOT NULL,
    response         bytea,             -- the answer's body, capped
    detail           bytea              -- JSON: timings, address, TLS, headers, keys; opaque to SQL
) PARTITION BY RANGE (id);
ALTER TABLE attempt ADD PRIMARY KEY (tenant_id, message_id, id);
CREATE INDEX attempt_endpoint ON attempt (tenant_id, endpoint_id, id);

-- Uniqueness cannot live on time partitions, so these two are plain tables, expired in batches.
CREATE TABLE idempotency (
    tenant_id  uuid        NOT NULL,
    key        bytea       NOT NULL, -- hash of principal, route and key
    body_hash  bytea       NOT NULL,
    message_id uuid,                 -- the first response of a publish is read back from its message
    app_id     uuid,
    response   bytea,                -- the first response of anything else, sealed
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_created ON idempotency (created_at);

CREATE TABLE event_id (
    tenant_id  uuid             NOT NULL,
    app_id     uuid             NOT NULL,
    event_id   text COLLATE "C" NOT NULL,
    message_id uuid             NOT NULL,
    PRIMARY KEY (tenant_id, app_id, event_id)
);
CREATE INDEX event_id_message ON event_id (message_id);
