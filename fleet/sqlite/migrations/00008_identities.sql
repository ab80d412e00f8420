-- +goose Up
ALTER TABLE enrol_tokens ADD COLUMN hold INTEGER NOT NULL DEFAULT 0;
ALTER TABLE enrol_tokens ADD COLUMN replaces TEXT NOT NULL DEFAULT '';
ALTER TABLE enrol_tokens ADD COLUMN ca BLOB NOT NULL DEFAULT x'';
ALTER TABLE devices ADD COLUMN runs TEXT NOT NULL DEFAULT '[]';
-- Serials that a token lists, and which key has used each.
CREATE TABLE token_serials (
  token TEXT NOT NULL REFERENCES enrol_tokens (id),
  serial TEXT NOT NULL,
  public_key BLOB, -- NULL: not used yet
  refused INTEGER NOT NULL DEFAULT 0, -- when another key was refused last
  PRIMARY KEY (token, serial)
) STRICT, WITHOUT ROWID;
-- Keys that devices were known by.
CREATE TABLE former_keys (
  device TEXT NOT NULL,
  public_key BLOB NOT NULL,
  since INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  how TEXT NOT NULL,
  successor BLOB NOT NULL, -- public key
  PRIMARY KEY (device, public_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX former_keys_by_key ON former_keys (public_key);
