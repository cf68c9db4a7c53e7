-- +goose Up
-- A payload that need not be a JSON object, and what its receivers are told it is; NULL = a JSON
-- object, sent as application/json.
ALTER TABLE message ADD COLUMN content_type text;
