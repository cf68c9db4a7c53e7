-- +goose Up
-- Endpoints to which nothing may go now, or not just anything. Most have no row.
CREATE TABLE endpoint_gate (
    tenant_id   uuid        NOT NULL,
    endpoint_id uuid        NOT NULL,
    state       smallint    NOT NULL, -- 1 paused, 2 open, 3 probing
    since       timestamptz NOT NULL,
    reason      text        NOT NULL, -- of an open one: the error class of what failed; of a paused one: who paused it
    failures    integer     NOT NULL DEFAULT 0, -- in a row, probes included
    next_at     timestamptz,          -- of an open one: the next probe; of a probing one: when to probe again if nothing is heard
    PRIMARY KEY (tenant_id, endpoint_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- How many may be released at the next look; NULL = as many as may.
ALTER TABLE endpoint_wake ADD COLUMN take integer;

-- One tenant's due wakes, however many others have.
CREATE INDEX endpoint_wake_tenant ON endpoint_wake (tenant_id, due_at);

-- How many requests may be under way to an endpoint at once in one worker; NULL = as many as it can take.
ALTER TABLE endpoint ADD COLUMN concurrency smallint;
