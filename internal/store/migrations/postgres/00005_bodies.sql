-- +goose Up
-- What is sealed cannot be made smaller: PostgreSQL need not try.
ALTER TABLE chunks ALTER COLUMN sealed SET STORAGE EXTERNAL;

-- +goose Down
SELECT 1;
