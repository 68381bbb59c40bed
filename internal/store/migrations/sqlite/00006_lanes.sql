-- +goose Up
-- The lanes' index is asked for by what no statement about one submission says: those
-- are to go by its key.
UPDATE submissions SET final_at = accepted_at WHERE state >= 3 AND final_at = 0;
DROP INDEX submissions_lane;
CREATE INDEX submissions_lane ON submissions (mailbox, due_at, id) WHERE final_at = 0;

-- +goose Down
SELECT 1;
