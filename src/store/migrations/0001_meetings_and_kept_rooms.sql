-- Times are RFC 3339 text in UTC with milliseconds, so that they sort as they are.
-- Names with capitals are quoted everywhere: PostgreSQL would fold them.

-- Every meeting that there ever was, under the reference's names (docs/protocol.md, section 5).
CREATE TABLE "Meetings" (
    id          TEXT PRIMARY KEY NOT NULL,
    created     TEXT NOT NULL,
    modified    TEXT NOT NULL,
    deleted     TEXT,
    "userCount" INTEGER NOT NULL,
    ended       TEXT
);

-- The rooms that a restart brings back. The key is the meeting, not the room's name: a late change
-- of an ended meeting can then never touch the next meeting of the same room.
CREATE TABLE kept_rooms (
    meeting_id TEXT PRIMARY KEY NOT NULL,
    room       TEXT NOT NULL,
    ai         TEXT
);

CREATE TABLE kept_seats (
    meeting_id  TEXT NOT NULL REFERENCES kept_rooms (meeting_id) ON DELETE CASCADE,
    user_id     TEXT NOT NULL,
    identity_id TEXT NOT NULL,
    json        TEXT NOT NULL,
    PRIMARY KEY (meeting_id, user_id)
);

-- Events that members had not acknowledged when the server stopped, in their order.
CREATE TABLE kept_events (
    meeting_id TEXT NOT NULL REFERENCES kept_rooms (meeting_id) ON DELETE CASCADE,
    position   BIGINT NOT NULL,
    user_id    TEXT NOT NULL,
    json       TEXT NOT NULL,
    PRIMARY KEY (meeting_id, position)
);

-- What rooms that panicked had kept, for whoever looks for the cause.
CREATE TABLE set_aside (
    meeting_id   TEXT PRIMARY KEY NOT NULL,
    room         TEXT NOT NULL,
    set_aside_at TEXT NOT NULL,
    json         TEXT NOT NULL
);
