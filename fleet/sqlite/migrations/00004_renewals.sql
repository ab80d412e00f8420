-- +goose Up
ALTER TABLE devices ADD COLUMN expires INTEGER NOT NULL DEFAULT 0; -- of the certificate; 0: not known
-- The key that a device has shown for its next certificate. While the row is there
-- and its certificate is issued, the device is known by either.
CREATE TABLE renewals (
  device TEXT PRIMARY KEY REFERENCES devices (id),
  public_key BLOB NOT NULL,
  serial TEXT NOT NULL, -- empty: waits for an operator
  certificate BLOB NOT NULL,
  expires INTEGER NOT NULL,
  asked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
