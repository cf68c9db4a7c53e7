-- +goose Up
-- What a tenant wants done with messages that do not fit their event type. Both defaults are what the
-- previous release does.
ALTER TABLE tenant
    ADD COLUMN schema_validation  text    NOT NULL DEFAULT 'ignore' CHECK (schema_validation IN ('ignore', 'warn', 'reject')),
    ADD COLUMN strict_event_types boolean NOT NULL DEFAULT false;
