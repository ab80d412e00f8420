-- +goose Up
-- Times are milliseconds since 1970 UTC, 0: not yet. Lists and maps are JSON.
CREATE TABLE devices (
  id TEXT PRIMARY KEY,
  status TEXT NOT NULL,
  channel TEXT NOT NULL,
  public_key BLOB NOT NULL,
  serial TEXT NOT NULL,
  certificate BLOB NOT NULL,
  agent TEXT NOT NULL DEFAULT '',
  facts TEXT NOT NULL DEFAULT '{}',
  epoch INTEGER NOT NULL DEFAULT 0,
  counter INTEGER NOT NULL DEFAULT 0,
  nonce BLOB,
  generation INTEGER NOT NULL DEFAULT 0,
  models TEXT NOT NULL DEFAULT '[]',
  queues TEXT NOT NULL DEFAULT '[]',
  proof TEXT NOT NULL DEFAULT '',
  enrolled INTEGER NOT NULL,
  last_seen INTEGER NOT NULL DEFAULT 0,
  reported_at INTEGER NOT NULL DEFAULT 0,
  online INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE labels (
  device TEXT NOT NULL REFERENCES devices (id),
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (device, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_by_value ON labels (key, value);
CREATE TABLE enrol_tokens (
  id TEXT PRIMARY KEY,
  hash BLOB NOT NULL,
  channel TEXT NOT NULL,
  labels TEXT NOT NULL,
  max INTEGER NOT NULL,
  used INTEGER NOT NULL DEFAULT 0,
  expires INTEGER NOT NULL,
  created INTEGER NOT NULL,
  by TEXT NOT NULL
) STRICT;
CREATE TABLE enrolments (
  token TEXT NOT NULL,
  public_key BLOB NOT NULL,
  device TEXT NOT NULL,
  PRIMARY KEY (token, public_key)
) STRICT;
CREATE TABLE access (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  role TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL
) STRICT;
CREATE TABLE metadata (
  repo TEXT NOT NULL,
  owner TEXT NOT NULL, -- device of a director repository, '' for the catalog
  role TEXT NOT NULL,
  version INTEGER NOT NULL,
  bytes BLOB NOT NULL,
  PRIMARY KEY (repo, owner, role, version)
) STRICT;
CREATE TABLE releases (
  id TEXT PRIMARY KEY,
  channel TEXT NOT NULL,
  model TEXT NOT NULL,
  version TEXT NOT NULL,
  kind TEXT NOT NULL,
  counter INTEGER NOT NULL,
  digest TEXT NOT NULL,
  length INTEGER NOT NULL,
  release TEXT NOT NULL, -- as the catalog signs it
  blobs TEXT NOT NULL,
  published INTEGER NOT NULL,
  UNIQUE (channel, model, version)
) STRICT;
CREATE TABLE wishes (
  device TEXT PRIMARY KEY REFERENCES devices (id),
  generation INTEGER NOT NULL,
  version INTEGER NOT NULL,
  changed INTEGER NOT NULL
) STRICT;
CREATE TABLE assignments (
  device TEXT NOT NULL REFERENCES devices (id),
  model TEXT NOT NULL,
  path TEXT NOT NULL,
  runtime TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  rollout TEXT NOT NULL,
  arm TEXT NOT NULL,
  PRIMARY KEY (device, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE rollouts (
  id TEXT PRIMARY KEY,
  spec TEXT NOT NULL,
  model TEXT NOT NULL,
  status TEXT NOT NULL,
  code TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  stage INTEGER NOT NULL,
  devices INTEGER NOT NULL,
  created INTEGER NOT NULL,
  by TEXT NOT NULL,
  changed INTEGER NOT NULL,
  finished INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX rollouts_by_status ON rollouts (status);
CREATE TABLE stages (
  rollout TEXT NOT NULL REFERENCES rollouts (id),
  idx INTEGER NOT NULL,
  target INTEGER NOT NULL,
  started INTEGER NOT NULL DEFAULT 0,
  baking INTEGER NOT NULL DEFAULT 0,
  passed INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (rollout, idx)
) STRICT, WITHOUT ROWID;
CREATE TABLE members (
  rollout TEXT NOT NULL REFERENCES rollouts (id),
  device TEXT NOT NULL REFERENCES devices (id),
  stratum TEXT NOT NULL,
  ord INTEGER NOT NULL,
  control INTEGER NOT NULL,
  stage INTEGER NOT NULL,
  assigned INTEGER NOT NULL DEFAULT 0,
  acked INTEGER NOT NULL DEFAULT 0,
  outcome TEXT NOT NULL DEFAULT '',
  code TEXT NOT NULL DEFAULT '',
  reason TEXT NOT NULL DEFAULT '',
  answered INTEGER NOT NULL DEFAULT 0,
  settled INTEGER NOT NULL DEFAULT 0,
  before TEXT NOT NULL DEFAULT '', -- JSON of the former assignment, '': none
  undone INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (rollout, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_device ON members (device);
CREATE TABLE gate_evaluations (
  n INTEGER PRIMARY KEY,
  rollout TEXT NOT NULL REFERENCES rollouts (id),
  stage INTEGER NOT NULL,
  gate TEXT NOT NULL,
  at INTEGER NOT NULL,
  verdict TEXT NOT NULL,
  evidence TEXT NOT NULL
) STRICT;
CREATE INDEX gate_evaluations_by_rollout ON gate_evaluations (rollout);
CREATE TABLE reports (
  device TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  at INTEGER NOT NULL,
  proof TEXT NOT NULL,
  body BLOB NOT NULL, -- CBOR
  PRIMARY KEY (device, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE samples (
  device TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  start INTEGER NOT NULL, -- seconds
  model TEXT NOT NULL,
  body BLOB NOT NULL, -- CBOR
  PRIMARY KEY (device, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX samples_by_time ON samples (device, start);
CREATE TABLE events (
  device TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  id TEXT NOT NULL UNIQUE,
  at INTEGER NOT NULL,
  type TEXT NOT NULL,
  body BLOB NOT NULL, -- CBOR
  PRIMARY KEY (device, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE TABLE acks (
  device TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  kind TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY (device, epoch, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit (
  id TEXT PRIMARY KEY,
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  act TEXT NOT NULL,
  object TEXT NOT NULL,
  detail TEXT NOT NULL
) STRICT;
CREATE TABLE outbox (
  n INTEGER PRIMARY KEY,
  device TEXT NOT NULL
) STRICT;
CREATE TABLE leases (
  name TEXT PRIMARY KEY,
  holder TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  until INTEGER NOT NULL
) STRICT;
CREATE TABLE idempotency (
  actor TEXT NOT NULL,
  key TEXT NOT NULL,
  request BLOB NOT NULL, -- SHA-256
  status INTEGER NOT NULL,
  response BLOB NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (actor, key)
) STRICT;
