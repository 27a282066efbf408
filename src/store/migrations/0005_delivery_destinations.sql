-- Messages for destinations outside. state: waiting, delivered or dead; a delivered body is emptied. A card of a
-- report, for the destination 'feedback', has the report's id. A waiting one outlives its report: it was promised
-- at least once.
CREATE TABLE destination_deliveries (
    destination TEXT NOT NULL,
    id          TEXT NOT NULL,
    kind        TEXT NOT NULL,
    body        TEXT NOT NULL,
    state       TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    created     TEXT NOT NULL,
    next_try    TEXT NOT NULL,
    last_error  TEXT,
    PRIMARY KEY (destination, id)
);

INSERT INTO destination_deliveries (destination, id, kind, body, state, attempts, created, next_try, last_error)
    SELECT 'feedback', report_id, 'card', card, state, attempts, created, next_try, last_error FROM deliveries;

DROP TABLE deliveries;

ALTER TABLE destination_deliveries RENAME TO deliveries;

CREATE INDEX deliveries_by_time ON deliveries (state, destination, next_try);
