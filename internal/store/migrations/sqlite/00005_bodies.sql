-- +goose Up
-- Bodies leave the tree of their key. There, what passes a quarter of a page goes
-- into pages of its own, which are mostly empty; a row with a number of its own
-- fills its page, and is written at the end.
CREATE TABLE bodies (
  org    TEXT NOT NULL,
  owner  TEXT NOT NULL, -- a submission or an arrival
  n      INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (owner, n)
);
INSERT INTO bodies (org, owner, n, sealed) SELECT org, owner, n, sealed FROM chunks ORDER BY owner, n;
DROP TABLE chunks;
ALTER TABLE bodies RENAME TO chunks;

-- +goose Down
SELECT 1;
