-- +goose Up
-- When more streams are due than are looked at together, some of each tenant are: so one with very many
-- hides nobody else's. Only streams with something in them have entries here.
CREATE INDEX stream_tenant ON stream (tenant_id, due_at) WHERE due_at IS NOT NULL;
