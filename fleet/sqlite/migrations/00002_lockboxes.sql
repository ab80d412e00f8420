-- +goose Up
-- One row for each device of each exported lockbox.
CREATE TABLE lockboxes (
  device TEXT NOT NULL REFERENCES devices (id),
  id TEXT NOT NULL,
  nonce BLOB NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  PRIMARY KEY (device, id)
) STRICT, WITHOUT ROWID;
