-- Durable objects. bytes: those of all keys and values. changed_at, alarm: milliseconds since 1970. An object without
-- values has a row only while it has an alarm. alarm_failures: failed calls of the present alarm.
CREATE TABLE objects (
    id             TEXT NOT NULL PRIMARY KEY,
    keys           INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    version        INTEGER NOT NULL,
    changed_at     INTEGER NOT NULL,
    alarm          INTEGER,
    alarm_failures INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE INDEX objects_by_alarm ON objects (alarm) WHERE alarm IS NOT NULL;

-- value: JSON, as the client wrote it.
CREATE TABLE entries (
    object TEXT NOT NULL,
    key    TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (object, key)
) STRICT, WITHOUT ROWID;

-- Sums over all objects in one row, so that a start counts nothing.
CREATE TABLE totals (
    only    INTEGER NOT NULL PRIMARY KEY CHECK (only = 1),
    objects INTEGER NOT NULL,
    keys    INTEGER NOT NULL,
    bytes   INTEGER NOT NULL
) STRICT;

INSERT INTO totals (only, objects, keys, bytes) VALUES (1, 0, 0, 0);
