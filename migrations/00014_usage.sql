-- +goose Up
-- How many messages a tenant with a quota has had accepted on a day in UTC. It is added to after what it
-- counts is committed, so that accepting never waits for it; where it is missing, messages are counted.
CREATE TABLE tenant_usage (
    tenant_id uuid   NOT NULL,
    day       date   NOT NULL,
    messages  bigint NOT NULL,
    PRIMARY KEY (tenant_id, day)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
