-- The settings of rooms by name, which outlast their meetings, as JSON.
CREATE TABLE room_rules (
    room  TEXT NOT NULL PRIMARY KEY,
    rules TEXT NOT NULL
);
