-- +goose Up
-- What was told last of reading a mailbox: the cause that it is held for, or '' when
-- it is read.
ALTER TABLE mailboxes ADD COLUMN reader_told TEXT NOT NULL DEFAULT '';

-- +goose Down
SELECT 1;
