-- +goose Up
-- Long operations that go on in the background, one row each: what is wanted, how far it is, and what
-- came of it. A step moves cursor, counters and the deliveries it owes in one transaction.
CREATE TABLE task (
    tenant_id      uuid        NOT NULL REFERENCES tenant (id),
    id             uuid        NOT NULL,
    app_id         uuid        NOT NULL,
    endpoint_id    uuid,                 -- of those about one endpoint
    kind           text        NOT NULL,
    status         text        NOT NULL CHECK (status IN ('running', 'finished', 'failed')),
    paused         boolean     NOT NULL DEFAULT false,
    cancelled      boolean     NOT NULL DEFAULT false,
    phase          smallint    NOT NULL DEFAULT 0, -- 0 counting, 1 acting, 2 waiting for what it handed out
    input          jsonb       NOT NULL,
    since          timestamptz NOT NULL,
    until          timestamptz NOT NULL,
    cursor         uuid        NOT NULL, -- the last message looked at in this phase
    counted        bigint      NOT NULL DEFAULT 0,
    released       bigint      NOT NULL DEFAULT 0,
    done           bigint      NOT NULL DEFAULT 0,
    failed         bigint      NOT NULL DEFAULT 0,
    skipped        bigint      NOT NULL DEFAULT 0,
    streak         integer     NOT NULL DEFAULT 0, -- failures since the last success
    stop_after     integer     NOT NULL,           -- so many failures in a row end it
    rate           real        NOT NULL DEFAULT 0, -- per second, as last measured
    measured_at    timestamptz NOT NULL,
    measured_ended bigint      NOT NULL DEFAULT 0, -- what had ended by then
    error          text        NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
-- Looked at every second when all is quiet.
CREATE INDEX task_running ON task (tenant_id, id) WHERE status = 'running';
-- What retention forgets. Its column is one that never changes: a row whose every update touched an index
-- would leave its dead versions in all of them.
CREATE INDEX task_ended ON task (id) WHERE status <> 'running';

-- A delivery that a task owes goes behind what is live, also when it is fed again.
ALTER TABLE delivery ADD COLUMN task_id uuid;
CREATE INDEX delivery_task ON delivery (task_id) WHERE task_id IS NOT NULL;
