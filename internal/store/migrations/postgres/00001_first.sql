-- +goose Up

-- Times are UTC microseconds, 0 is never. A doc is the JSON of the thing's
-- settings; what changes by itself has a column of its own.

CREATE TABLE keysets (
  id      BIGINT PRIMARY KEY,
  version BIGINT NOT NULL,
  wrapped BYTEA NOT NULL
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
  sealed       BYTEA,
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
  generation    BIGINT NOT NULL DEFAULT 0,
  sealed        BYTEA,
  sealed_prev   BYTEA,
  lease_node    TEXT NOT NULL DEFAULT '',
  lease_until   BIGINT NOT NULL DEFAULT 0,
  consented_at  BIGINT NOT NULL DEFAULT 0,
  last_refresh  BIGINT NOT NULL DEFAULT 0,
  next_refresh  BIGINT NOT NULL DEFAULT 0,
  last_use      BIGINT NOT NULL DEFAULT 0,
  token_expires BIGINT NOT NULL DEFAULT 0,
  finding       TEXT NOT NULL DEFAULT '',
  updated_at    BIGINT NOT NULL,
  PRIMARY KEY (org, id),
  FOREIGN KEY (org, registration) REFERENCES registrations (org, id)
);
CREATE INDEX grants_registration ON grants (org, registration);
CREATE INDEX grants_due ON grants (next_refresh) WHERE state = 'active' AND next_refresh > 0;

CREATE TABLE flows (
  org        TEXT NOT NULL,
  id         TEXT NOT NULL,
  state_hash BYTEA NOT NULL UNIQUE,
  doc        TEXT NOT NULL,
  sealed     BYTEA,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (org, id)
);

CREATE TABLE consent_links (
  org        TEXT NOT NULL,
  id         TEXT NOT NULL,
  hash       BYTEA NOT NULL UNIQUE,
  doc        TEXT NOT NULL,
  expires_at BIGINT NOT NULL,
  used_at    BIGINT NOT NULL DEFAULT 0,
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
  last_success BIGINT NOT NULL DEFAULT 0,
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
  hash       BYTEA NOT NULL UNIQUE,
  doc        TEXT NOT NULL,
  revoked_at BIGINT NOT NULL DEFAULT 0,
  last_use   BIGINT NOT NULL DEFAULT 0,
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
  state       BIGINT NOT NULL,
  attempts    BIGINT NOT NULL,
  duplicate   BIGINT NOT NULL,
  size        BIGINT NOT NULL,
  accepted_at BIGINT NOT NULL,
  due_at      BIGINT NOT NULL,
  expires_at  BIGINT NOT NULL,
  final_at    BIGINT NOT NULL DEFAULT 0,
  pending     TEXT NOT NULL DEFAULT '',
  finding     TEXT NOT NULL DEFAULT '',
  doc         TEXT NOT NULL,
  PRIMARY KEY (org, id)
);
-- The lanes: what is not final, by mailbox, in order.
CREATE INDEX submissions_lane ON submissions (mailbox, due_at, id) WHERE state < 3;

CREATE TABLE idempotency (
  org        TEXT NOT NULL,
  app        TEXT NOT NULL,
  key        TEXT NOT NULL,
  submission TEXT NOT NULL,
  digest     BYTEA NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (org, app, key)
);
CREATE INDEX idempotency_expires ON idempotency (expires_at);

CREATE TABLE chunks (
  org    TEXT NOT NULL,
  owner  TEXT NOT NULL, -- a submission
  n      BIGINT NOT NULL,
  sealed BYTEA NOT NULL,
  PRIMARY KEY (owner, n)
);

CREATE TABLE attempts (
  org        TEXT NOT NULL,
  submission TEXT NOT NULL,
  n          BIGINT NOT NULL,
  doc        TEXT NOT NULL,
  PRIMARY KEY (org, submission, n)
);

-- Recipients handed over per mailbox and hour, where the provider counts them.
CREATE TABLE handed (
  mailbox    TEXT NOT NULL,
  hour       BIGINT NOT NULL,
  recipients BIGINT NOT NULL,
  PRIMARY KEY (mailbox, hour)
);

CREATE SEQUENCE event_seq;
CREATE TABLE events (
  org     TEXT NOT NULL,
  seq     BIGINT NOT NULL DEFAULT nextval('event_seq'),
  tx      XID8 NOT NULL DEFAULT pg_current_xact_id(), -- readers stop before the oldest open transaction
  kind    TEXT NOT NULL,
  at      BIGINT NOT NULL,
  subject TEXT NOT NULL,
  app     TEXT NOT NULL,
  mailbox TEXT NOT NULL,
  data    TEXT NOT NULL,
  PRIMARY KEY (org, seq)
);

-- Who works which lanes. A shard is a set of mailboxes; its generation fences
-- what a node that lost it would still write.
CREATE TABLE nodes (
  id      TEXT PRIMARY KEY,
  beat_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE shards (
  n          BIGINT PRIMARY KEY,
  node       TEXT NOT NULL DEFAULT '',
  generation BIGINT NOT NULL DEFAULT 0
);
INSERT INTO shards (n) SELECT generate_series(0, 255);

-- Access tokens on their way between nodes: not logged, not replicated, not in
-- a backup.
CREATE UNLOGGED TABLE handover (
  org        TEXT NOT NULL,
  grant_id   TEXT NOT NULL,
  resource   TEXT NOT NULL,
  sealed     BYTEA NOT NULL,
  expires_at BIGINT NOT NULL,
  PRIMARY KEY (org, grant_id, resource)
);

-- +goose Down
SELECT 1;
