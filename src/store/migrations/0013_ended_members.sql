-- The ids of those whose meeting was ended for all, which stay out of its room for a while. `ended` is the second, since
-- 1970.
CREATE TABLE ended_members (
    room    TEXT NOT NULL,
    user_id TEXT NOT NULL,
    ended   BIGINT NOT NULL,
    PRIMARY KEY (room, user_id)
);
