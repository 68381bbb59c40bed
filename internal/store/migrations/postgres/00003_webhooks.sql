-- +goose Up
CREATE TABLE webhooks (
  org           TEXT NOT NULL REFERENCES organizations (id),
  id            TEXT NOT NULL,
  name          TEXT NOT NULL, -- in comparison form
  state         TEXT NOT NULL,
  position      BIGINT NOT NULL, -- events to here are taken, in waiting, or not wanted
  doc           TEXT NOT NULL,
  sealed        BYTEA NOT NULL,
  sealed_prev   BYTEA,
  both_until    BIGINT NOT NULL DEFAULT 0,
  finding       TEXT NOT NULL DEFAULT '',
  failing_since BIGINT NOT NULL DEFAULT 0,
  taken_at      BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (org, id),
  UNIQUE (org, name)
);

-- Events that were not taken, and those behind them of the same mailbox. dead: 1
-- when they were given up.
CREATE TABLE waiting (
  org      TEXT NOT NULL,
  webhook  TEXT NOT NULL,
  mailbox  TEXT NOT NULL,
  seq      BIGINT NOT NULL,
  dead     BIGINT NOT NULL,
  attempts BIGINT NOT NULL,
  since    BIGINT NOT NULL,
  due_at   BIGINT NOT NULL,
  doc      TEXT NOT NULL, -- of the last try
  PRIMARY KEY (webhook, dead, mailbox, seq)
);
CREATE INDEX waiting_event ON waiting (org, seq);

-- Spans of the event log that are told once more.
CREATE TABLE replays (
  org      TEXT NOT NULL,
  webhook  TEXT NOT NULL,
  id       TEXT NOT NULL,
  position BIGINT NOT NULL,
  until    BIGINT NOT NULL,
  PRIMARY KEY (webhook, id)
);

-- The last tries, taken or not.
CREATE TABLE deliveries (
  org     TEXT NOT NULL,
  webhook TEXT NOT NULL,
  at      BIGINT NOT NULL,
  id      TEXT NOT NULL,
  doc     TEXT NOT NULL,
  PRIMARY KEY (webhook, at, id)
);
CREATE INDEX deliveries_at ON deliveries (at);

-- +goose Down
SELECT 1;
