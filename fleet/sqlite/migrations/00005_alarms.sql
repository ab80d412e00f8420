-- +goose Up
-- What is wrong until it is mended.
CREATE TABLE alarms (
  kind TEXT NOT NULL,
  subject TEXT NOT NULL,
  since INTEGER NOT NULL,
  text TEXT NOT NULL,
  next TEXT NOT NULL,
  urgent INTEGER NOT NULL,
  PRIMARY KEY (kind, subject)
) STRICT, WITHOUT ROWID;
