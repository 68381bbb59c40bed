-- +goose Up
-- state: 0 new, 1 delivered, 2 acknowledged, 3 ignored, 4 quarantined.
-- after: what is still to be done at the provider: 0 nothing, 1 mark, 2 move, 3 delete.
CREATE TABLE arrivals (
  org        TEXT NOT NULL,
  id         TEXT NOT NULL,
  mailbox    TEXT NOT NULL,
  state      INTEGER NOT NULL,
  noticed_at INTEGER NOT NULL,
  body_until INTEGER NOT NULL, -- its chunks are kept so long; 0: there are none
  after      INTEGER NOT NULL DEFAULT 0,
  remote     TEXT NOT NULL,
  words      TEXT NOT NULL, -- what a search looks in
  doc        TEXT NOT NULL,
  PRIMARY KEY (org, id)
) WITHOUT ROWID;
CREATE INDEX arrivals_mailbox ON arrivals (mailbox, id);
CREATE INDEX arrivals_state ON arrivals (org, state, id);
CREATE INDEX arrivals_after ON arrivals (mailbox, id) WHERE after > 0;
CREATE INDEX arrivals_body ON arrivals (body_until) WHERE body_until > 0;

-- What was taken, so that it is not taken again: by the provider's name for it,
-- by its bytes, and by what stays the same when it is read another way.
CREATE TABLE seen (
  mailbox TEXT NOT NULL,
  remote  TEXT NOT NULL,
  loose   BLOB NOT NULL,
  exact   BLOB NOT NULL,
  PRIMARY KEY (mailbox, remote)
) WITHOUT ROWID;
CREATE INDEX seen_same ON seen (mailbox, loose, exact);

-- How far each mailbox has been read.
CREATE TABLE readings (
  mailbox  TEXT PRIMARY KEY,
  org      TEXT NOT NULL,
  protocol TEXT NOT NULL,
  position TEXT NOT NULL, -- the reader's cursor
  doc      TEXT NOT NULL
) WITHOUT ROWID;

-- How a mailbox is read, '' when it is not.
ALTER TABLE mailboxes ADD COLUMN receive TEXT NOT NULL DEFAULT '';
CREATE INDEX mailboxes_receive ON mailboxes (id) WHERE receive <> '';

-- +goose Down
SELECT 1;
