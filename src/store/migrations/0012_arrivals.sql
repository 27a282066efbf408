-- The order in which the members of a meeting came: where the first one moderates, the next one follows it.
ALTER TABLE kept_seats ADD COLUMN arrival BIGINT NOT NULL DEFAULT 0;
