-- +goose Up
-- The plan for one endpoint's wake is made while there are none, when any index with the tenant in it looks
-- as good as the key, and is kept when there are many. An index that holds but the wakes that come due by
-- themselves cannot be taken for that.
DROP INDEX endpoint_wake_tenant;
CREATE INDEX endpoint_wake_tenant ON endpoint_wake (tenant_id, due_at) WHERE due_at < 'infinity';
