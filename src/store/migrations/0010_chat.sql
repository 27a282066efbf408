-- The last messages of a running meeting's chat, as JSON that the room writes. Ids grow with time.
CREATE TABLE kept_chat (
    meeting_id TEXT NOT NULL REFERENCES kept_rooms (meeting_id) ON DELETE CASCADE,
    id         BIGINT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (meeting_id, id)
);
