-- +goose Up
CREATE INDEX samples_by_model ON samples (model, start);
