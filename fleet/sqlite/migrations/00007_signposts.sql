-- +goose Up
-- What devices were told of their server's CAs and addresses, and what they hold.
CREATE TABLE signposts (
  device TEXT PRIMARY KEY REFERENCES devices (id),
  offered BLOB NOT NULL,
  held BLOB NOT NULL,
  used TEXT NOT NULL,
  trouble TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
