-- The ids of members who left a meeting that runs, and whose they are.
CREATE TABLE kept_departed (
    meeting_id  TEXT NOT NULL REFERENCES kept_rooms (meeting_id) ON DELETE CASCADE,
    user_id     TEXT NOT NULL,
    identity_id TEXT NOT NULL,
    PRIMARY KEY (meeting_id, user_id)
);
