-- +goose Up
-- What one endpoint waits for: shown with its status, and what is taken away when it is canceled. Only
-- what waits for a time has entries here; what is delivered at its first attempt never has.
CREATE INDEX delivery_waiting ON delivery (tenant_id, endpoint_id, message_id) WHERE state = 2;
