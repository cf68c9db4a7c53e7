-- +goose Up
-- Endpoints that take their messages in the order in which they were accepted, and what happens when one
-- of them has used up its attempts.
ALTER TABLE endpoint
    ADD COLUMN ordering     text NOT NULL DEFAULT 'none'  CHECK (ordering IN ('none', 'fifo')),
    ADD COLUMN on_exhausted text NOT NULL DEFAULT 'block' CHECK (on_exhausted IN ('block', 'skip'));

-- The line of what such an endpoint is owed. Its row is locked by whoever puts something into the line, until
-- that is committed, and by whoever lets something go: so the numbers are in the order of the commits, and
-- nothing goes while something before it may still come.
CREATE TABLE stream (
    tenant_id   uuid        NOT NULL,
    endpoint_id uuid        NOT NULL,
    next_seq    bigint      NOT NULL DEFAULT 1,
    due_at      timestamptz,          -- when to look at it; NULL = nothing is in it, infinity = until somebody says so
    held_since  timestamptz,          -- of one that waits for what was owed when the ordering began
    held_from   uuid,                 -- the first message of those, as far as is known
    PRIMARY KEY (tenant_id, endpoint_id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX stream_due ON stream (due_at) WHERE due_at IS NOT NULL;

-- A place in a stream; its states 4 (waits for its turn) and 5 (its attempts are used up, and its stream
-- waits for somebody to decide) need one.
ALTER TABLE delivery ADD COLUMN seq bigint;
ALTER TABLE delivery ADD CONSTRAINT delivery_in_stream CHECK (state < 4 OR seq IS NOT NULL);
CREATE INDEX delivery_stream ON delivery (tenant_id, endpoint_id, seq) WHERE seq IS NOT NULL;
