-- +goose Up
-- What a tenant may use. A plan is a named set of limits; a tenant has one or none, and may differ from it
-- limit by limit. What comes of the two is kept in columns of the tenant, because accept reads it with
-- every message. NULL = no limit.
CREATE TABLE plan (
    name       text COLLATE "C" PRIMARY KEY,
    limits     jsonb       NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
ALTER TABLE tenant
    ADD COLUMN plan             text COLLATE "C" REFERENCES plan (name),
    ADD COLUMN limits           jsonb    NOT NULL DEFAULT '{}', -- where it differs from its plan
    ADD COLUMN deliver_rate     integer,                        -- deliveries per second, over all applications
    ADD COLUMN deliver_burst    integer,
    ADD COLUMN publish_rate     integer,                        -- messages per second that are accepted
    ADD COLUMN publish_burst    integer,
    ADD COLUMN key_rate         integer,                        -- the same for each of its API keys
    ADD COLUMN key_burst        integer,
    ADD COLUMN messages_per_day bigint,
    ADD COLUMN max_endpoints    integer,
    ADD COLUMN max_payload      integer,                        -- bytes of one message's payload
    ADD COLUMN weight           smallint NOT NULL DEFAULT 1;    -- its share of what is free, against other tenants'
CREATE INDEX tenant_plan ON tenant (plan) WHERE plan IS NOT NULL;

-- How many may go at once after a pause; NULL = a tenth of a second's worth, at least one.
ALTER TABLE application ADD COLUMN throttle_burst integer;
ALTER TABLE endpoint ADD COLUMN throttle_burst integer;
