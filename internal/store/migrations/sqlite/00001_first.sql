-- +goose Up

-- Times are UTC microseconds, 0 is never. A doc is the JSON of the thing's
-- settings; what changes by itself has a column of its own.

CREATE TABLE keysets (
  id      INTEGER PRIMARY KEY,
  version INTEGER NOT NULL,
  wrapped BLOB NOT NULL
);

CREATE TABLE organizations (
  id  TEXT PRIMARY KEY,
  doc TEXT NOT NULL
);

CREATE TABLE registrations (
  org TEXT NOT NULL REFERENCES organizations (id),
  id  TEXT NOT NULL,
  doc TEXT NOT NULL,
  PRIMARY KEY (org, id)
);

CREATE TABLE credentials (
  org          TEXT NOT NULL,
  id           TEXT NOT NULL,
  registration TEXT NOT NULL,
  doc          TEXT NOT NULL,
  sealed       BLOB,
  PRIMARY KEY (org, id),
  FOREIGN KEY (org, registration) REFERENCES registrations (org, id)
);
CREATE INDEX credentials_registration ON credentials (org, registration);

CREATE TABLE grants (
  org           TEXT NOT NULL,
  id            TEXT NOT NULL,
  registration  TEXT NOT NULL,
  state         TEXT NOT NULL,
  doc           TEXT NOT NULL,
  live          TEXT NOT NULL,
  generation    INTEGER NOT NULL DEFAULT 0,
  sealed        BLOB,
  sealed_prev   BLOB,
  lease_node    TEXT NOT NULL DEFAULT '',
  lease_until   INTEGER NOT NULL DEFAULT 0,
  consented_at  INTEGER NOT NULL DEFAULT 0,
  last_refresh  INTEGER NOT NULL DEFAULT 0,
  next_refresh  INTEGER NOT NULL DEFAULT 0,
  last_use      INTEGER NOT NULL DEFAULT 0,
  token_expires INTEGER NOT NULL DEFAULT 0,
  finding       TEXT NOT NULL DEFAULT '',
  updated_at    INTEGER NOT NULL,
  PRIMARY KEY (org, id),
  FOREIGN KEY (org, registration) REFERENCES registrations (org, id)
);
CREATE INDEX grants_registration ON grants (org, registration);
CREATE INDEX grants_due ON grants (next_refresh) WHERE state = 'active' AND next_refresh > 0;

CREATE TABLE flows (
  org        TEXT NOT NULL,
  id         TEXT NOT NULL,
  state_hash BLOB NOT NULL UNIQUE,
  doc        TEXT NOT NULL,
  sealed     BLOB,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (org, id)
);

CREATE TABLE consent_links (
  org        TEXT NOT NULL,
  id         TEXT NOT NULL,
  hash       BLOB NOT NULL UNIQUE,
  doc        TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  used_at    INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (org, id)
);

CREATE TABLE admin_consents (
  org          TEXT NOT NULL,
  registration TEXT NOT NULL,
  doc          TEXT NOT NULL,
  PRIMARY KEY (org, registration)
);

CREATE TABLE mailboxes (
  org          TEXT NOT NULL REFERENCES organizations (id),
  id           TEXT NOT NULL,
  address      TEXT NOT NULL, -- in comparison form
  role         TEXT NOT NULL,
  grant_id     TEXT NOT NULL,
  state        TEXT NOT NULL,
  doc          TEXT NOT NULL,
  hold         TEXT NOT NULL DEFAULT '',
  last_success INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (org, id),
  UNIQUE (org, address)
);
CREATE INDEX mailboxes_grant ON mailboxes (org, grant_id);
CREATE INDEX mailboxes_role ON mailboxes (org, role, id);

CREATE TABLE apps (
  org  TEXT NOT NULL REFERENCES organizations (id),
  id   TEXT NOT NULL,
  name TEXT NOT NULL, -- in comparison form
  doc  TEXT NOT NULL,
  PRIMARY KEY (org, id),
  UNIQUE (org, name)
);
CREATE INDEX apps_name ON apps (name);

CREATE TABLE keys (
  org        TEXT NOT NULL,
  id         TEXT NOT NULL,
  app        TEXT NOT NULL,
  hash       BLOB NOT NULL UNIQUE,
  doc        TEXT NOT NULL,
  revoked_at INTEGER NOT NULL DEFAULT 0,
  last_use   INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (org, id),
  FOREIGN KEY (org, app) REFERENCES apps (org, id)
);
CREATE INDEX keys_app ON keys (org, app);
CREATE INDEX keys_id ON keys (id);

-- state: 0 ready, 1 sending, 2 uncertain, 3 delivered, 4 failed, 5 cancelled.
CREATE TABLE submissions (
  org         TEXT NOT NULL,
  id          TEXT NOT NULL,
  app         TEXT NOT NULL,
  mailbox     TEXT NOT NULL,
  state       INTEGER NOT NULL,
  attempts    INTEGER NOT NULL,
  duplicate   INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  accepted_at INTEGER NOT NULL,
  due_at      INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL,
  final_at    INTEGER NOT NULL DEFAULT 0,
  pending     TEXT NOT NULL DEFAULT '',
  finding     TEXT NOT NULL DEFAULT '',
  doc         TEXT NOT NULL,
  PRIMARY KEY (org, id)
) WITHOUT ROWID;
-- The lanes: what is not final, by mailbox, in order.
CREATE INDEX submissions_lane ON submissions (mailbox, due_at, id) WHERE state < 3;

CREATE TABLE idempotency (
  org        TEXT NOT NULL,
  app        TEXT NOT NULL,
  key        TEXT NOT NULL,
  submission TEXT NOT NULL,
  digest     BLOB NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (org, app, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires_at);

CREATE TABLE chunks (
  org    TEXT NOT NULL,
  owner  TEXT NOT NULL, -- a submission
  n      INTEGER NOT NULL,
  sealed BLOB NOT NULL,
  PRIMARY KEY (owner, n)
) WITHOUT ROWID;

CREATE TABLE attempts (
  org        TEXT NOT NULL,
  submission TEXT NOT NULL,
  n          INTEGER NOT NULL,
  doc        TEXT NOT NULL,
  PRIMARY KEY (org, submission, n)
) WITHOUT ROWID;

-- Recipients handed over per mailbox and hour, where the provider counts them.
CREATE TABLE handed (
  mailbox    TEXT NOT NULL,
  hour       INTEGER NOT NULL,
  recipients INTEGER NOT NULL,
  PRIMARY KEY (mailbox, hour)
) WITHOUT ROWID;

CREATE TABLE events (
  org     TEXT NOT NULL,
  seq     INTEGER NOT NULL,
  kind    TEXT NOT NULL,
  at      INTEGER NOT NULL,
  subject TEXT NOT NULL,
  app     TEXT NOT NULL,
  mailbox TEXT NOT NULL,
  data    TEXT NOT NULL,
  PRIMARY KEY (org, seq)
) WITHOUT ROWID;

-- +goose Down
SELECT 1;
