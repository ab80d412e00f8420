-- +goose Up
CREATE TABLE captures (
  id TEXT PRIMARY KEY,
  spec TEXT NOT NULL, -- JSON
  actor TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  stopped INTEGER NOT NULL DEFAULT 0,
  refused INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE captured (
  capture TEXT NOT NULL REFERENCES captures (id),
  device TEXT NOT NULL,
  sample BLOB NOT NULL,
  at INTEGER NOT NULL,
  whole INTEGER NOT NULL DEFAULT 0, -- 1: every part is here
  bytes INTEGER NOT NULL, -- of all parts together, also those to come
  body BLOB NOT NULL, -- CBOR, without bytes
  PRIMARY KEY (capture, device, sample)
) STRICT, WITHOUT ROWID;
CREATE INDEX captured_by_device ON captured (device);
CREATE TABLE captured_parts (
  capture TEXT NOT NULL,
  device TEXT NOT NULL,
  sample BLOB NOT NULL,
  part INTEGER NOT NULL,
  blob TEXT NOT NULL, -- digest
  PRIMARY KEY (capture, device, sample, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX captured_parts_by_blob ON captured_parts (blob);
