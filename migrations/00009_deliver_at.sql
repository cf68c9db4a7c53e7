-- +goose Up
-- When a message is to be delivered that was not to be at once. Its deliveries wait for that time like
-- a retry does.
ALTER TABLE message ADD COLUMN deliver_at timestamptz;
