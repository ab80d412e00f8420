-- +goose Up
ALTER TABLE stages ADD COLUMN held INTEGER NOT NULL DEFAULT 0; -- when gates asked for a person
ALTER TABLE members ADD COLUMN hours INTEGER NOT NULL DEFAULT 0; -- hours of the day in UTC in which the device is expected, bit 0: midnight; 0: always
CREATE TABLE quarantines (
  id TEXT PRIMARY KEY,
  path TEXT NOT NULL,
  class TEXT NOT NULL, -- '': every one
  rollout TEXT NOT NULL,
  code TEXT NOT NULL,
  reason TEXT NOT NULL,
  since INTEGER NOT NULL,
  released INTEGER NOT NULL DEFAULT 0,
  by TEXT NOT NULL DEFAULT '',
  why TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX quarantines_by_path ON quarantines (path);
