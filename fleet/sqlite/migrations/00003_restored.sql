-- +goose Up
-- What a restore from a backup left open. One row for each device that was active
-- in the backup, or was found to hold more than is known here.
CREATE TABLE restored (
  device TEXT PRIMARY KEY REFERENCES devices (id),
  at INTEGER NOT NULL,
  generation INTEGER NOT NULL, -- that the backup knew
  reconciled INTEGER NOT NULL DEFAULT 0, -- 0: no hello yet, its wish is withheld
  detail TEXT NOT NULL DEFAULT ''
) STRICT;
-- The records of a device since the backup, by kind and epoch.
CREATE TABLE restored_records (
  device TEXT NOT NULL REFERENCES devices (id),
  kind TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  known INTEGER NOT NULL, -- newest sequence in the backup
  last INTEGER NOT NULL,  -- newest sequence that the device had at its first hello
  next INTEGER NOT NULL,  -- sequence that is to come
  received INTEGER NOT NULL DEFAULT 0,
  lost INTEGER NOT NULL DEFAULT 0,
  missing TEXT NOT NULL DEFAULT '', -- the lost sequences, "12-15 18"
  PRIMARY KEY (device, kind, epoch)
) STRICT, WITHOUT ROWID;
-- The least version of a catalog role that is taken in: versions below may have
-- been given out before the restore.
CREATE TABLE role_floors (
  role TEXT PRIMARY KEY,
  version INTEGER NOT NULL
) STRICT;
