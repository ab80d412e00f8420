-- +goose Up
ALTER TABLE stages ADD COLUMN held INTEGER NOT NULL DEFAULT 0; -- when gates asked for a person
ALTER TABLE members ADD COLUMN hours INTEGER NOT NULL DEFAULT 0; -- hours of the day in UTC in which the device is expected, bit 0: midnight; 0: always
